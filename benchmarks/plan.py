"""The whole measurement: for each base and device its groups, one after the other; what is there is kept."""

from __future__ import annotations

import gc
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks import insertion, learning
from benchmarks.loading import loading, starting
from benchmarks.measure import Case, Row, compare, matrix_rate
from benchmarks.subjects import make_base
from ldm.data.files import write_file
from ldm.insertion.insert import InsertOptions
from ldm.models.architecture import Architecture
from ldm.models.base import Base
from ldm.models.runtime import PRECISIONS

HALF = "bf16"


@dataclass(frozen=True)
class Subject:
    """A base: name, config, sizes, weights (None: synthetic), px of its pictures, runs of a case.

    `lean`: presets of training whose memory is measured, at the base's own size.
    """

    name: str
    config: Path
    presets: Mapping[str, InsertOptions]
    architecture: Architecture
    weights: Path | None
    side: int
    repeats: int
    batches: tuple[int, ...] = (1, 8)
    lean: Mapping[str, learning.Lean] = field(default_factory=dict)


OnGroup = Callable[[str], None]  # what is measured now


class Measured:
    """Rows by base and device, in a JSON file that grows group by group; a group that is there is kept."""

    def __init__(self, file: Path, machine: Mapping[str, Any]) -> None:
        self.file, self.machine = file, dict(machine)
        there = json.loads(file.read_text("utf-8")) if file.is_file() else {}
        if there and there["machine"] != self.machine:
            raise ValueError(
                f"{file} was measured on another machine, or by another version or torch; "
                "give another --out, or remove it"
            )
        self.rates: dict[str, dict[str, float]] = there.get("rates", {})
        self.rows: list[Row] = there.get("rows", [])

    def has(self, **what: Any) -> bool:
        """Whether there are rows of this group, base, device and side."""
        return any(all(row[key] == value for key, value in what.items()) for row in self.rows)

    def add(self, rows: Sequence[Row]) -> None:
        """Keep rows, on disk too."""
        self.rows += rows
        self.write()

    def write(self) -> None:
        """The file, whole or not at all."""
        text = json.dumps({"machine": self.machine, "rates": self.rates, "rows": self.rows}, indent=1)
        write_file(self.file, text)


def measure(subject: Subject, device: str, measured: Measured, report: OnGroup) -> None:
    """All groups of one base on one device that are not measured yet."""
    if device not in measured.rates:
        kinds = ("fp32", HALF)
        measured.rates[device] = {kind: matrix_rate(PRECISIONS[kind], device) for kind in kinds}
        measured.write()
    for name, side, cases in _groups(subject, device):
        same = {"base": subject.name, "device": device, "side": side}
        if measured.has(group=name, **same):
            continue
        report(f"{subject.name}, {device}: {name}")
        measured.add([row | same for row in compare(name, cases(), subject.repeats, device)])
        gc.collect()


def _groups(subject: Subject, device: str) -> Iterator[tuple[str, int, Callable[[], list[Case]]]]:
    """Names, px of the pictures, and how each group's cases are built: only when they are to run."""
    half, side, compiled = HALF, subject.side, device == "cuda"
    make = partial(make_base, subject.architecture, subject.weights, device)
    base = _Once(make)
    yield "UNet step", side, lambda: insertion.unet_step(base(), half, side, compiled)
    yield "whole insertion", side, lambda: insertion.insertion(base(), half, side, subject.presets, compiled)
    yield "VAE", side, lambda: insertion.vae(base(), side)
    yield "growth with objects", side, lambda: insertion.objects(base(), half, side)
    base.forget()
    yield "training step", side, lambda: learning.training(make, side, subject.batches)
    if subject.lean:
        own = subject.architecture.image_size
        yield "training by preset", own, lambda: learning.by_memory(make, own, subject.lean)
    if (weights := subject.weights) is not None:
        yield "load", side, lambda: loading(weights, subject.architecture, device)
        yield "start", side, lambda: starting(subject.config, device)


class _Once:
    """A base that is made when it is asked for first."""

    def __init__(self, make: Callable[[], Base]) -> None:
        self.make = make
        self.base: Base | None = None

    def __call__(self) -> Base:
        self.base = self.base or self.make()
        return self.base

    def forget(self) -> None:
        self.base = None
