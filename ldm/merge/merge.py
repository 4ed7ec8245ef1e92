"""Several objects in one set of K/V weights, in closed form."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from pathlib import Path

import torch
from torch import Tensor
from torch.linalg import cholesky_ex, solve_triangular

from ldm.data.image import SUFFIXES, to_bytes
from ldm.data.object_crops import NEAREST, ObjectImages
from ldm.merge.merged_file import Merged
from ldm.models.base import Base
from ldm.models.state_dict import some
from ldm.objects.apply import apply
from ldm.objects.delta import Delta, is_trained
from ldm.objects.object_context import view_of
from ldm.objects.object_file import About

RIDGE = 1e-2  # of the mean variance, added to a second moment: what few contexts do not show still counts


@torch.no_grad()
def contexts_of(
    base: Base,
    paths: Sequence[Path],
    images: ObjectImages,
    progress: Callable[[list[Path]], Iterable[Path]] = iter,
) -> Tensor:
    """Pictures, or folders of them => tokens [n,d] that the base makes of them, and its unconditional one.

    Raises FileNotFoundError or ValueError in one line. `progress` wraps the list of pictures.
    """
    rows = [base.context(images.reference(file))[0] for file in progress(_pictures(paths))]
    return torch.cat([*rows, base.conditioner.learnable_vector[0]])


def second_moment(contexts: Tensor) -> Tensor:
    """Context tokens [n,d] that the base is used with => second moment [d,d], made positive definite."""
    tokens = contexts.double()
    moment = tokens.T @ tokens / len(tokens)
    return moment + RIDGE * moment.diagonal().mean() * torch.eye(len(moment)).to(moment)


def _pictures(paths: Sequence[Path]) -> list[Path]:
    if missing := [path for path in paths if not path.exists()]:
        raise FileNotFoundError(f"{missing[0]}: no such picture or folder")
    files = [file for path in paths for file in (sorted(path.iterdir()) if path.is_dir() else [path])]
    pictures = [file for file in files if file in paths or file.suffix.lower() in SUFFIXES]
    if not pictures:
        raise ValueError(
            f"{paths[0]} holds no pictures ({', '.join(SUFFIXES)}); give pictures, or folders of them"
        )
    return pictures


RCOND = 1e-6  # tokens are fp32: directions in which they differ by less, of the largest one, are noise
FP16_LOSS = 1e-3  # of the objects' own changes, beyond which the weights are kept in fp32


@dataclass(frozen=True, eq=False)
class Member:
    """What a merge must keep of one object; every K/V weight's `wanted` and `change` are [2+N,out], float64.

    `context` [1+N,d] and `unconditional` [d] are its tokens, made by its own conditioner; `wanted`: W_i c of
    these 2+N tokens, `change`: (W_i - W) c; `size` is |W_i - W| of all weights together.
    """

    name: str
    about: About
    parent: Mapping[str, str]
    context: Tensor
    unconditional: Tensor
    wanted: Mapping[str, Tensor]
    change: Mapping[str, Tensor]
    size: float
    reference: Tensor | None = None  # uint8 [c,P,P], where the base needs it

    @property
    def tokens(self) -> Tensor:
        """[2+N,d], float64."""
        return torch.cat([self.context, self.unconditional[None]]).double()


@dataclass(frozen=True)
class MergeReport:
    """How well the stored weights keep their promise.

    `residual`: by object, |W c - W_i c| / |W_i c| of its worst K or V. `lost`: the same difference over all
    layers, relative to what the object had changed, |(W_i - W_base) c|. `rank` of `tokens` tokens were
    independent. `growth`: |change of W| relative to that of the object with the largest one.
    """

    residual: Mapping[str, float]
    lost: Mapping[str, float]
    rank: int
    tokens: int
    growth: float


@torch.no_grad()
def member(
    base: Base,
    delta: Delta,
    name: str,
    images: ObjectImages,
    parent: Mapping[str, str] | None = None,
    fingerprint: str = "",
) -> Member:
    """What a merge must keep of this object, with its own reference and the token nearest to it.

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
    shown = to_bytes(view.picture[0]) if images.stored else None
    kept = (context, unconditional, wanted, change, size**0.5, shown)
    return Member(name, delta.about, parent or {"name": name}, *kept)


def refuse_unmergeable(delta: Delta) -> None:
    """ValueError if the object changes weights of the UNet other than K and V."""
    other = [key for key in delta.weights if key.startswith("unet.") and not is_trained(key, "crossattn-kv")]
    if other:
        raise ValueError(
            f"this object was learnt with freeze_model {delta.about.freeze_model!r}: it also changes "
            f"{some(other, 1)}, which objects cannot share; learn it with freeze_model=crossattn-kv"
        )


def kv_weights(base: Base) -> dict[str, Tensor]:
    """The weights of every cross-attention's K and V, by house name."""
    return {
        name: value
        for name, value in base.named_parameters()
        if name.startswith("unet.") and is_trained(name, "crossattn-kv")
    }


