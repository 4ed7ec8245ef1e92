"""Inpaint regions as one batch: encode, sample, decode."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor

from ldm.data.image import resize
from ldm.insertion.paste import to_model_mask
from ldm.insertion.region import Region
from ldm.insertion.region_fill import RegionFill
from ldm.models.context import Contexts, join
from ldm.models.diffusion import masked_image
from ldm.models.inpainting_model import InpaintingModel
from ldm.models.sampler import EVERYWHERE, Condition, Predictor, sample

# wraps the model for one sampling, of these regions: DeepCache, or what shows a job's progress
MakePredictor = Callable[[InpaintingModel, Sequence[Region]], Predictor]


@dataclass(frozen=True)
class Sampling:
    """Options of sampling: sampler, steps, guidance scale, standard deviation of the initial noise.

    `guidance_interval`: noise levels t/T that are guided. `guidance_from`: the weights of the unconditional
    prediction, "object" (as in the paper) or "base". `reference_view`: the
    few-shot token, from 1, that is used alone; 0: all tokens; -1: the one nearest to the reference.
    """

    sampler: str = "plms"
    steps: int = 50
    guidance_scale: float = 5.0
    init_noise_sigma: float = 1.0
    guidance_interval: tuple[float, ...] = EVERYWHERE
    guidance_from: str = "object"
    reference_view: int = 0

    def __post_init__(self) -> None:
        interval = self.guidance_interval
        if len(interval) != 2 or not 0 <= interval[0] <= interval[1] <= 1:
            raise ValueError(
                f"guidance_interval={list(interval)}: expected LOW,HIGH with 0 <= LOW <= HIGH <= 1"
            )

    def schedule(self) -> dict[str, Any]:
        """Keywords of `sample`, except the sampler."""
        interval = (self.guidance_interval[0], self.guidance_interval[1])
        return {"steps": self.steps, "guidance_scale": self.guidance_scale, "guidance_interval": interval}


def inpaint(
    model: InpaintingModel,
    regions: Sequence[Region],
    contexts: Sequence[Contexts],
    fills: Sequence[RegionFill],
    sampling: Sampling,
    predictor: MakePredictor = lambda model, regions: model,
) -> list[list[Tensor]]:
    """For each region, with its own object's contexts, an image [3,h,w] in [-1,1] per noise generator.

    All of them are one batch.
    """
    counts = [len(region.noise) for region in regions]
    condition = _condition(model, regions, contexts, fills)
    noise = [torch.randn(condition.masked.shape[1:], generator=g) for r in regions for g in r.noise]
    x_T = torch.stack(noise).to(condition.masked) * sampling.init_noise_sigma
    start, strength = _start(model, regions, fills)
    begin = None
    if start is not None and strength < 1:
        begin = start.repeat_interleave(torch.tensor(counts, device=model.device), 0), strength
    x_0 = sample(
        predictor(model, regions), condition, x_T,
        sampler=sampling.sampler, start=begin, **sampling.schedule(),
    )  # fmt: skip
    return _finished(model, fills, x_0.split(counts), start)


def _finished(
    model: InpaintingModel, fills: Sequence[RegionFill], latents: Sequence[Tensor], start: Tensor | None
) -> list[list[Tensor]]:
    """The finished images of each region from its latents x_0 [n,c,h,w] and the start latents [b,c,h,w]."""

    @cache
    def decoded_starts() -> Tensor:
        assert start is not None, "decoded_starts needs a fill with a start image"
        return model.decode(start).cpu()

    return [
        fill.finish(model.decode(x_0).cpu(), lambda i=i: decoded_starts()[i])  # type: ignore[misc]
        for i, (fill, x_0) in enumerate(zip(fills, latents, strict=True))
    ]


def _condition(
    model: InpaintingModel,
    regions: Sequence[Region],
    contexts: Sequence[Contexts],
    fills: Sequence[RegionFill],
) -> Condition:
    """What the UNet sees besides x_t, for every sample of every region."""
    size, counts = model.architecture.image_size, [len(region.noise) for region in regions]
    images = torch.cat([resize(region.known[None], size) for region in regions]).to(model.device)
    masks = torch.cat([to_model_mask(region.mask, size) for region in regions]).to(model.device)
    masked = _encoded(model, masked_image(images, masks, shown_in(fills, masks)))
    small = model.latent_mask(masks).to(masked)
    each = torch.tensor(counts, device=model.device)
    repeated = [c.repeat(n) for c, n in zip(contexts, counts, strict=True)]
    conditional, unconditional = (join([c[half] for c in repeated]) for half in (0, 1))
    seen = Contexts(conditional, unconditional)
    return Condition(masked.repeat_interleave(each, 0), small.repeat_interleave(each, 0), seen)


def shown_in(fills: Sequence[RegionFill], masks: Tensor) -> Tensor | None:
    """What the fills show in masks [b,1,S,S], each in its own => [b,c,S,S]; None: mid-grey in all of them."""
    shown = [fill.shown(masks[i : i + 1]) for i, fill in enumerate(fills)]
    first = next((x for x in shown if x is not None), None)
    if first is None:
        return None
    return torch.cat([torch.zeros_like(first) if x is None else x for x in shown])


def _start(
    model: InpaintingModel, regions: Sequence[Region], fills: Sequence[RegionFill]
) -> tuple[Tensor | None, float]:
    """Start latents [b,c,h,w] and their noise level; None if no fill has a start image."""
    starts = [fill.start() for fill in fills]
    found = [start for start in starts if start is not None]
    if not found:
        return None, 1.0
    images = [r.known if s is None else s.image for r, s in zip(regions, starts, strict=True)]
    size = model.architecture.image_size
    latents = _encoded(model, torch.cat([resize(image[None], size) for image in images]))
    assert len({start.strength for start in found}) == 1, "a batch starts at one noise level"
    return latents, found[0].strength


def _encoded(model: InpaintingModel, images: Tensor) -> Tensor:
    """Latents in fp32, also under autocast, because samplers add up small steps; of sRGB colours only."""
    return model.encode(images.clamp(-1, 1).to(model.device)).float()
