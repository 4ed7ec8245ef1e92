"""The crop of a picture that an encoder sees, by protocol: `paper`, `pbe` (Paint-by-Example), `v2` (ours).

In: pictures and masks bool [H,W]. Out: [1,3,224,224], normalised for the encoder. `paper` and `pbe` repeat
the published code, faults included: docs/evaluation_protocols.md lists them.
"""

from __future__ import annotations

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from ldm.data.image import to_image
from ldm.data.picture import Picture
from ldm.features.encoders import SIZE, Encoder
from ldm.features.imagenet import centred, on_square
from ldm.insertion.paste import cut_region
from ldm.insertion.roi import Roi, box_of, crop
from ldm.models.conditioner import clip_normalised

CANNY = (128, 256)  # thresholds of the paper's code


def paper_region(picture: Picture, mask: np.ndarray) -> Tensor | None:
    """CLIP-normalised, 0 outside the mask, `paper_box`, zero-padded square, bilinear without antialiasing.

    CLIP's statistics also go to DINOv2. None: the published code finds no box in this mask.
    """
    box = paper_box(mask)
    if box is None:
        return None
    seen = clip_normalised(cut_region(picture, box)[None]) * torch.from_numpy(crop(mask, box)).float()
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
    return None if box is None else _squashed(clip_normalised(cut_region(picture, box)[None]))


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


def object_region(encoder: Encoder, picture: Picture, mask: np.ndarray) -> Tensor:
    """Protocol v2: the mask's box of a result, as `object_view` shows a reference."""
    return object_view(encoder, cut_region(picture, box_of(mask)))


def object_view(encoder: Encoder, image: Tensor) -> Tensor:
    """Protocol v2: image [3,h,w] in [-1,1] on a square of the encoder's mean colour, antialiased resize."""
    return encoder.normalised(on_square(image, encoder.mean, SIZE)[None])


def _squashed(image: Tensor) -> Tensor:
    return F.interpolate(image, (SIZE, SIZE), mode="bilinear", align_corners=False, antialias=False)
