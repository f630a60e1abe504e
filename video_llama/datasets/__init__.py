"""Annotation files and media in their published layouts, to samples, to batches."""
