"""A small network that finds an object's alpha in a picture, by a box around it or without one.

The encoder is EfficientNet-Lite0 (Apache 2.0) up to stride 32 without its normalisation layers, which are
folded into the convolutions; the decoder is a U-Net's. A base ships its weights as matting.safetensors.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ldm.compositing.cut_out import FRAME, PixelBox, segment, surroundings, tidied
from ldm.compositing.graph_cut import silhouette
from ldm.data.image import to_image
from ldm.insertion.roi import box_of
from ldm.models.checkpoint import load_strictly, read_state, write_safetensors

FILE = "matting.safetensors"  # beside the weights of a base
INCLUDED = Path(__file__).parents[2] / "checkpoints/mini" / FILE
SIZE = 256  # pixels: the side of what the network sees
FITS = 0.85  # a silhouette whose box overlaps the given one less is compared with GrabCut's
RIM = FRAME + 0.01  # of a picture's sides: a box that leaves no more than this free is no box
STEM = 32
# (expansion, kernel, channels, stride) of each block of EfficientNet-Lite0, without its last three
BLOCKS = (
    (1, 3, 16, 1),
    *((6, 3, 24, 2), (6, 3, 24, 1)),
    *((6, 5, 40, 2), (6, 5, 40, 1)),
    *((6, 3, 80, 2), (6, 3, 80, 1), (6, 3, 80, 1)),
    *((6, 5, 112, 1), (6, 5, 112, 1), (6, 5, 112, 1)),
    *((6, 5, 192, 2), (6, 5, 192, 1)),
)
WITH_BOX = 5  # the block before which the box joins the encoder
WIDTHS = (96, 64, 40, 24)  # of the decoder at strides 16, 8, 4, 2


class Block(nn.Module):
    """MobileNet's inverted residual: widen, filter each channel, narrow; [b,c,h,w] => [b,d,h/s,w/s]."""

    def __init__(self, inputs: int, expansion: int, kernel: int, outputs: int, stride: int) -> None:
        super().__init__()
        wide = inputs * expansion
        self.expand = nn.Conv2d(inputs, wide, 1) if expansion > 1 else None
        self.depthwise = nn.Conv2d(wide, wide, kernel, stride, kernel // 2, groups=wide)
        self.project = nn.Conv2d(wide, outputs, 1)
        self.residual = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        y = x if self.expand is None else F.relu6(self.expand(x))
        y = self.project(F.relu6(self.depthwise(y)))
        return x + y if self.residual else y


class Up(nn.Module):
    """Enlarge twofold, add what the encoder saw at that size, mix."""

    def __init__(self, inputs: int, skipped: int, outputs: int) -> None:
        super().__init__()
        self.coarse, self.skip = nn.Conv2d(inputs, outputs, 1), nn.Conv2d(skipped, outputs, 1)
        self.depthwise = nn.Conv2d(outputs, outputs, 3, padding=1, groups=outputs)
        self.project = nn.Conv2d(outputs, outputs, 1)

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        x = F.interpolate(self.coarse(x), size=skip.shape[-2:], mode="bilinear")
        x = F.relu(x + self.skip(skip))
        return F.relu(x + self.project(F.relu(self.depthwise(x))))


class MattingNetwork(nn.Module):
    """[b,4,S,S], RGB in [-1,1] and the box (1 = inside; 1 everywhere: find it) => logits of alpha [b,1,S,S].

    S is a multiple of 32.
    """

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, STEM, 3, 2, 1)
        channels = [STEM, *(block[2] for block in BLOCKS)]
        self.blocks = nn.ModuleList(Block(c, *block) for c, block in zip(channels, BLOCKS, strict=False))
        # the encoder's last maps at strides 16, 8, 4, 2, each with the box
        skips = [c for c, block in zip(channels, BLOCKS, strict=False) if block[3] == 2][::-1]
        inputs = [channels[-1], *WIDTHS[:-1]]
        self.box = nn.Conv2d(1, channels[WITH_BOX], 1)
        self.up = nn.ModuleList(Up(c, 1 + s, d) for c, s, d in zip(inputs, skips, WIDTHS, strict=True))
        self.fine = nn.Conv2d(4 * 4, WIDTHS[-1], 3, padding=1)
        self.mix = nn.Conv2d(WIDTHS[-1], WIDTHS[-1], 3, padding=1)
        self.alpha = nn.Conv2d(WIDTHS[-1], 4, 1)  # of 2 x 2 pixels

    def forward(self, x: Tensor) -> Tensor:
        maps: list[Tensor] = []
        box = x[:, 3:]
        y = F.relu6(self.stem(x[:, :3]))
        for i, (block, (_, _, _, stride)) in enumerate(zip(self.blocks, BLOCKS, strict=True)):
            if i == WITH_BOX:
                y = y + self.box(F.adaptive_avg_pool2d(box, y.shape[-2:]))
            if stride == 2:
                maps.append(torch.cat([y, F.adaptive_avg_pool2d(box, y.shape[-2:])], 1))
            y = block(y)
        for up in self.up:
            y = up(y, maps.pop())
        y = y + F.relu(self.fine(F.pixel_unshuffle(x, 2)))
        return F.pixel_shuffle(self.alpha(F.relu(self.mix(y))), 2)


