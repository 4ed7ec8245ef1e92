"""Merge several objects into one set of K/V weights, in closed form."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timezone

import torch
from torch import Tensor

from ldm.data.image import to_bytes
from ldm.data.object_crops import NEAREST, ObjectImages
from ldm.merge.merged_file import Merged
from ldm.models.base import Base
from ldm.models.checkpoint import first_few
from ldm.objects.delta import Delta, apply, is_trained
from ldm.objects.object_context import view_of
from ldm.objects.object_file import ObjectMetadata

RCOND = 1e-6  # relative to the largest singular value: smaller ones are rounding noise of fp32 tokens
FP16_LOSS = 1e-3  # relative error of an object's change above which the weights are stored in fp32


@dataclass(frozen=True, eq=False)
class MergeInput:
    """One object of a merge: its tokens and its K and V for them.

    `context` [1+N,d] and `unconditional` [d] are tokens of its own conditioner. For each K/V weight,
    `wanted`: W_i c for these 2+N tokens, and `change`: (W_i - W) c, both [2+N,out] in float64. `size`: |W_i -
    W| of all weights together.
    """

    name: str
    metadata: ObjectMetadata
    parent: Mapping[str, str]
    context: Tensor
    unconditional: Tensor
    wanted: Mapping[str, Tensor]
    change: Mapping[str, Tensor]
    size: float
    reference: Tensor | None = None  # uint8 [c,P,P], if the base needs it

    @property
    def tokens(self) -> Tensor:
        """[2+N,d], float64."""
        return torch.cat([self.context, self.unconditional[None]]).double()


@dataclass(frozen=True)
class MergeReport:
    """The errors of the merged weights.

    `residual`: by object, |W c - W_i c| / |W_i c| of its worst K or V. `lost`: the same error over all
    layers, relative to the object's change |(W_i - W_base) c|. `rank` of the `tokens` tokens are linearly
    independent. `growth`: |change of W| relative to the largest of a single object.
    """

    residual: Mapping[str, float]
    lost: Mapping[str, float]
    rank: int
    tokens: int
    growth: float


@torch.no_grad()
def merge_input(
    base: Base,
    delta: Delta,
    name: str,
    images: ObjectImages,
    parent: Mapping[str, str] | None = None,
    fingerprint: str = "",
) -> MergeInput:
    """Prepare an object for a merge, with its own reference and the few-shot token nearest to it.

    Raises ValueError as `apply` does, or if more than K and V of the cross-attention was tuned.
    """
    refuse_unmergeable(delta)
    with apply(base, delta, fingerprint=fingerprint) as applied:
        view = view_of(images, delta, None, NEAREST)
        context = base.context(view.picture.to(base.device), view.token)[0]
        unconditional = base.conditioner.learnable_vector[0, 0].clone()
        tokens = torch.cat([context, unconditional[None]]).double()
        wanted, change, size = {}, {}, 0.0
        for weight, value in kv_weights(base).items():
            difference = value.double() - applied.originals.get(weight, value).double()
            wanted[weight], change[weight] = tokens @ value.double().T, tokens @ difference.T
            size += float(difference.square().sum())
    picture = to_bytes(view.picture[0]) if images.stored else None
    parent = parent or {"name": name}
    return MergeInput(
        name, delta.metadata, parent, context, unconditional, wanted, change, size**0.5, picture
    )


def refuse_unmergeable(delta: Delta) -> None:
    """ValueError if the object changes weights of the UNet other than K and V."""
    other = [key for key in delta.weights if key.startswith("unet.") and not is_trained(key, "crossattn-kv")]
    if other:
        raise ValueError(
            f"this object was learnt with freeze_model {delta.metadata.freeze_model!r}: it also changes "
            f"{first_few(other, 1)}, which objects cannot share; learn it with freeze_model=crossattn-kv"
        )


def kv_weights(base: Base) -> dict[str, Tensor]:
    """The K and V weights of every cross-attention, by name."""
    return {
        name: value
        for name, value in base.named_parameters()
        if name.startswith("unet.") and is_trained(name, "crossattn-kv")
    }


def right_inverse(tokens: Tensor) -> tuple[Tensor, int]:
    """Tokens C [m,d] => P [d,m] such that D = (P Y)^T is the smallest D [out,d] with C D^T = Y; and C's rank.

    Tokens may be linearly dependent; if no exact D exists, C D^T is the least-squares fit to Y. float64.
    """
    u, s, vh = torch.linalg.svd(tokens.double(), full_matrices=False)
    rank = int((s > RCOND * s[0]).sum())
    return (vh[:rank].T / s[:rank]) @ u[:, :rank].T, rank


def merge(objects: Sequence[MergeInput], dtype: torch.dtype | None = None) -> tuple[Merged, MergeReport]:
    """One set of K/V weights for all objects, in any order.

    `dtype` of the stored differences: by default fp16, or fp32 if fp16 costs more than 0.1 % of an object's
    change. Raises ValueError if names are not unique, or bases differ.
    """
    _check(objects)
    tokens = torch.cat([each.tokens for each in objects])
    inverse, rank = right_inverse(tokens)
    exact = {
        name: (inverse @ torch.cat([each.change[name] for each in objects])).T for name in objects[0].change
    }
    weights = {name: value.to(dtype or torch.float16) for name, value in exact.items()}
    if dtype is None and max(_misfit(each, weights)[1] for each in objects) > FP16_LOSS:
        weights = {name: value.float() for name, value in exact.items()}
    misfits = {each.name: _misfit(each, weights) for each in objects}
    growth = _norm(weights.values()) / max(max(each.size for each in objects), 1e-30)
    residual, lost = ({name: pair[i] for name, pair in misfits.items()} for i in (0, 1))
    report = MergeReport(residual, lost, rank, len(tokens), growth)
    return _merged(objects, weights, report), report


def merge_table(report: MergeReport) -> list[str]:
    """The report as lines: one for every object, then rank and growth."""
    lines = [f"{'relative error of':30} {'its K and V':>12} {'its change':>12}"]
    for name, residual in report.residual.items():
        lines.append(f"{name:30} {residual:12.2e} {report.lost[name]:12.2e}")
    lines.append(f"{report.rank} of {report.tokens} tokens are independent")
    growth = f"{report.growth:.2f} times as much as for the object that changes them most"
    return [*lines, f"the weights change {growth}"]


def _misfit(each: MergeInput, weights: Mapping[str, Tensor]) -> tuple[float, float]:
    """One object's worst relative error of K or V, and its error over all layers relative to its change."""
    tokens, worst = each.tokens, 0.0
    errors = {name: tokens @ value.double().T - each.change[name] for name, value in weights.items()}
    for name, error in errors.items():
        worst = max(worst, float(error.norm() / each.wanted[name].norm().clamp_min(1e-30)))
    return worst, _norm(errors.values()) / max(_norm(each.change.values()), 1e-30)


