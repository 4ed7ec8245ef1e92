"""Feature networks, by which images are compared."""
