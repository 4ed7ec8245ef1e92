"""What the project wants to reach, each read off the rows of one run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from ldm.benchmark.measure import Row

Rates = Mapping[str, Mapping[str, float]]  # device => precision => FLOP/s of matrix multiplication


class Place(NamedTuple):
    """Rows by group and the start of their name."""

    group: str
    name: str


@dataclass(frozen=True)
class Aim:
    """`bound`: at least that, or at most. Measured is `what` of the row `of`, or a ratio to it:

    how many times as long as its own a sample of the row `against` takes.
    """

    text: str
    base: str
    device: str
    of: Place
    bound: float
    at_most: bool = False
    against: Place | None = None
    what: str = "seconds"  # or peak_gb; share: of the matrix rate

    def measured(self, rows: Sequence[Row], rates: Rates) -> float | None:
        """The value; None if a row of it was not measured."""
        own = self._row(rows, self.of)
        if own is None:
            return None
        if self.against is not None:
            other = self._row(rows, self.against)
            return of_sample(other) / of_sample(own) if other else None
        return share(own, rates) if self.what == "share" else own[self.what]

    def met(self, value: float) -> bool:
        """Whether this is what was wanted."""
        return value <= self.bound if self.at_most else value >= self.bound

    def shown(self, value: float) -> str:
        """With its unit."""
        units = {"seconds": " s", "peak_gb": " GB", "share": ""}
        return f"{value:.3g}{' x' if self.against else units[self.what]}"

    def _row(self, rows: Sequence[Row], place: Place) -> Row | None:
        for row in rows:
            at = row["base"], row["device"], row["group"]
            if at == (self.base, self.device, place.group) and row["name"].startswith(place.name):
                return row
        return None


def of_sample(row: Row) -> float:
    """Seconds a sample."""
    return row["seconds"] / row["samples"]


def share(row: Row, rates: Rates) -> float | None:
    """Of the measured matrix rate that a row reaches, 0 to 1; None where its FLOPs were not counted."""
    rate = rates.get(row["device"], {}).get(row["precision"])
    return row["tflop"] * 1e12 / row["seconds"] / rate if rate and row["tflop"] else None


PAPER, BANK = Place("training step", "as in the paper"), Place("training step", "bank, tokens, bf16, batch 8")
LEAN = {gb: Place("training by preset", f"--preset {gb}gb") for gb in (8, 12, 24)}
PLAIN, FAST = Place("whole insertion", "plain PLMS 50, fp32"), Place("whole insertion", "fast, fp32")
PLAIN_HALF, FAST_HALF = (Place("whole insertion", name) for name in ("plain PLMS 50, bf16", "fast, bf16"))
EXACT, COMPILED = Place("whole insertion", "exact, fp32"), Place("whole insertion", "fast, bf16, compiled")
ONE, EIGHT = (Place("growth with objects", name) for name in ("8 samples of one", "8 different"))
BATCH, START = Place("growth with the batch", "batch 8"), Place("start", "inference")
PLACES = (("full", "cuda"), ("full", "cpu"), ("mini", "cuda"), ("mini", "cpu"))
AIMS = [
    Aim("samples/s of training against the paper's", "full", "cuda", BANK, 8, against=PAPER),
    Aim("samples/s of training against the paper's", "mini", "cpu", BANK, 4, against=PAPER),
    *(
        Aim(f"memory of training, --preset {gb}gb", "full", device, place, gb, at_most=True, what="peak_gb")
        for gb, place in LEAN.items()
        for device in ("cuda", "cpu")
    ),
    Aim("UNet at batch 8, share of the matrix rate", "full", "cuda", BATCH, 0.45, what="share"),
    Aim("one `fast` insertion, compiled", "full", "cuda", COMPILED, 0.4, at_most=True),
    Aim("inference from nothing to its first step", "mini", "cpu", START, 4, at_most=True),
    *(Aim("`fast` against plain PLMS 50, fp32", *place, FAST, 5, against=PLAIN) for place in PLACES),
    *(
        Aim("`fast` against plain PLMS 50, bf16", *place, FAST_HALF, 5, against=PLAIN_HALF)
        for place in PLACES
    ),
    *(Aim("`exact` against plain PLMS 50, fp32", *place, EXACT, 1.1, against=PLAIN) for place in PLACES),
    *(Aim("8 objects in a batch against one", *place, ONE, 1.05, True, against=EIGHT) for place in PLACES),
]
