"""Several objects in one picture."""
