"""Low-rank weights: the product of two thin matrices, `up.NAME` and `down.NAME` in a file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import torch
from torch import Tensor

from ldm.models.state_dict import first_few

UP, DOWN = "up.", "down."  # prefixes of the file's tensors


@dataclass(frozen=True, eq=False)
class LowRank:
    """A matrix [out,in] as up [out,r] @ down [r,in]; with r = 0, all zeros."""

    up: Tensor
    down: Tensor

    @property
    def shape(self) -> torch.Size:
        """[out,in], the shape of the product."""
        return torch.Size((self.up.shape[0], self.down.shape[1]))

    @property
    def rank(self) -> int:
        """r, the number of columns of `up`."""
        return self.up.shape[1]


Weight: TypeAlias = Tensor | LowRank


def dense(weight: Weight) -> Tensor:
    """The full weight, fp32."""
    return weight.up.float() @ weight.down.float() if isinstance(weight, LowRank) else weight.float()


def numbers(weight: Weight) -> int:
    """How many numbers a file holds for this weight."""
    return weight.up.numel() + weight.down.numel() if isinstance(weight, LowRank) else weight.numel()


def pack(weights: Mapping[str, Weight], prefix: str) -> dict[str, Tensor]:
    """Weights by name => a file's tensors: `prefix` NAME, or `up.` NAME and `down.` NAME."""
    tensors: dict[str, Tensor] = {}
    for name, weight in weights.items():
        if isinstance(weight, LowRank):
            tensors |= {UP + name: weight.up, DOWN + name: weight.down}
        else:
            tensors[prefix + name] = weight
    return tensors


def unpack(tensors: Mapping[str, Tensor], prefix: str, path: Path) -> dict[str, Weight]:
    """The inverse of `pack`; ValueError if the two matrices do not match or a weight exists twice."""
    weights: dict[str, Weight] = {
        k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)
    }
    halves = [{k.removeprefix(p): v for k, v in tensors.items() if k.startswith(p)} for p in (UP, DOWN)]
    pairs = {name: LowRank(up, halves[1][name]) for name, up in halves[0].items() if name in halves[1]}
    wrong = [name for name, pair in pairs.items() if name in weights or not _matches(pair)]
    if wrong := [*wrong, *(halves[0].keys() ^ halves[1].keys())]:
        raise ValueError(
            f"{path}: the low-rank matrices of {first_few(sorted(wrong))} do not match; write it again"
        )
    return weights | pairs


def _matches(pair: LowRank) -> bool:
    return pair.up.ndim == pair.down.ndim == 2 and pair.up.shape[1] == pair.down.shape[0]
