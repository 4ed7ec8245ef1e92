"""A training run scores itself on held-out regions."""
