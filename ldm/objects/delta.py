"""A learnt object as the weights that training changed: which ones, how a file holds them, how it is applied.

`is_trained` selects them: K and V of the cross-attention, or all of it, and the conditioner without CLIP.

A `Delta` holds differences to the base (fp16, small; matrices may be of low rank) or the tuned values (fp32,
bit-exact: base + (tuned - base) may round), under diffusers names, and the few-shot tokens. A matrix of low
rank is the product of two thin ones, `up.NAME` and `down.NAME` in a file.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Literal, TypeAlias, get_args

import torch
from torch import Tensor

from ldm.models.base import Base, base_fingerprint
from ldm.models.checkpoint import first_few
from ldm.models.weight_files import fingerprint
from ldm.objects.object_file import REFERENCE, VIEWS, ObjectMetadata, check_base, read_object, write_object

FreezeModel = Literal["crossattn-kv", "crossattn"]
FREEZE_MODELS = get_args(FreezeModel)
TUNED_CONDITIONER = ("mapper", "final_ln", "proj_out", "learnable_vector")
FEW_SHOT = ("conditioner.prior_encoder.", "conditioner.few_shot_tokens")
DIFFERENCE, TUNED = "delta.", "tuned."  # prefixes of the file's tensors
TOKENS = "few_shot_tokens"


def trained_names(base: Base, freeze_model: str) -> list[str]:
    """The weights that learning an object changes, with its few-shot part, in the base's order.

    `crossattn-kv`: K and V of all cross-attentions, `crossattn`: all their weights; in both cases also the
    conditioner without CLIP.
    """
    return [name for name, _ in base.named_parameters() if is_trained(name, freeze_model)]


def is_trained(name: str, freeze_model: str) -> bool:
    """Whether learning an object changes the weight of this (diffusers) name; see `trained_names`."""
    if freeze_model not in FREEZE_MODELS:
        raise ValueError(
            f"freeze_model {freeze_model!r} is unknown; choose one of {', '.join(FREEZE_MODELS)}"
        )
    levels = name.split(".")
    if levels[0] == "unet" and "attn2" in levels:
        return freeze_model == "crossattn" or levels[levels.index("attn2") + 1] in ("to_k", "to_v")
    return levels[0] == "conditioner" and (levels[1] in TUNED_CONDITIONER or name.startswith(FEW_SHOT))


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


@dataclass(frozen=True, eq=False)
class Delta:
    """One object. `weights`: name => difference to the base, or the tuned value if `absolute`.

    `tokens` [N,c] are the few-shot tokens before the mapper, `reference` uint8 [c,P,P] the object's picture,
    `views` uint8 [N,c,P,P] its few-shot pictures, if the base needs them.
    """

    metadata: ObjectMetadata
    weights: Mapping[str, Weight]
    absolute: bool = False
    tokens: Tensor | None = None
    reference: Tensor | None = None
    views: Tensor | None = None

    def tuned(self, name: str, base_value: Tensor, object_scale: float = 1.0) -> Tensor:
        """The tuned weight, fp32, given the base's; `object_scale` scales the difference."""
        if self.absolute and object_scale == 1:
            return dense(self.weights[name]).to(base_value.device)
        return base_value.detach().float() + object_scale * self.difference(name, base_value)

    def difference(self, name: str, base_value: Tensor) -> Tensor:
        """The tuned weight minus the base's, fp32."""
        weight = dense(self.weights[name]).to(base_value.device)
        return weight - base_value.detach().float() if self.absolute else weight


def extract(
    base_state: Mapping[str, Tensor],
    tuned_state: Mapping[str, Tensor],
    names: Collection[str],
    metadata: ObjectMetadata,
    *,
    tokens: Tensor | None = None,
    reference: Tensor | None = None,
    views: Tensor | None = None,
    dtype: torch.dtype = torch.float16,
) -> Delta:
    """Two states => the weights `names` as fp16 differences or, with fp32 as `dtype`, as tuned values.

    Names of the few-shot part are skipped: its outputs, `tokens`, are kept instead.
    """
    names = [name for name in names if not name.startswith(FEW_SHOT)]
    if missing := [name for name in names if name not in base_state or name not in tuned_state]:
        raise ValueError(
            f"{first_few(missing)}: not in both states; give the base and a run that was made on it"
        )
    absolute = dtype == torch.float32
    weights = {name: tuned_state[name].detach().float() for name in names}
    if not absolute:
        weights = {name: (value - base_state[name].float()).to(dtype) for name, value in weights.items()}
    tokens = None if tokens is None else tokens.detach().float()
    return Delta(metadata, weights, absolute, tokens, reference, views)


