"""From photos of one object to its InsertSet folder: boxes and silhouettes proposed, faults named."""
