"""What evaluate.py and reproduce.py share: the flags of scoring, the networks, and the engine's setup."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch

from ldm.config.build import (
    crop_context_of,
    insert_settings,
    runtime_of,
    session_for,
    with_settings,
)
from ldm.config.build_training import training_run_of
from ldm.config.published import with_learning
from ldm.config.schema import Config, how_to_learn
from ldm.data.files import path_of
from ldm.data.insertset import InsertSet
from ldm.evaluation.metrics import METRICS, OFFLINE
from ldm.evaluation.networks import FeatureNetworks, Weights, load_networks
from ldm.evaluation.run import Changes, Setup
from ldm.insertion.session import Session
from ldm.models.base import base_fingerprint, load_base
from ldm.models.inpainting_model import InpaintingModel
from ldm.models.runtime import twin
from ldm.training.run import learn_to_file


def add_scoring_flags(p: argparse.ArgumentParser) -> None:
    """Metrics and the weights of their networks; without a path they are in their library's cache."""
    p.add_argument("--metrics", nargs="+", choices=METRICS, default=list(OFFLINE), metavar="NAME",
                   help=f"of {', '.join(METRICS)} [{' '.join(OFFLINE)}]")  # fmt: skip
    p.add_argument("--clip", type=path_of, metavar="FOLDER", help="CLIP ViT-B/32, transformers' layout")
    p.add_argument("--dino", type=path_of, metavar="FOLDER", help="DINOv2 ViT-g/14, transformers' layout")
    p.add_argument("--inception", type=path_of, metavar="FILE", help="torch-fidelity's Inception weights")
    p.add_argument("--alexnet", type=path_of, metavar="FILE", help="torchvision's AlexNet weights, for LPIPS")
    p.add_argument("--quality_model", "--quality-model", type=path_of, metavar="FILE",
                   help="mixture of the quality score, of evaluate.py --fit_quality")  # fmt: skip
    p.add_argument("--device", help="cpu, cuda [auto]")


def networks_of(args: argparse.Namespace) -> FeatureNetworks:
    """Load what the metrics need; FileNotFoundError names model, file and flag of what is missing."""
    weights = Weights(
        clip=args.clip,
        dino=args.dino,
        inception=args.inception,
        alexnet=args.alexnet,
        mixture=args.quality_model,
    )
    return load_networks(args.metrics, weights, args.device)


def setup_of(args: argparse.Namespace, config: Config) -> Setup:
    """Load networks and base; results go to `--out`."""
    networks = networks_of(args)
    base = load_base(Path(config.base.path), config.base.architecture).to(args.device)
    fingerprint = base_fingerprint(base)

    def learn(insertset: InsertSet, learning: Changes, file: Path) -> None:
        """On a base of its own."""
        own = with_learning(config, learning)
        learn_to_file(Path(config.base.path), config.base.architecture, insertset, training_run_of(own), file)

    @lru_cache(maxsize=1)  # methods that insert alike follow one another
    def opened(changes: str) -> tuple[Session, InpaintingModel]:
        own = with_settings(config, json.loads(changes))
        return session_for(own, base, fingerprint), twin(base, runtime_of(own, args.device))

    def open_session(changes: Mapping[str, Any]) -> tuple[Session, InpaintingModel]:
        """The base makes contexts in fp32; a twin in the precision that is asked for samples."""
        return opened(json.dumps(dict(changes), sort_keys=True))

    return Setup(
        folder=args.out,
        base=base,
        fingerprint=fingerprint,
        context=crop_context_of(config),
        networks=networks,
        metrics=args.metrics,
        learn=learn,
        training=how_to_learn(config) | {"freeze_model": config.train.freeze_model},
        insert_settings=lambda changes: insert_settings(with_settings(config, changes)),
        open_session=open_session,
        seed=config.sample.seed,
        object_scale=config.sample.object_scale,
    )


def base_note(setup: Setup, config: Config) -> str:
    """Base, sampling and machine, for the head of a report."""
    s = config.sample
    return (
        f"Base {setup.fingerprint} ({config.base.architecture.name}); {s.sampler}, {s.steps} steps, guidance "
        f"scale {s.guidance_scale:g}, initial noise {s.init_noise_sigma:g}; "
        f"{setup.base.device}, {torch.get_num_threads()} threads."
    )
