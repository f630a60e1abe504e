"""Deltas of weights, such as Vicuna's to LLaMA."""
