"""Pictures, masks, object folders and training samples. Imports nothing else from `ldm`."""
