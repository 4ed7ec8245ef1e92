"""Cut-outs and the RegionFill of a base that was trained on composites (configs/mini.yaml)."""
