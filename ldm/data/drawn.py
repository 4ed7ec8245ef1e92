"""Random batches without end or state: item i is drawn with a generator of its own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Generator
from torch.utils.data import Dataset


class Drawn(Dataset):
    """`steps` items; item i is `draw(count, generator)`, by (seed, i) alone: a run can stop anywhere."""

    def __init__(self, draw: Callable[[int, Generator], Any], count: int, steps: int, seed: int) -> None:
        self.draw, self.count, self.steps, self.seed = draw, count, steps, seed

    def __len__(self) -> int:
        return self.steps

    def __getitem__(self, i: int) -> Any:
        return self.draw(self.count, Generator().manual_seed(self.seed * 10**9 + i))
