"""A small deterministic autoencoder, f = 8 and 16 channels: residual convolutions without normalisation.

Between its levels pixels move into channels and back (pixel-unshuffle, pixel-shuffle) without weights. In an
untrained network the 192 channels of the coarsest level are the 8 x 8 x 3 numbers of a block of pixels, and
`start_from` makes its bottleneck their principal components: training begins where a linear transform ends.
Latents have mean 0 and variance 1 a channel once `normalise` has stored their statistics.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn


class Residual(nn.Module):
    """x + a 3 x 3 and a 1 x 1 convolution, [b,c,h,w] => the same shape; it starts as the identity."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv_in = nn.Conv2d(width, width, 3, padding=1)
        self.conv_out = nn.Conv2d(width, width, 1)
        nn.init.zeros_(self.conv_out.weight)
        nn.init.zeros_(self.conv_out.bias)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv_out(F.silu(self.conv_in(x)))


class Level(nn.Module):
    """Residual blocks of one width; x [b,c,h,w] is cut to it or filled up with zeros."""

    def __init__(self, width: int, depth: int) -> None:
        super().__init__()
        self.width = width
        self.blocks = nn.Sequential(*[Residual(width) for _ in range(depth)])

    def forward(self, x: Tensor) -> Tensor:
        return self.blocks(fitted(x, self.width))


def fitted(x: Tensor, width: int) -> Tensor:
    """[b,c,h,w] => [b,width,h,w]: the first channels, zeros behind them where there are too few."""
    return F.pad(x, [0, 0, 0, 0, 0, max(0, width - x.shape[1])])[:, :width]


class Autoencoder(nn.Module):
    """Images [b,3,H,W] in [-1,1] <=> latents [b,channels,H/f,W/f]; sides are multiples of f = 2 ** levels.

    `widths` are those of the levels from the finest on, which is half as large as the image; each is at least
    3 * 4 ** level, so that no pixel is lost. `layers`: residual blocks a level, one less at the finest and
    one more at the decoder's coarsest.
    """

    def __init__(
        self,
        widths: tuple[int, ...] = (48, 96, 192),
        channels: int = 16,
        layers: int = 2,
    ) -> None:
        super().__init__()
        depths = [max(1, layers - 1), *[layers] * (len(widths) - 1)]
        self.factor = 2 ** len(widths)
        self.encoder = nn.ModuleList(map(Level, widths, depths))
        self.to_latents = nn.Conv2d(widths[-1], channels, 3, padding=1)
        self.from_latents = nn.Conv2d(channels, widths[-1], 3, padding=1)
        self.decoder = nn.ModuleList(map(Level, widths[::-1], [layers + 1, *depths[-2::-1]]))
        self.register_buffer("mean", torch.zeros(channels))
        self.register_buffer("std", torch.ones(channels))

    @property
    def dtype(self) -> torch.dtype:
        return self.mean.dtype

    def encode(self, image: Tensor) -> Tensor:
        """Image [b,3,H,W] in [-1,1] => latents [b,c,H/f,W/f]."""
        x = image
        for level in self.encoder:
            x = level(F.pixel_unshuffle(x[:, : level.width // 4], 2))
        return (self.to_latents(x) - self.mean[:, None, None]) / self.std[:, None, None]

    def decode(self, latents: Tensor) -> Tensor:
        """Latents [b,c,h,w] => image [b,3,f*h,f*w], about in [-1,1]."""
        x = self.from_latents(latents * self.std[:, None, None] + self.mean[:, None, None])
        for level in self.decoder:
            x = F.pixel_shuffle(level(x), 2)
        return x[:, :3]

    @torch.no_grad()
    def normalise(self, images: Tensor) -> None:
        """Store the mean and the standard deviation that the latents of these images have in each channel."""
        raw = self.encode(images) * self.std[:, None, None] + self.mean[:, None, None]
        self.mean.copy_(raw.mean((0, 2, 3)))
        self.std.copy_(raw.std((0, 2, 3)))

    @torch.no_grad()
    def start_from(self, images: Tensor) -> None:
        """Make an untrained network's latents the principal components of f x f pixels of these images."""
        x = images
        for _ in self.encoder:
            x = F.pixel_unshuffle(x, 2)
        pixels = rearrange(x, "b c h w -> (b h w) c").double()
        values, vectors = torch.linalg.eigh(pixels.T @ pixels / len(pixels))
        components = (vectors * values.sqrt()).flip(1)[:, : len(self.mean)]  # [pixels, channels]
        for conv, weight in (
            (self.to_latents, torch.linalg.pinv(components)),
            (self.from_latents, components),
        ):
            nn.init.zeros_(conv.weight)
            nn.init.zeros_(conv.bias)
            inside = conv.weight[: weight.shape[0], : weight.shape[1], 1, 1]
            inside.copy_(weight)
