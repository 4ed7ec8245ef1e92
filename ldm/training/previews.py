"""Preview pictures of a run: one region of a few-shot picture, filled every so many steps from one noise."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.loggers import TensorBoardLogger
from torch import Tensor

from ldm.data.image import read_rgb, to_pixels
from ldm.data.insertset import InsertSet
from ldm.data.pairs import sample_generator, target
from ldm.data.picture import Picture
from ldm.data.save import write_picture
from ldm.data.shown import reference_image, squash
from ldm.models.architecture import Architecture
from ldm.models.base import Base
from ldm.models.contexts import Contexts
from ldm.models.diffusion import latent_mask, masked_image
from ldm.models.sampler import Condition, sample

SAMPLER, STEPS, SCALE = "unipc", 10, 5.0


@dataclass(frozen=True)
class Scene:
    """Where a preview is made: image [1,3,S,S], mask [1,1,S,S] (1 = fill), reference [1,c,P,P]."""

    image: Tensor
    mask: Tensor
    reference: Tensor


def preview_scene(insertset: InsertSet, a: Architecture, seed: int = 0) -> Scene:
    """The first few-shot picture around its object, cropped and masked as in training, always the same."""
    first = insertset.few_shot[0]
    drawn = target(read_rgb(first.image), first.boxes[0], a.image_size, sample_generator(seed, 0))
    reference = reference_image(insertset.reference, *a.shown)
    return Scene(drawn.image[None], drawn.mask[None], reference)


@torch.no_grad()
def fill(base: Base, scene: Scene, x_T: Tensor) -> Tensor:
    """The scene with its region filled from the noise x_T [1,4,h,w]: [1,3,S,S] in [-1,1]."""
    image, mask, reference = (x.to(base.device) for x in (scene.image, scene.mask, scene.reference))
    context = base.context(reference)
    masked = base.encode(base.masked(image, mask, reference)).float()
    small = latent_mask(mask, (masked.shape[2], masked.shape[3]))
    condition = Condition(masked, small, Contexts(context, base.conditioner.unconditional(context)))
    x_0 = sample(base, condition, x_T.to(base.device), sampler=SAMPLER, steps=STEPS, guidance_scale=SCALE)
    return base.decode(x_0) * mask + masked_image(image, mask)


def strip(scene: Scene, filled: Tensor) -> Tensor:
    """Reference, picture, picture with its region cut out, and filled: [3,S,4*S] in [-1,1]."""
    size = scene.image.shape[-1]
    reference = squash(to_pixels(scene.reference[0, :3]), size)[None]
    parts = [reference, scene.image, masked_image(scene.image, scene.mask), filled.float().cpu()]
    return torch.cat(parts, dim=3)[0]


class Previews(pl.Callback):
    """Writes `<run>/previews/step-000500.png`, and to TensorBoard, every so many steps and at the end."""

    def __init__(self, scene: Scene, run: Path, every: int, seed: int = 0) -> None:
        self.scene, self.run, self.every, self.seed = scene, run, every, seed
        self.step = 0

    def on_train_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        self.step = trainer.global_step

    def on_train_batch_end(self, trainer: pl.Trainer, module: Any, *_: Any) -> None:
        step = trainer.global_step
        if step == self.step or not trainer.is_global_zero:
            return
        self.step = step
        if step % self.every == 0 or step == trainer.max_steps:
            with trainer.precision_plugin.forward_context():
                self.write(trainer, module.base, step)

    def write(self, trainer: pl.Trainer, base: Base, step: int) -> None:
        """One preview of the base as it is now."""
        side = base.architecture.latent_size
        x_T = torch.randn(1, 4, side, side, generator=torch.Generator().manual_seed(self.seed))
        pixels = to_pixels(strip(self.scene, fill(base, self.scene, x_T)))
        folder = self.run / "previews"
        folder.mkdir(parents=True, exist_ok=True)
        write_picture(folder / f"step-{step:06}.png", Picture(pixels), {"step": str(step)})
        for logger in trainer.loggers:
            if isinstance(logger, TensorBoardLogger):
                logger.experiment.add_image("preview", pixels, step, dataformats="HWC")
