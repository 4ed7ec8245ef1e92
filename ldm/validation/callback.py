"""A run that judges itself: how often, the best checkpoint with the reason beside it, and when to stop.

What a judge looks at is its own affair (`ldm.validation.validator`); here is when it is asked, and what follows.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.loggers import TensorBoardLogger

from ldm.data.files import atomic_file
from ldm.data.insertset import InsertSet, Sample
from ldm.data.picture import Picture
from ldm.data.picture_write import write_picture
from ldm.features.imagenet import ImageNetFeatures
from ldm.models.base import Base
from ldm.models.checkpoint import write_ckpt
from ldm.training.checkpoints import BEST, REASON, Checkpoints, best_checkpoint
from ldm.validation.score import Shown, ValidationScore, best, idle, read_scores, reason, write_scores
from ldm.validation.validator import REGIONS, hold_out, spare_picture, trial_cost

SHARE = 0.1  # of the training's UNet forwards that judging may cost
SAMPLE = 2  # forwards that a training sample costs at least: one, and the way back through it
MOST = 11  # judgements of a run: before the first step and at every tenth of the way

Judge = Callable[[Base, int], Shown]  # the base as it is now, and the step


def validation_interval(max_steps: int, samples: int, cost: int) -> int:
    """Steps between judgements of `cost` UNet forwards in a run of `samples` a step; 0: none is affordable.

    One judgement comes before the first step, which is why a run needs room for two.
    """
    affordable = min(MOST, int(SHARE * max_steps * samples * SAMPLE / cost))
    return -(-max_steps // (affordable - 1)) if affordable > 1 else 0


class Validation(pl.Callback):
    """Judges before the first step, every so many steps and at the end; keeps the best as `<run>/best.ckpt`.

    `patience`: judgements without a new record after which the run stops; 0: it never does. `stopped` tells
    afterwards. Pictures are `<run>/judged/step-000100.png`. Takes no random number of the training's.
    """

    def __init__(
        self, judge: Judge, run: Path, every: int, checkpoints: Checkpoints, patience: int = 0
    ) -> None:
        assert every > 0, f"judge every {every} steps"
        self.judge, self.run, self.every, self.patience = judge, run, every, patience
        self.checkpoints = checkpoints
        self.step, self.stopped = 0, False
        self.verdicts: list[ValidationScore] = []

    def on_train_start(self, trainer: pl.Trainer, module: Any) -> None:
        """Go on with what was said before; what a crashed run said behind its checkpoint is said anew."""
        self.step = trainer.global_step
        self.verdicts = read_scores(self.run, self.step) if self.step else []
        if trainer.is_global_zero:
            self._forget_the_future()
        if not self.step:
            self._judge(trainer, module)

    def on_train_batch_end(self, trainer: pl.Trainer, module: Any, *_: Any) -> None:
        step = trainer.global_step
        if step == self.step:
            return  # gradients are still being accumulated
        self.step = step
        if step % self.every and step != trainer.max_steps:
            return
        self._judge(trainer, module)
        tired = self.patience > 0 and trainer.is_global_zero and idle(self.verdicts) >= self.patience
        # every device has to stop behind the same step
        if step != trainer.max_steps and trainer.strategy.reduce_boolean_decision(tired, all=False):
            self.stopped = trainer.should_stop = True
            if self.checkpoints.saved != step:
                self.checkpoints.save(trainer)

    def _judge(self, trainer: pl.Trainer, module: Any) -> None:
        """One verdict on the base as it is now, and all that is written of it."""
        if not trainer.is_global_zero:
            return
        with trainer.precision_plugin.forward_context():
            shown = self.judge(module.base, self.step)
        self.verdicts.append(shown.verdict)
        write_scores(self.run, self.verdicts)
        self._show(trainer, shown)
        if self.step:
            self._keep_best(module)

    def _keep_best(self, module: Any) -> None:
        """Weights first, so that the reason is never there without them."""
        if best(self.verdicts) is self.verdicts[-1]:
            checkpoint = {"global_step": self.step}
            module.on_save_checkpoint(checkpoint)
            write_ckpt(self.run / BEST, checkpoint)
        with atomic_file(self.run / REASON) as file:
            file.write(f"{reason(self.verdicts)}\n".encode())

    def _forget_the_future(self) -> None:
        """A run that crashed, or that another takes the place of, may have kept a best of later steps."""
        kept = best_checkpoint(self.run)
        if not kept or not self.verdicts or not kept[1].startswith(f"step {best(self.verdicts).step}:"):
            (self.run / REASON).unlink(missing_ok=True)
            (self.run / BEST).unlink(missing_ok=True)

    def _show(self, trainer: pl.Trainer, shown: Shown) -> None:
        """The picture as a file, picture and numbers to TensorBoard."""
        folder, verdict = self.run / "judged", shown.verdict
        folder.mkdir(parents=True, exist_ok=True)
        write_picture(
            folder / f"step-{self.step:06}.png", Picture(shown.picture), {"verdict": verdict.text()}
        )
        for logger in trainer.loggers:
            if isinstance(logger, TensorBoardLogger):
                for name in ("score", "identity", "seam", "copying"):
                    if not math.isnan(number := getattr(verdict, name)):
                        logger.experiment.add_scalar(f"judged/{name}", number, self.step)
                logger.experiment.add_image("judged", shown.picture, self.step, dataformats="HWC")


AUTO, NONE = "auto", "none"


@dataclass(frozen=True, eq=False)
class ValidationPlan:
    """The pictures to learn from and those `held` out; `every` so many steps a verdict, 0: never.

    `held_out` is the held picture's name or "none", as a resumed run is to have it. `remark` says why a run
    is not judged that might have been.
    """

    learnt: InsertSet
    held: Sequence[Sample]
    held_out: str
    every: int
    features: ImageNetFeatures | None
    remark: str = ""

    def text(self) -> str:
        """What will be done, in a line; "" if nothing is."""
        if not self.every:
            return self.remark
        by = f"picture {self.held_out}, which is held out" if self.held else "the pictures it learns from"
        return f"judged every {self.every} steps by {by}"


def plan_validation(
    insertset: InsertSet, *, held_out: str, every: int, max_steps: int, samples: int, guidance_scale: float
) -> ValidationPlan:
    """What a run's settings mean for these pictures; `samples` a step, `every` < 0: as often as is cheap.

    No picture is held out unasked if the run is not judged. ValueError if the one that is named cannot be.
    """
    features, remark = None, ""
    regions = min(REGIONS, len(insertset.few_shot) + len(insertset.same_category))
    if every < 0:
        every = validation_interval(max_steps, samples, trial_cost(regions, guidance_scale))
        if not every:
            remark = f"not judged: {max_steps} steps are too few to spend 10 % on it (see --validate_every)"
    if every:
        try:
            features = ImageNetFeatures()
        except ModuleNotFoundError as error:
            every, remark = 0, f"not judged: {error}"
    stem = held_out
    if held_out == AUTO:
        stem = (spare_picture(features, insertset) if features else "") or NONE
    learnt, held = hold_out(insertset, "" if stem == NONE else stem)
    return ValidationPlan(learnt, held, stem, every, features, remark)
