"""The method as one function: background, mask and contexts => composites at the background's resolution."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Generator, Tensor

from ldm.data.image import resize
from ldm.data.picture import Picture
from ldm.insertion.blend import Blend, blend, composite
from ldm.insertion.paste import paste_region, region, to_model_mask
from ldm.insertion.refine import needs_refining, refine
from ldm.insertion.roi import Roi, crop
from ldm.insertion.seam import ring_offset, seam_ratio
from ldm.models.base import Painter
from ldm.models.diffusion import latent_mask, masked_image
from ldm.models.folded import Contexts
from ldm.models.sampler import Condition, sample


@dataclass(frozen=True)
class Sampling:
    """How x_0 is drawn: solver, UNet evaluations, guidance scale, standard deviation of the start noise.

    `refine` is the strength of the second pass over regions larger than the model's resolution; 0: none.
    """

    sampler: str = "plms"
    steps: int = 50
    guidance_scale: float = 5.0
    refine: float = 0.0
    noise: float = 1.0


@dataclass(frozen=True)
class Result:
    """One composite and its record: seed, regions, seam before and after blending, seconds."""

    picture: Picture
    record: dict


def insert(
    base: Painter,
    contexts: Contexts,
    background: Picture,
    mask: np.ndarray,
    rois: Sequence[Roi],
    seeds: Sequence[int],
    sampling: Sampling,
    seam: Blend,
    on_step: Callable[[int, Tensor], None] | None = None,
) -> list[Result]:
    """Inpaint every region with the object and paste it back, once for each seed.

    `contexts` are the object's, for one sample; `mask` bool [H,W] is where it goes, `rois` are squares that
    cover it. All seeds of a region run in one batch. Pixels outside the mask are those of `background`, bit
    for bit.
    """
    results = [Result(background, {"seed": seed, "regions": [], "seconds": 0.0}) for seed in seeds]
    noise = [Generator().manual_seed(seed) for seed in seeds]
    for roi in rois:
        start = time.perf_counter()
        known, hole = region(background, roi), crop(mask, roi)
        generated = inpaint(base, contexts, known, hole, noise, sampling, on_step)
        if sampling.refine and needs_refining(max(roi.size), base.architecture.image_size):
            matched = [blend(known, g, hole, seam)[0] for g in generated]
            generated = refine(
                base, contexts, known, hole, matched, noise,
                strength=sampling.refine, steps=sampling.steps, guidance_scale=sampling.guidance_scale,
            )  # fmt: skip
        results = [_pasted(r, roi, known, hole, g, seam) for r, g in zip(results, generated, strict=True)]
        for result in results:
            result.record["seconds"] += round((time.perf_counter() - start) / len(seeds), 3)
    return results


def inpaint(
    base: Painter,
    contexts: Contexts,
    image: Tensor,
    mask: np.ndarray,
    noise: Sequence[Generator],
    sampling: Sampling,
    on_step: Callable[[int, Tensor], None] | None = None,
) -> list[Tensor]:
    """One square region [3,h,w] in [-1,1] and its mask [h,w] => an image [3,h,w] per noise generator."""
    size, n = base.architecture.image_size, len(noise)
    image_, mask_ = resize(image[None], size).to(base.device), to_model_mask(mask, size).to(base.device)
    masked = base.encode(masked_image(image_, mask_)).expand(n, -1, -1, -1)
    x_T = torch.stack([torch.randn(masked.shape[1:], generator=g) for g in noise]).to(masked)
    condition = Condition(
        masked,
        latent_mask(mask_, (masked.shape[-2], masked.shape[-1])).expand(n, -1, -1, -1).to(masked),
        contexts.repeat(n),
    )
    x_0 = sample(
        base,
        condition,
        x_T * sampling.noise,
        sampler=sampling.sampler,
        steps=sampling.steps,
        guidance_scale=sampling.guidance_scale,
        on_step=on_step,
    )
    height, width = mask.shape
    return list(resize(base.decode(x_0).cpu(), (height, width)))


def _pasted(
    result: Result, roi: Roi, known: Tensor, mask: np.ndarray, generated: Tensor, seam: Blend
) -> Result:
    """Blend one region and lay it over the picture so far."""
    image, alpha = blend(known, generated, mask, seam)
    record = dict(result.record)
    record["regions"] = [
        *record["regions"],
        {
            "roi": [roi.x0, roi.y0, roi.x1, roi.y1],
            "seam_before": round(seam_ratio(composite(known, generated, mask.astype(np.float32)), mask), 3),
            "seam": round(seam_ratio(composite(known, image, alpha), mask), 3),
            "ring_offset_before": round(ring_offset(known, generated, mask), 4),
            "ring_offset": round(ring_offset(known, image, mask), 4),
        },
    ]
    return Result(paste_region(result.picture, roi, image, alpha), record)
