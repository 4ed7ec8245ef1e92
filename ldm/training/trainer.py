"""Lightning's trainer for a run, with logs and checkpoints in one run folder, and the run's callbacks.

Callbacks: progress bar, stopping on a signal, previews.
"""

from __future__ import annotations

import csv
import logging
import math
import os
import signal
import threading
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from io import StringIO
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from pytorch_lightning.accelerators import CPUAccelerator
from pytorch_lightning.loggers import Logger, TensorBoardLogger
from pytorch_lightning.utilities import rank_zero_only
from pytorch_lightning.utilities.exceptions import MisconfigurationException
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR
from tqdm import tqdm

from ldm.data.failure import naming_failure
from ldm.data.files import write_file
from ldm.data.picture import Picture
from ldm.data.picture_write import write_picture
from ldm.models.base import Base
from ldm.training.checkpoints import AfterStep, AtomicCheckpointIO, Checkpoints

LOG_EVERY = 10  # steps


@dataclass(frozen=True)
class LoopOptions:
    """How the training loop runs: samples a batch, batches a step, and Lightning's own options.

    `workers`: processes that prepare samples; 0: the training process does.
    """

    batch_size: int = 1
    accumulate_grad_batches: int = 1
    precision: str = "32-true"
    accelerator: str = "auto"
    devices: str | int = "auto"
    workers: int = 0


def on_device(options: LoopOptions, device: str) -> LoopOptions:
    """The same loop on one device alone: cpu, cuda or cuda:N."""
    kind, _, number = device.partition(":")
    return replace(options, accelerator=kind, devices=f"{number}," if number else 1)


