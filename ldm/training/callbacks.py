"""Callbacks of a run: progress bar, stopping on a signal, previews."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import pytorch_lightning as pl
from pytorch_lightning.loggers import TensorBoardLogger
from tqdm import tqdm

from ldm.data.picture import Picture
from ldm.data.picture_write import write_picture
from ldm.models.base import Base
from ldm.training.checkpoints import Checkpoints

SIGNALS = (signal.SIGINT, signal.SIGTERM)
SMOOTHING = 0.9  # of the bar's loss and speed, per step


class Progress(pl.Callback):
    """One bar over the optimizer steps, with smoothed loss and samples/s; logs speed and learning rate."""

    def __init__(self, batch_size: int, show: bool = True) -> None:
        self.batch_size, self.show = batch_size, show
        self.step, self.loss, self.speed, self.time = 0, 0.0, 0.0, 0.0
        self.bar: tqdm | None = None

    def on_train_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        self.step, self.time = trainer.global_step, time.perf_counter()
        hidden = not (self.show and trainer.is_global_zero)
        self.bar = tqdm(
            total=trainer.max_steps, initial=self.step, unit="step", desc="learning", disable=hidden
        )

    def on_train_batch_end(
        self, trainer: pl.Trainer, module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if trainer.global_step == self.step or self.bar is None:
            return  # gradients are still being accumulated
        now = time.perf_counter()
        samples = self.batch_size * trainer.accumulate_grad_batches * trainer.world_size
        speed = samples * (trainer.global_step - self.step) / (now - self.time)
        # Lightning's outputs have the loss divided by the number of accumulated batches
        loss = float(outputs["loss"]) * trainer.accumulate_grad_batches
        keep = SMOOTHING if self.speed else 0.0
        self.speed, self.loss = keep * self.speed + (1 - keep) * speed, keep * self.loss + (1 - keep) * loss
        self.step, self.time = trainer.global_step, now
        module.log("samples_per_s", speed)
        module.log("lr", trainer.optimizers[0].param_groups[0]["lr"])
        self.bar.set_postfix_str(f"loss {self.loss:.4f}, {self.speed:.2f} samples/s", refresh=False)
        self.bar.update(1)

    def teardown(self, trainer: pl.Trainer, module: pl.LightningModule, stage: str) -> None:
        if self.bar is not None:
            self.bar.close()


class StopOnSignal(pl.Callback):
    """Ctrl-C or SIGTERM: finish the step, save, stop. A second signal stops at once, without saving.

    `announce` is called at the first signal. `stopped` is true afterwards.
    """

    def __init__(self, checkpoints: Checkpoints, announce: Callable[[], None] = lambda: None) -> None:
        self.checkpoints, self.announce = checkpoints, announce
        self.stopped = False
        self.step = 0
        self.before: dict[signal.Signals, Any] = {}

    def setup(self, trainer: pl.Trainer, module: pl.LightningModule, stage: str) -> None:
        """Remember the signal handlers from before Lightning."""
        if threading.current_thread() is threading.main_thread():
            self.before = {number: signal.getsignal(number) for number in SIGNALS}

    def on_train_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Replace Lightning's handlers, which stop in the middle of an accumulation and save nothing."""
        self.step = trainer.global_step
        for number in self.before:
            signal.signal(number, self.handle)

    def handle(self, number: int, frame: FrameType | None) -> None:
        if self.stopped:
            raise KeyboardInterrupt
        self.stopped = True
        self.announce()

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        if trainer.global_step == self.step:
            return
        self.step = trainer.global_step
        # every device has to stop after the same step
        if trainer.strategy.reduce_boolean_decision(self.stopped, all=False):
            self.stopped = trainer.should_stop = True
            if self.checkpoints.saved != self.step:
                self.checkpoints.save(trainer)

    def teardown(self, trainer: pl.Trainer, module: pl.LightningModule, stage: str) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)
        self.before = {}


class Previews(pl.Callback):
    """Writes `<run>/previews/step-000500.png`, and to TensorBoard, every so many steps and at the end.

    `draw`: the base as it is now => an image, uint8 [h,w,3].
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
