"""The method as one function: background, tasks and contexts => composites at the background's resolution."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch
from torch import Generator, Tensor

from ldm.data.image import resize
from ldm.data.picture import Picture
from ldm.insertion.blend import Blend, blend, composite, feather, halo, pixel_unit
from ldm.insertion.layer import shadowed, with_own_detail
from ldm.insertion.paste import paste_region, region, shrunk_mask, to_model_mask
from ldm.insertion.refine import needs_refining, refine
from ldm.insertion.result import Result
from ldm.insertion.roi import Roi, crop
from ldm.insertion.seam import ring_offset, seam_ratio
from ldm.insertion.task import Task
from ldm.models.base import Base
from ldm.models.collage import VISIBLE, Collage, laid_over, over_holes
from ldm.models.contexts import Context, Contexts, join
from ldm.models.diffusion import latent_mask, masked_image
from ldm.models.painter import Painter
from ldm.models.reuse import Reusing
from ldm.models.sampler import EVERYWHERE, Condition, sample

MOST = 2048  # px: no model makes more detail, and 100 megapixels in floats would be 1.2 GB a copy


@dataclass(frozen=True)
class Sampling:
    """How x_0 is drawn: solver, UNet evaluations, guidance scale, standard deviation of the start noise.

    `refine` is the strength of the second pass over regions larger than the model's resolution; 0: none.
    `guidance_interval`: noise levels t/T that are guided; `reuse`: steps for one run of the whole UNet.
    `guidance_from`: whose unconditional branch is guided away from, see `null_of`.
    `view`: the few-shot token that stands for all, see `ldm.objects.pose.pose_of`.
    For a base of collages only, as others know no object to begin from:
    `begin`: noise level t/T to begin at; below 1, from the scene with the reference laid in (as SDEdit of
    Meng et al. 2022 does), over a contact shadow of this `shadow`, see `shadowed`.
    `own_detail`: if not 0, the scale below which detail is the reference's own, see `with_own_detail`.
    """

    sampler: str = "plms"
    steps: int = 50
    guidance_scale: float = 5.0
    refine: float = 0.0
    noise: float = 1.0
    guidance_interval: tuple[float, ...] = EVERYWHERE
    reuse: int = 1
    guidance_from: str = "object"
    view: int = 0
    begin: float = 1.0
    shadow: float = 0.0
    own_detail: float = 0.0

    def __post_init__(self) -> None:
        interval = self.guidance_interval
        if len(interval) != 2 or not 0 <= interval[0] <= interval[1] <= 1:
            raise ValueError(
                f"guidance_interval={list(interval)}: expected LOW,HIGH with 0 <= LOW <= HIGH <= 1"
            )

    def schedule(self) -> dict[str, Any]:
        """What `sample` takes of it, but for the solver."""
        interval = (self.guidance_interval[0], self.guidance_interval[1])
        return {"steps": self.steps, "guidance_scale": self.guidance_scale, "guidance_interval": interval}


def null_of(base: Base, sampling: Sampling) -> Context | None:
    """The unconditional context if it is to be the base's own: ask before the base carries an object.

    None: the object's, whose weights draw the object without being told to, as in the paper. Away from the
    base's, guidance goes towards all that was learnt (as Karras et al. 2024 guide by a worse model).
    """
    return base.null() if sampling.guidance_from == "base" else None


class Square(NamedTuple):
    """One region of a task: image [3,h,w] in [-1,1], hole and mask bool [h,w], noise for each sample.

    A region of more than `MOST` px is worked on at that size; `paste` is its mask at the background's own.
    `layer` [4,h,w] is the object, laid in, `shaded` with its shadow; None: the model is not shown it.
    """

    roi: Roi
    known: Tensor
    hole: np.ndarray
    mask: np.ndarray
    paste: np.ndarray
    noise: Sequence[Generator]
    layer: Tensor | None = None
    shaded: Tensor | None = None

    @property
    def shown(self) -> np.ndarray | None:
        """Where the object and its shadow are, bool [h,w]."""
        return None if self.shaded is None else self.shaded[3].numpy() > VISIBLE

    @property
    def begun(self) -> Tensor:
        """The square with its object laid in, [3,h,w]."""
        return self.known if self.shaded is None else laid_over(self.shaded[None], self.known[None])[0]


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
            _square(background, tasks[i], turn, noise[i], contexts[i].collage, sampling.shadow) for i in now
        ]
        generated = inpaint(base, squares, [contexts[i] for i in now], sampling, on_step)
        for i, square, images in zip(now, squares, generated, strict=True):
            sharp = _refined(base, contexts[i], square, images, sampling, seam)
            results[i] = [_pasted(r, square, g, seam) for r, g in zip(results[i], sharp, strict=True)]
        seconds = (time.perf_counter() - start) / sum(len(tasks[i].seeds) for i in now)
        for result in (result for i in now for result in results[i]):
            result.record["seconds"] = round(result.record["seconds"] + seconds, 3)
    return results


def inpaint(
    base: Painter,
    squares: Sequence[Square],
    contexts: Sequence[Contexts],
    sampling: Sampling,
    on_step: Callable[[int, Tensor], None] | None = None,
) -> list[list[Tensor]]:
    """For each square, with its own object's contexts, an image [3,h,w] in [-1,1] per noise generator.

    All of them are one batch.
    """
    size, counts = base.architecture.image_size, [len(square.noise) for square in squares]
    images = torch.cat([resize(square.known[None], size) for square in squares]).to(base.device)
    masks = torch.cat([to_model_mask(square.hole, size) for square in squares]).to(base.device)
    each = torch.tensor(counts, device=base.device)
    shown = over_holes([c.collage for c in contexts], masks)
    collage = None if shown is None else shown[:, :3]
    masked = base.encode(masked_image(images, masks, collage)).repeat_interleave(each, 0)
    x_T = torch.stack([torch.randn(masked.shape[1:], generator=g) for s in squares for g in s.noise])
    small = latent_mask(masks, (masked.shape[-2], masked.shape[-1])).to(masked).repeat_interleave(each, 0)
    begun = begin = None
    if shown is not None and (sampling.begin < 1 or sampling.own_detail):
        scenes = [resize(square.begun[None], size) for square in squares]
        begun = base.encode(torch.cat(scenes).to(base.device))
    if begun is not None and sampling.begin < 1:
        begin = begun.repeat_interleave(each, 0), sampling.begin
    repeated = [c.repeat(n) for c, n in zip(contexts, counts, strict=True)]
    conditional, unconditional = (join([c[half] for c in repeated]) for half in (0, 1))
    x_0 = sample(
        base if sampling.reuse == 1 else Reusing(base, sampling.reuse),
        Condition(masked, small, Contexts(conditional, unconditional)),
        x_T.to(masked) * sampling.noise,
        sampler=sampling.sampler,
        begin=begin,
        on_step=on_step,
        **sampling.schedule(),
    )
    drawn = [base.decode(part).cpu() for part in x_0.split(counts)]
    if begun is None or not sampling.own_detail:
        return [list(resize(part, square.hole.shape)) for part, square in zip(drawn, squares, strict=True)]
    seen = base.decode(begun).cpu()  # what of it the autoencoder loses is no change
    return [
        [_detailed(square, image - own, image, sampling.own_detail) for image in part]
        for square, part, own in zip(squares, drawn, seen, strict=True)
    ]


def square_of(
    known: Tensor, mask: np.ndarray, collage: Collage | None, noise: Sequence[Generator], shadow: float = 0
) -> Square:
    """A picture [3,h,w] in [-1,1] that is a region of its own; mask bool [h,w]."""
    whole = Roi(0, 0, known.shape[2], known.shape[1])
    return Square(whole, known, mask, mask, mask, noise, *_layers(collage, mask, shadow))


def overlay(square: Square, generated: Tensor, seam: Blend) -> tuple[Tensor, np.ndarray]:
    """What to lay over a square, [3,h,w], and how strongly, [h,w], see `blend`."""
    return blend(square.known, generated, square.mask, seam, hole=square.hole, shown=square.shown)


def _square(
    background: Picture,
    task: Task,
    turn: int,
    noise: Sequence[Generator],
    collage: Collage | None,
    shadow: float,
) -> Square:
    roi = task.rois[turn]
    paste = crop(task.mask, roi)
    mask = shrunk_mask(paste, MOST)
    hole = mask if task.mask is task.hole else shrunk_mask(crop(task.hole, roi), MOST)
    layers = _layers(collage, hole, shadow)
    return Square(roi, region(background, roi, MOST), hole, mask, paste, noise, *layers)


def _layers(collage: Collage | None, hole: np.ndarray, shadow: float) -> tuple[Tensor, ...]:
    """The object of a collage as it is laid into a hole, bool [h,w]: [4,h,w], and with its shadow."""
    if collage is None:
        return ()
    inside = torch.from_numpy(hole)[None].float()
    layer = collage.over(inside[None])[0]
    return layer, shadowed(layer, shadow) * inside


def _detailed(square: Square, change: Tensor, image: Tensor, width: float) -> Tensor:
    """What a model made of a square, [3,S,S] => [3,h,w]; with the detail of its layer, if it has one."""
    if square.layer is None:
        return resize(image[None], square.hole.shape)[0]
    return with_own_detail(square.begun, square.layer[3], change, width)


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
    flat = mask.astype(np.float32)
    whole = alpha if square.paste is mask else _enlarged(alpha, square, seam)
    facts = {
        "roi": [roi.x0, roi.y0, roi.x1, roi.y1],
        "seam_before": round(seam_ratio(composite(known, generated, flat), mask), 3),
        "seam": round(seam_ratio(composite(known, image, alpha), mask), 3),
        "ring_offset_before": round(ring_offset(known, generated, mask), 4),
        "ring_offset": round(ring_offset(known, image, mask), 4),
    }
    record = result.record | {"regions": [*result.record["regions"], facts]}
    patch = paste_region(result.background, roi, image, whole)
    return Result(result.background, (*result.patches, patch), record)


def _enlarged(alpha: np.ndarray, square: Square, seam: Blend) -> np.ndarray:
    """Alpha for a region at the background's own size: its own feather, and the halo of the smaller one."""
    whole = feather(square.paste, seam.feather * pixel_unit(square.paste))
    if square.shown is None or not seam.halo:
        return whole
    return whole * cv2.resize(halo(square.shown, seam.halo), whole.shape[::-1])
