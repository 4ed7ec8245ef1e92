"""Several objects in one file."""
