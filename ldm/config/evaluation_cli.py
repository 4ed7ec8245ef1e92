"""What evaluate.py and reproduce.py share: the flags of scoring, the engine's setup, published recipes."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from dataclasses import fields, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch

from ldm.config.build import (
    base_settings,
    crop_context_of,
    insert_settings,
    runtime_of,
    segmenter_digest,
    session_for,
    with_settings,
)
from ldm.config.build_training import training_run_of
from ldm.config.schema import Config, learning_settings, load_config
from ldm.config.training_sections import TrainSection
from ldm.data.files import path_of
from ldm.data.insertset import InsertSet
from ldm.evaluation.methods import Method
from ldm.evaluation.metrics import METRICS, OFFLINE
from ldm.evaluation.networks import FeatureNetworks, load_networks
from ldm.evaluation.reproduction import PAPER, SHORT
from ldm.evaluation.run import Changes, Setup
from ldm.insertion.session import Session
from ldm.models.base import base_fingerprint, load_base
from ldm.models.inpainting_model import InpaintingModel
from ldm.models.runtime import inference_copy
from ldm.training.run import learn_to_file


def add_scoring_flags(p: argparse.ArgumentParser) -> None:
    """Metrics and the weights of their networks; weights without a path come from a library's cache."""
    p.add_argument("--metrics", nargs="+", choices=METRICS, default=list(OFFLINE), metavar="NAME",
                   help=f"scores to compute: {', '.join(METRICS)} [{' '.join(OFFLINE)}]")  # fmt: skip
    p.add_argument("--clip", type=path_of, metavar="FOLDER", help="CLIP ViT-B/32, transformers' layout")
    p.add_argument("--dino", type=path_of, metavar="FOLDER", help="DINOv2 ViT-g/14, transformers' layout")
    p.add_argument("--inception", type=path_of, metavar="FILE", help="torch-fidelity's Inception weights")
    p.add_argument("--alexnet", type=path_of, metavar="FILE", help="torchvision's AlexNet weights, for LPIPS")
    p.add_argument("--quality_model", "--quality-model", type=path_of, metavar="FILE",
                   help="mixture of the quality score, from evaluate.py --fit_quality")  # fmt: skip
    p.add_argument("--device", metavar="NAME", help="cpu or cuda [cuda if there is one]")


def add_choice_flags(p: argparse.ArgumentParser) -> None:
    """Which part of a benchmark is used, see `load_benchmark`."""
    p.add_argument("--objects", nargs="+", default=[], metavar="NAME", help="objects of the benchmark [all]")
    p.add_argument("--scenes", nargs="+", default=[], metavar="NAME", help="scenes of the benchmark [all]")


def networks_of(args: argparse.Namespace) -> FeatureNetworks:
    """Load what the metrics need; FileNotFoundError names model, file and flag of what is missing."""
    return load_networks(
        args.metrics, args.device, clip=args.clip, dino=args.dino, inception=args.inception,
        alexnet=args.alexnet, mixture=args.quality_model,
    )  # fmt: skip


def setup_of(args: argparse.Namespace, config: Config) -> Setup:
    """Load networks and base; results go to `--out`."""
    networks = networks_of(args)
    base = load_base(Path(config.base.path), config.base.architecture).to(args.device)
    fingerprint, used = base_fingerprint(base), base_settings(config) | segmenter_digest(config)

    def learn(insertset: InsertSet, learning: Changes, file: Path) -> None:
        """On a base of its own."""
        run = training_run_of(with_learning(config, learning), args.device)
        learn_to_file(Path(config.base.path), config.base.architecture, insertset, run, file)

    @lru_cache(maxsize=1)  # methods that insert alike follow one another
    def opened(changes: str) -> tuple[Session, InpaintingModel]:
        own = with_settings(config, json.loads(changes))
        return session_for(own, base, fingerprint), inference_copy(base, runtime_of(own, args.device))

    def open_session(changes: Mapping[str, Any]) -> tuple[Session, InpaintingModel]:
        """The base makes contexts in fp32; a copy in the precision that is asked for samples."""
        return opened(json.dumps(dict(changes), sort_keys=True))

    return Setup(
        folder=args.out,
        base=base,
        fingerprint=fingerprint,
        context=crop_context_of(config),
        networks=networks,
        metrics=args.metrics,
        learn=learn,
        training=learning_settings(config) | used | {"freeze_model": config.train.freeze_model},
        insert_settings=lambda changes: insert_settings(with_settings(config, changes)) | used,
        open_session=open_session,
        seed=config.sample.seed,
        object_scale=config.sample.object_scale,
    )


def base_note(setup: Setup, config: Config) -> str:
    """Base, sampling and machine, for the head of a report."""
    s = config.sample
    return (
        f"Base {setup.fingerprint} ({config.base.architecture.name}); {s.sampler}, {s.steps} steps, guidance "
        f"scale {s.guidance_scale:g}; "
        f"{setup.base.device}, {torch.get_num_threads()} threads."
    )


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
    learning = learning_settings(replace(config, train=t)) | {"freeze_model": t.freeze_model}
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
    """The settings with others of those that `learning_settings` names, each in its own section."""
    trained = {f.name for f in fields(config.train)}
    sections = {key: "train" if key in trained else "data" for key in learning}
    return with_settings(config, {f"{sections[key]}.{key}": value for key, value in learning.items()})
