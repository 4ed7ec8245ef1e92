"""Training samples for one object: its folder, as an `InsertSet` => image, mask and reference.

Pixels are uint8 [H,W,3]; images and references float [3,S,S] in [-1,1]; masks float [1,S,S] in [0,1], where
1 = fill.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from sys import maxsize
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor
from torch.utils.data import Dataset

from ldm.data.boxes import Box, pixel_box
from ldm.data.insertset import InsertSet, Sample
from ldm.data.object_crops import ObjectImages, squash
from ldm.data.picture import read_rgb
from ldm.data.random_draws import happens, sample_generator
from ldm.data.training_masks import training_mask

CROP_MARGIN = 0.6  # of the margin between the image's short side and the enlarged box: cut off at most
SAME_CATEGORY_PAD = 10  # pixels around a same-category object in its reference
ALL_VIEWS = -1  # the `view` of a sample whose context holds every few-shot token
CACHE_BYTES = 2 * 2**30


class Target(NamedTuple):
    """A training target: image [3,S,S] in [-1,1], mask [1,S,S] in [0,1], and the crop that they show.

    `window`: left, top and side of the crop, in pixels of the picture.
    """

    image: Tensor
    mask: Tensor
    window: tuple[int, int, int]

    def in_image(self, box: Box) -> Tensor:
        """A box of the picture => the same box [4] in pixels of `image`."""
        left, top, side = self.window
        return (torch.tensor(box) - torch.tensor([left, top, left, top])) * (self.image.shape[-1] / side)


@dataclass(frozen=True)
class SampleOptions:
    """How training samples are drawn and encoded.

    `augment`: references are changed, which may mirror lettering; `augment_odds`: see `augmented`.
    `single_view`: share of the few-shot samples with only their own picture, as reference and as token.
    `crop_squares`, `mask_resize`: see `target`. `posterior`: latents are the `mean` of the VAE's posterior,
    or a `sample` of it. `cached_samples`: samples that are encoded before the first step and drawn again and
    again; 0: every sample is new.
    """

    seed: int = 0
    augment: bool = True
    augment_odds: str = "fixed"
    single_view: float = 0.0
    crop_squares: bool = True
    mask_resize: str = "cover"
    posterior: str = "mean"
    cached_samples: int = 0


DEFAULT = SampleOptions()


class TrainingPairs(Dataset):
    """Random training samples; item i depends only on (seed, i), whatever the order, worker or resumption.

    Even items come from the few-shot pictures, odd ones from the same-category pictures, if there are any.
    Item: image [3,size,size], mask [1,size,size], object_box [4] (in the image, x0 y0 x1 y1 in pixels),
    reference [3,R,R] (R = reference_size), view int [] (the few-shot picture whose token alone the context
    holds, or ALL_VIEWS), index int []; cut_out [4,R,R] of its object, if `images` has any.
    `images`: how the base is shown references.
    """

    def __init__(
        self,
        insertset: InsertSet,
        size: int = 512,
        reference_size: int = 224,
        options: SampleOptions = DEFAULT,
        images: ObjectImages | None = None,
        length: int = maxsize,
    ) -> None:
        self.insertset, self.options, self.length = insertset, options, length
        self.size, self.reference_size = size, reference_size
        self.images = images or ObjectImages(reference_size)
        self._cache: dict[Path, np.ndarray] = {}
        self._free = CACHE_BYTES

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        if not 0 <= index < self.length:
            raise IndexError(f"sample {index} of {self.length}")
        o, generator = self.options, sample_generator(self.options.seed, index)
        few_shot = index % 2 == 0 or not self.insertset.same_category
        samples = self.insertset.few_shot if few_shot else self.insertset.same_category
        number, sample, box = _choose(samples, generator)
        pixels = self._read(sample.image)
        drawn = target(pixels, box, self.size, generator, o.crop_squares, o.mask_resize)
        object_box = drawn.in_image(self.images.own_box(sample, box, pixels, self.reference_size))
        own = self.images.cut_out(sample, box, pixels, self.reference_size)
        single = few_shot and o.single_view > 0 and happens(o.single_view, generator)
        if few_shot and not single:  # the reference is the object in any few-shot picture, else in this one
            _, sample, box = _choose(self.insertset.few_shot, generator)
        pad = 0 if few_shot else SAME_CATEGORY_PAD
        pixels = self._read(sample.image)
        reference = self.images.in_picture(sample, box, pixels, self.reference_size, pad)
        if o.augment:
            kept = {"mirror": not single, "warped": self.images.bends}
            reference = augmented(reference, generator, odds=o.augment_odds, **kept)
        view = torch.tensor(number if single else ALL_VIEWS)
        item = {
            "image": drawn.image, "mask": drawn.mask, "object_box": object_box,
            "reference": reference, "view": view, "index": torch.tensor(index),
        }  # fmt: skip
        return item if own is None else item | {"cut_out": own}

    def _read(self, path: Path) -> np.ndarray:
        """A picture's pixels, cached up to CACHE_BYTES (random access gains nothing from eviction)."""
        if path in self._cache:
            return self._cache[path]
        pixels = read_rgb(path)
        if pixels.nbytes <= self._free:
            self._free -= pixels.nbytes
            self._cache[path] = pixels
        return pixels


