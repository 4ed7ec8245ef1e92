"""Networks that compare pictures."""