def right_inverse(tokens: Tensor, moment: Tensor | None = None, rcond: float = RCOND) -> tuple[Tensor, int]:
    """Tokens C [m,d] => P [d,m] such that D = (P Y)^T is the smallest D [out,d] with C D^T = Y; and C's rank.

    Smallest in tr(D M D^T) for a positive definite `moment` M [d,d], else in tr(D D^T). Dependent tokens are
    no problem; if they contradict each other, C D^T is the nearest to Y that exists. float64.
    """
    tokens = tokens.double()
    if moment is None:
        return _pseudo_inverse(tokens, rcond)
    factor, failed = cholesky_ex(moment.double())  # M = L L^T; the smallest D L is looked for
    if failed:
        raise ValueError("the second moment is not positive definite; make it with second_moment")
    whitened = solve_triangular(factor, tokens.T, upper=False).T
    inverse, rank = _pseudo_inverse(whitened, rcond)
    return solve_triangular(factor.T, inverse, upper=True), rank


def merge(
    members: Sequence[Member], moment: Tensor | None = None, dtype: torch.dtype | None = None
) -> tuple[Merged, MergeReport]:
    """One set of K/V weights for all objects; order does not matter. `moment` [d,d] weighs the change.

    `dtype` of the stored differences: by default fp16, or fp32 if fp16 lost more than 0.1 % of what an object
    had changed. Raises ValueError if names are not unique, or bases differ.
    """
    _check(members)
    tokens = torch.cat([each.tokens for each in members])
    inverse, rank = right_inverse(tokens, moment)
    exact = {
        name: (inverse @ torch.cat([each.change[name] for each in members])).T for name in members[0].change
    }
    weights = {name: value.to(dtype or torch.float16) for name, value in exact.items()}
    if dtype is None and max(_misfit(each, weights)[1] for each in members) > FP16_LOSS:
        weights = {name: value.float() for name, value in exact.items()}
    misfits = {each.name: _misfit(each, weights) for each in members}
    growth = _norm(weights.values()) / max(max(each.size for each in members), 1e-30)
    residual, lost = ({name: pair[i] for name, pair in misfits.items()} for i in (0, 1))
    report = MergeReport(residual, lost, rank, len(tokens), growth)
    return _merged(members, weights, report, weighted=moment is not None), report


def _pseudo_inverse(matrix: Tensor, rcond: float) -> tuple[Tensor, int]:
    u, s, vh = torch.linalg.svd(matrix, full_matrices=False)
    rank = int((s > rcond * s[0]).sum())
    return (vh[:rank].T / s[:rank]) @ u[:, :rank].T, rank


def _misfit(each: Member, weights: Mapping[str, Tensor]) -> tuple[float, float]:
    """Of one object: its worst layer's error relative to K or V, and all layers' relative to its change."""
    tokens, worst = each.tokens, 0.0
    errors = {name: tokens @ value.double().T - each.change[name] for name, value in weights.items()}
    for name, error in errors.items():
        worst = max(worst, float(error.norm() / each.wanted[name].norm().clamp_min(1e-30)))
    return worst, _norm(errors.values()) / max(_norm(each.change.values()), 1e-30)


def joint_about(
    abouts: Sequence[About], parents: Sequence[Mapping[str, str]], recipe: Mapping[str, object]
) -> About:
    """What a file made of several objects says about itself: now, all their authors and licences."""
    first = abouts[0]
    modes = {about.freeze_model for about in abouts}
    return About(
        base=first.base,
        architecture=first.architecture,
        freeze_model=first.freeze_model if len(modes) == 1 else "crossattn",
        recipe=dict(recipe),
        date=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        author="; ".join(dict.fromkeys(about.author for about in abouts if about.author)),
        licence="; ".join(dict.fromkeys(about.licence for about in abouts if about.licence)),
        parents=list(parents),
    )


def _norm(tensors: Iterable[Tensor]) -> float:
    """The Frobenius norm of all together."""
    return sum(float(value.double().square().sum()) for value in tensors) ** 0.5


def _merged(
    members: Sequence[Member], weights: Mapping[str, Tensor], report: MergeReport, *, weighted: bool
) -> Merged:
    record = {"weighted": weighted, "residual": dict(report.residual), "lost": dict(report.lost)}
    record |= {"rank": report.rank, "tokens": report.tokens, "growth": report.growth}
    about = joint_about(
        [each.about for each in members], [each.parent for each in members], {"merged": record}
    )
    return Merged(
        replace(about, kind="merged", freeze_model="crossattn-kv"),
        weights,
        {each.name: each.context for each in members},
        {each.name: each.unconditional for each in members},
        {each.name: each.reference for each in members if each.reference is not None},
    )


def _check(members: Sequence[Member]) -> None:
    if not members:
        raise ValueError("no objects to merge; give two or more files")
    names = [each.name for each in members]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(
            f"several objects are called {some(twice)}; rename the files, names tell objects apart"
        )
    if len(bases := sorted({each.about.base for each in members})) > 1:
        raise ValueError(f"these objects are for different bases ({some(bases)}); give objects learnt on one")
