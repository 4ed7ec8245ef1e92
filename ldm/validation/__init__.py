"""A training run validates itself: it scores insertions into regions of the object's own pictures."""
