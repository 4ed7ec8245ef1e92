"""What learning asks for: settings => what is tuned, who judges it, what draws previews."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from ldm.config.drawing import sampling_of, seam_of
from ldm.config.schema import Config
from ldm.data.image import from_bytes
from ldm.data.insertset import InsertSet, Sample
from ldm.evaluation.filling import Filling, place_of
from ldm.evaluation.judging_plan import JudgingPlan, plan_judging
from ldm.evaluation.trial import Trial, regions_of
from ldm.insertion.sampling import null_of
from ldm.models.base import Base
from ldm.objects.pose import pose_among
from ldm.training.checkpoints import Checkpoints
from ldm.training.finetune import FineTune
from ldm.training.judging import Judging
from ldm.training.learner import build_learner


def module_for(config: Config, base: Base, insertset: InsertSet) -> FineTune:
    """The base with its few-shot part, ready to be tuned."""
    t = config.train
    rates = {
        "lr": t.lr,
        "lr_conditioner": t.lr_conditioner,
        "lr_tokens": t.lr_tokens,
        "lr_prior_encoder": t.lr_prior_encoder,
    }
    return build_learner(
        base,
        insertset,
        freeze_model=t.freeze_model,
        few_shot=t.few_shot,
        few_shot_features=t.few_shot_features,
        seed=t.seed,
        recipe=asdict(config),
        weight_decay=t.weight_decay,
        decayed=t.decayed,
        posterior=t.posterior,
        warmup=t.warmup,
        lr_final=t.lr_final,
        min_snr=t.min_snr,
        max_steps=t.max_steps,
        drop_context=t.drop_context,
        checkpointing=t.checkpointing,
        **rates,
    )


def judging_of(config: Config, insertset: InsertSet) -> tuple[Config, JudgingPlan]:
    """How the run judges itself, and the settings that a resumed run has to have so that it does the same."""
    t = config.train
    plan = plan_judging(
        insertset, held_out=t.hold_out, every=t.judge_every, max_steps=t.max_steps,
        samples=t.batch_size * t.accumulate, guidance_scale=config.sample.scale,
    )  # fmt: skip
    return replace(config, train=replace(t, hold_out=plan.held_out, judge_every=plan.every)), plan


def filling_of(config: Config, base: Base, card: Mapping[str, Any], pictures: Sequence[Sample]) -> Filling:
    """What draws the object into these pictures; `base` is untouched, `card` tells of the object."""
    a, sampling = config.base.architecture, sampling_of(config)
    reference, crops = from_bytes(card["reference"][None]), from_bytes(card["crops"])
    tokens = 0 if config.train.few_shot == "none" else len(crops)
    view = sampling.view if sampling.view <= tokens else 0  # learning goes on if inference cannot show it
    known = crops if a.collage and tokens else None
    return Filling(
        [place_of(picture, a.image_size, config.insert.roi_factor) for picture in pictures],
        pose_among(known, reference, view), sampling, seam_of(config), config.sample.seed,
        null_of(base, sampling),
    )  # fmt: skip


def judge_for(
    config: Config, base: Base, card: Mapping[str, Any], plan: JudgingPlan, folder: Path, saving: Checkpoints
) -> Judging | None:
    """The callback that asks the judge, if there is one."""
    if plan.features is None:
        return None
    fill = filling_of(config, base, card, regions_of(plan.learnt, plan.held))
    trial = Trial(plan.learnt, plan.held, plan.features, fill)
    return Judging(trial, folder, plan.every, saving, config.train.patience)
