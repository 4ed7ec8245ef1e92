"""Methods that are compared: what each one is, and how it fills a site."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

from ldm.batch.contact_sheet import rgb8
from ldm.compositing.composite import composite_layers, composite_over
from ldm.compositing.composite_fill import CompositeObject
from ldm.compositing.cut_out import cut_out_picture
from ldm.compositing.matting import included_matting
from ldm.compositing.object_cut_outs import SIZE
from ldm.data.image import resize, to_image
from ldm.data.insertset import InsertSet
from ldm.data.picture import Picture, read_rgb
from ldm.evaluation.benchmark import SiteImages
from ldm.evaluation.posed import in_pose
from ldm.insertion.crop_paste import crop_region, paste_region, patched
from ldm.insertion.insert import insert
from ldm.insertion.object_source import ObjectSource
from ldm.insertion.region import InsertableObject, InsertRequest
from ldm.insertion.roi import Roi, box_of, crop
from ldm.insertion.session import Session
from ldm.models.inpainting_model import InpaintingModel

KV, ALL = "crossattn-kv", "crossattn"  # what of the cross-attention is trained
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
    padded = np.pad(crop(mask, box), RIM)
    image = resize(to_image(read_rgb(reference))[None], box.size)[0]
    source = np.pad(rgb8(image), ((RIM, RIM), (RIM, RIM), (0, 0)), mode="edge")
    below = np.ascontiguousarray(rgb8(crop_region(background, roi)))
    inside = padded.astype(np.uint8) * 255
    x, y, width, height = cv2.boundingRect(inside)
    centre = (x + width // 2, y + height // 2)
    cloned = cv2.seamlessClone(np.ascontiguousarray(source), below, inside, centre, cv2.NORMAL_CLONE)
    return patched(background, [paste_region(background, roi, to_image(cloned), padded.astype(np.float32))])


def paste_cut_out(reference: Path, background: Picture, mask: np.ndarray) -> Picture:
    """The object cut out by the included network, placed where a base of composites starts from it."""
    box = box_of(mask)
    area = torch.from_numpy(crop(mask, box))[None, None].float()
    cut_out = cut_out_picture(reference, included_matting())
    layer = composite_layers(cut_out.picture(SIZE)[None], None, area)
    image = composite_over(layer, crop_region(background, box)[None])[0]
    return patched(background, [paste_region(background, box, image, area[0, 0].numpy())])


PASTES: dict[str, Callable[[Path, Picture, np.ndarray], Picture]] = {
    "flat": paste_flat,
    "poisson": paste_poisson,
    "cut-out": paste_cut_out,
}


@dataclass(frozen=True)
class Method:
    """One way to insert an object; `kind` is one of PASTES, ceiling, zero-shot or learnt.

    `learning` and `insertion` are settings that differ from the run's, the latter as {"sample.steps": 12}. It
    learns from the first `images` few-shot pictures (0: all), with the same-category pictures or without.
    `posed`: the reference is the object in the pose of the truth, put where it stands there. `against`: the
    methods that a report compares it with.
    """

    name: str
    title: str
    kind: str = "learnt"
    learning: Mapping[str, Any] = field(default_factory=dict, hash=False)
    insertion: Mapping[str, Any] = field(default_factory=dict, hash=False)
    images: int = 0
    same_category: bool = True
    posed: bool = False
    against: tuple[str, ...] = ()

    @property
    def is_trained(self) -> bool:
        """Does it need an object file?"""
        return self.kind == "learnt"

    @property
    def is_sampled(self) -> bool:
        """Does it draw noise, so that settings and seed matter?"""
        return self.kind in ("zero-shot", "learnt")


CUT_OUT, ZERO_SHOT, POSED = "cut-out", "zero-shot", "posed-"


def _compared(prefix: str, title: str, posed: bool) -> tuple[Method, ...]:
    """The plain cut-out, the base as it is, and both ways to learn."""
    plain, untuned = (prefix + name for name in (CUT_OUT, ZERO_SHOT))
    both = (plain, untuned)
    return (
        Method(plain, f"{title} cut out and pasted: no model", "cut-out", posed=posed),
        Method(untuned, f"base as it is, {title}", "zero-shot", posed=posed, against=both[:1]),
        *(
            Method(
                prefix + way, f"fine-tuned, {way}", learning={"freeze_model": way}, posed=posed, against=both
            )
            for way in (KV, ALL)
        ),
    )


METHODS = {  # of `evaluate.py --benchmark`, in the order of its report
    method.name: method
    for method in (
        Method("flat", "reference pasted flat into the mask", "flat"),
        *_compared("", "one reference", posed=False),
        *_compared(POSED, "object in the pose of the truth", posed=True),
        Method("ceiling", "ceiling: truth through the VAE", "ceiling"),
    )
}


def source_of(
    insertset: InsertSet, file: Path | None, object_scale: float = 1.0, reference: Path | None = None
) -> ObjectSource:
    """What a method inserts: an object file, or a reference alone; `reference` replaces the object's own."""
    if file is None:
        return ObjectSource(reference=reference or insertset.reference)
    return ObjectSource(file, reference, object_scale=object_scale, pictures=insertset.root)


def sample(
    session: Session, model: InpaintingModel, ready: InsertableObject, images: SiteImages, seed: int
) -> Picture:
    """Inpaint the site's regions with the object, by a model that may run in another precision."""
    request = InsertRequest(images.mask, images.rois, [seed])
    fill = ready.fill
    if images.posed is not None and isinstance(fill, CompositeObject):
        fill = in_pose(fill, images.posed, images.background.size)
    own = InsertableObject(ready.contexts.to(model.unet.conv_in.weight), fill)
    [[result]] = insert(model, images.background, [request], [own], session.options)
    return result.picture


@torch.no_grad()
def show_ceiling(model: InpaintingModel, images: SiteImages) -> Picture:
    """The truth as the VAE shows it at the base's resolution: no method on this base can do better."""
    if images.truth is None:
        raise ValueError("the ceiling needs ground truth, which this benchmark has not; leave the method out")
    [roi] = images.rois
    known = crop_region(images.truth, roi)[None].to(model.device)
    shown = model.decode(model.encode(resize(known, model.architecture.image_size)))
    image, alpha = resize(shown.cpu(), roi.size)[0], crop(images.mask, roi).astype(np.float32)
    return patched(images.background, [paste_region(images.background, roi, image, alpha)])
