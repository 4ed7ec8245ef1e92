"""Follows a sampling: progress, previews of what is being drawn, and a stop between two steps."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from io import BytesIO

import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from ldm.data.image import resize, to_pixels
from ldm.insertion.crop_paste import to_model_mask
from ldm.insertion.region import Region
from ldm.models.cross_attention import Context
from ldm.models.diffusion import alpha_bar
from ldm.models.inpainting_model import InpaintingModel
from ldm.models.sampler import Predictor

SAMPLES = 4  # previews of a batch
LATENTS = 32  # longest side of the latents that are decoded
EVERY = 0.7  # seconds between previews, at least
SHARE = 6  # and so many times as long as a preview took to make


class Stopped(Exception):
    """The job was cancelled, or the server ends."""


class Watch:
    """Counts the steps of a job. `on_step`: called with the steps done, and with new previews, JPEG, or none.

    It may raise `Stopped`.
    """

    def __init__(self, on_step: Callable[[int, list[bytes]], None]) -> None:
        self.on_step = on_step
        self.done, self._next = 0, 0.0

    def step(self, draw: Callable[[], list[bytes]]) -> None:
        """The model has made a prediction, of which `draw` makes previews."""
        self.done += 1
        previews: list[bytes] = []
        begun = time.monotonic()
        if begun >= self._next:
            previews = draw()
            now = time.monotonic()
            self._next = now + max(EVERY, SHARE * (now - begun))
        self.on_step(self.done, previews)


class WatchedPredictor:
    """A predictor for one sampling of these regions, that tells a watch of every prediction."""

    def __init__(
        self, model: InpaintingModel, regions: Sequence[Region], inner: Predictor, watch: Watch
    ) -> None:
        self.model, self.inner, self.watch = model, inner, watch
        side = min(LATENTS, model.architecture.latent_size) * model.architecture.vae_factor
        parts = [(resize(r.known[None], side)[0], to_model_mask(r.mask, side)[0]) for r in regions]
        self.known = [part for part, r in zip(parts, regions, strict=True) for _ in r.noise]

    def eps(self, x_t: Tensor, t: Tensor, masked: Tensor, mask: Tensor, context: Context) -> Tensor:
        eps = self.inner.eps(x_t, t, masked, mask, context)
        self.watch.step(lambda: self._previews(x_t, t, eps))
        return eps

    def _previews(self, x_t: Tensor, t: Tensor, eps: Tensor) -> list[bytes]:
        """The estimate of x_0, decoded small, in the masked part of its region."""
        a = alpha_bar(x_t.device)[t].reshape(-1, 1, 1, 1).to(x_t)
        x_0 = ((x_t - (1 - a).sqrt() * eps.to(x_t)) / a.sqrt())[-len(self.known) :][:SAMPLES]
        if max(x_0.shape[-2:]) > LATENTS:
            x_0 = F.interpolate(x_0, size=(LATENTS, LATENTS), mode="area")
        drawn = zip(self.model.decode(x_0).cpu(), self.known, strict=False)
        return [_jpeg(image * mask + known * (1 - mask)) for image, (known, mask) in drawn]


def _jpeg(image: Tensor) -> bytes:
    out = BytesIO()
    Image.fromarray(to_pixels(image)).save(out, "JPEG", quality=85)
    return out.getvalue()