def _norm(tensors: Iterable[Tensor]) -> float:
    """The Frobenius norm of all tensors together."""
    return sum(float(value.double().square().sum()) for value in tensors) ** 0.5


def _merged(objects: Sequence[MergeInput], weights: Mapping[str, Tensor], report: MergeReport) -> Merged:
    """The merged file, with the current date, all authors and licences."""
    about = [each.metadata for each in objects]
    metadata = ObjectMetadata(
        base=about[0].base,
        architecture=about[0].architecture,
        kind="merged",
        freeze_model="crossattn-kv",
        recipe={"merged": asdict(report)},
        date=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        author="; ".join(dict.fromkeys(one.author for one in about if one.author)),
        licence="; ".join(dict.fromkeys(one.licence for one in about if one.licence)),
        parents=[each.parent for each in objects],
    )
    return Merged(
        metadata,
        weights,
        {each.name: each.context for each in objects},
        {each.name: each.unconditional for each in objects},
        {each.name: each.reference for each in objects if each.reference is not None},
    )


def _check(objects: Sequence[MergeInput]) -> None:
    if not objects:
        raise ValueError("no objects to merge; give two or more files")
    names = [each.name for each in objects]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(
            f"several objects are called {first_few(twice)}; rename the files: objects are identified by name"
        )
    if len(bases := sorted({each.metadata.base for each in objects})) > 1:
        raise ValueError(
            f"these objects are for different bases ({first_few(bases)}); give objects learnt on one"
        )
