"""Squares through the model, as one batch: encode, sample, decode, keep the object's own detail."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ldm.data.image import resize
from ldm.insertion.layer import with_own_detail
from ldm.insertion.paste import to_model_mask
from ldm.insertion.sampling import Sampling
from ldm.insertion.square import Square
from ldm.models.collage import over_holes
from ldm.models.contexts import Contexts, join
from ldm.models.diffusion import masked_image
from ldm.models.painter import Painter
from ldm.models.reuse import Reusing
from ldm.models.sampler import Condition, sample


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
    counts = [len(square.noise) for square in squares]
    condition = _condition(base, squares, contexts)
    x_T = torch.stack(
        [torch.randn(condition.masked.shape[1:], generator=g) for s in squares for g in s.noise]
    )
    scenes, begun, begin = [], None, None
    if any(c.collage for c in contexts) and (sampling.begin < 1 or sampling.own_detail):
        scenes = [square.begun for square in squares]
        begun = _encoded(base, torch.cat([resize(x[None], base.architecture.image_size) for x in scenes]))
        if sampling.begin < 1:
            begin = begun.repeat_interleave(torch.tensor(counts, device=base.device), 0), sampling.begin
    x_0 = sample(
        base if sampling.reuse == 1 else Reusing(base, sampling.reuse),
        condition,
        x_T.to(condition.masked) * sampling.noise,
        sampler=sampling.sampler,
        begin=begin,
        on_step=on_step,
        **sampling.schedule(),
    )
    drawn = [base.decode(part).cpu() for part in x_0.split(counts)]
    if begun is None or not sampling.own_detail:
        return [list(resize(part, square.hole.shape)) for part, square in zip(drawn, squares, strict=True)]
    coarse = base.decode(begun).cpu()  # what of it the autoencoder loses is no change
    return [
        _detailed(*each, sampling.own_detail) for each in zip(squares, scenes, drawn, coarse, strict=True)
    ]


def _condition(base: Painter, squares: Sequence[Square], contexts: Sequence[Contexts]) -> Condition:
    """What the UNet sees besides x_t, for every sample of every square."""
    size, counts = base.architecture.image_size, [len(square.noise) for square in squares]
    images = torch.cat([resize(square.known[None], size) for square in squares]).to(base.device)
    masks = torch.cat([to_model_mask(square.hole, size) for square in squares]).to(base.device)
    shown = over_holes([c.collage for c in contexts], masks)
    masked = _encoded(base, masked_image(images, masks, shown))
    small = base.latent_mask(masks).to(masked)
    each = torch.tensor(counts, device=base.device)
    repeated = [c.repeat(n) for c, n in zip(contexts, counts, strict=True)]
    conditional, unconditional = (join([c[half] for c in repeated]) for half in (0, 1))
    seen = Contexts(conditional, unconditional)
    return Condition(masked.repeat_interleave(each, 0), small.repeat_interleave(each, 0), seen)


def _encoded(base: Painter, images: Tensor) -> Tensor:
    """Latents in fp32, also under autocast: solvers add up small steps."""
    return base.encode(images.to(base.device)).float()


def _detailed(square: Square, scene: Tensor, images: Tensor, coarse: Tensor, width: float) -> list[Tensor]:
    """What a model made of a square [n,3,S,S] => each [3,h,w]; with the detail of its layer, if it has one.

    `scene` [3,h,w] is what it began from, `coarse` [3,S,S] the same through the autoencoder.
    """
    if square.layer is None:
        return list(resize(images, square.hole.shape))
    alpha = square.layer[3]
    return [with_own_detail(scene, alpha, image - coarse, width) for image in images]