def differences(delta: Delta, base_state: Mapping[str, Tensor] | None = None) -> dict[str, Tensor]:
    """Tuned minus base of every weight, fp32. An object of tuned values needs the `base_state`."""
    if not delta.absolute:
        return {name: dense(weight) for name, weight in delta.weights.items()}
    if base_state is None:
        raise ValueError("this object holds tuned fp32 values, not differences: give the base it was made on")
    if (given := fingerprint(base_state)) != delta.metadata.base:
        raise ValueError(f"this object is for the base {delta.metadata.base}, not {given}; give its own base")
    return {name: delta.difference(name, base_state[name]) for name in delta.weights}


def save(delta: Delta, path: Path) -> None:
    """Write the object file, atomically."""
    tensors = pack(delta.weights, TUNED if delta.absolute else DIFFERENCE)
    extra = {TOKENS: delta.tokens, REFERENCE: delta.reference, VIEWS: delta.views}
    low_rank = any(isinstance(weight, LowRank) for weight in delta.weights.values())
    version = 2 if low_rank else 1
    given = {key: value for key, value in extra.items() if value is not None}
    write_object(path, tensors | given, delta.metadata, version)


def load(path: Path) -> Delta:
    """Read an object file; ValueError in one line if it is damaged, too new or of another kind."""
    tensors, metadata = read_object(Path(path), "delta")
    tokens, reference, views = (tensors.pop(key, None) for key in (TOKENS, REFERENCE, VIEWS))
    absolute = any(key.startswith(TUNED) for key in tensors)
    prefixes = (TUNED,) if absolute else (DIFFERENCE, UP, DOWN)
    if strange := [key for key in tensors if not key.startswith(prefixes)]:
        raise ValueError(f"{path}: {first_few(strange)} do not belong in an object file; write it again")
    if (0 if tokens is None else len(tokens)) != metadata.few_shot_count:
        raise ValueError(
            f"{path}: it does not hold its {metadata.few_shot_count} few-shot tokens; write it again"
        )
    return Delta(metadata, unpack(tensors, prefixes[0], path), absolute, tokens, reference, views)


class AppliedObject:
    """A base with an object applied. `remove`, or the end of a `with` block, restores it bit by bit."""

    def __init__(self, base: Base, originals: Mapping[str, Tensor]) -> None:
        self.base, self.originals, self.active = base, originals, True

    def remove(self) -> None:
        """Restore the base exactly; a second call does nothing."""
        if self.active:
            _write(self.base, self.originals)
            self.base.conditioner.drop_few_shot()
        self.active = False

    def __enter__(self) -> AppliedObject:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.remove()


def apply(base: Base, delta: Delta, object_scale: float = 1.0, fingerprint: str = "") -> AppliedObject:
    """Change the base in place; `object_scale` scales the weights' differences, not the tokens.

    `fingerprint`: the base's, needed if its weights were cast since it was loaded. Raises ValueError, and
    changes nothing, if the object is for another base, does not fit, or another object is still applied.
    After any other error, too, the base is as before.
    """
    check_fits(base, delta, fingerprint or base_fingerprint(base))
    weights = dict(base.named_parameters())
    originals = {name: weights[name].detach().clone() for name in delta.weights}
    applied = AppliedObject(base, originals)
    with removed_on_failure(applied):
        _write(base, {name: delta.tuned(name, value, object_scale) for name, value in originals.items()})
        if delta.tokens is not None:
            base.conditioner.use_tokens(delta.tokens.to(weights["conditioner.proj_out.weight"]))
            base.conditioner.few_shot_tokens.requires_grad_(False)  # type: ignore[union-attr]
    return applied


@contextmanager
def removed_on_failure(applied: AppliedObject | None) -> Iterator[None]:
    """Restore the base if the block fails or is interrupted; else the object stays applied."""
    try:
        yield
    except BaseException:
        if applied is not None:
            applied.remove()
        raise


def check_fits(base: Base, delta: Delta, fingerprint: str) -> None:
    """ValueError unless the object was made for a base of this fingerprint and fits into it."""
    conditioner = base.conditioner
    if conditioner.few_shot_tokens is not None or conditioner.prior_encoder is not None:
        raise ValueError("another object is applied to the base; remove it first")
    check_base(delta.metadata, fingerprint, base.architecture.name)
    if not any(name.startswith("unet.") for name in delta.weights):
        raise ValueError(
            "this object has no weights of the UNet, as the conditioner that convert --to diffusers writes; "
            "give the object file"
        )
    own = {k: v.shape for k, v in base.named_parameters() if is_trained(k, "crossattn")}
    width = base.architecture.clip_width
    wrong = [name for name, value in delta.weights.items() if own.get(name) != value.shape]
    if delta.tokens is not None and (delta.tokens.ndim != 2 or delta.tokens.shape[1] != width):
        wrong.append(TOKENS)
    if wrong:
        raise ValueError(
            f"this object does not fit the base, in name or shape: {first_few(wrong)}; learn it on this base"
        )


@torch.no_grad()
def _write(base: Base, weights: Mapping[str, Tensor]) -> None:
    own = dict(base.named_parameters())
    for name, value in weights.items():
        own[name].copy_(value)
