"""The networks that metrics need, loaded once and before any work, and what of a picture each of them sees.

The crops are [1,3,224,224], normalised for the encoder, by protocol: `paper`, `pbe` (Paint-by-Example), `v2`
(ours). `paper` and `pbe` repeat the published code, faults included: docs/evaluation_protocols.md lists them.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from ldm.data.image import to_image
from ldm.data.picture import Picture
from ldm.evaluation.results import References
from ldm.features.encoders import Encoder, Lpips, load_clip, load_dino, load_lpips
from ldm.features.imagenet import SIZE, ImageNetFeatures, centred, on_square
from ldm.insertion.crop_paste import crop_region
from ldm.insertion.roi import Roi, crop
from ldm.models.conditioner import clip_normalised

CANNY = (128, 256)  # thresholds of the paper's code


def paper_region(picture: Picture, mask: np.ndarray) -> Tensor | None:
    """CLIP-normalised, 0 outside the mask, `paper_box`, zero-padded square, bilinear without antialiasing.

    CLIP's statistics also go to DINOv2. None: the published code finds no box in this mask.
    """
    box = paper_box(mask)
    if box is None:
        return None
    seen = clip_normalised(crop_region(picture, box)[None]) * torch.from_numpy(crop(mask, box)).float()
    return _squashed(centred(seen[0], torch.zeros(3))[None])


def paper_box(mask: np.ndarray) -> Roi | None:
    """The box of the last outer contour of the mask's Canny edges; None without an edge.

    Of several contours it holds one. An edge lies one pixel outside the mask above and to the left of it, and
    none lies on the picture's border, so that a band from border to border has two edges, each a box.
    """
    edges = cv2.Canny(mask.astype(np.uint8) * np.uint8(255), *CANNY)
    contours, _ = cv2.findContours(edges, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    if not contours:
        return None
    x, y, width, height = cv2.boundingRect(contours[-1])
    return Roi(x, y, x + width, y + height)


def pbe_region(picture: Picture, mask: np.ndarray) -> Tensor | None:
    """CLIP-normalised, `pbe_box`, squashed, bilinear without antialiasing; None if the box is empty."""
    box = pbe_box(mask)
    return None if box is None else _squashed(clip_normalised(crop_region(picture, box)[None]))


def pbe_box(mask: np.ndarray) -> Roi | None:
    """From the first to the last masked pixel in raster order, the last row and column left out.

    None if nothing is left: the last pixel is not below and to the right of the first.
    """
    raveled = np.flatnonzero(mask)
    (y0, x0), (y1, x1) = (divmod(int(i), mask.shape[1]) for i in (raveled[0], raveled[-1]))
    return Roi(x0, y0, x1, y1) if x1 > x0 and y1 > y0 else None


def whole(pixels: np.ndarray) -> Tensor:
    """The reference of `paper` and `pbe`, uint8 [H,W,3]: squashed by Pillow's bicubic, CLIP-normalised."""
    return clip_normalised(to_image(np.array(Image.fromarray(pixels).resize((SIZE, SIZE))))[None])


def centre(pixels: np.ndarray) -> Tensor:
    """CLIP's own preprocessing, uint8 [H,W,3]: short side to 224 px, bicubic, centre square, normalised.

    Sizes are cut and margins rounded (half to even) as torchvision does.
    """
    height, width = pixels.shape[:2]
    short = min(height, width)
    size = int(SIZE * width / short), int(SIZE * height / short)
    small = Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC)
    left, top = (round((side - SIZE) / 2) for side in size)
    return clip_normalised(to_image(np.array(small.crop((left, top, left + SIZE, top + SIZE))))[None])


def object_view(encoder: Encoder, image: Tensor) -> Tensor:
    """`v2`: image [3,h,w] in [-1,1] on a square of the encoder's mean colour; a box of mask or object."""
    return encoder.normalised(on_square(image, encoder.mean)[None])


def _squashed(image: Tensor) -> Tensor:
    return F.interpolate(image, (SIZE, SIZE), mode="bilinear", align_corners=False, antialias=False)


@dataclass(frozen=True, eq=False)
class FeatureNetworks:
    """What is loaded; `names` says what each network is, with the fingerprint of its weights."""

    imagenet: ImageNetFeatures | None = None
    clip: Encoder | None = None
    dino: Encoder | None = None
    lpips: Lpips | None = None
    names: dict[str, str] = field(default_factory=dict)
    _cache: dict[tuple[str, References], Tensor] = field(default_factory=dict)

    def likeness(self, kind: str, references: References, feature: Tensor) -> Tensor:
        """Cosine of a result's feature [1,d] to each of the references' of a kind, [n].

        Kinds: `imagenet`, `<encoder>`, `<encoder>_whole`. The references' features are computed once.
        """
        if (kind, references) not in self._cache:
            self._cache[kind, references] = self._compute(kind, references)
        return F.cosine_similarity(feature, self._cache[kind, references])

    def _compute(self, kind: str, references: References) -> Tensor:
        if kind == "imagenet":
            return torch.cat([self.pooled(image) for image in references.images()])
        encoder = self.dino if kind.startswith("dino") else self.clip
        assert encoder is not None, f"{kind} is not loaded"
        if kind.endswith("_whole"):
            return encoder(whole(references.picture()))
        return torch.cat([encoder(object_view(encoder, image)) for image in references.images()])

    def pooled(self, image: Tensor) -> Tensor:
        """The ImageNet feature [1,d] of an image [3,h,w] in [-1,1], on the CPU."""
        assert self.imagenet is not None, "imagenet is not loaded"
        return self.imagenet.of([image]).cpu()


def load_networks(
    metrics: Collection[str],
    device: str = "cpu",
    *,
    clip: Path | None = None,
    dino: Path | None = None,
    alexnet: Path | None = None,
) -> FeatureNetworks:
    """Load what the metrics need, by path or from a cache; FileNotFoundError names model, file and flag."""
    found: dict[str, Any] = {}
    names: dict[str, str] = {}
    if {"identity", "fidelity"} & set(metrics):
        found["imagenet"], names["imagenet"] = ImageNetFeatures().to(device), "EfficientNet-Lite0 (ImageNet)"
    if {"clip", "clip-fid"} & set(metrics):
        found["clip"] = load_clip(clip, device)
        names["clip"] = found["clip"].name
    if "dino" in metrics:
        found["dino"] = load_dino(dino, device)
        names["dino"] = found["dino"].name
    if "lpips" in metrics:
        net, names["lpips"] = load_lpips(alexnet)
        found["lpips"] = net.to(device)
    return FeatureNetworks(**found, names=names)
