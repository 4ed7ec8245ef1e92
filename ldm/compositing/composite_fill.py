"""The fills of a base trained on composites (configs/mini.yaml): the region shows the object in it.

Such a base differs from the published method only here; the core knows `ldm.insertion.region`. In training
the region shows the object in its picture, under a random other light: what it should look like there has to
come from the scene, and from the object's tokens and weights.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from ldm.compositing.background_fill import fill_background
from ldm.compositing.composite import (
    composite_layers,
    composite_over,
    flattened,
    place_in_boxes,
    transfer_detail,
)
from ldm.data.image import resize
from ldm.data.random_draws import happens, sample_generator, uniform
from ldm.insertion.region import ObjectFill, Region, RegionFill

RECOLOUR_STREAM = 2**35  # added to the seed: the colours are independent of pictures and noise


@dataclass(frozen=True)
class CompositeSettings:
    """How a composite is used.

    `detail_transfer`: scale in pixels of a 512-px region below which detail is taken from the composite; 0:
    every pixel is the model's. `keep_scene`: the object stands before the scene that is inside the mask, else
    before the background, continued from around the mask.
    """

    detail_transfer: float = 0.0
    keep_scene: bool = False


@dataclass(frozen=True, eq=False)
class CompositeObject(ObjectFill):
    """Cut-outs [k,4,P,P] of k objects, and their `regions` [k,h,w] in [0,1]; None: all of the mask."""

    cut_outs: Tensor
    settings: CompositeSettings = field(default_factory=CompositeSettings)
    regions: Tensor | None = None

    def __call__(self, region: Region) -> CompositeFill:
        return CompositeFill(region, self)

    def joined(self, others: Sequence[ObjectFill], masks: Tensor) -> CompositeObject:
        each = [self, *(one for one in others if isinstance(one, CompositeObject))]
        return CompositeObject(torch.cat([one.cut_outs for one in each]), self.settings, masks)


def make_composite_fill(settings: CompositeSettings) -> Callable[[Tensor | None], ObjectFill]:
    """Settings => a function from an object's picture [1,3 or 4,P,P] to its fill; RGB is opaque."""

    def make(picture: Tensor | None) -> ObjectFill:
        if picture is None:
            return ObjectFill()
        opaque = picture.shape[1] == 3
        return CompositeObject(F.pad(picture, [0, 0, 0, 0, 0, 1], value=1.0) if opaque else picture, settings)

    return make


class CompositeFill(RegionFill):
    """One region with the object's cut-out composited into its mask."""

    def __init__(self, region: Region, of: CompositeObject) -> None:
        super().__init__(region)
        self.of, self.settings = of, of.settings

    def shown(self, mask: Tensor) -> Tensor:
        return resize(self.image[None], mask.shape[-1])

    def own(self, mask: Tensor) -> Tensor:
        return resize(self.layer[None, 3:], mask.shape[-1]).clamp(0, 1)

    def finish(self, images: Tensor, decoded_shown: Callable[[], Tensor]) -> list[Tensor]:
        """With `detail_transfer`, the composite with the model's large-scale change."""
        if not self.settings.detail_transfer:
            return super().finish(images, decoded_shown)
        coarse, alpha = decoded_shown(), self.layer[3]  # the autoencoder's loss is not a change
        width = self.settings.detail_transfer
        return [transfer_detail(self.image, alpha, image - coarse, width) for image in images]

    @cached_property
    def layer(self) -> Tensor:
        """All objects in the region, [4,h,w]."""
        return flattened(composite_layers(self.of.cut_outs, self.of.regions, self.mask[None]))[0]

    @cached_property
    def image(self) -> Tensor:
        """The region with the objects in it, [3,h,w] in [-1,1]."""
        return composite_over(self.layer[None], self.background[None])[0]

    @cached_property
    def background(self) -> Tensor:
        """What the objects stand before, [3,h,w] in [-1,1]."""
        if self.settings.keep_scene:
            return self.region.known
        pixels = self.region.known.permute(1, 2, 0).numpy()
        return torch.from_numpy(fill_background(pixels, self.region.mask)).permute(2, 0, 1)

    @property
    def mask(self) -> Tensor:
        """Where objects may be, [1,h,w] in {0,1}."""
        return torch.from_numpy(self.region.visible_mask)[None].float()


@dataclass(frozen=True)
class CompositesInTraining:
    """What the masked regions of training samples show: the picture, its object in part in other colours.

    `recolour`: share of the samples with other, random colours.
    """

    recolour: float = 0.0
    seed: int = 0

    def __call__(self, batch: Mapping[str, Tensor]) -> Tensor:
        """`image`, `cut_out`, `object_box`, `mask`, `index` of a batch of TrainingPairs => [b,4,S,S].

        The last channel is 1 on the object: its shadow is shown already, so that around it nothing is learnt.
        """
        image, numbers = batch["image"], batch["index"].tolist()
        alpha = place_in_boxes(batch["cut_out"], batch["object_box"], batch["mask"])[:, 3:]
        lit = [self._lit(picture, number) for picture, number in zip(image, numbers, strict=True)]
        return torch.cat([image.lerp(torch.stack(lit), alpha), alpha], 1)

    def _lit(self, picture: Tensor, number: int) -> Tensor:
        """A picture [3,S,S] in [-1,1], or the same under another light."""
        g = sample_generator(RECOLOUR_STREAM + self.seed, number)
        if not happens(self.recolour, g):
            return picture
        return recoloured(picture.cpu() / 2 + 0.5, g).to(picture) * 2 - 1


def recoloured(rgb: Tensor, g: Generator, amount: float = 1.0) -> Tensor:
    """[3,h,w] in [0,1] under another light: gamma, gain a channel, a ramp across it, saturation."""
    h, w = rgb.shape[-2:]
    gain = torch.exp(
        0.3 * amount * torch.randn((), generator=g) + 0.12 * amount * torch.randn(3, 1, 1, generator=g)
    )
    y, x = torch.meshgrid(torch.linspace(-1, 1, h), torch.linspace(-1, 1, w), indexing="ij")
    angle = uniform(0, 2 * math.pi, g)
    steepness = abs(uniform(-0.5, 0.5, g)) * amount
    ramp = torch.exp(steepness * (x * math.cos(angle) + y * math.sin(angle)))
    curved = rgb.clamp(1e-4, 1) ** torch.exp(0.25 * amount * torch.randn((), generator=g))
    grey = curved.mean(0, keepdim=True)
    coloured = grey + (curved - grey) * uniform(1 - 0.3 * amount, 1 + 0.3 * amount, g)
    return (coloured * gain * ramp).clamp(0, 1)
