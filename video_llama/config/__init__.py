"""One YAML to typed, checked configuration objects."""
