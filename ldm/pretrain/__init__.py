"""Training a base from pictures."""
