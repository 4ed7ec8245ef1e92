"""Many insertions in one run: work items, manifests, results, replay."""
