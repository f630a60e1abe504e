"""The frozen decoder: its folder, its weights, adapters and quantisation."""
