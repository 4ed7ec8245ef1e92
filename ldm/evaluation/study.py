"""What all cells of a reproduction share."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ldm.data.insertset import InsertSet
from ldm.evaluation.judges import Judges
from ldm.insertion.plan import Context
from ldm.insertion.session import Session
from ldm.models.base import Base
from ldm.models.painter import Painter

Learn = Callable[[InsertSet, Mapping[str, Any], Path], None]  # object, settings that differ, its file
Changes = Mapping[str, Any]  # dotted settings that differ, as {"sample.steps": 12}


@dataclass(frozen=True, eq=False)
class Study:
    """What all cells share: base, regions; who judges; how to learn, with which settings.

    `insert_settings`: changes => all plain values that say how to insert; `open_session`: changes => a session
    on the base, and the model to sample with, in its precision.
    """

    folder: Path
    base: Base
    fingerprint: str
    context: Context
    judges: Judges
    metrics: Collection[str]
    learn: Learn
    settings: Mapping[str, Any]
    insert_settings: Callable[[Changes], Mapping[str, Any]]
    open_session: Callable[[Changes], tuple[Session, Painter]]
    seed: int = 321
