"""A loaded base that takes on one object after the other: all that inserting needs of a model."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from ldm.data.image import from_bytes, to_bytes
from ldm.data.insertset import load_insertset
from ldm.data.picture import Picture
from ldm.data.shown import reference_image
from ldm.insertion.blend import Blend
from ldm.insertion.insert import insert
from ldm.insertion.result import Result
from ldm.insertion.roi import crop
from ldm.insertion.sampling import Sampling, null_of
from ldm.insertion.subject import Subject
from ldm.insertion.task import Task
from ldm.models.architecture import Architecture
from ldm.models.base import Base, base_fingerprint, load_base, load_painter
from ldm.models.contexts import Contexts
from ldm.models.painter import Painter
from ldm.models.regions import in_regions
from ldm.models.runtime import PLAIN, Runtime, prepare
from ldm.objects import baked
from ldm.objects.applied import Applied, apply
from ldm.objects.delta import Delta, load
from ldm.objects.exchange import read_with_pictures
from ldm.objects.merged import apply_merged, load_merged, merged_contexts
from ldm.objects.pose import pose_of


@dataclass(frozen=True)
class Ready:
    """The subject that the base carries now; its contexts are of one sample.

    `own` uint8 [c,P,P] is the picture that came with the object, as it is shown.
    """

    subject: Subject
    contexts: Contexts
    applied: Applied | None = None
    own: Tensor | None = None


class Session:
    """A base, how it samples, what happens at the seam; `features`: see `read_with_pictures`.

    A painter alone serves baked objects; `fingerprint` is its base's.
    """

    def __init__(
        self, base: Painter, sampling: Sampling, seam: Blend, features: str = "raw", fingerprint: str = ""
    ) -> None:
        assert fingerprint or isinstance(base, Base), "a painter does not know its base's fingerprint"
        self.base = base
        self.fingerprint = fingerprint or base_fingerprint(base)  # type: ignore[arg-type]
        self.sampling, self.seam, self.features = sampling, seam, features
        self._ready: Ready | None = None

    def insert(self, background: Picture, tasks: Sequence[Task]) -> list[list[Result]]:
        """For each task a composite a seed, all in one batch; see `ldm.insertion.insert.insert`."""
        subjects = dict.fromkeys(subject for task in tasks for subject in task.subjects)
        made = {subject: self.take_on(subject).contexts for subject in subjects}
        contexts = [self._shared(task, made) if task.parts else made[task.subject] for task in tasks]
        # these are constants: they outlive the objects' weights
        return insert(self.base, background, tasks, contexts, self.sampling, self.seam)

    def _shared(self, task: Task, made: Mapping[Subject, Contexts]) -> Contexts:
        """The contexts of objects that share a square, each one's in its own mask."""
        [roi] = task.rois
        masks = torch.stack([torch.from_numpy(crop(mask, roi)).float() for _, mask in task.parts])
        side = self.base.architecture.image_size
        if max(roi.size) > side:  # no layer looks at it any finer
            masks = F.interpolate(masks[None], size=(side, side), mode="area")[0]
        return in_regions([made[subject] for subject, _ in task.parts], masks)

    def reference(self, subject: Subject) -> Tensor:
        """The picture that the subject is to look like, [1,c,P,P]; ValueError if there is none."""
        return self._reference(subject, self.take_on(subject).own)

    def take_on(self, subject: Subject) -> Ready:
        """Make the base carry this subject; the one before is taken off, exactly."""
        if self._ready is None or self._ready.subject != subject:
            self.put_down()
            makers = {"baked": self._baked, "merged": self._merged}
            self._ready = makers.get(subject.kind(), self._learnt)(subject)
        return self._ready

    def put_down(self) -> None:
        """Give the base its own weights back."""
        if self._ready is not None and self._ready.applied is not None:
            self._ready.applied.remove()
        self._ready = None

    def _baked(self, subject: Subject) -> Ready:
        assert subject.object is not None
        if subject.reference is not None:
            raise ValueError(
                f"{subject.object} is baked with its own reference and takes no other; "
                f"leave {subject.reference} out, or give the object file it was baked from"
            )
        made, s = baked.load(subject.object), self.sampling
        settled = (
            ("view", baked.view(made), s.view),
            ("guidance_from", baked.guidance_from(made), s.guidance_from),
        )
        for flag, own, asked in settled:
            if own != asked:
                raise ValueError(
                    f"{subject.object} is baked with {flag} {own}, asked for is {asked}; "
                    f"give --{flag} {own}, or bake it again with --{flag} {asked}"
                )
        return Ready(subject, baked.contexts(made, self.base, self.fingerprint, subject.strength))

    def _merged(self, subject: Subject) -> Ready:
        assert subject.object is not None and isinstance(self.base, Base)
        merged = load_merged(subject.object)
        if self.sampling.view > 0:
            raise ValueError(f"{subject.object} is a merged file, whose tokens all speak; leave --view out")
        name = subject.pick or (merged.names[0] if len(merged.names) == 1 else "")
        if not name:
            raise ValueError(f"{subject.object} holds {', '.join(merged.names)}; say which one: --pick NAME")
        merged = merged.pick(name)
        null = null_of(self.base, self.sampling)
        applied = apply_merged(self.base, merged, subject.strength, self.fingerprint)
        return Ready(subject, merged_contexts(self.base, merged, name, null), applied)

    @torch.no_grad()
    def _learnt(self, subject: Subject) -> Ready:
        """An object with its weights, or a reference alone."""
        base = self.base
        assert isinstance(base, Base), "an object that is not baked needs the whole base"
        delta = self._read(subject)
        own = None if delta is None else delta.reference
        reference, view, null = self._reference(subject, own), 0, null_of(base, self.sampling)
        if delta is not None:
            keep = subject.reference is not None
            reference, view = pose_of(delta, reference, self.sampling.view, keep)
            own = None if keep else to_bytes(reference[0])
        applied = None if delta is None else apply(base, delta, subject.strength, self.fingerprint)
        try:
            context = base.context(reference.to(base.device), view)
        except ValueError:
            if applied is not None:
                applied.remove()
            raise
        return Ready(subject, base.contexts(context, null, reference), applied, own)

    def _read(self, subject: Subject) -> Delta | None:
        """The object file, or a .ckpt of the paper's code together with the object's pictures."""
        if subject.object is None:
            return None
        if subject.kind() != "pickle":
            return load(subject.object)
        assert subject.pictures is not None, "a subject is checked before it is used"
        assert isinstance(self.base, Base)
        pictures = load_insertset(subject.pictures)
        return read_with_pictures(subject.object, self.base, pictures, self.features, self.fingerprint)

    def _reference(self, subject: Subject, own: Tensor | None) -> Tensor:
        if subject.reference is not None:
            return reference_image(subject.reference, *self.base.architecture.shown)
        if own is not None:
            return from_bytes(own[None])
        if subject.pictures is not None:
            return reference_image(load_insertset(subject.pictures).reference, *self.base.architecture.shown)
        raise ValueError(
            f"{subject.object}: has no reference picture of its own; give one: --reference PICTURE"
        )


def open_session(
    path: Path,
    architecture: Architecture,
    subjects: Iterable[Subject],
    sampling: Sampling,
    seam: Blend,
    features: str = "raw",
    device: str = "cpu",
    runtime: Runtime = PLAIN,
) -> Session:
    """Load what these subjects need of the base at `path`: if all are baked, neither CLIP nor K and V."""
    if all(_is_baked(subject) for subject in subjects):
        painter, fingerprint = load_painter(path, architecture, device=device)
        session = Session(painter, sampling, seam, features, fingerprint)
    else:
        session = Session(load_base(path, architecture, device=device), sampling, seam, features)
    prepare(session.base, runtime)  # behind the fingerprint, which is that of the weights in the file
    return session


def _is_baked(subject: Subject) -> bool:
    try:
        return subject.kind() == "baked"
    except (ValueError, FileNotFoundError):
        return True  # it will be skipped or refused, and needs no model
