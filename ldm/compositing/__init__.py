"""What only a base needs that is shown a cut-out of the object: its RegionFill."""
