"""A merged file: several objects that share one set of K/V weights, see `merge`.

It holds the weights' differences to the base once, and each object's context [1+N,d] and unconditional vector
[d]. These are finished tokens: the conditioner's weights are not needed, and no other reference can be used.
If the base needs them, it also holds the objects' pictures.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from ldm.data.image import from_bytes
from ldm.insertion.object_source import ObjectSource
from ldm.insertion.region import InsertableObject
from ldm.insertion.session import LoadedObject, Session
from ldm.models.base import Base
from ldm.models.checkpoint import first_few
from ldm.models.cross_attention import Context, Contexts
from ldm.objects.delta import DIFFERENCE, AppliedObject, Delta, apply, removed_on_failure
from ldm.objects.object_context import null_context
from ldm.objects.object_file import CONTEXT, ObjectMetadata, read_object, write_object

UNCONDITIONAL, REFERENCES = "unconditional.", "reference."  # prefixes of the file's tensors, like CONTEXT


@dataclass(frozen=True, eq=False)
class Merged:
    """`weights`: K/V weight => difference to the base; by object: `context` [1+N,d], `unconditional` [d].

    `references`: by object its picture, uint8 [c,P,P], if the base needs it.
    """

    metadata: ObjectMetadata
    weights: Mapping[str, Tensor]
    context: Mapping[str, Tensor]
    unconditional: Mapping[str, Tensor]
    references: Mapping[str, Tensor] = field(default_factory=dict)

    @property
    def names(self) -> list[str]:
        """The objects' names, sorted."""
        return sorted(self.context)

    def contexts(self, name: str) -> tuple[Tensor, Tensor]:
        """An object's context and unconditional context, both [1,1+N,d]; ValueError for an unknown name."""
        if name not in self.context:
            raise ValueError(f"no object {name} in this file; there are {first_few(self.names, 10)}")
        context = self.context[name][None]
        return context, self.unconditional[name].expand_as(context)


def save_merged(merged: Merged, path: Path) -> None:
    """Write the object file, atomically."""
    groups = {DIFFERENCE: merged.weights, CONTEXT: merged.context, UNCONDITIONAL: merged.unconditional}
    groups[REFERENCES] = merged.references
    tensors = {prefix + key: value for prefix, group in groups.items() for key, value in group.items()}
    write_object(path, tensors, merged.metadata)


def load_merged(path: Path) -> Merged:
    """Read a file of several objects; ValueError in one line if it is damaged, too new or of another kind."""
    tensors, metadata = read_object(Path(path), "merged")
    weights, context, unconditional, references = (
        {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}
        for prefix in (DIFFERENCE, CONTEXT, UNCONDITIONAL, REFERENCES)
    )
    whole = sum(map(len, (weights, context, unconditional, references))) == len(tensors)
    if not whole or not context or not _matching(context, unconditional):
        raise ValueError(
            f"{path}: its objects' tokens are not complete, or other tensors are there; merge again"
        )
    return Merged(metadata, weights, context, unconditional, references)


def apply_merged(
    base: Base, merged: Merged, object_scale: float = 1.0, fingerprint: str = ""
) -> AppliedObject:
    """Apply the shared K/V weights to the base; the objects' contexts are `merged.contexts(name)`.

    `object_scale` scales the weights' differences, not the tokens. Raises ValueError, and changes nothing, if
    they are for another base, do not fit, or another object is still applied.
    """
    width = base.architecture.context_width
    if wrong := [name for name, value in merged.context.items() if value.shape[1] != width]:
        raise ValueError(
            f"the tokens of {first_few(wrong)} do not have this base's width {width}; merge on this base"
        )
    return apply(base, Delta(merged.metadata, merged.weights), object_scale, fingerprint)


@torch.no_grad()
def merged_contexts(base: Base, merged: Merged, name: str, null: Context | None = None) -> Contexts:
    """One object's folded contexts, for a base with the shared weights applied; ValueError as `contexts`.

    `null`: an unconditional context in place of the object's.
    """
    conditional, unconditional = merged.contexts(name)
    like = base.conditioner.learnable_vector
    return base.folded(conditional.to(like), unconditional.to(like) if null is None else null)


def verify_merged(path: Path, base: Base | None = None, fingerprint: str = "") -> None:
    """Read a whole merged file and check it against a base if one is given."""
    merged = load_merged(path)
    if base is not None:
        apply_merged(base, merged, fingerprint=fingerprint).remove()


def _matching(context: Mapping[str, Tensor], unconditional: Mapping[str, Tensor]) -> bool:
    return context.keys() == unconditional.keys() and all(
        value.ndim == 2 and unconditional[name].shape == value.shape[1:] for name, value in context.items()
    )


def open_merged(session: Session, source: ObjectSource) -> LoadedObject:
    """Open one object of a merged file for a session, see `ldm.insertion.session.ObjectLoader`."""
    base, sampling = session.base, session.options.sampling
    assert source.object is not None and isinstance(base, Base)
    if source.reference is not None:
        raise ValueError(
            f"{source.object} is a merged file, whose objects take no other reference; "
            f"leave {source.reference} out, or give the object's own file"
        )
    merged = load_merged(source.object)
    if sampling.reference_view > 0:
        raise ValueError(
            f"{source.object} is a merged file, which uses all its tokens; leave --reference_view out"
        )
    name = source.pick or (merged.names[0] if len(merged.names) == 1 else "")
    if not name:
        raise ValueError(f"{source.object} holds {', '.join(merged.names)}; choose one: --pick NAME")
    merged.contexts(name)  # before the base is changed
    null = null_context(base, sampling.guidance_from)
    stored = merged.references.get(name)
    fill = session.make_fill(None if stored is None else from_bytes(stored[None]))
    applied = apply_merged(base, merged, source.object_scale, session.fingerprint)
    with removed_on_failure(applied):
        contexts = merged_contexts(base, merged, name, null)
    return LoadedObject(source, InsertableObject(contexts, fill), applied, stored)