def target(
    pixels: np.ndarray,
    box: Box,
    size: int,
    generator: torch.Generator,
    crop_squares: bool = True,
    mask_resize: str = "cover",
) -> Target:
    """Pixels [H,W,3] and the object's box => a random square crop around it, at `size` px, and a random mask.

    Without `crop_squares` a square picture is not cropped. `mask_resize`: `cover` sets every pixel that the
    region touches, `bilinear` gives soft edges.
    """
    height, width = pixels.shape[:2]
    mask, enlarged = training_mask(box, (height, width), generator)
    whole = height == width and not crop_squares
    left, top, side = (0, 0, width) if whole else crop_window(enlarged, (height, width), generator)
    image = squash(_cut(pixels, left, top, side, mode="reflect"), size)
    region = _cut(rearrange(mask, "c H W -> H W c").numpy(), left, top, side, mode="constant")
    return Target(image, resized_mask(region, size, mask_resize), (left, top, side))


def resized_mask(region: np.ndarray, size: int, mask_resize: str) -> Tensor:
    """A mask [H,W,1] in {0,1} => [1,size,size] in [0,1], see `target`."""
    mask = rearrange(torch.from_numpy(region), "H W c -> c H W")
    if mask_resize == "cover":
        return F.adaptive_max_pool2d(mask, size)
    return F.interpolate(mask[None], size=(size, size), mode="bilinear")[0]


def crop_window(enlarged: Box, size: tuple[int, int], generator: torch.Generator) -> tuple[int, int, int]:
    """A random square around the enlarged box: left, top, side in pixels.

    It lies inside the image of `size` (H, W), unless the box is longer than the image's short side.
    """
    x0, y0, x1, y1 = pixel_box(enlarged, size)
    height, width = size
    longer = max(x1 - x0, y1 - y0)
    margin = max(min(size) - longer, 0)
    cut = int(CROP_MARGIN * margin * torch.rand((), generator=generator))
    side = longer + margin - cut
    return _place(x0, x1, width, side, generator), _place(y0, y1, height, side, generator), side


def _choose(samples: tuple[Sample, ...], generator: torch.Generator) -> tuple[int, Sample, Box]:
    """A random sample, its number, and one of its boxes."""
    number = _below(len(samples), generator)
    sample = samples[number]
    return number, sample, sample.boxes[_below(len(sample.boxes), generator)]


def _below(count: int, generator: torch.Generator) -> int:
    return int(torch.randint(count, (), generator=generator))


def _place(start: int, end: int, extent: int, side: int, generator: torch.Generator) -> int:
    """A random start of a window of `side` around [start, end); outside the picture only if side > extent."""
    low = max(end - side, min(0, extent - side))
    high = min(start, max(0, extent - side))
    return low + _below(high - low + 1, generator)


