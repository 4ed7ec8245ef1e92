"""Preview pictures of a run: what the base draws of the object, every so many steps."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
from pytorch_lightning.loggers import TensorBoardLogger

from ldm.data.picture import Picture
from ldm.data.save import write_picture
from ldm.models.base import Base


class Previews(pl.Callback):
    """Writes `<run>/previews/step-000500.png`, and to TensorBoard, every so many steps and at the end.

    `draw`: the base as it is now => a picture, uint8 [h,w,3].
    """

    def __init__(self, draw: Callable[[Base], np.ndarray], run: Path, every: int) -> None:
        self.draw, self.run, self.every = draw, run, every
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
        pixels = self.draw(base)
        folder = self.run / "previews"
        folder.mkdir(parents=True, exist_ok=True)
        write_picture(folder / f"step-{step:06}.png", Picture(pixels), {"step": str(step)})
        for logger in trainer.loggers:
            if isinstance(logger, TensorBoardLogger):
                logger.experiment.add_image("preview", pixels, step, dataformats="HWC")
