"""Compress an object by truncated SVD of every matrix, to a share of its energy or to a file size.

The error of every weight, measured on the stored fp16 numbers, is returned and written into the object's
recipe. Vectors are kept, and so are matrices whose low-rank form would not be smaller.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor

from ldm.objects.delta import Delta, differences, save
from ldm.objects.low_rank import LowRank, Weight, dense, numbers

BYTES = 2  # of an fp16 number
ENTRY = 64  # bytes that a weight's rank and error may add to header and recipe


@dataclass(frozen=True)
class Loss:
    """The loss of one weight: the rank it was cut to (None: kept), and |new - old| / |old|."""

    name: str
    shape: tuple[int, ...]
    rank: int | None
    error: float


@dataclass(frozen=True)
class Losses:
    """The losses of all weights, and their relative error (Frobenius) together."""

    layers: tuple[Loss, ...]
    error: float


@dataclass(frozen=True, eq=False)
class Spectrum:
    """The SVD of a matrix [out,in], fp32, and how many numbers its uncompressed form takes (`whole`)."""

    u: Tensor
    s: Tensor
    vh: Tensor
    whole: int

    @property
    def price(self) -> int:
        """How many numbers one rank takes."""
        return len(self.u) + self.vh.shape[1]

    @property
    def limit(self) -> int:
        """The highest rank whose low-rank form is smaller than `whole`."""
        return min((self.whole - 1) // self.price, len(self.s))

    def cut(self, rank: int) -> LowRank:
        """The best approximation of this rank, fp16; singular values are split evenly between the factors."""
        root = self.s[:rank].sqrt()
        return LowRank((self.u[:, :rank] * root).half(), (root[:, None] * self.vh[:rank]).half())


def compress(
    delta: Delta,
    *,
    energy: float | None = None,
    size: int | None = None,
    base_state: Mapping[str, Tensor] | None = None,
    progress: Callable[[list[str]], Iterable[str]] = iter,
) -> tuple[Delta, Losses]:
    """A smaller copy and its losses; give exactly one goal.

    `energy` in (0,1]: the share of its squared Frobenius norm that every matrix keeps at least. `size`: the
    file's maximum in bytes; over all matrices, the singular values with the most energy per byte are kept. An
    object of tuned values (fp32) needs the `base_state`. `progress` wraps the names of the matrices. Raises
    ValueError if a goal cannot be met.
    """
    _check(energy, size)
    changes = differences(delta, base_state)
    kept = {k: v.half() for k, v in changes.items()} if delta.absolute else dict(delta.weights)
    goal = {"energy": energy} if size is None else {"size": size}
    whole = _made(delta, kept, {}, changes, goal)
    if size is not None and file_size(whole[0]) <= size:
        return whole
    matrices = [name for name, change in changes.items() if change.ndim == 2]
    spectra = {name: spectrum(changes[name], numbers(kept[name])) for name in progress(matrices)}
    if size is None:
        assert energy is not None
        ranks = {name: rank_for(each, energy) for name, each in spectra.items()}
    else:
        empty = _made(delta, kept, {name: each.cut(0) for name, each in spectra.items()}, changes, goal)
        ranks = ranks_for(spectra, (size - file_size(empty[0]) - ENTRY * len(spectra)) // BYTES)
    cut = {name: spectra[name].cut(rank) for name, rank in ranks.items() if rank is not None}
    return _made(delta, kept, cut, changes, goal)


def spectrum(matrix: Tensor, whole: int) -> Spectrum:
    """The SVD of a matrix [out,in]; `whole`: how many numbers its uncompressed form takes."""
    u, s, vh = torch.linalg.svd(matrix, full_matrices=False)
    return Spectrum(u, s, vh, whole)


def rank_for(each: Spectrum, energy: float) -> int | None:
    """The lowest rank that keeps this share of the energy; None if that would not be smaller."""
    kept = (each.s.double() ** 2).cumsum(0)
    rank = int((kept < energy * kept[-1]).sum()) + int(kept[-1] > 0)
    return rank if rank <= each.limit else None


def ranks_for(spectra: Mapping[str, Spectrum], budget: int) -> dict[str, int | None]:
    """The ranks of all matrices: `budget` numbers, spent greedily on the most energy per number.

    Raises ValueError for a negative budget: what is not compressed exceeds the size already.
    """
    if budget < 0:
        raise ValueError(
            f"this size is {-budget * BYTES:,} bytes too small for what is not compressed (vectors, few-shot "
            "tokens, pictures, text); give a larger one"
        )
    ranks: dict[str, int | None] = dict.fromkeys(spectra, 0)
    for _, name, rank, price in sorted(_offers(spectra), key=lambda offer: -offer[0]):
        before = spectra[name].limit if rank is None else rank - 1
        if price <= budget and ranks[name] == before:
            ranks[name] = rank
            budget -= price
    return ranks


def _offers(spectra: Mapping[str, Spectrum]) -> list[tuple[float, str, int | None, int]]:
    """(energy per number, name, new rank, numbers it takes); a matrix's last offer keeps it whole."""
    offers: list[tuple[float, str, int | None, int]] = []
    for name, each in spectra.items():
        gains = (each.s.double() ** 2).tolist()
        steps = [(gain / each.price, name, i + 1, each.price) for i, gain in enumerate(gains[: each.limit])]
        rest = each.whole - each.limit * each.price
        before = steps[-1][0] if steps else math.inf  # the last offer must not come before a step
        last = min(sum(gains[each.limit :]) / rest, before)
        offers += [*steps, (last, name, None, rest)]
    return offers


