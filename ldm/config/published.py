"""A published recipe as a method of the reproduction: a config file's settings, scaled to a base."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from ldm.config.build import insert_settings
from ldm.config.schema import Config, how_to_learn, load_config
from ldm.config.training_sections import TrainSection
from ldm.evaluation.ablations import PAPER, SHORT
from ldm.evaluation.methods import Method

MACHINE = ("workers", "devices", "accelerator", "gradient_checkpointing", "seed")  # no part of a recipe


def published(file: Path, own: Config) -> Method:
    """The recipe of a config file, such as configs/paper.yaml, as `paper-kv` or `paper-crossattn`.

    It learns from as many samples as our own settings do, in batches of the file's size, see `scaled`.
    Everything else that decides what is learnt, sampled and blended is the file's; base and regions are
    `own`. Raises FileNotFoundError or ValueError as `load_config` does.
    """
    config = load_config(file)
    samples_a_step = config.train.batch_size * config.train.accumulate_grad_batches
    t = scaled(config.train, max(1, samples(own.train) // samples_a_step))
    learning = how_to_learn(replace(config, train=t)) | {"freeze_model": t.freeze_model}
    return Method(
        name=f"{PAPER}-{SHORT[t.freeze_model]}",
        title=f"the paper's recipe, {t.freeze_model}",
        learning={key: value for key, value in learning.items() if key not in MACHINE},
        insertion=insert_settings(config),
    )


def samples(train: TrainSection) -> int:
    """Samples that a run sees."""
    return train.max_steps * train.batch_size * train.accumulate_grad_batches


def scaled(train: TrainSection, steps: int) -> TrainSection:
    """The same training in so many steps: the warm-up shrinks with them, the rates grow as the steps shrink.

    Adam moves a weight by about its rate a step, so that the weights move as far as in the file's own steps.
    """
    ratio = steps / train.max_steps
    names = [f.name for f in fields(train) if f.name == "lr" or f.name.startswith("lr_")]
    rates = {name: getattr(train, name) / ratio for name in names if name != "lr_final"}
    rates = {name: rate for name, rate in rates.items() if rate > 0}  # a negative one stands for another
    return replace(train, max_steps=steps, warmup_steps=round(train.warmup_steps * ratio), **rates)


def with_learning(config: Config, learning: Mapping[str, Any]) -> Config:
    """The settings with others of those that `how_to_learn` names, each in its own section."""
    trained = {f.name for f in fields(config.train)}
    train = {key: value for key, value in learning.items() if key in trained}
    data = {key: value for key, value in learning.items() if key not in trained}
    return replace(config, train=replace(config.train, **train), data=replace(config.data, **data))
