"""Settings and names: everything that a deployment chooses."""
