"""The trainer of a run: Lightning's, quiet, with our logs and checkpoints in one run folder."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Sequence
from pathlib import Path

import pytorch_lightning as pl
from pytorch_lightning.loggers import TensorBoardLogger

from ldm.training.checkpoints import AtomicCheckpointIO
from ldm.training.logs import CsvLog

LOG_EVERY = 10  # steps


def build_trainer(
    run: Path,
    callbacks: Sequence[pl.Callback],
    *,
    max_steps: int,
    accumulate: int = 1,
    precision: str = "32-true",
    accelerator: str = "auto",
    devices: str | int = "auto",
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
        accumulate_grad_batches=accumulate,
        precision=precision,  # type: ignore[arg-type]
        accelerator=accelerator,
        devices=devices,
        logger=[CsvLog(run / "metrics.csv", start), board],
        callbacks=list(callbacks),
        plugins=[AtomicCheckpointIO()],
        log_every_n_steps=min(LOG_EVERY, max_steps),
        use_distributed_sampler=False,  # ldm.training.batches deals the samples out
        enable_checkpointing=False,  # ours: ldm.training.checkpoints
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        default_root_dir=run,
    )


def quieten() -> None:
    """Leave out what Lightning says about itself: devices found, tips, workers, how to resume a run."""
    for name in ("pytorch_lightning", "lightning.pytorch", "lightning_fabric", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module=r"(pytorch_lightning|lightning_fabric)(\..*)?")
    warnings.filterwarnings("ignore", message=".*LeafSpec.*")
