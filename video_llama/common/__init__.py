"""What every layer may use: the registry, the config engine, the contracts, the errors."""
