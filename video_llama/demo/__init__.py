"""Chat in the browser. Only ``page``, ``handlers`` and ``server`` know gradio."""
