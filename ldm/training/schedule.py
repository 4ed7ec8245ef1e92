"""Learning-rate schedules."""

from __future__ import annotations

import math

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR


def warm_cosine(optimizer: Optimizer, steps: int, warmup: int = 100, final: float = 0.02) -> dict:
    """Linear warm-up times a cosine down to `final` of the rate at `steps` (1: constant), for Lightning."""

    def factor(step: int) -> float:
        progress = min(1.0, step / max(1, steps))
        return min(1.0, (step + 1) / max(1, warmup)) * (
            final + (1 - final) * (1 + math.cos(math.pi * progress)) / 2
        )

    return {"scheduler": LambdaLR(optimizer, factor), "interval": "step"}
