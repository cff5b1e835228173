"""Learning: account, environments, training, registry."""
