"""Measure insertions: compare methods on a benchmark (--benchmark); score results, a folder or a manifest
(--results), alone or --against another run; or fit the mixture of the quality score (--fit_quality).
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from ldm.config.process import run, starting

with starting():
    from tqdm import tqdm

    from ldm.config.cli import INFERENCE, RECIPE_FLAGS, flags
    from ldm.config.evaluation_cli import (
        add_choice_flags,
        add_scoring_flags,
        base_note,
        networks_of,
        setup_of,
    )
    from ldm.config.parser import SettingsParser
    from ldm.config.schema import Config
    from ldm.data.files import check_folder, check_reports, locked_folder, path_of, pictures_in
    from ldm.evaluation.benchmark import load_benchmark
    from ldm.evaluation.collect import check_pairs, collect
    from ldm.evaluation.methods import METHODS, POSED
    from ldm.evaluation.metrics import clip_features, scores_of, set_scores
    from ldm.evaluation.networks import (
        COMPONENTS,
        FeatureNetworks,
        estimator,
        fit_mixture,
        load_networks,
        save_mixture,
    )
    from ldm.evaluation.report import ScoredRun, check_report, write_report
    from ldm.evaluation.results import Insertion, Row, real_pictures, row_of
    from ldm.evaluation.run import runs_of
    from ldm.models.checkpoint import check_replaceable
    from ldm.models.runtime import device_named

FLAGS = RECIPE_FLAGS | flags("sample", "guidance_interval deep_cache_interval precision compile")


def parser() -> SettingsParser:
    p = SettingsParser(__doc__ or "", FLAGS, "configs/mini.yaml", presets=INFERENCE)
    work = p.add_mutually_exclusive_group(required=True)
    work.add_argument(
        "--benchmark", type=path_of, metavar="FOLDER", help="benchmark on which methods are compared"
    )
    work.add_argument("--results", type=path_of, metavar="PATH",
                      help="results to score: of inference.sh or --benchmark, or a manifest")  # fmt: skip
    work.add_argument("--fit_quality", "--fit-quality", type=path_of, metavar="FOLDER",
                      help="pictures to fit the quality score's mixture on; --out is the file")  # fmt: skip
    p.add_argument("--out", type=path_of, required=True, metavar="PATH",
                   help="folder to write; a stopped run continues")  # fmt: skip
    p.add_argument("--methods", nargs="+", choices=list(METHODS), default=[], metavar="NAME",
                   help=f"methods to compare: {', '.join(METHODS)} [all]")  # fmt: skip
    p.add_argument("--backgrounds", type=path_of, metavar="FOLDER", help="test bench for object folders")
    add_choice_flags(p)
    p.add_argument(
        "--against", type=path_of, metavar="PATH", help="another run; both are compared paired by image"
    )
    p.add_argument("--references", type=path_of, metavar="PATH",
                   help="object folder or picture [those that each result names]")  # fmt: skip
    p.add_argument("--real", type=path_of, metavar="FOLDER",
                   help="pictures for the Frechet distances [the truths, else the backgrounds]")  # fmt: skip
    p.add_argument("--components", type=int, default=COMPONENTS, metavar="N",
                   help=f"Gaussians of --fit_quality [{COMPONENTS}]")  # fmt: skip
    add_scoring_flags(p)
    return p


def announce(row: Row) -> None:
    """Print the numbers of one result in a line."""
    scores = row["scores"]
    shown = {"identity": "v2/identity", "PSNR": "v2/psnr_object", "seconds": "v2/seconds"}
    numbers = [f"{label} {scores[name]:.3g}" for label, name in shown.items() if name in scores]
    print(f"{row['name']:20} {row['method']:16} {', '.join(numbers)}", flush=True)


def announce_report(files: Sequence[Path]) -> None:
    """Print the tables, and where they are."""
    print(next(file for file in files if file.suffix == ".md").read_text("utf-8"))
    print(*files, sep="\n")


def fill_benchmark(args: argparse.Namespace, config: Config) -> None:
    """Every chosen method at every chosen site: tables and a sheet."""
    names = args.methods or list(METHODS)
    benchmark = load_benchmark(args.benchmark, args.backgrounds, args.objects, args.scenes)
    if args.methods == [] and any(site.truth is None for site in benchmark.sites):
        names.remove("ceiling")
    methods = [method for method in METHODS.values() if method.name in names]
    if unposed := [site.name for site in benchmark.sites if site.posed is None]:
        if args.methods and any(method.posed for method in methods):
            raise ValueError(
                f"{args.benchmark}: no posed/{unposed[0]}, which the methods {POSED}... need; leave them out"
            )
        methods = [method for method in methods if not method.posed]
    setup = setup_of(args, config)
    runs = runs_of(setup, methods, [benchmark])
    for one in runs:
        for row in one.make():
            announce(row)
    runs.sort(key=lambda one: methods.index(one.method))  # stable: objects stay in order
    rows = [row for one in runs for row in one.rows()]
    insertions = [x for one in runs for x in one.insertions()]
    done = ScoredRun(str(args.out), insertions, rows)
    compared = {method.name: method.against for method in methods}
    announce_report(write_report(args.out, done, [base_note(setup, config)], compared=compared))


def score_results(args: argparse.Namespace) -> None:
    """Score the results that are there, alone or against another run."""
    own = collect(args.results, args.references, args.methods)
    others = collect(args.against, args.references, args.methods) if args.against else []
    if args.against:
        check_pairs(str(args.results), own, str(args.against), others)
    networks = networks_of(args)
    run = scored(str(args.results), own, args, networks)
    against = scored(str(args.against), others, args, networks) if args.against else None
    names = "; ".join(f"{key}: {name}" for key, name in networks.names.items())
    notes = [f"Networks: {names or 'none'}."]
    if run.sets:
        told = dict.fromkeys(real_pictures(x, args.real)[1] for x in (own, others) if x)
        notes += [f"Frechet distances to the {real}." for real in told]
    announce_report(write_report(args.out, run, notes, against))


def scored(
    source: str, insertions: Sequence[Insertion], args: argparse.Namespace, networks: FeatureNetworks
) -> ScoredRun:
    """A run with all its scores."""
    rows = []
    for insertion in tqdm(insertions, unit="picture", desc=source):
        rows.append(row_of(insertion, scores_of(insertion, args.metrics, networks), networks.names))
    sets = {}
    for method in dict.fromkeys(x.method for x in insertions):
        own = [x for x in insertions if x.method == method]
        sets[method] = set_scores(own, real_pictures(own, args.real)[0], args.metrics, networks)
    return ScoredRun(source, insertions, rows, {k: v for k, v in sets.items() if v})


def fit_quality(args: argparse.Namespace) -> None:
    """Fit the mixture of the quality score on a folder of real pictures."""
    check_replaceable(args.out)
    pictures = pictures_in(args.fit_quality)
    unfitted = estimator(len(pictures), args.components)
    networks = load_networks(["clip"], args.device, clip=args.clip)
    features = clip_features(networks, tqdm(pictures, unit="picture"))
    metadata = {
        "encoder": networks.names["clip"],
        "source": args.fit_quality.name,
        "pictures": str(len(pictures)),
    }
    mixture = fit_mixture(unfitted, features)
    save_mixture(args.out, replace(mixture, metadata=metadata))
    print(f"{args.out}: {args.components} components on {len(pictures)} pictures; not Paint-by-Example's own")


def main(argv: Sequence[str] | None = None) -> None:
    args, config = parser().parse_config(argv)
    args.device = device_named(args.device)
    if args.against and not args.results:
        raise ValueError("--against goes with --results: both runs are scored and compared paired by image")
    if not args.benchmark and not args.results:
        fit_quality(args)
        return
    check_folder(args.out, f"--out {args.out}")
    check_report(args.out)
    if args.benchmark:
        check_reports(args.out, {"results.jsonl": '{"file":'})
    with locked_folder(args.out, "wait for it, or give another --out"):
        fill_benchmark(args, config) if args.benchmark else score_results(args)


if __name__ == "__main__":
    run(main, "give --precision bf16, or a base of fewer weights")
