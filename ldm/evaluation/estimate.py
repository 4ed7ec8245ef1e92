"""How long cells will take: work in UNet forwards, times what these have taken so far."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from ldm.evaluation.cells import Cell
from ldm.models.base import Base

BACKWARD = 3  # forwards that a training sample costs, its way back included


@dataclass(frozen=True)
class Work:
    """Training samples and UNet forwards that are still to do."""

    samples: int = 0
    forwards: int = 0

    def __add__(self, other: Work) -> Work:
        return Work(self.samples + other.samples, self.forwards + other.forwards)

    def seconds(self, forward: float) -> float:
        """At so many seconds a forward."""
        return (BACKWARD * self.samples + self.forwards) * forward


def work_of(cells: Sequence[Cell]) -> list[Work]:
    """What is missing of each cell; an object that several need is learnt in the first of them."""
    planned, found = set(), []
    for cell in cells:
        missing = cell.missing()
        sampled = cell.variant.kind in ("learnt", "zero-shot")
        halves = 1 if cell.sampling.guidance_scale == 1 else 2
        work = Work(forwards=len(missing) * cell.sampling.steps * halves * sampled)
        if missing and not cell.learnt_already and cell.object_file not in planned:
            planned.add(cell.object_file)
            settings = cell.made_by["settings"]
            work += Work(samples=settings["max_steps"] * settings["batch_size"] * settings["accumulate"])
        found.append(work)
    return found


@torch.no_grad()
def seconds_a_forward(base: Base, cells: Sequence[Cell]) -> float:
    """Of objects that were learnt here already; else of one forward of the base, run twice."""
    for cell in cells:
        note = cell.object_file.with_suffix(".json")
        if cell.variant.kind == "learnt" and cell.learnt_already and note.is_file():
            told, settings = json.loads(note.read_text("utf-8")), cell.made_by["settings"]
            samples = settings["max_steps"] * settings["batch_size"] * settings["accumulate"]
            return told["seconds"] / samples / BACKWARD
    side, width = base.architecture.latent_size, base.architecture.context_width
    x = torch.zeros(1, 4, side, side, device=base.device)
    mask, context = torch.zeros_like(x[:, :1]), torch.zeros(1, 2, width, device=base.device)
    seconds = 0.0
    for _ in range(2):  # the first one warms up
        start = time.perf_counter()
        base.eps(x, torch.tensor(500, device=base.device), x, mask, context).sum().item()
        seconds = time.perf_counter() - start
    return seconds


def duration(seconds: float) -> str:
    """ "40 s", "12 min", "3.5 h"."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
