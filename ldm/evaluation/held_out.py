"""Which few-shot picture is kept from learning, to judge by: its name, and the set of pictures without it."""

from __future__ import annotations

from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from ldm.data.image import read_rgb, to_image
from ldm.data.insertset import InsertSet, Sample
from ldm.data.shown import object_crop
from ldm.evaluation.metrics import identity_crop
from ldm.insertion.roi import Roi
from ldm.models.imagenet import ImageNetFeatures

FEWEST = 4  # pictures of which one can be spared
TWIN = 0.95  # likeness above which two pictures are one; frames of one burst have 0.96


def view_features(features: ImageNetFeatures, samples: tuple[Sample, ...]) -> Tensor:
    """The object in each picture (its first box) => unit-length ImageNet features [n,1280]."""
    crops = [to_image(object_crop(read_rgb(sample.image), sample.boxes[0])) for sample in samples]
    return image_features(features, crops)


@torch.no_grad()
def image_features(features: ImageNetFeatures, images: list[Tensor]) -> Tensor:
    """Images [3,h,w] in [-1,1], of any sizes => unit-length ImageNet features [n,1280]."""
    squares = [identity_crop(image, Roi(0, 0, image.shape[2], image.shape[1])) for image in images]
    return F.normalize(features.pooled(torch.stack(squares).to(features.mean.device)), dim=1)


def spare_picture(features: ImageNetFeatures, insertset: InsertSet) -> str:
    """The stem of the picture to hold out of four or more; "" if none can be spared.

    It is the one most like the others: it takes least from learning, and tells most of what the object looks
    like. Never the one most like the reference, which is often cut from it, nor one with a twin.
    """
    samples = insertset.few_shot
    if len(samples) < FEWEST:
        return ""
    views = view_features(features, samples)
    reference = image_features(features, [to_image(read_rgb(insertset.reference))])
    alike = views @ views.T
    alike.fill_diagonal_(0)
    spared = alike.amax(1) < TWIN
    spared[int((views @ reference.T).argmax())] = False
    if not spared.any():
        return ""
    return samples[int(alike.sum(1).where(spared, torch.tensor(-1.0)).argmax())].image.stem


def hold_out(insertset: InsertSet, stem: str) -> tuple[InsertSet, tuple[Sample, ...]]:
    """The set without the few-shot picture of this name, and that picture; "" holds none out.

    ValueError if there is no such picture, or no other one.
    """
    if not stem:
        return insertset, ()
    held = tuple(sample for sample in insertset.few_shot if sample.image.stem == stem)
    kept = tuple(sample for sample in insertset.few_shot if sample.image.stem != stem)
    if not held:
        known = ", ".join(sample.image.stem for sample in kept)
        raise ValueError(f"hold_out {stem!r} is no few-shot picture of {insertset.root}; there are {known}")
    if not kept:
        raise ValueError(f"hold_out {stem!r} leaves no few-shot picture to learn from; add others, or none")
    return replace(insertset, few_shot=kept), held
