"""The method as one function: background, requests and objects => composites at full resolution."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from torch import Generator, Tensor

from ldm.data.picture import Picture
from ldm.insertion.blend import (
    BLENDS,
    Blend,
    blend,
    colour_offset,
    composite,
    feather,
    pixel_unit,
    seam_ratio,
)
from ldm.insertion.crop_paste import paste_region
from ldm.insertion.inpaint import MakePredictor, Sampling, inpaint
from ldm.insertion.region import InsertableObject, InsertRequest, Region, RegionFill, Result, region_in
from ldm.models.inpainting_model import InpaintingModel

# model, object, region, its fill, first results [3,h,w], sampling => results [3,h,w]
SecondPass = Callable[
    [InpaintingModel, InsertableObject, Region, RegionFill, Sequence[Tensor], Sampling], Sequence[Tensor]
]


@dataclass(frozen=True, eq=False)
class InsertOptions:
    """How regions are inpainted and pasted, for all objects and backgrounds.

    `predictor`: see `MakePredictor`; `second_pass` refines results that were blended into their region.
    """

    sampling: Sampling = field(default_factory=Sampling)
    blend: Blend = BLENDS["membrane"]
    predictor: MakePredictor = lambda model, regions: model
    second_pass: SecondPass | None = None


def insert(
    model: InpaintingModel,
    background: Picture,
    requests: Sequence[InsertRequest],
    objects: Sequence[InsertableObject],
    options: InsertOptions,
) -> list[list[Result]]:
    """Inpaint every region of every request and paste it back => for each request one result per seed.

    `objects`: one for each request. All requests start from the same background. The first regions of all
    requests, with all seeds, are one batch, then the second ones. Pixels outside a request's mask are
    those of `background`, bit for bit.
    """
    results = [
        [Result(background, (), {"seed": seed, "regions": [], "seconds": 0.0}) for seed in request.seeds]
        for request in requests
    ]
    noise = [[Generator().manual_seed(seed) for seed in request.seeds] for request in requests]
    for turn in range(max(len(request.rois) for request in requests)):
        start = time.perf_counter()
        now = [i for i, request in enumerate(requests) if turn < len(request.rois)]
        regions = [region_in(background, requests[i], turn, noise[i]) for i in now]
        fills = [objects[i].fill(region) for i, region in zip(now, regions, strict=True)]
        contexts = [objects[i].contexts for i in now]
        made = inpaint(model, regions, contexts, fills, options.sampling, options.predictor)
        for i, region, fill, images in zip(now, regions, fills, made, strict=True):
            final = _second_pass(model, objects[i], region, fill, images, options)
            results[i] = [_pasted(r, fill, x, options.blend) for r, x in zip(results[i], final, strict=True)]
        seconds = (time.perf_counter() - start) / sum(len(requests[i].seeds) for i in now)
        for result in (result for i in now for result in results[i]):
            result.record["seconds"] = round(result.record["seconds"] + seconds, 3)
    return results


def _second_pass(
    model: InpaintingModel,
    one: InsertableObject,
    region: Region,
    fill: RegionFill,
    images: Sequence[Tensor],
    options: InsertOptions,
) -> Sequence[Tensor]:
    if options.second_pass is None:
        return images
    matched = [blend(region.known, image, region.mask, options.blend)[0] for image in images]
    return options.second_pass(model, one, region, fill, matched, options.sampling)


def _pasted(result: Result, fill: RegionFill, generated: Tensor, options: Blend) -> Result:
    """Blend one region and add it to the result."""
    region = fill.region
    if not bool(generated.isfinite().all()):
        raise ValueError(
            "the model gave NaN or infinite pixels; give a smaller --object_scale or --precision fp32, or "
            "learn the object again at lower rates"
        )
    known, mask, full = region.known, region.mask, region.full_mask
    image, alpha = blend(known, generated, mask, options)
    whole = alpha if full is mask else feather(full, options.feather * pixel_unit(full))
    facts = {
        "roi": list(region.roi),
        "seam_before": round(seam_ratio(composite(known, generated, mask.astype(np.float32)), mask), 3),
        "seam": round(seam_ratio(composite(known, image, alpha), mask), 3),
        "colour_offset_before": round(colour_offset(known, generated, mask), 4),
        "colour_offset": round(colour_offset(known, image, mask), 4),
    }
    record = result.record | {"regions": [*result.record["regions"], facts]}
    patch = paste_region(result.background, region.roi, image, whole)
    return Result(result.background, (*result.patches, patch), record)
