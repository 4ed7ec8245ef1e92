"""A second pass over large regions, in tiles of the model's resolution."""
