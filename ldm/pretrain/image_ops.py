"""Operations on pictures in memory that compose a training sample: crops, cut-outs, shadows, regions.

A layer is a cut-out [4,h,w] in [0,1], colour premultiplied by alpha; pictures are [3,h,w] in [0,1].
Every random number comes from a CPU generator.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from ldm.data.random_draws import happens, uniform

Box = tuple[int, int, int, int]
GROWTH = 0.35  # of a side of the box
GREY = 0.5  # around a cut-out
CUT_OUT = 0.85  # share of the references that show their object without its ground
ERRORS = 0.2  # share of the cut-outs that lack something, and of those that have too much
T = TypeVar("T")


def choice(items: Sequence[T], g: Generator) -> T:
    """One of the items, all equally likely."""
    return items[int(torch.randint(len(items), (), generator=g))]


def scaled(image: Tensor, height: int, width: int) -> Tensor:
    """Antialiased: float [c,H,W] => [c,height,width]."""
    return F.interpolate(image[None], size=(height, width), mode="bilinear", antialias=True)[0]


def random_crop(photo: Tensor, size: int, g: Generator, smallest: float = 0.5) -> Tensor:
    """uint8 photo [3,H,W] => [3,size,size] in [0,1]: a square, `smallest` .. 1 of the short side."""
    _, height, width = photo.shape
    side = round(min(height, width) * uniform(smallest, 1, g))
    top = int(torch.randint(height - side + 1, (), generator=g))
    left = int(torch.randint(width - side + 1, (), generator=g))
    crop = scaled(photo[:, top : top + side, left : left + side].float() / 255, size, size)
    return crop.flip(-1) if happens(0.5, g) else crop


def jitter(rgb: Tensor, g: Generator, amount: float = 0.25) -> Tensor:
    """Random brightness, contrast, saturation and tint of [3,h,w] in [0,1]."""
    grey = rgb.mean(0, keepdim=True)
    rgb = grey + (rgb - grey) * uniform(1 - amount, 1 + amount, g)
    rgb = (rgb - 0.5) * uniform(1 - amount, 1 + amount, g) + 0.5
    tint = 1 + (torch.rand(3, 1, 1, generator=g) - 0.5) * amount
    return (rgb * tint.to(rgb) * uniform(1 - amount, 1 + amount, g)).clamp(0, 1)


def tight(cutout: Tensor) -> Tensor:
    """Crop [4,h,w] (float, alpha last) to what is visible."""
    rows = (cutout[3] > 0.05).any(1).nonzero().flatten()
    columns = (cutout[3] > 0.05).any(0).nonzero().flatten()
    if not len(rows) or not len(columns):
        return cutout
    return cutout[:, rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


def premultiplied(cutout: Tensor) -> Tensor:
    """uint8 [4,h,w] => float [4,h,w] in [0,1], colour times alpha, cropped to what is visible."""
    image = cutout.float() / 255
    return tight(torch.cat([image[:3] * image[3:], image[3:]]))


def over(layer: Tensor, ground: Tensor) -> Tensor:
    """A layer over a picture of its size."""
    return layer[:3] + ground * (1 - layer[3:])


def placed_at_random(cutout: Tensor, size: int, g: Generator) -> tuple[Tensor, Box]:
    """A layer scaled and put somewhere => layer [4,size,size] and its box x0 y0 x1 y1."""
    longer = uniform(0.38, 0.72, g) * size
    factor = longer / max(cutout.shape[-2:])
    h, w = (max(4, round(side * factor)) for side in cutout.shape[-2:])
    top = int(torch.randint(max(1, size - h), (), generator=g))
    left = int(torch.randint(max(1, size - w), (), generator=g))
    layer = F.pad(scaled(cutout, h, w), [left, size - left - w, top, size - top - h])
    return layer, (left, top, left + w, top + h)


def shadow(alpha: Tensor, box: Box, g: Generator) -> Tensor:
    """A soft contact shadow [1,S,S] in [0,1]: the silhouette flattened onto the ground at its lower edge."""
    x0, y0, x1, y1 = box
    size = alpha.shape[-1]
    height = max(2, round((y1 - y0) * uniform(0.12, 0.3, g)))
    flat = scaled(alpha[:, y0:y1, x0:x1], height, x1 - x0)
    top = min(max(0, y1 - height * 2 // 3), size - height)
    ground = F.pad(flat, [x0, size - x1, top, size - top - height])
    radius = max(1, (y1 - y0) // 14)
    for _ in range(2):
        ground = F.avg_pool2d(ground[None], 2 * radius + 1, 1, radius)[0]
    return ground * uniform(0.2, 0.75, g)


def region(box: Box, size: int, g: Generator) -> Tensor:
    """The box and up to 40 % of the free space, GROWTH a side at most => [1,S,S], a rectangle or a blob."""
    x0, y0, x1, y1 = box
    grow_x, grow_y = (x1 - x0) * GROWTH, (y1 - y0) * GROWTH
    left, right = (min(free * 0.4, grow_x) * uniform(0.05, 1, g) for free in (x0, size - x1))
    above, below = (min(free * 0.4, grow_y) * uniform(0.05, 1, g) for free in (y0, size - y1))
    y, x = torch.meshgrid(torch.arange(size) + 0.5, torch.arange(size) + 0.5, indexing="ij")
    outer = (x0 - left, y0 - above, x1 + right, y1 + below)
    if happens(0.5, g):
        inside = (x >= outer[0]) & (x <= outer[2]) & (y >= outer[1]) & (y <= outer[3])
    else:  # a superellipse with a wavy rim stands in for a hand-drawn blob
        cx, cy = (outer[0] + outer[2]) / 2, (outer[1] + outer[3]) / 2
        rx, ry = (outer[2] - outer[0]) / 2, (outer[3] - outer[1]) / 2
        angle = torch.atan2(y - cy, x - cx)
        wave = 1 + 0.08 * torch.sin(angle * round(uniform(2, 6, g)) + uniform(0, 6.28, g))
        power = uniform(2, 5, g)
        inside = (((x - cx) / rx).abs() ** power + ((y - cy) / ry).abs() ** power) <= wave
        inside |= (x >= x0) & (x <= x1) & (y >= y0) & (y <= y1)
    return inside.float()[None]


def reference_of(cutout: Tensor, photo: Tensor, size: int, g: Generator) -> Tensor:
    """A layer as a reference [3,size,size] in [0,1], cut out of its picture, with ERRORS, or on ground."""
    cutout = jitter_layer(cutout, g, 0.2)
    height, width = cutout.shape[-2:]
    ground = scaled(random_crop(photo, size, g, 0.3), height, width)
    if not happens(CUT_OUT, g):
        return square_view(over(cutout, ground), size)
    if happens(ERRORS, g):
        cutout = cutout * (1 - _patches(height, width, g))
    shown = over(cutout, torch.full_like(ground, GREY))
    if happens(ERRORS, g):
        left = _patches(height, width, g) * (1 - cutout[3:])
        shown = shown + left * (ground - GREY)
    return square_view(shown, size)


def square_view(image: Tensor, size: int) -> Tensor:
    """[3,h,w] in [0,1] => [3,size,size]: its longer side fills the square, mid-grey fills up the other."""
    factor = size / max(image.shape[-2:])
    h, w = (max(1, round(side * factor)) for side in image.shape[-2:])
    top, left = (size - h) // 2, (size - w) // 2
    return F.pad(scaled(image, h, w), [left, size - left - w, top, size - top - h], value=GREY)


def batch_psnr(image: Tensor, truth: Tensor, where: Tensor | None = None) -> Tensor:
    """PSNR in dB of images [b,c,H,W] in [-1,1], [b], at most 100; `where` [b,1,H,W]: only above a half."""
    error = ((image.clamp(-1, 1) - truth) / 2).square().mean(1, keepdim=True)
    inside = torch.ones_like(error) if where is None else (where > 0.5).to(error)
    mse = (error * inside).sum((1, 2, 3)) / inside.sum((1, 2, 3)).clamp_min(1)
    return -10 * torch.log10(mse.clamp_min(1e-10))


def _patches(height: int, width: int, g: Generator) -> Tensor:
    """Smooth patches [1,h,w] in {0,1} of random shape, about a sixth of the area."""
    field = F.interpolate(torch.randn(1, 1, 4, 4, generator=g), size=(height, width), mode="bicubic")
    return (field[0] > 0.8).float()


def jitter_layer(layer: Tensor, g: Generator, amount: float) -> Tensor:
    """`jitter` for a layer."""
    colour = layer[:3] / layer[3:].clamp_min(1e-3)
    return torch.cat([jitter(colour, g, amount) * layer[3:], layer[3:]])


def to_scene(layer: Tensor, scene: Tensor, strength: float) -> Tensor:
    """Pull a layer's mean brightness and tint towards those of the scene [3,S,S]."""
    mean = layer[:3].sum((1, 2)) / layer[3].sum().clamp_min(1e-3)
    gain = ((scene.mean((1, 2)) + 0.15) / (mean + 0.15)).clamp(0.6, 1.6)
    return torch.cat([layer[:3] * (1 + (gain - 1) * strength)[:, None, None], layer[3:]]).clamp(0, 1)
