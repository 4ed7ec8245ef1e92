"""Feature networks: images are compared by what these make of them."""
