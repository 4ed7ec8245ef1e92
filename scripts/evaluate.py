"""Measure insertions: compare methods on a bench with ground truth (--bench), judge a folder or manifest of
results (--results), alone or --against another run, or fit the quality score's mixture (--fit_quality).
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from tqdm import tqdm

from ldm.config.build import (
    add_judging,
    insert_settings,
    judges_of,
    runtime_of,
    session_for,
    training_run_of,
    with_settings,
)
from ldm.config.cli import INFERENCE, RECIPE_FLAGS, run, warnings_in_a_line
from ldm.config.schema import Config, Parser, how_to_learn
from ldm.data.files import check_folder
from ldm.data.insertset import InsertSet
from ldm.evaluation.bench import load_bench
from ldm.evaluation.collect import check_pairs, collect, of_bench
from ldm.evaluation.compare import Learn, compare
from ldm.evaluation.fid import clip_features, pictures_in, real_pictures, set_scores
from ldm.evaluation.insertion import Insertion
from ldm.evaluation.judge import scores_of
from ldm.evaluation.judges import Judges, Weights, load_judges
from ldm.evaluation.methods import METHODS, Setup
from ldm.evaluation.publish import Run, bench_run, publish, row_of
from ldm.evaluation.quality import COMPONENTS, estimator, fit_mixture, save_mixture
from ldm.evaluation.report import write_report
from ldm.evaluation.results import Results, Row
from ldm.models.base import load_base
from ldm.models.runtime import device_named, prepare
from ldm.training.run import learn_to_file

FLAGS = RECIPE_FLAGS | {
    "guidance_interval": "sample.guidance_interval",
    "deep_cache_interval": "sample.deep_cache_interval",
    "precision": "sample.precision",
    "compile": "sample.compile",
}


def parser() -> Parser:
    p = Parser(__doc__ or "", FLAGS, "configs/mini.yaml", presets=INFERENCE)
    work = p.add_mutually_exclusive_group(required=True)
    work.add_argument("--bench", type=Path, metavar="FOLDER", help="bench with objects/ and scenes/: fill it")
    work.add_argument("--results", type=Path, metavar="PATH",
                      help="results of inference.sh or --bench, or a manifest: judge")  # fmt: skip
    work.add_argument("--fit_quality", "--fit-quality", type=Path, metavar="FOLDER",
                      help="pictures to fit the quality score's mixture on; --out is its file")  # fmt: skip
    p.add_argument("--out", type=Path, required=True, help="folder of the results; goes on where it stopped")
    p.add_argument("--methods", nargs="+", choices=list(METHODS), default=[], help="rows [all]")
    p.add_argument("--objects", nargs="+", default=[], metavar="NAME", help="objects of the bench [all]")
    p.add_argument("--scenes", nargs="+", default=[], metavar="NAME", help="scenes of the bench [all]")
    p.add_argument("--against", type=Path, metavar="PATH", help="another run, compared paired by image")
    p.add_argument("--references", type=Path, metavar="PATH",
                   help="the object's InsertSet folder or picture [what each result says]")  # fmt: skip
    p.add_argument("--real", type=Path, metavar="FOLDER",
                   help="pictures for the Frechet distances [the truths, else the backgrounds]")  # fmt: skip
    p.add_argument("--components", type=int, default=COMPONENTS, help=f"of --fit_quality [{COMPONENTS}]")
    add_judging(p)
    return p


def learner(config: Config) -> Learn:
    """How an object is learnt: on a base of its own, by the settings."""

    def learn(insertset: InsertSet, mode: str, file: Path) -> None:
        run = training_run_of(with_settings(config, {"train.freeze_model": mode}))
        learn_to_file(Path(config.base.path), config.base.architecture, insertset, run, file)

    return learn


def announce(row: Row) -> None:
    numbers = f"identity {row['identity']:.3f}, PSNR {row['psnr_object']:.1f} dB, {row['seconds']:.1f} s"
    print(f"{row['scene']:20} {row['method']:16} {numbers}", flush=True)


def fill_bench(args: argparse.Namespace, config: Config) -> None:
    """Every chosen method on every chosen scene: table, contact sheet, page."""
    methods = args.methods or list(METHODS)
    if config.sample.reference_view > 0 and "merged" in methods:
        others = " ".join(method for method in methods if method != "merged")
        raise ValueError(
            f"sample.reference_view={config.sample.reference_view}: the tokens of `merged` objects all speak; "
            f"leave it out (--methods {others}), or sample.reference_view"
        )
    bench, s = load_bench(args.bench, args.objects, args.scenes), config.sample
    base = load_base(Path(config.base.path), config.base.architecture, device=args.device)
    setup = Setup(session_for(config, base), insert_settings(config), s.seed, s.object_scale)
    prepare(base, runtime_of(config, args.device))
    results = Results(args.out)
    compare(bench, methods, setup, results, learner(config), how_to_learn(config), announce)
    machine = f"{args.device}, {torch.get_num_threads()} threads"
    note = f"Base {setup.fingerprint}; {s.sampler}, {s.steps} steps, scale {s.guidance_scale:g}; {machine}."
    files = write_report(results, bench, methods, note)
    scenes = {scene.name for scene in bench.scenes}
    shown = [x for x in of_bench(args.out, bench=args.bench) if x.method in methods and x.name in scenes]
    print(files[0].read_text("utf-8"))
    print(*files, *publish(args.out, bench_run(results, shown), [note]), sep="\n")


def judge_results(args: argparse.Namespace) -> None:
    """Measure what is there, alone or against another run."""
    sources = [args.results, *filter(None, [args.against])]
    found = [collect(source, args.references, args.methods) for source in sources]
    check_pairs(*(zip(map(str, sources), found, strict=True)))
    judges = judges_of(args)
    runs = [judged(str(s), x, args, judges) for s, x in zip(sources, found, strict=True)]
    notes = [f"Judged by: {'; '.join(f'{k}: {v}' for k, v in judges.names.items()) or 'no network'}."]
    notes += [f"Frechet distances to the {real_pictures(x, args.real)[1]}." for x in found if runs[0].sets]
    files = publish(args.out, runs[0], list(dict.fromkeys(notes)), *runs[1:])
    print(files[1].read_text("utf-8"))
    print(*files, sep="\n")


def judged(source: str, insertions: Sequence[Insertion], args: argparse.Namespace, judges: Judges) -> Run:
    """A run with all its numbers."""
    rows = []
    for insertion in tqdm(insertions, unit="picture", desc=source):
        scores = scores_of(insertion, insertion.read(), args.metrics, judges)
        rows.append(row_of(insertion, scores, judges.names))
    sets = {}
    for method in dict.fromkeys(x.method for x in insertions):
        own = [x for x in insertions if x.method == method]
        sets[method] = set_scores(own, real_pictures(own, args.real)[0], args.metrics, judges)
    return Run(source, insertions, rows, {k: v for k, v in sets.items() if v})


def fit_quality(args: argparse.Namespace) -> None:
    """Fit the mixture of the quality score on a folder of real pictures."""
    pictures = pictures_in(args.fit_quality)
    unfitted = estimator(len(pictures), args.components)
    judges = load_judges(["clip"], Weights(clip=args.clip), args.device)
    features = clip_features(judges, tqdm(pictures, unit="picture"))
    about = {"encoder": judges.names["clip"], "source": args.fit_quality.name, "pictures": str(len(pictures))}
    with warnings_in_a_line():
        mixture = fit_mixture(unfitted, features)
    save_mixture(args.out, replace(mixture, about=about))
    print(f"{args.out}: {args.components} components on {len(pictures)} pictures; not Paint-by-Example's own")


def main(argv: Sequence[str] | None = None) -> None:
    args, config = parser().parse_config(argv)
    args.device = device_named(args.device)
    if args.against and not args.results:
        raise ValueError("--against goes with --results: judge both runs, compared paired by image")
    if args.bench or args.results:
        check_folder(args.out, f"--out {args.out}")
    if args.bench:
        fill_bench(args, config)
    elif args.results:
        judge_results(args)
    else:
        fit_quality(args)


if __name__ == "__main__":
    run(main)