def file_size(delta: Delta) -> int:
    """Size of the object's file in bytes."""
    with TemporaryDirectory() as folder:
        file = Path(folder) / "object.safetensors"
        save(delta, file)
        return file.stat().st_size


def _made(
    delta: Delta,
    kept: Mapping[str, Weight],
    cut: Mapping[str, LowRank],
    changes: Mapping[str, Tensor],
    goal: Mapping[str, Any],
) -> tuple[Delta, Losses]:
    """The object with the `cut` matrices, and the losses, also in its recipe."""
    weights = {name: cut.get(name, weight) for name, weight in kept.items()}
    losses = _losses(weights, changes, cut)
    layers = {
        loss.name: [loss.rank, loss.error] for loss in losses.layers if loss.rank is not None or loss.error
    }
    record = dict(goal) | {"error": losses.error, "layers": layers}
    recipe = dict(delta.metadata.recipe)
    recipe["compressed"] = [*recipe.get("compressed", []), record]
    return replace(
        delta, metadata=replace(delta.metadata, recipe=recipe), weights=weights, absolute=False
    ), losses


def _losses(
    weights: Mapping[str, Weight], changes: Mapping[str, Tensor], cut: Mapping[str, LowRank]
) -> Losses:
    layers, lost, whole = [], 0.0, 0.0
    for name, change in changes.items():
        error, norm = float((dense(weights[name]) - change).norm()), float(change.norm())
        rank = cut[name].rank if name in cut else None
        layers.append(Loss(name, tuple(change.shape), rank, round(error / norm, 6) if norm else 0.0))
        lost, whole = lost + error**2, whole + norm**2
    return Losses(tuple(layers), round(math.sqrt(lost / whole), 6) if whole else 0.0)


def _check(energy: float | None, size: int | None) -> None:
    if (energy is None) == (size is None):
        raise ValueError("give one goal of compression: a share of energy, or a size")
    if energy is not None and not 0 < energy <= 1:
        raise ValueError(f"energy {energy:g}: expected a share above 0, up to 1, like 0.99")
    if size is not None and size <= 0:
        raise ValueError(f"size {size}: expected bytes, above 0")
