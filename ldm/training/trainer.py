"""Lightning's trainer for a run: quiet, with our logs, schedules and checkpoints in one run folder."""

from __future__ import annotations

import csv
import logging
import math
import os
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.accelerators import CPUAccelerator
from pytorch_lightning.loggers import Logger, TensorBoardLogger
from pytorch_lightning.utilities import rank_zero_only
from pytorch_lightning.utilities.exceptions import MisconfigurationException
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from ldm.data.files import atomic_file
from ldm.training.checkpoints import AtomicCheckpointIO

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
            with self.path.open("a", newline="") as file:
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
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_file(self.path) as file:
            file.write(text.getvalue().encode())
        self.started = True


def warm_cosine(optimizer: Optimizer, steps: int, warmup_steps: int = 100, final: float = 0.02) -> dict:
    """Linear warm-up times a cosine down to the share `final` of the rate at `steps`, for Lightning."""

    def factor(step: int) -> float:
        progress = min(1.0, step / max(1, steps))
        return min(1.0, (step + 1) / max(1, warmup_steps)) * (
            final + (1 - final) * (1 + math.cos(math.pi * progress)) / 2
        )

    return {"scheduler": LambdaLR(optimizer, factor), "interval": "step"}
