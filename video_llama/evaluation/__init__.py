"""Scoring a model on benchmarks."""
