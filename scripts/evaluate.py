"""Compare ways to insert an object on a bench with ground truth: one table, one contact sheet."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from ldm.config import Config, Parser, run
from ldm.data.insertset import InsertSet
from ldm.evaluation.bench import load_bench
from ldm.evaluation.compare import Learn, compare
from ldm.evaluation.learn import learn_object
from ldm.evaluation.methods import METHODS, Setup
from ldm.evaluation.report import write_report
from ldm.evaluation.results import Results, Row
from ldm.insertion.blend import BLENDS
from ldm.insertion.insert import Sampling
from ldm.models.base import base_fingerprint, load_base
from ldm.objects.delta import save
from ldm.training.result import object_of

FLAGS = {
    "base": "base.path",
    "max_steps": "train.max_steps",
    "sampler": "sample.sampler",
    "steps": "sample.steps",
    "scale": "sample.scale",
    "noise": "sample.noise",
    "seed": "sample.seed",
    "blend": "insert.blend",
}
# of the training settings, what another run of the same object may differ in
INCIDENTAL = ("name", "logdir", "resume", "freeze_model", "checkpoint_every", "keep", "preview_every")


def parser() -> Parser:
    p = Parser(__doc__ or "", FLAGS, "configs/mini.yaml")
    p.add_argument("--bench", type=Path, required=True, help="folder with objects/ and scenes/")
    p.add_argument("--out", type=Path, required=True, help="folder of the results; goes on where it stopped")
    p.add_argument("--methods", nargs="+", choices=list(METHODS), default=list(METHODS), help="rows [all]")
    p.add_argument("--objects", nargs="+", default=[], metavar="NAME", help="objects of the bench [all]")
    p.add_argument("--scenes", nargs="+", default=[], metavar="NAME", help="scenes of the bench [all]")
    p.add_argument(
        "--device", default="cuda" if torch.cuda.is_available() else "cpu", help="cpu, cuda [auto]"
    )
    return p


def how_to_learn(config: Config) -> dict[str, Any]:
    """The settings that decide what is learnt, as keywords of `learn_object`."""
    training = {key: value for key, value in asdict(config.train).items() if key not in INCIDENTAL}
    return training | {"augment": config.data.augment, "workers": config.data.workers}


def learner(config: Config) -> Learn:
    """How an object is learnt: on a base of its own, by the settings."""

    def learn(insertset: InsertSet, mode: str, file: Path) -> None:
        path, architecture = Path(config.base.path), config.base.architecture
        kept = {"freeze_model": mode, "recipe": asdict(config)} | how_to_learn(config)
        checkpoint = learn_object(load_base(path, architecture), insertset, file.with_suffix(""), **kept)
        save(object_of(checkpoint, load_base(path, architecture)), file)

    return learn


def announce(row: Row) -> None:
    numbers = f"identity {row['identity']:.3f}, PSNR {row['psnr_object']:.1f} dB, {row['seconds']:.1f} s"
    print(f"{row['scene']:20} {row['method']:16} {numbers}", flush=True)


def main(argv: Sequence[str] | None = None) -> None:
    args, config = parser().parse_config(argv)
    bench, s = load_bench(args.bench, args.objects, args.scenes), config.sample
    base = load_base(Path(config.base.path), config.base.architecture).to(args.device)
    sampling, seam = Sampling(s.sampler, s.steps, s.scale, s.refine, s.noise), BLENDS[config.insert.blend]
    setup = Setup(base, base_fingerprint(base), sampling, seam, s.seed, s.strength)
    results = Results(args.out)
    compare(bench, args.methods, setup, results, learner(config), how_to_learn(config), announce)
    machine = f"{args.device}, {torch.get_num_threads()} threads"
    note = f"Base {setup.fingerprint}; {s.sampler}, {s.steps} steps, scale {s.scale:g}; {machine}."
    files = write_report(results, bench, args.methods, note)
    print(files[0].read_text("utf-8"))
    print(*files, sep="\n")


if __name__ == "__main__":
    run(main)