def check_devices(accelerator: str, devices: str | int) -> None:
    """ValueError in one line if this machine lacks the devices that are asked for."""
    quieten()
    found = {"gpu": torch.cuda.is_available() or torch.backends.mps.is_available()}
    found |= {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if not found.get(accelerator, True):
        there = ["cpu", *(kind for kind in ("cuda", "mps") if found[kind])]
        raise ValueError(f"--accelerator {accelerator}: this machine has {', '.join(there)}")
    try:
        trainer = pl.Trainer(
            accelerator=accelerator, devices=devices, logger=False, enable_checkpointing=False,
            enable_model_summary=False,
        )  # fmt: skip
    except (MisconfigurationException, TypeError, ValueError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"--accelerator {accelerator} --devices {devices}: {reason}") from None
    cores = os.cpu_count() or 1
    if isinstance(trainer.accelerator, CPUAccelerator) and trainer.num_devices > cores:
        raise ValueError(f"--devices {devices}: as many processes on {cores} CPU cores; give at most {cores}")


def build_trainer(
    run: Path,
    callbacks: Sequence[pl.Callback],
    max_steps: int,
    options: LoopOptions = LoopOptions(),
    start: int = 0,
) -> pl.Trainer:
    """A trainer that logs to metrics.csv and TensorBoard in `run`; `start` is the step it resumes at."""
    quieten()
    board = TensorBoardLogger(
        run, name="", version="tensorboard", default_hp_metric=False, purge_step=start or None
    )
    return pl.Trainer(
        max_steps=max_steps,
        max_epochs=-1,
        accumulate_grad_batches=options.accumulate_grad_batches,
        precision=options.precision,  # type: ignore[arg-type]
        accelerator=options.accelerator,
        devices=options.devices,
        logger=[CsvLog(run / "metrics.csv", start), board],
        callbacks=list(callbacks),
        plugins=[AtomicCheckpointIO()],
        log_every_n_steps=min(LOG_EVERY, max_steps),
        use_distributed_sampler=False,  # ldm.training.samples distributes the samples
        enable_checkpointing=False,  # ours: ldm.training.checkpoints
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        default_root_dir=run,
    )


def quieten() -> None:
    """Silence Lightning's messages about devices, tips, workers and resuming."""
    for name in ("pytorch_lightning", "lightning.pytorch", "lightning_fabric", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module=r"(pytorch_lightning|lightning_fabric)(\..*)?")
    warnings.filterwarnings("ignore", message=".*LeafSpec.*")


COLUMNS = ("step", "loss", "lr", "samples_per_s")


class CsvLog(Logger):
    """metrics.csv: a row per logged step. Lightning's own logger deletes the file when a run is resumed."""

    def __init__(self, path: Path, start: int = 0) -> None:
        """`start`: the step that the run resumes at; later rows, of a run that crashed, are dropped."""
        super().__init__()
        self.path, self.start = path, start
        self.started = False

    @property
    def name(self) -> str:
        return ""

    @property
    def version(self) -> str:
        return ""

    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """The settings are in config.yaml."""

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Append the metrics named in COLUMNS; `step` counts the optimizer steps done."""
        if not self.started:
            self._start()
        if step is not None and "loss" in metrics:
            row = {key: metrics[key] for key in COLUMNS[1:] if key in metrics} | {"step": step + 1}
            with naming_failure(self.path), self.path.open("a", newline="") as file:
                csv.DictWriter(file, COLUMNS).writerow(row)

    def _start(self) -> None:
        """Start the file with what an earlier part of the run logged up to `start`."""
        rows = []
        if self.path.is_file() and self.start:
            with self.path.open(newline="") as old:
                rows = [row for row in csv.DictReader(old) if int(row["step"]) <= self.start]
        text = StringIO(newline="")
        writer = csv.DictWriter(text, COLUMNS)
        writer.writeheader()
        writer.writerows(rows)
        write_file(self.path, text.getvalue())
        self.started = True


def cosine_with_warmup(
    optimizer: Optimizer, steps: int, warmup_steps: int = 100, final: float = 0.02
) -> dict:
    """Linear warm-up times a cosine down to the share `final` of the rate at `steps`, for Lightning."""

    def factor(step: int) -> float:
        progress = min(1.0, step / max(1, steps))
        return min(1.0, (step + 1) / max(1, warmup_steps)) * (
            final + (1 - final) * (1 + math.cos(math.pi * progress)) / 2
        )

    return {"scheduler": LambdaLR(optimizer, factor), "interval": "step"}


SIGNALS = (signal.SIGINT, signal.SIGTERM)
SMOOTHING = 0.9  # of the bar's loss and speed, per step


class Progress(pl.Callback):
    """One bar over the optimizer steps, with smoothed loss and samples/s; logs speed and learning rate."""

    def __init__(self, batch_size: int) -> None:
        self.batch_size = batch_size
        self.step, self.loss, self.speed, self.time = 0, 0.0, 0.0, 0.0
        self.bar: tqdm | None = None

    def on_train_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        self.step, self.time = trainer.global_step, time.perf_counter()
        hidden = not trainer.is_global_zero
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


class StopOnSignal(AfterStep):
    """Ctrl-C or SIGTERM: finish the step, save, stop. A second signal stops at once, without saving.

    `announce` is called at the first signal. `stopped` is true afterwards.
    """

    def __init__(self, checkpoints: Checkpoints, announce: Callable[[], None] = lambda: None) -> None:
        self.checkpoints, self.announce = checkpoints, announce
        self.stopped = False
        self.before: dict[signal.Signals, Any] = {}

    def setup(self, trainer: pl.Trainer, module: pl.LightningModule, stage: str) -> None:
        """Remember the signal handlers from before Lightning."""
        if threading.current_thread() is threading.main_thread():
            self.before = {number: signal.getsignal(number) for number in SIGNALS}

    def on_train_start(self, trainer: pl.Trainer, module: Any) -> None:
        """Replace Lightning's handlers, which stop in the middle of an accumulation and save nothing."""
        super().on_train_start(trainer, module)
        for number in self.before:
            signal.signal(number, self.handle)

    def handle(self, number: int, frame: FrameType | None) -> None:
        if self.stopped:
            raise KeyboardInterrupt
        self.stopped = True
        self.announce()

    def after_step(self, trainer: pl.Trainer, module: Any) -> None:
        if self.checkpoints.stop(trainer, self.stopped):
            self.stopped = True  # only set here: a signal may come at any moment

    def teardown(self, trainer: pl.Trainer, module: pl.LightningModule, stage: str) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)
        self.before = {}


class Previews(AfterStep):
    """Writes `<run>/previews/step-000500.png`, and to TensorBoard, every so many steps and at the end.

    `draw`: the base as it is now => an image, uint8 [h,w,3].
    """

    def __init__(self, draw: Callable[[Base], np.ndarray], run: Path, every: int) -> None:
        self.draw, self.run, self.every = draw, run, every

    def after_step(self, trainer: pl.Trainer, module: Any) -> None:
        due = self.step % self.every == 0 or self.step == trainer.max_steps
        if due and trainer.is_global_zero:
            with trainer.precision_plugin.forward_context():
                self.write(trainer, self.draw(module.base), self.step)

    def write(self, trainer: pl.Trainer, pixels: np.ndarray, step: int) -> None:
        """One preview, uint8 [h,w,3]."""
        file = self.run / "previews" / f"step-{step:06}.png"
        write_picture(file, Picture(pixels), {"step": str(step)})
        for logger in trainer.loggers:
            if isinstance(logger, TensorBoardLogger):
                logger.experiment.add_image("preview", pixels, step, dataformats="HWC")
