"""From photos of one object to an object folder: boxes and silhouettes are proposed, faults named."""
