"""What all cells of a reproduction share."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ldm.data.insertset import InsertSet
from ldm.evaluation.judges import Judges
from ldm.insertion.blend import Blend
from ldm.insertion.plan import Context
from ldm.insertion.sampling import Sampling
from ldm.models.base import Base

Learn = Callable[[InsertSet, Mapping[str, Any], Path], None]  # object, settings that differ, its file


@dataclass(frozen=True, eq=False)
class Study:
    """What all cells share: base, sampling, seam, regions; who judges; how to learn, with which settings."""

    folder: Path
    base: Base
    fingerprint: str
    sampling: Sampling
    seam: Blend
    context: Context
    judges: Judges
    metrics: Collection[str]
    learn: Learn
    settings: Mapping[str, Any]
    seed: int = 321
