"""What compressing and merging did to objects, as lines of text for people."""

from __future__ import annotations

from pathlib import Path

from ldm.objects.compress import Losses
from ldm.objects.effect import Effect
from ldm.objects.merge import MergeReport

MEGABYTE = 2**20


def losses_table(losses: Losses) -> list[str]:
    """A line for every weight that lost something; the others are counted."""
    changed = [each for each in losses.layers if each.rank is not None or each.error]
    lines = [f"{'weight':86} {'shape':>12} {'rank':>5} {'error':>8}"]
    for each in changed:
        shape, rank = "x".join(map(str, each.shape)), "whole" if each.rank is None else str(each.rank)
        lines.append(f"{each.name:86} {shape:>12} {rank:>5} {each.error:8.2%}")
    return [*lines, f"{len(losses.layers) - len(changed)} weights lost nothing"]


def effect_line(effect: Effect) -> str:
    """What the UNet sees of the change, and what it makes of it."""
    errors = f"context {effect.context:.3%}, K, V {effect.mean:.3%}, worst {effect.worst:.3%}"
    return f"effect with its reference: {errors}, predicted noise {effect.output:.3%}"


def merge_table(report: MergeReport) -> list[str]:
    """A line for every object, and what it took."""
    lines = [f"{'relative error of':30} {'its K and V':>12} {'its change':>12}"]
    for name, residual in report.residual.items():
        lines.append(f"{name:30} {residual:12.2e} {report.lost[name]:12.2e}")
    lines.append(f"{report.rank} of {report.tokens} tokens are independent")
    growth = f"{report.growth:.2f} times as much as for the object that changes them most"
    return [*lines, f"the weights change {growth}"]


def size_line(target: Path, source: Path | None = None) -> str:
    """A written file's size, and that of the one it was made from."""
    before = "" if source is None else f" of {source.stat().st_size / MEGABYTE:.2f}"
    return f"{target}: {target.stat().st_size / MEGABYTE:.2f} MB{before}"
