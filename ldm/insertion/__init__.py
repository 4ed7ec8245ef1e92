"""Placing an object: where (roi), how (insert), without a seam (blend)."""
