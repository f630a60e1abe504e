"""The built-in sinks: one file each."""
