"""What an encoder is shown of a picture, by protocol: `paper`, `pbe` (Paint-by-Example) and `v2` (ours).

In: pictures and masks bool [H,W]. Out: [1,3,224,224], normalised for the encoder. `paper` and `pbe` repeat
the published code, faults included; where its description leaves a choice, the choice is said here.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from ldm.data.image import resize, to_image
from ldm.data.picture import Picture
from ldm.insertion.paste import region
from ldm.insertion.roi import Roi, box_of, crop
from ldm.models.conditioner import clip_normalised
from ldm.models.encoders import SIZE, Encoder


def paper_region(picture: Picture, mask: np.ndarray) -> Tensor:
    """CLIP-normalised, 0 outside the mask, box of the last contour, zero-padded square, bilinear, aliased.

    CLIP's statistics also go to DINOv2. Our masks are binary; contours are the outer ones, in OpenCV's order.
    """
    contours, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    x, y, width, height = cv2.boundingRect(contours[-1])
    box = Roi(x, y, x + width, y + height)
    seen = clip_normalised(region(picture, box)[None]) * torch.from_numpy(crop(mask, box)).float()
    return _squashed(centred(seen[0], torch.zeros(3))[None])


def pbe_region(picture: Picture, mask: np.ndarray) -> Tensor:
    """CLIP-normalised, box from the first to the last masked pixel, squashed, bilinear, aliased."""
    return _squashed(clip_normalised(region(picture, box_of(mask))[None]))


def whole(pixels: np.ndarray) -> Tensor:
    """The reference of `paper` and `pbe`, uint8 [H,W,3]: squashed by Pillow's bicubic, CLIP-normalised."""
    return clip_normalised(to_image(np.array(Image.fromarray(pixels).resize((SIZE, SIZE))))[None])


def centre(pixels: np.ndarray) -> Tensor:
    """CLIP's own preprocessing, uint8 [H,W,3]: short side to 224 px, bicubic, centre square, normalised."""
    height, width = pixels.shape[:2]
    short = min(height, width)
    size = int(SIZE * width / short), int(SIZE * height / short)
    small = Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC)
    left, top = (size[0] - SIZE) // 2, (size[1] - SIZE) // 2
    return clip_normalised(to_image(np.array(small.crop((left, top, left + SIZE, top + SIZE))))[None])


def object_region(encoder: Encoder, picture: Picture, mask: np.ndarray) -> Tensor:
    """Protocol v2: the mask's box of a result, as `object_view` shows a reference."""
    return object_view(encoder, region(picture, box_of(mask)))


def object_view(encoder: Encoder, image: Tensor) -> Tensor:
    """Protocol v2: image [3,h,w] in [-1,1] on a square of the encoder's mean colour, antialiased resize."""
    return encoder.normalised(on_square(image, encoder.mean, SIZE)[None])


def on_square(image: Tensor, mean: Sequence[float], size: int) -> Tensor:
    """Image [3,h,w] in [-1,1], centred on a square of a colour in [0,1] => [3,size,size]."""
    return resize(centred(image, torch.tensor(mean) * 2 - 1)[None], size)[0]


def centred(image: Tensor, colour: Tensor) -> Tensor:
    """Image [3,h,w] in the middle of a square of a colour [3] => [3,s,s], s its longer side."""
    height, width = image.shape[1:]
    side = max(height, width)
    square = colour.to(image)[:, None, None].repeat(1, side, side)
    top, left = (side - height) // 2, (side - width) // 2
    square[:, top : top + height, left : left + width] = image
    return square


def _squashed(image: Tensor) -> Tensor:
    return F.interpolate(image, (SIZE, SIZE), mode="bilinear", align_corners=False, antialias=False)
