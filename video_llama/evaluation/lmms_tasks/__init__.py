"""Tasks of lmms-eval for benchmarks that it lacks: the YAML files here, for ``--include_path``."""
