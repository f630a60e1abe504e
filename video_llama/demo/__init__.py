"""The web page. Only ``api``, ``app``, ``layout`` and ``server`` use gradio."""
