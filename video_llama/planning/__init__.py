"""What a config will need of a GPU, from shapes alone: memory, arithmetic, and the settings that make it fit."""