class Matting:
    """Finds objects as `cut_out.segment` does: by the network, the colours and the edges (`graph_cut`)."""

    def __init__(self, file: Path) -> None:
        """FileNotFoundError without the file, ValueError if it holds something else."""
        self.network = load_matting(file)

    def __call__(self, pixels: np.ndarray, box: PixelBox) -> np.ndarray:
        """uint8 [h,w,3], the object's box in it => alpha float [h,w] in [0,1].

        The network misses much of what it takes for ground, such as animals: where its silhouette does not
        fill the box and GrabCut's fills it better, that is taken. A box around nearly all of the picture does
        not say where the object is: it is proposed first.
        """
        if not _is_whole(box, pixels.shape[:2]):
            found = self._in_box(pixels, box)
            if fit(found, box) >= FITS:
                return found
            return max(found, segment(pixels, box), key=lambda alpha: fit(alpha, box))
        place = self.propose(pixels)
        alpha = np.zeros(pixels.shape[:2], np.float32)
        if place is not None:
            window, inner = surroundings(place, pixels.shape[:2])
            alpha[window] = self._in_box(pixels[window], inner)
        return alpha

    def propose(self, pixels: np.ndarray) -> PixelBox | None:
        """The box of what stands out in a picture uint8 [h,w,3]; None if nothing does."""
        height, width = pixels.shape[:2]
        small, inner = _shown(pixels, (0, 0, width, height))
        odds = cv2.resize(self.log_odds(small, inner), (width, height), interpolation=cv2.INTER_LINEAR)
        found = tidied(odds > 0)
        return box_of(found) if found.any() else None

    def _in_box(self, pixels: np.ndarray, box: PixelBox) -> np.ndarray:
        small, inner = _shown(pixels, box)
        found = tidied(silhouette(small, self.log_odds(small, inner), inner))
        return cv2.resize(found.astype(np.float32), pixels.shape[1::-1])

    @torch.inference_mode()
    def log_odds(self, small: np.ndarray, box: PixelBox) -> np.ndarray:
        """The network's, [SIZE,SIZE], of uint8 [SIZE,SIZE,3]: the mean over it and its mirror image."""
        x0, y0, x1, y1 = box
        inside = torch.zeros(1, SIZE, SIZE)
        inside[:, y0:y1, x0:x1] = 1
        x = torch.cat([to_image(small), inside])[None]
        x = torch.cat([x, x.flip(-1)]).contiguous(memory_format=torch.channels_last)
        there, mirrored = self.network(x)
        return ((there + mirrored.flip(-1)) / 2)[0].numpy()


@cache
def included_matting() -> Matting:
    """The network of the included base, which is read once in a process."""
    return Matting(INCLUDED)


def _shown(pixels: np.ndarray, box: PixelBox) -> tuple[np.ndarray, PixelBox]:
    """A picture and the box in it as the network sees them."""
    small = cv2.resize(pixels, (SIZE, SIZE), interpolation=cv2.INTER_AREA)
    x0, y0, x1, y1 = (round(v * SIZE / side) for v, side in zip(box, pixels.shape[1::-1] * 2, strict=True))
    return small, (x0, y0, x1, y1)


def fit(alpha: np.ndarray, box: PixelBox) -> float:
    """Overlap (intersection over union) of the box around alpha [h,w] > 0.5 and the given one, 0 to 1."""
    if not (alpha > 0.5).any():
        return 0.0
    own = box_of(alpha > 0.5)
    pairs = list(zip(own, box, strict=True))
    low, high = [max(pair) for pair in pairs[:2]], [min(pair) for pair in pairs[2:]]
    both = max(0, high[0] - low[0]) * max(0, high[1] - low[1])
    areas = ((x1 - x0) * (y1 - y0) for x0, y0, x1, y1 in (own, box))
    return both / max(sum(areas) - both, 1)


def _is_whole(box: PixelBox, size: tuple[int, int]) -> bool:
    x0, y0, x1, y1 = box
    height, width = size
    return max(x0, width - x1) <= RIM * width and max(y0, height - y1) <= RIM * height


def save_matting(network: MattingNetwork, file: Path) -> None:
    """Write the weights as fp16."""
    write_safetensors(file, {key: value.half() for key, value in network.state_dict().items()})


def load_matting(file: Path) -> MattingNetwork:
    """Weights as `save_matting` writes them, fp32, ready to use.

    FileNotFoundError without the file, ValueError if it is damaged or of another network.
    """
    network = MattingNetwork()
    load_strictly(network, read_state(file), f"the matting network, {file}")
    return network.to(memory_format=torch.channels_last).eval().requires_grad_(False)  # type: ignore[call-overload]
