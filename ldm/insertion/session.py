"""A loaded base that objects are applied to, one at a time, and inserted with."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

from torch import Tensor

from ldm.data.image import from_bytes, to_bytes
from ldm.data.insertset import load_insertset
from ldm.data.object_crops import ObjectImages
from ldm.data.picture import Picture
from ldm.insertion.insert import InsertOptions, insert
from ldm.insertion.object_source import ObjectSource
from ldm.insertion.region import InsertableObject, InsertRequest, MakeFill, Result, grey_fill
from ldm.models.base import Base, base_fingerprint
from ldm.models.inpainting_model import InpaintingModel
from ldm.objects import baked
from ldm.objects.delta import AppliedObject, Delta, apply, load, removed_on_failure
from ldm.objects.object_context import null_context, object_contexts, view_of
from ldm.objects.paper_file import read_with_pictures


@dataclass(frozen=True)
class LoadedObject:
    """The object that is applied to the base; `reference` uint8 [c,P,P] is stored with it."""

    source: ObjectSource
    object: InsertableObject
    applied: AppliedObject | None = None
    reference: Tensor | None = None
    files: tuple = ()  # `ObjectSource.state` when it was loaded


class Session:
    """A base, options of insertion, the kind of object images (`images`) and fills (`make_fill`) of the base.

    `loaders`: further kinds of object files. For baked objects an inpainting model is enough; it needs the
    `fingerprint` of its base.
    """

    def __init__(
        self,
        base: InpaintingModel,
        options: InsertOptions,
        *,
        images: ObjectImages | None = None,
        make_fill: MakeFill = grey_fill,
        loaders: Mapping[str, ObjectLoader] | None = None,
        fingerprint: str = "",
    ) -> None:
        assert fingerprint or isinstance(base, Base), "an inpainting model needs the fingerprint of its base"
        self.base, self.options = base, options
        self.fingerprint = fingerprint or base_fingerprint(base)  # type: ignore[arg-type]
        self.images = images or ObjectImages(base.architecture.reference_size)
        self.make_fill = make_fill
        self.loaders = {"baked": open_baked, **(loaders or {})}
        self._loaded: LoadedObject | None = None

    def insert(
        self,
        background: Picture,
        requests: Sequence[InsertRequest],
        objects: Sequence[InsertableObject] | None = None,
    ) -> list[list[Result]]:
        """For each request one composite per seed, all in one batch; see `ldm.insertion.insert.insert`.

        `objects`: one for each request, instead of those of their sources.
        """
        if objects is None:  # contexts are constants: they stay valid when another object is applied
            made = {source: self.ready(source) for source in dict.fromkeys(t.source for t in requests)}
            objects = [made[request.source] for request in requests]
        return insert(self.base, background, requests, objects, self.options)

    def reference(self, source: ObjectSource) -> Tensor:
        """The reference image of an object, [1,c,P,P]; ValueError if there is none."""
        return self._reference(source, self.load_object(source).reference)

    def ready(self, source: ObjectSource) -> InsertableObject:
        """The object, ready to be inserted."""
        return self.load_object(source).object

    def zero_shot(self, source: ObjectSource) -> InsertableObject:
        """The base as it is, with the picture that this object shows as its reference."""
        reference = self.reference(source)
        self.unload_object()
        assert isinstance(self.base, Base), "a baked object needs only a part of the base"
        null = null_context(self.base, self.options.sampling.guidance_from)
        view = view_of(self.images, None, reference, 0)
        return InsertableObject(object_contexts(self.base, view, null), self.make_fill(view.picture))

    def load_object(self, source: ObjectSource) -> LoadedObject:
        """Apply this object to the base; the weights of the base are restored exactly before."""
        files = source.state()
        if self._loaded is None or (self._loaded.source, self._loaded.files) != (source, files):
            self.unload_object()
            loaded = self.loaders.get(source.kind(), open_learnt)(self, source)
            self._loaded = replace(loaded, files=files)
        return self._loaded

    def unload_object(self) -> None:
        """Restore the weights of the base."""
        if self._loaded is not None and self._loaded.applied is not None:
            self._loaded.applied.remove()
        self._loaded = None

    def _reference(self, source: ObjectSource, own: Tensor | None) -> Tensor:
        if source.reference is not None:
            return self.images.reference(source.reference)
        if own is not None:
            return from_bytes(own[None])
        if source.pictures is not None:
            return self.images.reference(load_insertset(source.pictures).reference)
        flag = "--dataset-dir FOLDER" if source.kind() in self.loaders else "--reference PICTURE"
        raise ValueError(f"{source.object}: has no reference picture of its own; give one: {flag}")

    def _read(self, source: ObjectSource) -> Delta | None:
        """The object file, or a .ckpt of the paper's code together with the object's pictures."""
        if source.object is None:
            return None
        if source.kind() != "pickle":
            return load(source.object)
        assert source.pictures is not None, "a source is checked before it is used"
        assert isinstance(self.base, Base)
        pictures = load_insertset(source.pictures)
        return read_with_pictures(source.object, self.base, pictures, self.images, self.fingerprint)


ObjectLoader: TypeAlias = Callable[[Session, ObjectSource], LoadedObject]


def open_learnt(session: Session, source: ObjectSource) -> LoadedObject:
    """Open an object file with weights, or a reference alone (zero-shot)."""
    base, sampling = session.base, session.options.sampling
    assert isinstance(base, Base), "an object that is not baked needs the whole base"
    delta = session._read(source)
    own = None if delta is None else delta.reference
    given = None if source.reference is None and own is not None else session._reference(source, own)
    null = null_context(base, sampling.guidance_from)
    view = view_of(session.images, delta, given, sampling.reference_view, keep=source.reference is not None)
    if delta is not None and source.reference is None:
        own = to_bytes(view.picture[0])
    fill = session.make_fill(view.picture)
    applied = None if delta is None else apply(base, delta, source.object_scale, session.fingerprint)
    with removed_on_failure(applied):
        contexts = object_contexts(base, view, null)
    return LoadedObject(source, InsertableObject(contexts, fill), applied, own)


def open_baked(session: Session, source: ObjectSource) -> LoadedObject:
    """Open a baked object; its constants must have been made with the session's settings."""
    assert source.object is not None
    if source.reference is not None:
        raise ValueError(
            f"{source.object} is baked with its own reference and takes no other; "
            f"leave {source.reference} out, or give the object file it was baked from"
        )
    made, s = baked.load(source.object), session.options.sampling
    settled = (
        ("reference_view", baked.reference_view(made), s.reference_view),
        ("guidance_from", baked.guidance_from(made), s.guidance_from),
    )
    for flag, own, asked in settled:
        if own != asked:
            raise ValueError(
                f"{source.object} is baked with {flag} {own}, asked for is {asked}; "
                f"give --{flag} {own}, or bake it again with --{flag} {asked}"
            )
    contexts = baked.contexts(made, session.base, session.fingerprint, source.object_scale)
    insertable = InsertableObject(contexts, session.make_fill(baked.picture(made)))
    return LoadedObject(source, insertable, reference=made.reference)
