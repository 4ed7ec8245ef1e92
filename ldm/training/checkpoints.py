"""Checkpoints of a run: written whole or not at all, read without running code, found by their step.

A run folder holds `checkpoints/step-000500.ckpt ...`; a run resumes from the last. With validation it also
holds `best.ckpt`, the weights with the best score, without the optimizer's state; `best.txt` has the reason.
"""

from __future__ import annotations

import re
from pathlib import Path
from shlex import quote
from typing import Any

import pytorch_lightning as pl
import torch
from lightning_fabric.plugins.io import CheckpointIO

from ldm.data.failure import check_file
from ldm.data.files import check_folder
from ldm.data.insertset import check_outside
from ldm.models.checkpoint import refused, write_ckpt
from ldm.models.weight_files import check_sums, refusing_damage

FOLDER = "checkpoints"
BEST, REASON = "best.ckpt", "best.txt"
ABOUT = "about"  # in checkpoints of older versions: metadata
CONFIG = "config.yaml"
MARK = "# settings of a training run\n"  # begins it
WRITTEN = (CONFIG, "shown.png", "metrics.csv", BEST, REASON, "validation.csv", "previews")
NAME = re.compile(r"step-(\d+)\.ckpt")


class AtomicCheckpointIO(CheckpointIO):
    """Lightning's file access: a checkpoint is written whole or not at all, and holds no code."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        write_ckpt(Path(path), checkpoint)

    def load_checkpoint(
        self, path: Any, map_location: Any = None, weights_only: Any = None
    ) -> dict[str, Any]:
        return read_checkpoint(Path(path))

    def remove_checkpoint(self, path: Any) -> None:
        Path(path).unlink(missing_ok=True)


def read_checkpoint(path: Path, mmap: bool = False) -> dict[str, Any]:
    """A run's checkpoint, its tensors on the CPU; ValueError in one line if it is damaged or not of a run.

    `mmap`: tensors are read from the file when they are used: a third of those of a `linear` run.
    """
    check_file(path, "a checkpoint", f"give a run folder or a file in its {FOLDER}/")
    with refusing_damage(path):
        checkpoint = torch.load(path, map_location="cpu", weights_only=True, mmap=mmap)
    check_sums(path)
    if not isinstance(checkpoint, dict) or "object" not in checkpoint:
        raise refused(path, "checkpoint of a training run, as train.sh writes them")
    card = checkpoint["object"]
    if isinstance(card, dict) and ABOUT in card:
        card["metadata"] = card.pop(ABOUT)
    told = card.get("metadata") if isinstance(card, dict) else None
    described = isinstance(told, dict) and isinstance(told.get("recipe", {}), dict)
    if not described or "global_step" not in checkpoint:
        raise ValueError(f"{path} is damaged, its description of the run is not complete; copy it again")
    return checkpoint


def checkpoints(run: Path) -> list[Path]:
    """The checkpoints of a run folder, oldest first."""
    return sorted((path for path in (run / FOLDER).glob("*.ckpt") if NAME.fullmatch(path.name)), key=_step)


def _step(checkpoint: Path) -> int:
    return int(NAME.fullmatch(checkpoint.name)[1])  # type: ignore[index]


def find_checkpoint(path: Path) -> Path:
    """A run folder => its last checkpoint; a checkpoint file => itself."""
    if path.is_file():
        return path
    if not path.is_dir():
        raise FileNotFoundError(
            f"{path}: no such run; give a folder like logs/mug_cat, or a checkpoint file in it"
        )
    found = checkpoints(path)
    if not found:
        raise FileNotFoundError(f"{path} holds no {FOLDER}/step-*.ckpt; train.sh writes them")
    return found[-1]


def resumable(path: Path) -> tuple[Path, dict[str, Any]]:
    """A run folder or checkpoint file => the checkpoint to resume, and the settings of its run.

    ValueError if its run has later checkpoints: the run would be extracted from one of them.
    """
    checkpoint = find_checkpoint(path)
    saved, run = read_checkpoint(checkpoint), run_folder(checkpoint)
    if "optimizer_states" not in saved:
        raise ValueError(f"{checkpoint} cannot be resumed; give its run: --resume {quote(str(run))}")
    if (every := checkpoints(run)) and _step(every[-1]) > saved["global_step"]:
        raise ValueError(
            f"{run} has later checkpoints than {checkpoint.name}, like {every[-1].name}; "
            f"move them out of {every[-1].parent}, or continue after them: --resume {quote(str(run))}"
        )
    return checkpoint, saved["object"]["metadata"]["recipe"]


def new_run(logdir: Path, name: str) -> Path:
    """The folder of a new run; ValueError if it holds another one or cannot be a folder."""
    if ".." in Path(name).parts or Path(name).is_absolute():
        raise ValueError(f"--name {name}: outside of --logdir {logdir}; give the folder as --logdir")
    folder = logdir / name
    if checkpoints(folder):
        raise ValueError(
            f"{folder} already holds a run; --resume {quote(str(folder))} or give another --name"
        )
    if any((folder / name).exists() for name in WRITTEN) and not _is_run(folder / CONFIG):
        raise ValueError(
            f"{folder} holds files that are not of a run and would be overwritten; "
            "give another --name or --logdir"
        )
    check_folder(folder, f"--logdir {logdir}")
    check_outside(folder, f"--logdir {logdir} --name {name}")
    return folder


def _is_run(config: Path) -> bool:
    """Whether a settings file is of a run; version 0.4 wrote no mark, but a section for each step."""
    content = config.read_bytes() if config.is_file() else b""
    return content.startswith(MARK.encode()) or all(
        re.search(rb"^%s:$" % section, content, re.MULTILINE) for section in (b"base", b"train", b"extract")
    )


def best_checkpoint(run: Path) -> tuple[Path, str] | None:
    """The best checkpoint of a run folder and the reason, if the run had validation."""
    if not ((run / BEST).is_file() and (run / REASON).is_file()):
        return None
    return run / BEST, (run / REASON).read_text("utf-8").strip()


def run_folder(checkpoint: Path) -> Path:
    """The folder of the run that a checkpoint belongs to."""
    return checkpoint.parent.parent if checkpoint.parent.name == FOLDER else checkpoint.parent


class AfterStep(pl.Callback):
    """Calls `after_step` once after every optimizer step, however many batches are accumulated for it."""

    step = 0

    def on_train_start(self, trainer: pl.Trainer, module: Any) -> None:
        self.step = trainer.global_step

    def on_train_batch_end(self, trainer: pl.Trainer, module: Any, *_: Any) -> None:
        if trainer.global_step != self.step:
            self.step = trainer.global_step
            self.after_step(trainer, module)

    def after_step(self, trainer: pl.Trainer, module: Any) -> None:
        """What is done after step number `self.step`."""


class Checkpoints(AfterStep):
    """Saves every so many steps and at the end; keeps the newest few."""

    def __init__(self, run: Path, every: int, keep: int = 2) -> None:
        self.run, self.every, self.keep = run, every, keep
        self.saved = 0  # the last step that was saved

    def on_train_start(self, trainer: pl.Trainer, module: Any) -> None:
        super().on_train_start(trainer, module)
        self.saved = self.step

    def after_step(self, trainer: pl.Trainer, module: Any) -> None:
        if self.step != self.saved and (self.step % self.every == 0 or self.step == trainer.max_steps):
            self.save(trainer)

    def stop(self, trainer: pl.Trainer, wanted: bool) -> bool:
        """Stop, saved, if any device wants to: every device has to stop after the same step."""
        if not trainer.strategy.reduce_boolean_decision(wanted, all=False):
            return False
        trainer.should_stop = True
        if self.saved != trainer.global_step:
            self.save(trainer)
        return True

    def save(self, trainer: pl.Trainer) -> Path:
        """Save now; call it between steps only, since accumulated gradients are not saved."""
        path = self.run / FOLDER / f"step-{trainer.global_step:06}.ckpt"
        trainer.save_checkpoint(path)
        self.saved = trainer.global_step
        if trainer.is_global_zero:
            for old in checkpoints(self.run)[: -self.keep]:
                old.unlink()
        return path