def _cut(array: np.ndarray, left: int, top: int, side: int, mode: str) -> np.ndarray:
    """The square window of an array [H,W,c], padded outside by numpy's padding `mode`."""
    height, width = array.shape[:2]
    rows = max(-top, 0), max(top + side - height, 0)
    columns = max(-left, 0), max(left + side - width, 0)
    inside = array[max(top, 0) : top + side, max(left, 0) : left + side]
    return np.pad(inside, (rows, columns, (0, 0)), mode=mode)  # type: ignore[call-overload]


MAX_DEGREES = 20.0
MAX_BEND = 0.08  # in units of affine_grid: 4 % of the reference's side
MAX_BLUR = 3 / 224  # radius, in the reference's side
FLIP, ROTATE, BLUR, BEND = 0.5, 0.5, 0.3, 0.3  # probabilities
DRAWN_FLIP, DRAWN_BLUR, DRAWN_BEND = 0.7, 0.4, 0.4  # the paper's, multiplied by r, uniform in [0,1]


def augmented(
    reference: Tensor,
    generator: torch.Generator,
    mirror: bool = True,
    warped: bool = True,
    odds: str = "fixed",
) -> Tensor:
    """Randomly mirror, rotate, warp and blur a reference [3,R,R] in [-1,1].

    Without `warped` it is only blurred. `odds`: fixed, or drawn for each reference as in the paper.
    """
    chances = drawn_odds(generator) if odds == "drawn" else torch.tensor([FLIP, ROTATE, BLUR, BEND])
    chances[0] *= mirror
    flip, rotate, blur, bend = (torch.rand(4, generator=generator) < chances).tolist()
    amount = torch.rand(2, generator=generator).tolist()
    nodes = torch.rand(1, 2, 4, 4, generator=generator) * 2 - 1
    degrees = MAX_DEGREES * (2 * amount[0] - 1) if rotate else 0.0
    if warped:
        reference = warp(reference, flip, degrees, nodes * MAX_BEND * bend)
    return box_blur(reference, 1 + int(amount[1] * MAX_BLUR * reference.shape[-1])) if blur else reference


def drawn_odds(generator: torch.Generator) -> Tensor:
    """The paper's probabilities [4] of flip, rotation, blur, warp: one random r for all but the rotation."""
    r = float(torch.rand((), generator=generator))
    return torch.tensor([DRAWN_FLIP * r, ROTATE, DRAWN_BLUR * r, DRAWN_BEND * r])


def warp(image: Tensor, flip: bool, degrees: float, nodes: Tensor) -> Tensor:
    """Mirror, rotate (counter-clockwise) and warp an image [3,R,R], with reflection padding.

    `nodes` [1,2,n,n]: the shift of x and y at each point of a coarse grid, in halves of the image's side.
    """
    angle = torch.deg2rad(torch.tensor(degrees))
    sin, cos, sign = torch.sin(angle), torch.cos(angle), -1.0 if flip else 1.0
    turn = torch.stack([sign * cos, -sign * sin, torch.zeros(()), sin, cos, torch.zeros(())]).view(1, 2, 3)
    grid = F.affine_grid(turn, [1, *image.shape], align_corners=False)
    shift = F.interpolate(nodes, size=image.shape[-2:], mode="bicubic", align_corners=True)
    grid = grid + rearrange(shift, "b xy H W -> b H W xy")
    out = F.grid_sample(image[None], grid, mode="bicubic", padding_mode="reflection", align_corners=False)[0]
    return out.clamp(image.min(), image.max())


def box_blur(image: Tensor, radius: int) -> Tensor:
    """Mean over squares of 2 * radius + 1 pixels: [c,H,W] => [c,H,W]."""
    padded = F.pad(image, (radius,) * 4, mode="reflect")
    return F.avg_pool2d(padded, 2 * radius + 1, stride=1)
