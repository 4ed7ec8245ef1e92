"""Random augmentation of references, so that training does not learn to copy one picture.

Images are float [3,R,R] in [-1,1]; randomness is a generator.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

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
