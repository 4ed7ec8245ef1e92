"""The ways to insert an object that are compared, from pasting its picture to the ceiling of any method.

A method is made for one object and fills one scene after the other: `Fill`, scene and views => picture.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ldm.data.image import resize
from ldm.data.insertset import InsertSet
from ldm.data.picture import Picture
from ldm.evaluation.bench import Scene, Views
from ldm.evaluation.fills import PASTES
from ldm.insertion.paste import paste_region, patched, region
from ldm.insertion.region_fill import ReadyObject
from ldm.insertion.roi import Roi, crop
from ldm.insertion.session import Session
from ldm.insertion.subject import Subject
from ldm.insertion.task import Task
from ldm.models.base import Base
from ldm.models.painter import Painter

Fill = Callable[[Scene, Views], Picture]
METHODS = {  # in the order of the report
    "flat": "reference pasted flat into the mask",
    "cut-out": "reference cut out and pasted: no model",
    "zero-shot": "base as it is, one reference",
    "zero-shot-tokens": "base as it is, few-shot tokens",
    "crossattn-kv": "fine-tuned, crossattn-kv",
    "merged": "the same crossattn-kv objects, all merged into one file",
    "crossattn": "fine-tuned, crossattn",
    "ceiling": "ceiling: truth through the VAE",
}
PASTED = tuple(name for name in METHODS if name in PASTES)
MODELLED = tuple(name for name in METHODS if name not in (*PASTED, "ceiling"))
LEARNT = ("crossattn-kv", "crossattn")


@dataclass(frozen=True, eq=False)
class Setup:
    """What all methods share: a base and how it inserts; `settings` are the plain values that say so."""

    session: Session
    settings: Mapping[str, Any] = field(default_factory=dict)
    seed: int = 321
    strength: float = 1.0

    @property
    def fingerprint(self) -> str:
        """Of the base."""
        return self.session.fingerprint


@contextmanager
def prepared(method: str, setup: Setup, insertset: InsertSet, learnt: Path | None) -> Iterator[Fill]:
    """The method for one object; `learnt` is its object file, or that of all, merged.

    The base is as before when the block ends.
    """
    if method in PASTED:
        yield partial(fill_pasted, method, insertset)
        return
    session = setup.session
    if method == "ceiling":
        yield partial(fill_ceiling, session.base)
        return
    assert method in METHODS, f"no method {method}"
    if method == "zero-shot-tokens":
        ready = with_untuned_tokens(session, insertset)
    else:
        ready = session.ready(subject_of(method, insertset, learnt, setup.strength))
    yield partial(fill_sampled, setup, ready)
    session.put_down()


def subject_of(method: str, insertset: InsertSet, learnt: Path | None, strength: float = 1.0) -> Subject:
    """What a method inserts: an object file with its own reference, one of a merged file, or the reference."""
    if method == "zero-shot":
        return Subject(reference=insertset.reference)
    assert learnt is not None, f"{method} needs an object file"
    if method == "merged":
        return Subject(learnt, strength=strength, pick=insertset.root.name)
    return Subject(learnt, strength=strength, pictures=insertset.root)


@torch.no_grad()
def with_untuned_tokens(session: Session, insertset: InsertSet) -> ReadyObject:
    """The reference, and CLIP's pooled feature of each few-shot crop as a token, on the base as it is."""
    base, images = session.base, session.images
    assert isinstance(base, Base), "tokens need the whole base"
    reference = images.reference(insertset.reference)
    tokens = base.conditioner.look(images.few_shot(insertset).to(base.device))
    context = base.conditioner(base.conditioner.look(reference.to(base.device)), tokens)
    return ReadyObject(base.contexts(context), session.make_fill(reference))


def fill_pasted(method: str, insertset: InsertSet, scene: Scene, views: Views) -> Picture:
    """The reference picture, pasted as it is or cut out."""
    return PASTES[method](insertset.reference, views.background, views.mask)


@torch.no_grad()
def fill_ceiling(base: Painter, scene: Scene, views: Views) -> Picture:
    """The truth as the VAE shows it at the base's resolution: no method on this base can do better."""
    known = region(views.truth, scene.roi)[None].to(base.device)
    shown = base.decode(base.encode(resize(known, base.architecture.image_size)))
    return _pasted(views, scene.roi, resize(shown.cpu(), scene.roi.size)[0])


def fill_sampled(setup: Setup, ready: ReadyObject, scene: Scene, views: Views) -> Picture:
    """Inpaint the scene's region with the object."""
    task = Task(views.mask, views.mask, [scene.roi], [setup.seed])
    [[result]] = setup.session.insert(views.background, [task], [ready])
    return result.picture


def _pasted(views: Views, roi: Roi, image: Tensor) -> Picture:
    alpha = crop(views.mask, roi).astype("float32")
    return patched(views.background, [paste_region(views.background, roi, image, alpha)])
