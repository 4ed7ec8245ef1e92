"""What the command lines that measure ask for: metrics, and where the judges' weights are."""

from __future__ import annotations

import argparse
from pathlib import Path

from ldm.evaluation.judges import Judges, Weights, load_judges
from ldm.evaluation.measures import METRICS, OFFLINE


def add_judging(p: argparse.ArgumentParser) -> None:
    """The flags; weights are looked for in their library's cache if no path is given."""
    p.add_argument("--metrics", nargs="+", choices=METRICS, default=list(OFFLINE), metavar="NAME",
                   help=f"of {', '.join(METRICS)} [{' '.join(OFFLINE)}]")  # fmt: skip
    p.add_argument("--clip", type=Path, metavar="FOLDER", help="CLIP ViT-B/32, transformers' layout")
    p.add_argument("--dino", type=Path, metavar="FOLDER", help="DINOv2 ViT-g/14, transformers' layout")
    p.add_argument("--inception", type=Path, metavar="FILE", help="torch-fidelity's Inception weights")
    p.add_argument("--alexnet", type=Path, metavar="FILE", help="torchvision's AlexNet weights, for LPIPS")
    p.add_argument("--quality_model", "--quality-model", type=Path, metavar="FILE",
                   help="mixture of the quality score, of evaluate.py --fit_quality")  # fmt: skip
    p.add_argument("--device", help="cpu, cuda [auto]")


def judges_of(args: argparse.Namespace) -> Judges:
    """Load what the metrics need; FileNotFoundError names model, file and flag of what is missing."""
    weights = Weights(args.clip, args.dino, args.inception, args.alexnet, args.quality_model)
    return load_judges(args.metrics, weights, args.device)
