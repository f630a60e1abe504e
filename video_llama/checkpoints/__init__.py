"""Weights on disk: reading them safely, fitting them into a model, writing them atomically."""
