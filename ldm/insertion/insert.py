"""The method as one function: background, tasks and contexts => composites at the background's resolution."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import cv2
import numpy as np
from torch import Generator, Tensor

from ldm.data.picture import Picture
from ldm.insertion.blend import Blend, blend, composite, feather, halo, pixel_unit
from ldm.insertion.inpaint import inpaint
from ldm.insertion.paste import paste_region
from ldm.insertion.refine import needs_refining, refine
from ldm.insertion.result import Result
from ldm.insertion.sampling import Sampling
from ldm.insertion.seam import ring_offset, seam_ratio
from ldm.insertion.square import Square, square_in
from ldm.insertion.task import Task
from ldm.models.contexts import Contexts
from ldm.models.painter import Painter


def insert(
    base: Painter,
    background: Picture,
    tasks: Sequence[Task],
    contexts: Sequence[Contexts],
    sampling: Sampling,
    seam: Blend,
    on_step: Callable[[int, Tensor], None] | None = None,
) -> list[list[Result]]:
    """Inpaint every region of every task and paste it back: for each task a result a seed.

    `contexts` are those of each task's object, for one sample. All tasks see the untouched background. The
    first region of all tasks, with all seeds, is one batch, then the second. Pixels outside a task's mask are
    those of `background`, bit for bit.
    """
    results = [
        [Result(background, (), {"seed": seed, "regions": [], "seconds": 0.0}) for seed in task.seeds]
        for task in tasks
    ]
    noise = [[Generator().manual_seed(seed) for seed in task.seeds] for task in tasks]
    for turn in range(max(len(task.rois) for task in tasks)):
        start, now = time.perf_counter(), [i for i, task in enumerate(tasks) if turn < len(task.rois)]
        squares = [
            square_in(background, tasks[i], turn, noise[i], contexts[i].collage, sampling.shadow) for i in now
        ]
        generated = inpaint(base, squares, [contexts[i] for i in now], sampling, on_step)
        for i, square, images in zip(now, squares, generated, strict=True):
            sharp = _refined(base, contexts[i], square, images, sampling, seam)
            results[i] = [_pasted(r, square, g, seam) for r, g in zip(results[i], sharp, strict=True)]
        seconds = (time.perf_counter() - start) / sum(len(tasks[i].seeds) for i in now)
        for result in (result for i in now for result in results[i]):
            result.record["seconds"] = round(result.record["seconds"] + seconds, 3)
    return results


def overlay(square: Square, generated: Tensor, seam: Blend) -> tuple[Tensor, np.ndarray]:
    """What to lay over a square, [3,h,w], and how strongly, [h,w], see `blend`."""
    return blend(square.known, generated, square.mask, seam, square.shown)


def _refined(
    base: Painter,
    contexts: Contexts,
    square: Square,
    images: list[Tensor],
    sampling: Sampling,
    seam: Blend,
) -> list[Tensor]:
    """A second pass over first results [3,h,w], if it is wanted and the square is large."""
    if not sampling.refine or not needs_refining(max(square.roi.size), base.architecture.image_size):
        return images
    matched = [blend(square.known, image, square.hole, seam)[0] for image in images]
    return refine(
        base, contexts, square.known, square.hole, matched, square.noise,
        strength=sampling.refine, **sampling.schedule(),
    )  # fmt: skip


def _pasted(result: Result, square: Square, generated: Tensor, seam: Blend) -> Result:
    """Blend one region and lay it over the picture so far."""
    roi, known, mask = square.roi, square.known, square.mask
    image, alpha = overlay(square, generated, seam)
    flat, edge = mask.astype(np.float32), pasted(square, alpha, seam)
    whole = alpha if square.paste is mask else _enlarged(alpha, square, seam)
    facts = {
        "roi": [roi.x0, roi.y0, roi.x1, roi.y1],
        "seam_before": round(seam_ratio(composite(known, generated, flat), mask), 3),
        "seam": round(seam_ratio(composite(known, image, alpha), edge), 3),
        "ring_offset_before": round(ring_offset(known, generated, mask), 4),
        "ring_offset": round(ring_offset(known, image, mask), 4),
    }
    record = result.record | {"regions": [*result.record["regions"], facts]}
    patch = paste_region(result.background, roi, image, whole)
    return Result(result.background, (*result.patches, patch), record)


def pasted(square: Square, alpha: np.ndarray, seam: Blend) -> np.ndarray:
    """Whose edge the seam is, bool [h,w]: the mask's, or with a halo that of what is left of it."""
    if square.shown is None or not seam.halo or not (alpha > 0).any():
        return square.mask
    return alpha > 0


def _enlarged(alpha: np.ndarray, square: Square, seam: Blend) -> np.ndarray:
    """Alpha for a region at the background's own size: its own feather, and the halo of the smaller one."""
    whole = feather(square.paste, seam.feather * pixel_unit(square.paste))
    if square.shown is None or not seam.halo:
        return whole
    return whole * cv2.resize(halo(square.shown, seam.halo), whole.shape[::-1])
