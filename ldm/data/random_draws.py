"""Random numbers from generators on the CPU, so that a seed gives the same samples on every device."""

from __future__ import annotations

import numpy as np
import torch


def sample_generator(seed: int, index: int) -> torch.Generator:
    """The generator of sample `index`, independent of other samples and seeds."""
    state = np.random.SeedSequence([seed, index]).generate_state(1, np.uint64)
    return torch.Generator().manual_seed(int(state[0]))


def uniform(low: float, high: float, g: torch.Generator) -> float:
    """A number in [low, high)."""
    return low + (high - low) * float(torch.rand((), generator=g))


def happens(share: float, g: torch.Generator) -> bool:
    """True in this share of the draws."""
    return float(torch.rand((), generator=g)) < share
