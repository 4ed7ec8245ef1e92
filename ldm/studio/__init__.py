"""The studio: objects, masks, insertions and results in a browser, by the functions of the command line."""
