"""The callbacks that every run has: one file each."""
