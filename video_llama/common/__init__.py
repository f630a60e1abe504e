"""Shared by all layers: registries, types, protocols, distributed helpers, atomic files, errors."""
