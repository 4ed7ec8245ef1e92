"""Compress an object by truncated SVD of every matrix, to a share of its energy.

The error of every weight, measured on the stored fp16 numbers, is returned and written into the object's
recipe. Vectors are kept, and so are matrices whose low-rank form would not be smaller.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ldm.objects.delta import Delta, LowRank, Weight, dense, differences, numbers


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


def compress(
    delta: Delta,
    energy: float,
    base_state: Mapping[str, Tensor] | None = None,
    progress: Callable[[list[str]], Iterable[str]] = iter,
) -> tuple[Delta, Losses]:
    """A smaller copy and its losses.

    `energy` in (0,1]: the share of its squared Frobenius norm that every matrix keeps at least. An object of
    tuned values (fp32) needs the `base_state`. `progress` wraps the names of the matrices.
    """
    if not 0 < energy <= 1:
        raise ValueError(f"energy {energy:g}: expected a share above 0, up to 1, like 0.99")
    changes = differences(delta, base_state)
    kept = {k: v.half() for k, v in changes.items()} if delta.absolute else dict(delta.weights)
    matrices = [name for name, change in changes.items() if change.ndim == 2]
    cut: dict[str, LowRank] = {}
    for name in progress(matrices):
        smaller = low_rank(changes[name], energy, numbers(kept[name]))
        if smaller is not None:
            cut[name] = smaller
    weights = {name: cut.get(name, weight) for name, weight in kept.items()}
    losses = _losses(weights, changes, cut)
    layers = {x.name: [x.rank, x.error] for x in losses.layers if x.rank is not None or x.error}
    recipe = dict(delta.metadata.recipe)
    record = {"energy": energy, "error": losses.error, "layers": layers}
    recipe["compressed"] = [*recipe.get("compressed", []), record]
    metadata = replace(delta.metadata, recipe=recipe)
    return replace(delta, metadata=metadata, weights=weights, absolute=False), losses


def low_rank(matrix: Tensor, energy: float, whole: int) -> LowRank | None:
    """A matrix [out,in] at the lowest rank that keeps this share of its energy, fp16.

    Singular values are split evenly between the factors. None if these are not less than `whole` numbers.
    """
    u, s, vh = torch.linalg.svd(matrix, full_matrices=False)
    kept = (s.double() ** 2).cumsum(0)
    rank = int((kept < energy * kept[-1]).sum()) + int(kept[-1] > 0)
    if rank * sum(matrix.shape) >= whole:
        return None
    root = s[:rank].sqrt()
    return LowRank((u[:, :rank] * root).half(), (root[:, None] * vh[:rank]).half())


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
