"""INI files to typed, immutable settings."""
