"""How a run is to judge itself: which picture is held out for it, and how often it is asked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ldm.data.insertset import InsertSet, Sample
from ldm.evaluation.held_out import hold_out, spare_picture
from ldm.evaluation.trial import REGIONS, trial_cost
from ldm.models.imagenet import ImageNetFeatures
from ldm.training.judging import judging_interval

AUTO, NONE = "auto", "none"


@dataclass(frozen=True, eq=False)
class JudgingPlan:
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


def plan_judging(
    insertset: InsertSet, *, held_out: str, every: int, max_steps: int, samples: int, guidance_scale: float
) -> JudgingPlan:
    """What a run's settings mean for these pictures; `samples` a step, `every` < 0: as often as is cheap.

    No picture is held out unasked if the run is not judged. ValueError if the one that is named cannot be.
    """
    features, remark = None, ""
    regions = min(REGIONS, len(insertset.few_shot) + len(insertset.same_category))
    if every < 0:
        every = judging_interval(max_steps, samples, trial_cost(regions, guidance_scale))
        if not every:
            remark = f"not judged: {max_steps} steps are too few to spend 10 % on it (see --judge_every)"
    if every:
        try:
            features = ImageNetFeatures()
        except ModuleNotFoundError as error:
            every, remark = 0, f"not judged: {error}"
    stem = held_out
    if held_out == AUTO:
        stem = (spare_picture(features, insertset) if features else "") or NONE
    learnt, held = hold_out(insertset, "" if stem == NONE else stem)
    return JudgingPlan(learnt, held, stem, every, features, remark)
