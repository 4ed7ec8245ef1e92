"""Insert an object, learnt from a few pictures, into any background picture."""

__version__ = "0.3.0"
