"""One stage of training a base: Lightning's loop with running averages; it resumes where it was stopped."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import timedelta
from pathlib import Path

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import EMAWeightAveraging, ModelCheckpoint, Timer
from pytorch_lightning.loggers import CSVLogger, TensorBoardLogger

from ldm.training.trainer import quieten

LOG_EVERY = 20  # steps
WARMUP = 40  # steps of a stage that is limited by time
DECAY, LEAST = 0.35, 0.02  # share of its time, at the end, in which the rate falls; down to this share


def last_checkpoint(folder: Path) -> Path | None:
    """Where the stage was stopped, None if it is new."""
    file = folder / "last.ckpt"
    return file if file.exists() else None


def steps_done(folder: Path) -> int:
    """Steps up to the last checkpoint."""
    file = last_checkpoint(folder)
    return torch.load(file, map_location="cpu", weights_only=True)["global_step"] if file else 0


def rate(progress: float, step: int) -> float:
    """Share of the peak rate when `progress` of the time is over: warm-up, all of it, then down to LEAST."""
    return min(1.0, (step + 1) / WARMUP, max(LEAST, (1 - progress) / DECAY))


class TimeLimit(Timer):
    """Ends a stage after so many minutes, those before it was resumed included; the rate follows the time.

    On a machine whose speed is unknown, or that is shared, a number of steps does not say when a stage ends.
    """

    def __init__(self, minutes: float) -> None:
        super().__init__(timedelta(minutes=minutes), verbose=False)
        self.seconds = 60 * minutes

    def on_before_optimizer_step(
        self, trainer: pl.Trainer, module: pl.LightningModule, optimizer: torch.optim.Optimizer
    ) -> None:
        share = rate(self.time_elapsed() / self.seconds, trainer.global_step)
        for group in optimizer.param_groups:
            group["lr"] = group["initial_lr"] * share


def fit_stage(
    module: pl.LightningModule,
    data: Iterable,
    folder: Path,
    *,
    steps: int,
    checkpoint_every: int,
    ema: float,
    precision: str,
    minutes: float = 0.0,
    validation: Iterable | None = None,
    callbacks: Sequence[pl.Callback] = (),
) -> None:
    """Train until `steps`, from the last checkpoint if there is one; ends with the averaged weights.

    `minutes`: a limit of wall time in all, see `TimeLimit`; 0: none.
    """
    quieten()
    limit = [TimeLimit(minutes)] if minutes else []
    trainer = pl.Trainer(
        max_steps=steps,
        max_epochs=-1,
        precision=precision,  # type: ignore[arg-type]
        logger=[CSVLogger(folder, "csv"), TensorBoardLogger(folder, "tensorboard")],
        callbacks=[
            ModelCheckpoint(
                folder,
                save_last=True,
                save_top_k=0,
                every_n_train_steps=checkpoint_every,
                enable_version_counter=False,  # a folder that was moved would get a last-v1.ckpt
            ),
            EMAWeightAveraging(decay=ema, update_starting_at_step=min(500, steps // 3)),
            *limit,
            *callbacks,
        ],
        val_check_interval=checkpoint_every if validation else None,
        check_val_every_n_epoch=None,
        num_sanity_val_steps=0,
        gradient_clip_val=1.0,
        log_every_n_steps=LOG_EVERY,
        enable_model_summary=False,
    )
    trainer.fit(module, data, validation, ckpt_path=last_checkpoint(folder), weights_only=True)
