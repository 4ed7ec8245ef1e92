"""A loaded base that takes on one object after the other: all that inserting needs of a model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ldm.data.insertset import load_insertset
from ldm.data.pairs import few_shot_crops, reference_image
from ldm.data.picture import Picture
from ldm.insertion.blend import Blend
from ldm.insertion.insert import Result, Sampling, insert
from ldm.insertion.roi import Roi
from ldm.insertion.subject import Subject
from ldm.models.base import Base, base_fingerprint
from ldm.models.pickles import PICKLES
from ldm.objects.delta import Applied, Delta, apply, load
from ldm.objects.exchange import load_ldm_delta


@dataclass(frozen=True)
class Ready:
    """The subject that the base carries now: its reference [1,3,R,R] in [-1,1] and context [1,n,d]."""

    subject: Subject
    reference: Tensor
    context: Tensor
    applied: Applied | None


class Session:
    """A base, how it samples, what happens at the seam; `features`: see `load_ldm_delta`."""

    def __init__(self, base: Base, sampling: Sampling, seam: Blend, features: str = "raw") -> None:
        self.base, self.fingerprint = base, base_fingerprint(base)
        self.sampling, self.seam, self.features = sampling, seam, features
        self._ready: Ready | None = None

    def insert(
        self,
        subject: Subject,
        background: Picture,
        mask: np.ndarray,
        rois: Sequence[Roi],
        seeds: Sequence[int],
    ) -> list[Result]:
        """One composite a seed; see `ldm.insertion.insert.insert`."""
        context = self.take_on(subject).context
        return insert(self.base, context, background, mask, rois, seeds, self.sampling, self.seam)

    def reference(self, subject: Subject) -> Tensor:
        """The picture that the subject is to look like, [1,3,R,R] in [-1,1]."""
        return self.take_on(subject).reference

    def take_on(self, subject: Subject) -> Ready:
        """Make the base carry this subject; the one before is taken off, exactly."""
        if self._ready is None or self._ready.subject != subject:
            self.put_down()
            delta = self._read(subject)
            reference = self._reference(subject, delta)
            applied = None if delta is None else apply(self.base, delta, subject.strength, self.fingerprint)
            with torch.no_grad():
                context = self.base.context(reference.to(self.base.device))
            self._ready = Ready(subject, reference, context, applied)
        return self._ready

    def put_down(self) -> None:
        """Give the base its own weights back."""
        if self._ready is not None and self._ready.applied is not None:
            self._ready.applied.remove()
        self._ready = None

    def _read(self, subject: Subject) -> Delta | None:
        """The object file, or a .ckpt of the paper's code together with the object's pictures."""
        if subject.object is None:
            return None
        if subject.object.suffix not in PICKLES:
            return load(subject.object)
        assert subject.pictures is not None, "a subject is checked before it is used"
        crops = few_shot_crops(load_insertset(subject.pictures), self.base.architecture.reference_size)
        return load_ldm_delta(subject.object, self.base, crops, self.features)

    def _reference(self, subject: Subject, delta: Delta | None) -> Tensor:
        size = self.base.architecture.reference_size
        if subject.reference is not None:
            return reference_image(subject.reference, size)
        if delta is not None and delta.reference is not None:
            return delta.reference[None].float() / 127.5 - 1
        if subject.pictures is not None:
            return reference_image(load_insertset(subject.pictures).reference, size)
        raise ValueError(
            f"{subject.object}: has no reference picture of its own; give one: --reference PICTURE"
        )
