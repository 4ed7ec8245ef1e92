"""A run that validates itself: on which held-out picture, how often, the best checkpoint, early stopping."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.loggers import TensorBoardLogger

from ldm.data.files import write_file
from ldm.data.image import to_image
from ldm.data.insertset import InsertSet, Sample
from ldm.data.picture import Picture, read_rgb
from ldm.data.picture_write import write_picture
from ldm.features.imagenet import ImageNetFeatures
from ldm.models.base import Base
from ldm.models.checkpoint import write_ckpt
from ldm.training.checkpoints import BEST, REASON, AfterStep, Checkpoints, best_checkpoint, read_checkpoint
from ldm.validation.score import (
    ValidationResult,
    ValidationScore,
    best,
    read_scores,
    reason,
    since_highest,
    write_scores,
)
from ldm.validation.validator import REGIONS, image_features, object_features, validation_cost

SHARE = 0.1  # of the training's UNet forwards that validation may cost
SAMPLE = 2  # UNet forwards that a training sample costs: forward and backward pass
MOST = 11  # validations of a run: before the first step and after every tenth of the steps
AUTO, NONE = "auto", "none"  # values of hold_out
FEWEST = 4  # few-shot pictures of which one can be held out
SAME = 0.95  # similarity above which two pictures are the same; frames of one burst have 0.96

Validate = Callable[[Base, int], ValidationResult]  # the base as it is now, and the step


class Validation(AfterStep):
    """Validates before the first step, every so many steps and at the end; keeps `<run>/best.ckpt`.

    `patience`: validations without a new highest score after which the run stops, then `stopped`; 0: never.
    """

    def __init__(
        self, validate: Validate, run: Path, every: int, checkpoints: Checkpoints, patience: int = 0
    ) -> None:
        assert every > 0, f"validation every {every} steps"
        self.validate, self.run, self.every, self.patience = validate, run, every, patience
        self.checkpoints = checkpoints
        self.stopped = False
        self.scores: list[ValidationScore] = []
        self.kept = 0  # the step whose weights are in BEST; 0: none
        self.resumed_at = 0

    def on_train_start(self, trainer: pl.Trainer, module: Any) -> None:
        """Continue with the scores up to the resumed step; later ones, of a crashed run, are dropped."""
        super().on_train_start(trainer, module)
        self.scores = read_scores(self.run, self.step) if self.step else []
        self.resumed_at = self.step
        if trainer.is_global_zero:
            self._remove_later_best()
        if not self.step:
            self._validate(trainer, module)

    def after_step(self, trainer: pl.Trainer, module: Any) -> None:
        last = self.step == trainer.max_steps
        if self.step % self.every and not last:
            return
        self._validate(trainer, module)
        finished = (
            self.patience > 0 and trainer.is_global_zero and since_highest(self.scores) >= self.patience
        )
        self.stopped = not last and self.checkpoints.stop(trainer, finished)

    def _validate(self, trainer: pl.Trainer, module: Any) -> None:
        """Score the base as it is now, and write score, sheet and best checkpoint."""
        if not trainer.is_global_zero:
            return
        with trainer.precision_plugin.forward_context():
            result = self.validate(module.base, self.step)
        self.scores.append(result.score)
        write_scores(self.run, self.scores)
        self._log(trainer, result)
        if self.step:
            self._keep_best(module)

    def _keep_best(self, module: Any) -> None:
        """Keep the weights of the best score, of those whose weights there are; they are written first."""
        there = [s for s in self.scores if s.step in (0, self.kept) or s.step > self.resumed_at]
        if best(there).step == self.step:
            checkpoint = {"global_step": self.step}
            module.on_save_checkpoint(checkpoint)
            write_ckpt(self.run / BEST, checkpoint)
            self.kept = self.step
        write_file(self.run / REASON, f"{reason(self.scores, there)}\n")

    def _remove_later_best(self) -> None:
        """Delete the best checkpoint that a crashed run has left of a step after the resumed one."""
        there = self.step and best_checkpoint(self.run)
        self.kept = read_checkpoint(self.run / BEST)["global_step"] if there else 0
        if not 0 < self.kept <= self.step:
            self.kept = 0
            (self.run / REASON).unlink(missing_ok=True)
            (self.run / BEST).unlink(missing_ok=True)

    def _log(self, trainer: pl.Trainer, result: ValidationResult) -> None:
        """The sheet as a file; sheet and numbers to TensorBoard."""
        file, score = self.run / "validation" / f"step-{self.step:06}.png", result.score
        write_picture(file, Picture(result.sheet), {"score": score.text()})
        for logger in trainer.loggers:
            if isinstance(logger, TensorBoardLogger):
                for name in ("score", "identity", "seam", "copying"):
                    if not math.isnan(number := getattr(score, name)):
                        logger.experiment.add_scalar(f"validation/{name}", number, self.step)
                logger.experiment.add_image("validation", result.sheet, self.step, dataformats="HWC")


@dataclass(frozen=True, eq=False)
class ValidationPlan:
    """The pictures to train on and those `held_out`; validation every `every` steps, 0: never.

    `hold_out` is the setting for a resumed run; `remark` says why there is no validation although asked for.
    """

    training: InsertSet
    held_out: Sequence[Sample]
    hold_out: str
    every: int
    features: ImageNetFeatures | None
    remark: str = ""

    def text(self) -> str:
        """What will be done, in a line; "" if nothing is."""
        if not self.every:
            return self.remark
        on = f"on picture {self.hold_out}, which is held out" if self.held_out else "on the training pictures"
        return f"validation every {self.every} steps {on}"


def plan_validation(
    insertset: InsertSet, *, held_out: str, every: int, max_steps: int, samples: int, guidance_scale: float
) -> ValidationPlan:
    """What a run's settings mean for these pictures; `samples` per step, `every` < 0: as often as is cheap.

    No picture is held out unasked if there is no validation. ValueError if a named one cannot be.
    """
    features, remark = None, ""
    regions = min(REGIONS, len(insertset.few_shot) + len(insertset.same_category))
    if every < 0:
        every = validation_interval(max_steps, samples, validation_cost(regions, guidance_scale))
        if not every:
            remark = f"no validation: it would cost over 10 % of {max_steps} steps (see --validate_every)"
    if every:
        try:
            features = ImageNetFeatures()
        except ModuleNotFoundError as error:
            every, remark = 0, f"no validation: {error}"
    stem = held_out
    if held_out == AUTO:
        stem = (choose_held_out(features, insertset) if features else "") or NONE
    training, held = hold_out(insertset, "" if stem == NONE else stem)
    return ValidationPlan(training, held, stem, every, features, remark)


def validation_interval(max_steps: int, samples: int, cost: int) -> int:
    """Steps between validations of `cost` UNet forwards, `samples` a step; 0: no room for two."""
    affordable = min(MOST, int(SHARE * max_steps * samples * SAMPLE / cost))
    return -(-max_steps // (affordable - 1)) if affordable > 1 else 0


def choose_held_out(features: ImageNetFeatures, insertset: InsertSet) -> str:
    """The name of the picture to hold out of four or more, the one most like the others; "" if none can be.

    Never the one most similar to the reference, which is often cut from it, nor one that is there twice.
    """
    samples = insertset.few_shot
    if len(samples) < FEWEST:
        return ""
    found = object_features(features, samples)
    reference = image_features(features, [to_image(read_rgb(insertset.reference))])
    similarity = found @ found.T
    similarity.fill_diagonal_(0)
    allowed = similarity.amax(1) < SAME
    allowed[int((found @ reference.T).argmax())] = False
    if not allowed.any():
        return ""
    return samples[int(similarity.sum(1).where(allowed, torch.tensor(-1.0)).argmax())].image.stem


def hold_out(insertset: InsertSet, stem: str) -> tuple[InsertSet, tuple[Sample, ...]]:
    """The set without the few-shot picture of this name, and that one; ValueError if it cannot be."""
    if not stem:
        return insertset, ()
    held = tuple(sample for sample in insertset.few_shot if sample.image.stem == stem)
    others = tuple(sample for sample in insertset.few_shot if sample.image.stem != stem)
    if not held:
        known = ", ".join(sample.image.stem for sample in others)
        raise ValueError(f"hold_out {stem!r} is no few-shot picture of {insertset.root}; there are {known}")
    if not others:
        raise ValueError(f"hold_out {stem!r} leaves no few-shot picture to train on; add others, or none")
    return replace(insertset, few_shot=others), held
