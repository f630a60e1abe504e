"""Which weights files a model section names, and whether they fit."""
