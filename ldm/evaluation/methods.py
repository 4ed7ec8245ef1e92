"""The ways to insert an object that are compared, from pasting its picture to the ceiling of any method.

A method is made for one object and fills one scene after the other: `Fill`, scene and views => picture.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from ldm.data.image import resize
from ldm.data.insertset import InsertSet
from ldm.data.picture import Picture
from ldm.data.shown import few_shot_crops, reference_image
from ldm.evaluation.bench import Scene, Views
from ldm.evaluation.fills import PASTES
from ldm.insertion.blend import Blend
from ldm.insertion.insert import insert
from ldm.insertion.paste import paste_region, patched, region
from ldm.insertion.roi import Roi, crop
from ldm.insertion.sampling import Sampling, null_of
from ldm.insertion.task import Task
from ldm.models.base import Base
from ldm.models.contexts import Contexts
from ldm.objects.applied import apply
from ldm.objects.delta import load
from ldm.objects.effect import reference_of
from ldm.objects.merged import apply_merged, load_merged, merged_contexts
from ldm.objects.pose import pose_of

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
    """What all methods share: the base, how it samples, and what happens at the seam."""

    base: Base
    fingerprint: str
    sampling: Sampling
    seam: Blend
    seed: int = 321
    strength: float = 1.0
    precision: str = "fp32"


@contextmanager
def prepared(method: str, setup: Setup, insertset: InsertSet, learnt: Path | None) -> Iterator[Fill]:
    """The method for one object; `learnt` is its object file, or that of all, merged.

    The base is as before when the block ends.
    """
    if method in PASTED:
        yield partial(fill_pasted, method, insertset)
    elif method == "ceiling":
        yield partial(fill_ceiling, setup.base)
    elif method in LEARNT:
        assert learnt is not None, f"{method} needs an object file"
        made = tuned(setup.base, insertset, learnt, setup.sampling, setup.fingerprint, setup.strength)
        with made as contexts:
            yield partial(fill_sampled, setup, contexts)
    elif method == "merged":
        assert learnt is not None, "merged needs an object file"
        name, null = insertset.root.name, null_of(setup.base, setup.sampling)
        merged = load_merged(learnt).pick(name)
        with apply_merged(setup.base, merged, setup.strength, setup.fingerprint):
            yield partial(fill_sampled, setup, merged_contexts(setup.base, merged, name, null))
    else:
        assert method in METHODS, f"no method {method}"
        contexts = zero_shot(setup.base, insertset, few_shot=method == "zero-shot-tokens")
        yield partial(fill_sampled, setup, contexts)


@contextmanager
def tuned(
    base: Base,
    insertset: InsertSet,
    learnt: Path,
    sampling: Sampling,
    fingerprint: str,
    strength: float = 1.0,
) -> Iterator[Contexts]:
    """The contexts of an object file with its own reference; the base carries it till the block ends."""
    null = null_of(base, sampling)
    delta = load(learnt)
    with apply(base, delta, strength, fingerprint):
        if delta.reference is None:
            reference = reference_image(insertset.reference, *base.architecture.shown)
        else:
            reference = reference_of(delta)
        pose = pose_of(delta, reference, sampling.view)
        with torch.no_grad():
            context = base.context(pose.reference.to(base.device), pose.view)
        yield base.contexts(context, null, pose.reference)


@torch.no_grad()
def zero_shot(base: Base, insertset: InsertSet, *, few_shot: bool) -> Contexts:
    """The contexts of an untuned base: reference, and CLIP's pooled feature of each few-shot crop."""
    a, conditioner, tokens = base.architecture, base.conditioner, None
    reference = reference_image(insertset.reference, *a.shown).to(base.device)
    if few_shot:
        tokens = conditioner.look(few_shot_crops(insertset, *a.shown).to(base.device))
    context = conditioner(conditioner.look(reference), tokens)
    return base.contexts(context, references=reference)


def fill_pasted(method: str, insertset: InsertSet, scene: Scene, views: Views) -> Picture:
    """The reference picture, pasted as it is or cut out."""
    return PASTES[method](insertset.reference, views.background, views.mask)


@torch.no_grad()
def fill_ceiling(base: Base, scene: Scene, views: Views) -> Picture:
    """The truth as the VAE shows it at the base's resolution: no method on this base can do better."""
    known = region(views.truth, scene.roi)[None].to(base.device)
    shown = base.decode(base.encode(resize(known, base.architecture.image_size)))
    return _pasted(views, scene.roi, resize(shown.cpu(), scene.roi.size)[0])


def fill_sampled(setup: Setup, contexts: Contexts, scene: Scene, views: Views) -> Picture:
    """Inpaint the scene's region with the object of `contexts`."""
    task = Task(views.mask, views.mask, [scene.roi], [setup.seed])
    [[result]] = insert(setup.base, views.background, [task], [contexts], setup.sampling, setup.seam)
    return result.picture


def _pasted(views: Views, roi: Roi, image: Tensor) -> Picture:
    alpha = crop(views.mask, roi).astype("float32")
    return patched(views.background, [paste_region(views.background, roi, image, alpha)])
