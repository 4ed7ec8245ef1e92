"""One stage of training a base: Lightning's loop with running averages; it resumes where it was stopped."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import EMAWeightAveraging, ModelCheckpoint
from pytorch_lightning.loggers import CSVLogger, TensorBoardLogger

from ldm.training.trainer import quieten

LOG_EVERY = 20  # steps


def last_checkpoint(folder: Path) -> Path | None:
    """Where the stage was stopped, None if it is new."""
    file = folder / "last.ckpt"
    return file if file.exists() else None


def steps_done(folder: Path) -> int:
    """Steps up to the last checkpoint."""
    file = last_checkpoint(folder)
    return torch.load(file, map_location="cpu", weights_only=True)["global_step"] if file else 0


def fit_stage(
    module: pl.LightningModule,
    data: Iterable,
    folder: Path,
    *,
    steps: int,
    checkpoint_every: int,
    ema: float,
    precision: str,
    validation: Iterable | None = None,
    callbacks: Sequence[pl.Callback] = (),
) -> None:
    """Train until `steps`, from the last checkpoint if there is one; ends with the averaged weights."""
    quieten()
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
