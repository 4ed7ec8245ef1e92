"""Inpaint regions as one batch: encode, sample, decode."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor

from ldm.data.image import resize
from ldm.insertion.crop_paste import to_model_mask
from ldm.insertion.region import Region, RegionFill
from ldm.models.cross_attention import Contexts, join
from ldm.models.diffusion import masked_image
from ldm.models.inpainting_model import InpaintingModel
from ldm.models.sampler import EVERYWHERE, Condition, Predictor, sample

# wraps the model for one sampling, of these regions: DeepCache, or what shows a job's progress
MakePredictor = Callable[[InpaintingModel, Sequence[Region]], Predictor]


@dataclass(frozen=True)
class Sampling:
    """Options of sampling: sampler, steps, guidance scale.

    `guidance_interval`: noise levels t/T that are guided. `guidance_from`: the weights of the unconditional
    prediction, "object" (as in the paper) or "base". `reference_view`: the
    few-shot token, from 1, that is used alone; 0: all tokens; -1: the one nearest to the reference.
    """

    sampler: str = "plms"
    steps: int = 50
    guidance_scale: float = 5.0
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
    condition = _condition(model, regions, contexts, fills, beside=sampling.guidance_from == "base")
    noise = [torch.randn(condition.masked.shape[1:], generator=g) for r in regions for g in r.noise]
    x_T = torch.stack(noise).to(condition.masked)
    x_0 = sample(predictor(model, regions), condition, x_T, sampler=sampling.sampler, **sampling.schedule())
    shown = [masked[:1] for masked in condition.masked.split(counts)]
    return _finished(model, fills, x_0.split(counts), torch.cat(shown))


def _finished(
    model: InpaintingModel, fills: Sequence[RegionFill], latents: Sequence[Tensor], masked: Tensor
) -> list[list[Tensor]]:
    """The finished images of each region from its latents x_0 [n,c,h,w] and what is shown, [b,c,h,w]."""

    @cache
    def decoded_shown() -> Tensor:
        return model.decode(masked).cpu()

    return [
        fill.finish(model.decode(x_0).cpu(), lambda i=i: decoded_shown()[i])  # type: ignore[misc]
        for i, (fill, x_0) in enumerate(zip(fills, latents, strict=True))
    ]


def _condition(
    model: InpaintingModel,
    regions: Sequence[Region],
    contexts: Sequence[Contexts],
    fills: Sequence[RegionFill],
    beside: bool,
) -> Condition:
    """What the UNet sees besides x_t, for every sample of every region.

    `beside`: where a fill shows no object, the prediction is the unconditional one.
    """
    size, counts = model.architecture.image_size, [len(region.noise) for region in regions]
    images = torch.cat([resize(region.known[None], size) for region in regions]).to(model.device)
    masks = torch.cat([to_model_mask(region.mask, size) for region in regions]).to(model.device)
    shown = masked_image(images, masks, shown_in(fills, masks)).clamp(-1, 1)  # of sRGB colours only
    latents = model.encode(shown).float()  # also under autocast: samplers add up small steps
    masked = model.mark_grey(latents, shown, masks)
    small = model.latent_mask(masks).to(masked)
    each = torch.tensor(counts, device=model.device)
    repeated = [c.repeat(n) for c, n in zip(contexts, counts, strict=True)]
    conditional, unconditional = (join([c[half] for c in repeated]) for half in (0, 1))
    seen = Contexts(conditional, unconditional)
    masked, small = (x.repeat_interleave(each, 0) for x in (masked, small))
    alphas = own_in(fills, masks) if beside else None
    if alphas is None:
        return Condition(masked, small, seen)
    return Condition(masked, small, seen, model.latent_mask(alphas).repeat_interleave(each, 0))


def shown_in(fills: Sequence[RegionFill], masks: Tensor) -> Tensor | None:
    """What the fills show in masks [b,1,S,S], each in its own => [b,c,S,S]; None: mid-grey in all of them."""
    return _joined([fill.shown(mask) for fill, mask in zip(fills, masks.split(1), strict=True)], masks, 0)


def own_in(fills: Sequence[RegionFill], masks: Tensor) -> Tensor | None:
    """Where they show their objects, [b,1,S,S]: 1 in those that show none; None if all of them show none."""
    return _joined([fill.own(mask) for fill, mask in zip(fills, masks.split(1), strict=True)], masks, 1)


def _joined(parts: Sequence[Tensor | None], like: Tensor, missing: float) -> Tensor | None:
    """Parts [1,c,S,S] on the device of `like` => [b,c,S,S], `missing` for None; None if all are None."""
    first = next((part for part in parts if part is not None), None)
    if first is None:
        return None
    return torch.cat([torch.full_like(first, missing) if part is None else part for part in parts]).to(like)
