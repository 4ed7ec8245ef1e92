"""Variants of how to learn and insert, the series that set them side by side, and what is claimed of them."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from ldm.evaluation.claims import Claim
from ldm.insertion.blend import Blend


@dataclass(frozen=True)
class Variant:
    """One way to insert. `kind`: flat, poisson, zero-shot or learnt.

    `learning` and `sampling` are settings that differ from the recipe's; it learns from `images` few-shot
    pictures, 0: all. `precision` is the UNet's when it inserts; `seam`: None: the recipe's.
    """

    name: str
    title: str
    kind: str = "learnt"
    learning: Mapping[str, Any] = field(default_factory=dict, hash=False)
    sampling: Mapping[str, Any] = field(default_factory=dict, hash=False)
    images: int = 0
    same_category: bool = True
    precision: str = "fp32"
    seam: Blend | None = None


@dataclass(frozen=True)
class Series:
    """Variants side by side: line's name => points (x, variant's name); without `axis` it is no chart."""

    title: str
    lines: Mapping[str, Sequence[tuple[float, str]]]
    axis: str = ""
    log: bool = False

    @property
    def names(self) -> list[str]:
        """All its variants, each once."""
        return list(dict.fromkeys(name for points in self.lines.values() for _, name in points))

    def of(self, names: Collection[str]) -> Series:
        """What these variants leave of it."""
        lines = {line: [p for p in points if p[1] in names] for line, points in self.lines.items()}
        return replace(self, lines={line: points for line, points in lines.items() if points})


@dataclass(frozen=True)
class Comparison:
    """All that one reproduction runs and tells; `recipe` names the variant that the others differ from."""

    variants: Mapping[str, Variant]
    series: Sequence[Series]
    claims: Sequence[Claim]
    recipe: str

    def of(self, names: Collection[str]) -> Comparison:
        """With these variants only, and what they leave of series and claims; ValueError for unknown ones."""
        if unknown := [name for name in names if name not in self.variants]:
            raise ValueError(f"no variant {', '.join(unknown)}; there are {', '.join(self.variants)}")
        chosen = {name: variant for name, variant in self.variants.items() if name in names}
        series = [kept for one in self.series if len((kept := one.of(names)).names) > 1]
        claims = [claim for claim in self.claims if {claim.better, claim.worse} <= chosen.keys()]
        return Comparison(chosen, series, claims, self.recipe)
