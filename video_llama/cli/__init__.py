"""The command line, ``video-llama COMMAND``: a module for each command, and what they share."""
