"""How long cells will take: work in UNet forwards of one sample, times what these take here."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from ldm.evaluation.cells import Cell
from ldm.evaluation.sites import Site
from ldm.evaluation.trial import CODING
from ldm.models.base import Base
from ldm.training.frozen import HALF
from ldm.training.judging import SAMPLE

ENCODING = 3  # forwards that VAE and CLIP cost a training sample: picture, masked picture and reference
TRUST = 0.05  # share of a plan after which what it took counts as much as what was planned


@dataclass(frozen=True)
class Work:
    """UNet forwards of one sample that are still to do, in learning and in sampling."""

    learning: int = 0
    sampling: int = 0


@dataclass(frozen=True)
class Pace:
    """Seconds of one forward: in a batch and the precision of learning, and with guidance's other half."""

    learning: float
    sampling: float


def seconds_of(base: Base, cells: Sequence[Cell]) -> list[float]:
    """What is missing of each cell takes, judging not counted."""
    pace = pace_of(base, cells)
    return [pace.learning * work.learning + pace.sampling * work.sampling for work in work_of(cells)]


def learning_forwards(settings: Mapping[str, Any]) -> int:
    """What learning costs: each sample's way there and back, and encoding it, or the bank's ones only."""
    samples = settings["max_steps"] * settings["batch_size"] * settings["accumulate"]
    return SAMPLE * samples + ENCODING * (settings["bank"] or samples)


def sampling_forwards(cell: Cell, sites: Sequence[Site]) -> int:
    """What a cell's results on these sites cost."""
    if cell.variant.kind not in ("learnt", "zero-shot"):
        return 0
    halves = 1 if cell.sampling.guidance_scale == 1 else 2
    regions = sum(len(site.rois) or 1 for site in sites)
    return regions * (cell.sampling.steps * halves + CODING)


def work_of(cells: Sequence[Cell]) -> list[Work]:
    """What is missing of each cell; an object that several need is learnt in the first of them."""
    planned, found = set(), []
    for cell in cells:
        missing, learning = cell.missing(), 0
        if missing and not cell.learnt_already and cell.object_file not in planned:
            planned.add(cell.object_file)
            learning = learning_forwards(cell.made_by["settings"])
        found.append(Work(learning, sampling_forwards(cell, missing)))
    return found


def pace_of(base: Base, cells: Sequence[Cell]) -> Pace:
    """Of learning as it was here, or else will be; of sampling as the base does it now."""
    settings = [cell.made_by["settings"] for cell in cells if cell.variant.kind == "learnt"]
    learning = seconds_as_learnt(cells)
    if settings and not learning:
        learning = seconds_a_forward(base, settings[0]["batch_size"], settings[0]["precision"])
    return Pace(learning, seconds_a_forward(base, 2))


def seconds_as_learnt(cells: Sequence[Cell]) -> float:
    """Of one forward, by the notes beside the objects that were learnt here already; 0: there are none."""
    learnt = {x.object_file: x for x in cells if x.variant.kind == "learnt" and x.learnt_already}
    forwards, seconds = 0, 0.0
    for file, cell in learnt.items():
        if (note := file.with_suffix(".json")).is_file():
            forwards += learning_forwards(cell.made_by["settings"])
            seconds += json.loads(note.read_text("utf-8"))["seconds"]
    return seconds / forwards if forwards else 0.0


@torch.no_grad()
def seconds_a_forward(base: Base, batch: int, precision: str = "32-true") -> float:
    """Of one sample in a batch of so many."""
    side, width = base.architecture.latent_size, base.architecture.context_width
    x = torch.zeros(batch, 4, side, side, device=base.device)
    t, context = torch.full((batch,), 500, device=base.device), x.new_zeros(batch, 2, width)
    half, seconds = HALF.get(precision), 0.0
    with torch.autocast(base.device.type, half, enabled=half is not None):
        for _ in range(2):  # the first one warms up
            start = time.perf_counter()
            base.eps(x, t, x, x[:, :1], context).sum().item()
            seconds = time.perf_counter() - start
    return seconds / batch


def remaining(planned: float, done: float, spent: float) -> float:
    """Seconds left of a plan, `done` seconds of which took `spent`; at first the plan is trusted."""
    trusted = TRUST * planned
    return (planned - done) * (spent + trusted) / (done + trusted) if planned else 0.0


def duration(seconds: float) -> str:
    """ "40 s", "12 min", "3.5 h"."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
