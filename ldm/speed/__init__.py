"""Approximations and layouts that make sampling faster."""
