"""Inserting an object: where (roi, crop_plan), how (inpaint, insert), without a seam (blend)."""
