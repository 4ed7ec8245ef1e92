"""Inserting an object: where (roi), how (inpaint, insert), without a seam (blend)."""
