"""One line of work: which background gets what, where, with which seeds, and how its results are called."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ldm import __version__
from ldm.data.digest import file_digest, text_digest
from ldm.insertion.cases import Case
from ldm.insertion.roi import Roi
from ldm.insertion.subject import Subject


@dataclass(frozen=True)
class Item:
    """A case, what goes into it, and a seed for each result; `best`: only the best of the seeds is kept.

    `roi` is the square to inpaint if it is not planned, `name` what results are called if not by background.
    """

    case: Case
    subject: Subject
    seeds: tuple[int, ...]
    roi: Roi | None = None
    name: str = ""
    best: bool = False

    def __post_init__(self) -> None:
        if wrong := [seed for seed in self.seeds if not -(2**63) <= seed < 2**63]:
            raise ValueError(f"seed {wrong[0]}: expected a whole number of 64 bits")

    @property
    def stem(self) -> str:
        return self.name or self.case.name

    def files(self) -> dict[int, str]:
        """Seed => name of the result file; the first seed stands for the best of all."""
        if self.best or len(self.seeds) == 1:
            return {self.seeds[0]: f"{self.stem}.png"}
        return {seed: f"{self.stem}_{seed}.png" for seed in self.seeds}

    def sources(self) -> dict[str, Path]:
        """The files that determine the results, by role."""
        found = {
            "background": self.case.background,
            "mask": self.case.mask,
            "paste_mask": self.case.paste_mask,
            "object": self.subject.object,
            "reference": self.subject.reference,
            "reference_mask": self.subject.reference_mask,
            "pictures": self.subject.pictures,
        }
        return {role: path for role, path in found.items() if path is not None}

    def digests(self) -> dict[str, str]:
        """Role => sha256 of that file; FileNotFoundError in one line."""
        return {role: file_digest(path) for role, path in self.sources().items()}


def key_of(item: Item, seed: int, digests: Mapping[str, str], base: str, settings: Mapping[str, Any]) -> str:
    """32 hex digits of all that determines a result: contents, not names."""
    roi = None if item.roi is None else (item.roi.x0, item.roi.y0, item.roi.x1, item.roi.y1)
    facts = {
        "version": __version__,
        "base": base,
        "settings": settings,
        "digests": digests,
        "box": item.case.box,
        "roi": roi,
        "strength": item.subject.strength,
        "pick": item.subject.pick,
        "seed": seed,
        "best_of": len(item.seeds) if item.best else 0,
    }
    return text_digest(facts)[:32]


def check_files(items: Sequence[Item]) -> None:
    """ValueError if two results would have one name."""
    seen: dict[str, Path] = {}
    for item in items:
        for file in item.files().values():
            if file in seen:
                raise ValueError(
                    f"two results would be called {file}, of {seen[file]} and {item.case.background}; "
                    "rename one, or give names in a manifest"
                )
            seen[file] = item.case.background
