"""Training masks: an object's box => the region that the model has to fill.

Boxes are x0 y0 x1 y1 in pixels, sizes are (H, W), masks are float [1,H,W] in {0,1}, 1 where the object goes.
"""

from __future__ import annotations

import numpy as np
import torch
from einops import einsum, rearrange
from PIL import Image, ImageDraw
from torch import Tensor

from ldm.data.boxes import Box, pixel_box

GROWTH = 0.4  # of the free space on a side
FREE_FORM_SHARE = 0.5
ARC_POINTS = 10
JITTER = 0.025  # of the box's sides: less than half a step along an arc, so that arcs do not self-intersect
BULGE_SHIFT = 0.25  # of the box's side: how far an arc's control point may be from the middle


def enlarge(box: Box, size: tuple[int, int], generator: torch.Generator) -> Box:
    """Move each side of the box outwards by 0 .. GROWTH of the free space on that side."""
    x0, y0, x1, y1 = box
    height, width = size
    left, top, right, bottom = (GROWTH * torch.rand(4, generator=generator)).tolist()
    return x0 - left * x0, y0 - top * y0, x1 + right * (width - x1), y1 + bottom * (height - y1)


def box_mask(box: Box, size: tuple[int, int]) -> Tensor:
    """The pixels that a box touches, as a mask [1,H,W] in {0,1}."""
    x0, y0, x1, y1 = pixel_box(box, size)
    mask = torch.zeros(1, *size)
    mask[:, y0:y1, x0:x1] = 1
    return mask


def free_form(box: Box, enlarged: Box, size: tuple[int, int], generator: torch.Generator) -> Tensor:
    """A blob about the box, inside the enlarged one, as a mask [1,H,W] in {0,1}.

    Its outline is four jittered arcs from corner to corner of the box, bulging towards the enlarged box.
    """
    outline = _arcs(box, enlarged, generator)
    sides = torch.tensor([box[2] - box[0], box[3] - box[1]])
    outline = outline + JITTER * sides * _uniform(outline.shape, generator)
    picture = Image.new("L", (size[1], size[0]))
    draw = ImageDraw.Draw(picture)
    draw.polygon([(int(x), int(y)) for x, y in outline.tolist()], fill=1)
    draw.point([int((box[0] + box[2]) / 2), int((box[1] + box[3]) / 2)], fill=1)  # jitter may miss a tiny box
    return torch.from_numpy(np.array(picture))[None].float() * box_mask(enlarged, size)


def training_mask(box: Box, size: tuple[int, int], generator: torch.Generator) -> tuple[Tensor, Box]:
    """A random region to fill, as a mask [1,H,W] in {0,1}, and the enlarged box around it, see `enlarge`.

    The region is the enlarged box itself or, with probability 0.5, a blob between it and the object's box.
    """
    enlarged = enlarge(box, size, generator)
    if torch.rand((), generator=generator) < FREE_FORM_SHARE:
        return free_form(box, enlarged, size, generator), enlarged
    return box_mask(enlarged, size), enlarged


def _arcs(box: Box, enlarged: Box, generator: torch.Generator) -> Tensor:
    """Points [4 * ARC_POINTS, xy] along four quadratic Bezier arcs, clockwise from the top left corner."""
    x0, y0, x1, y1 = box
    left, top, right, bottom = enlarged
    shift = (0.5 + BULGE_SHIFT * _uniform((4,), generator)).tolist()
    xs, ys = [x0 + s * (x1 - x0) for s in shift[:2]], [y0 + s * (y1 - y0) for s in shift[2:]]
    corners = torch.tensor([[x0, y0], [x1, y0], [x1, y1], [x0, y1]])
    bulges = torch.tensor([[xs[0], top], [right, ys[0]], [xs[1], bottom], [left, ys[1]]])
    nodes = torch.stack([corners, bulges, corners.roll(-1, dims=0)])
    t = torch.arange(ARC_POINTS) / ARC_POINTS
    weights = torch.stack([(1 - t) ** 2, 2 * t * (1 - t), t**2])
    return rearrange(einsum(nodes, weights, "node arc xy, node t -> arc t xy"), "arc t xy -> (arc t) xy")


def _uniform(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """Uniform numbers in [-1, 1)."""
    return 2 * torch.rand(shape, generator=generator) - 1
