"""Ways to fill a site that need no model: the reference pasted, flat, by Poisson's equation, or cut out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor

from ldm.compositing.composite import composite, composite_layers
from ldm.compositing.cut_out import cut_out_picture
from ldm.compositing.cut_out_images import SIZE
from ldm.data.image import resize, to_image
from ldm.data.insertset import InsertSet
from ldm.data.picture import Picture, read_rgb
from ldm.evaluation.bench import Scene, Views
from ldm.insertion.contact_sheet import rgb8
from ldm.insertion.object_source import ObjectSource
from ldm.insertion.paste import cut_region, paste_region, patched
from ldm.insertion.region import InsertRequest
from ldm.insertion.region_fill import ReadyObject
from ldm.insertion.roi import Roi, box_of, crop
from ldm.insertion.session import Session
from ldm.models.base import Base
from ldm.models.inpainting_model import InpaintingModel

RIM = 2  # pixels around the mask that Poisson's equation takes its boundary from


def paste_flat(reference: Path, background: Picture, mask: np.ndarray) -> Picture:
    """The reference picture, stretched over the mask's box and pasted through the mask."""
    box = box_of(mask)
    image = resize(to_image(read_rgb(reference))[None], box.size)[0]
    return patched(background, [paste_region(background, box, image, crop(mask, box).astype(np.float32))])


def paste_poisson(reference: Path, background: Picture, mask: np.ndarray) -> Picture:
    """The same by OpenCV's seamless cloning (Perez et al. 2003), which works at 8 bits."""
    box = box_of(mask)
    roi = Roi(box.x0 - RIM, box.y0 - RIM, box.x1 + RIM, box.y1 + RIM)
    hole = np.pad(crop(mask, box), RIM)
    image = resize(to_image(read_rgb(reference))[None], box.size)[0]
    source = np.pad(rgb8(image), ((RIM, RIM), (RIM, RIM), (0, 0)), mode="edge")
    below = np.ascontiguousarray(rgb8(cut_region(background, roi)))
    inside = hole.astype(np.uint8) * 255
    x, y, width, height = cv2.boundingRect(inside)
    centre = (x + width // 2, y + height // 2)
    cloned = cv2.seamlessClone(np.ascontiguousarray(source), below, inside, centre, cv2.NORMAL_CLONE)
    return patched(background, [paste_region(background, roi, to_image(cloned), hole.astype(np.float32))])


def paste_cut_out(reference: Path, background: Picture, mask: np.ndarray) -> Picture:
    """The object cut out of its reference and placed where a base of composites starts from it."""
    box = box_of(mask)
    hole = torch.from_numpy(crop(mask, box))[None, None].float()
    layer = composite_layers(cut_out_picture(reference).picture(SIZE)[None], None, hole)
    image = composite(layer, cut_region(background, box)[None])[0]
    return patched(background, [paste_region(background, box, image, hole[0, 0].numpy())])


PASTES: dict[str, Callable[[Path, Picture, np.ndarray], Picture]] = {
    "flat": paste_flat,
    "poisson": paste_poisson,
    "cut-out": paste_cut_out,
}


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
    object_scale: float = 1.0

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
        ready = session.ready(subject_of(method, insertset, learnt, setup.object_scale))
    yield partial(fill_sampled, setup, ready)
    session.put_down()


def subject_of(
    method: str, insertset: InsertSet, learnt: Path | None, object_scale: float = 1.0
) -> ObjectSource:
    """What a method inserts: an object file with its own reference, one of a merged file, or the reference."""
    if method == "zero-shot":
        return ObjectSource(reference=insertset.reference)
    assert learnt is not None, f"{method} needs an object file"
    if method == "merged":
        return ObjectSource(learnt, object_scale=object_scale, pick=insertset.root.name)
    return ObjectSource(learnt, object_scale=object_scale, pictures=insertset.root)


@torch.no_grad()
def with_untuned_tokens(session: Session, insertset: InsertSet) -> ReadyObject:
    """The reference, and CLIP's pooled feature of each few-shot crop as a token, on the base as it is."""
    base, images = session.base, session.images
    assert isinstance(base, Base), "tokens need the whole base"
    reference = images.reference(insertset.reference)
    tokens = base.conditioner.image_features(images.few_shot(insertset).to(base.device))
    context = base.conditioner(base.conditioner.image_features(reference.to(base.device)), tokens)
    return ReadyObject(base.contexts(context), session.make_fill(reference))


def fill_pasted(method: str, insertset: InsertSet, scene: Scene, views: Views) -> Picture:
    """The reference picture, pasted as it is or cut out."""
    return PASTES[method](insertset.reference, views.background, views.mask)


@torch.no_grad()
def fill_ceiling(base: InpaintingModel, scene: Scene, views: Views) -> Picture:
    """The truth as the VAE shows it at the base's resolution: no method on this base can do better."""
    known = cut_region(views.truth, scene.roi)[None].to(base.device)
    shown = base.decode(base.encode(resize(known, base.architecture.image_size)))
    return _pasted(views, scene.roi, resize(shown.cpu(), scene.roi.size)[0])


def fill_sampled(setup: Setup, ready: ReadyObject, scene: Scene, views: Views) -> Picture:
    """Inpaint the scene's region with the object."""
    request = InsertRequest(views.mask, views.mask, [scene.roi], [setup.seed])
    [[result]] = setup.session.insert(views.background, [request], [ready])
    return result.picture


def _pasted(views: Views, roi: Roi, image: Tensor) -> Picture:
    alpha = crop(views.mask, roi).astype("float32")
    return patched(views.background, [paste_region(views.background, roi, image, alpha)])
