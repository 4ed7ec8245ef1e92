"""What is to be made of one background, as arrays: files are read, and nothing is left to plan."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from ldm.insertion.roi import Roi
from ldm.insertion.subject import Subject


@dataclass(frozen=True, eq=False)
class Task:
    """`subject` into the background, once for each of `seeds`.

    The model generates in `hole`, and what it makes is pasted in `mask`, both bool [H,W]; mostly one array.
    `rois` are squares that cover both.
    """

    mask: np.ndarray
    hole: np.ndarray
    rois: Sequence[Roi]
    seeds: Sequence[int]
    subject: Subject = field(default_factory=Subject)
