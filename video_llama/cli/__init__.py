"""The command line, ``video-llama COMMAND``: one module a command."""
