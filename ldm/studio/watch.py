"""Follows a sampling: progress, previews of what is being drawn, and a stop between two steps."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from io import BytesIO
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from ldm.data.image import resize, to_pixels
from ldm.insertion.paste import cut_region, to_model_mask
from ldm.insertion.roi import crop
from ldm.models.diffusion import alpha_bar

if TYPE_CHECKING:
    from ldm.data.picture import Picture
    from ldm.insertion.object_source import ObjectSource
    from ldm.insertion.region import InsertRequest, Result
    from ldm.insertion.region_fill import InsertableObject
    from ldm.insertion.session import Session
    from ldm.models.context import Context
    from ldm.models.inpainting_model import InpaintingModel
    from ldm.models.sampler import Predictor

SAMPLES = 4  # previews of a batch
LATENTS = 32  # longest side of the latents that are decoded
EVERY = 0.7  # seconds between previews, at least
SHARE = 6  # and so many times as long as a preview took to make
MOST = 1024  # pixels of a region that a preview is made from


class Stopped(Exception):
    """The job was cancelled, or the server ends."""


class Watch:
    """Counts the steps of a job. `on_step`: called with the steps done, and with new previews, JPEG, or none.

    It may raise `Stopped`.
    """

    def __init__(self, on_step: Callable[[int, list[bytes]], None]) -> None:
        self.on_step = on_step
        self.done, self._next = 0, 0.0

    def batch(self, background: Picture, requests: Sequence[InsertRequest]) -> None:
        """A new batch begins."""
        self.background, self.requests, self.turn = background, requests, -1

    def step(self, model: InpaintingModel, x_t: Tensor, t: Tensor, eps: Tensor) -> None:
        """The model has predicted `eps` [b,c,h,w] of `x_t` at noise level `t`."""
        self.done += 1
        previews: list[bytes] = []
        begun = time.monotonic()
        if begun >= self._next:
            previews = self._previews(model, x_t, t, eps)
            now = time.monotonic()
            self._next = now + max(EVERY, SHARE * (now - begun))
        self.on_step(self.done, previews)

    def sampling(self) -> None:
        """A sampling begins, of the next region of each request: what is known of it, and its mask."""
        self.turn += 1
        self.known: list[tuple[Tensor, Tensor]] = []
        for request in self.requests:
            if self.turn < len(request.rois):
                roi = request.rois[self.turn]
                image, mask = cut_region(self.background, roi, MOST)[None], crop(request.paste_mask, roi)
                self.known += [(image, torch.from_numpy(mask))] * len(request.seeds)

    def _previews(self, model: InpaintingModel, x_t: Tensor, t: Tensor, eps: Tensor) -> list[bytes]:
        """The estimate of x_0, decoded small, in the masked part of its region."""
        a = alpha_bar(x_t.device)[t].reshape(-1, 1, 1, 1).to(x_t)
        x_0 = ((x_t - (1 - a).sqrt() * eps.to(x_t)) / a.sqrt())[-len(self.known) :][:SAMPLES]
        if max(x_0.shape[-2:]) > LATENTS:
            x_0 = F.interpolate(x_0, size=(LATENTS, LATENTS), mode="area")
        images = model.decode(x_0).cpu()
        return [self._jpeg(image, *known) for image, known in zip(images, self.known, strict=False)]

    def _jpeg(self, image: Tensor, known: Tensor, mask: Tensor) -> bytes:
        size = image.shape[-1]
        inside = to_model_mask(mask.numpy(), size)[0]
        shown = image * inside + resize(known, size)[0] * (1 - inside)
        out = BytesIO()
        Image.fromarray(to_pixels(shown)).save(out, "JPEG", quality=85)
        return out.getvalue()


class WatchedPredictor:
    """A predictor that tells a watch of every prediction."""

    def __init__(self, model: InpaintingModel, inner: Predictor, watch: Watch) -> None:
        self.model, self.inner, self.watch = model, inner, watch
        watch.sampling()

    def eps(self, x_t: Tensor, t: Tensor, masked: Tensor, mask: Tensor, context: Context) -> Tensor:
        eps = self.inner.eps(x_t, t, masked, mask, context)
        self.watch.step(self.model, x_t, t, eps)
        return eps


class WatchedSession:
    """A session whose samplings a watch follows; it is used like a session by the runners."""

    def __init__(self, session: Session, watch: Watch) -> None:
        self.session, self.watch = session, watch
        self.fingerprint = session.fingerprint

    def load_object(self, source: ObjectSource) -> Any:
        return self.session.load_object(source)

    def ready(self, source: ObjectSource) -> InsertableObject:
        return self.session.ready(source)

    def insert(
        self,
        background: Picture,
        requests: Sequence[InsertRequest],
        objects: Sequence[InsertableObject] | None = None,
    ) -> list[list[Result]]:
        """See `Session.insert`."""
        self.watch.batch(background, requests)
        return self.session.insert(background, requests, objects)
