"""Ways to fill a site that need no model: the reference pasted, flat, by Poisson's equation, or cut out."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import torch

from ldm.compositing.composite import composite, composite_layers
from ldm.compositing.cut_out import cut_out_picture
from ldm.compositing.cut_out_images import SIZE
from ldm.data.image import read_rgb, resize, to_image
from ldm.data.picture import Picture
from ldm.insertion.paste import paste_region, patched, region
from ldm.insertion.roi import Roi, box_of, crop
from ldm.insertion.sheet import rgb8

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
    below = np.ascontiguousarray(rgb8(region(background, roi)))
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
    image = composite(layer, region(background, box)[None])[0]
    return patched(background, [paste_region(background, box, image, hole[0, 0].numpy())])


PASTES: dict[str, Callable[[Path, Picture, np.ndarray], Picture]] = {
    "flat": paste_flat,
    "poisson": paste_poisson,
    "cut-out": paste_cut_out,
}
