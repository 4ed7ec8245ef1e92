"""Implicit parameters: the small file that a learnt object is."""
