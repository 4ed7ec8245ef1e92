"""Test the paper's claims and ours on benchmarks and write RESULTS.md; the same command again continues."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from ldm.config.process import run, starting

with starting():
    from ldm.config.cli import RECIPE_FLAGS
    from ldm.config.evaluation_cli import add_choice_flags, add_scoring_flags, base_note, published, setup_of
    from ldm.config.loader import ROOT, rooted
    from ldm.config.parser import SettingsParser
    from ldm.config.schema import Config
    from ldm.data.files import check_folder, check_reports, locked_folder, path_of
    from ldm.evaluation.benchmark import Benchmark, load_benchmark
    from ldm.evaluation.metrics import set_scores
    from ldm.evaluation.report import ScoredRun, check_report, write_report
    from ldm.evaluation.reproduction import BenchmarkResults, Comparison, comparison, write_results
    from ldm.evaluation.results import Insertion, Row, real_pictures
    from ldm.evaluation.run import MethodRun, Setup, runs_of
    from ldm.models.runtime import device_named

PAPER = ("configs/paper.yaml", "configs/paper_virtual.yaml")
QUICK = (
    "flat", "poisson", "cut-out", "zero-shot", "none-kv", "linear-kv", "tokens-kv", "tokens-crossattn",
    "paper-kv", "paper-zero-shot",
)  # fmt: skip
QUICK_OBJECTS, QUICK_SITES, QUICK_STEPS = 2, 2, 4  # objects a benchmark, sites an object, times fewer steps


def parser() -> SettingsParser:
    p = SettingsParser(__doc__ or "", RECIPE_FLAGS, "configs/mini.yaml")
    p.add_argument("--benchmarks", type=path_of, nargs="+", metavar="FOLDER", required=True,
                   help="benchmarks, or object folders (with --backgrounds)")  # fmt: skip
    p.add_argument("--backgrounds", type=path_of, metavar="FOLDER",
                   help="test bench: image/, mask/; or a folder with these for each object")  # fmt: skip
    p.add_argument("--out", type=path_of, default=Path(rooted("runs/reproduce", ROOT)), metavar="FOLDER",
                   help="folder of results [runs/reproduce]")  # fmt: skip
    p.add_argument("--published", type=path_of, nargs="+", metavar="YAML",
                   default=[Path(rooted(file, ROOT)) for file in PAPER],
                   help=f"configs of the paper's recipe, scaled to the base [{' '.join(PAPER)}]")  # fmt: skip
    p.add_argument(
        "--methods", nargs="+", default=[], metavar="NAME", help="methods, of those that --plan lists [all]"
    )
    add_choice_flags(p)
    p.add_argument("--quick", action="store_true", help=f"{len(QUICK)} methods, {QUICK_OBJECTS} objects per "
                   f"benchmark, {QUICK_SITES} sites per object, a quarter of the steps")  # fmt: skip
    p.add_argument("--plan", action="store_true", help="list the methods and what is missing; do nothing")
    p.add_argument("--report", action="store_true", help="only write RESULTS.md of the results so far")
    add_scoring_flags(p)
    return p


def what_to_compare(args: argparse.Namespace, config: Config) -> tuple[Config, Comparison]:
    """The methods around the recipe of the settings; `--quick` trains for fewer steps."""
    if args.quick:
        fewer = max(1, config.train.max_steps // QUICK_STEPS)
        config = replace(config, train=replace(config.train, max_steps=fewer))
    t = config.train
    full = comparison(t.few_shot, t.freeze_model, [published(file, config) for file in args.published])
    names = args.methods or (QUICK if args.quick else list(full.methods))
    return config, full.of(names)


def show_plan(runs: Sequence[MethodRun]) -> None:
    """A line a method: how many of its runs are missing."""
    methods: dict[str, list[MethodRun]] = {}
    for one in runs:
        methods.setdefault(one.method.name, []).append(one)
    for name, own in methods.items():
        missing = sum(bool(one.missing()) for one in own)
        print(f"{name:32} {missing:3} of {len(own):3} runs to do  {own[0].method.title}")


def make(runs: Sequence[MethodRun]) -> None:
    """Make what is missing; a line for each run that was not done."""
    for number, one in enumerate(runs, start=1):
        if made := sum(1 for _ in one.make()):
            what = f"{one.benchmark.name}, {one.object}, {one.method.name}: {made} results"
            print(f"[{number}/{len(runs)}] {what}", flush=True)


def results_of(
    benchmark: Benchmark, runs: Sequence[MethodRun], setup: Setup, shown: Sequence[str]
) -> tuple[BenchmarkResults, ScoredRun]:
    """All rows of a benchmark and, for its report, those of the methods that are shown, with their images."""
    own = [one for one in runs if one.benchmark is benchmark]
    rows: dict[str, list[Row]] = {one.method.name: [] for one in own}
    insertions: dict[str, list[Insertion]] = {name: [] for name in rows}
    for one in own:
        rows[one.method.name] += one.rows()
        insertions[one.method.name] += one.insertions()
    sets = {
        name: set_scores(found, real_pictures(found, None)[0], setup.metrics, setup.networks)
        for name, found in insertions.items()
        if found
    }
    page = ScoredRun(
        source=benchmark.name,
        insertions=[x for name in shown for x in insertions.get(name, [])],
        rows=[row for name in shown for row in rows.get(name, [])],
        sets=sets,
    )
    done = sum(not one.missing() for one in own)
    return BenchmarkResults(benchmark.name, rows, done, len(own), sets), page


def main(argv: Sequence[str] | None = None) -> None:
    args, config = parser().parse_config(argv)
    args.device = device_named(args.device)
    check_folder(args.out, f"--out {args.out}")
    check_reports(args.out, {"RESULTS.md": "# Results\n\nMean over images", "results.jsonl": '{"file":'})
    config, compared = what_to_compare(args, config)
    chosen = args.backgrounds, args.objects, args.scenes
    benchmarks = [load_benchmark(root, *chosen) for root in args.benchmarks]
    if args.quick:
        benchmarks = [benchmark.first(QUICK_OBJECTS, QUICK_SITES) for benchmark in benchmarks]
    pages = {benchmark.name: args.out / "reports" / benchmark.name for benchmark in benchmarks}
    for folder in pages.values():
        check_report(folder)
    setup = setup_of(args, config)
    runs = runs_of(setup, compared.methods.values(), benchmarks)
    if args.plan:
        show_plan(runs)
        return
    if not args.report:
        with locked_folder(args.out, "wait for it, or give another --out"):
            make(runs)
    shown = next(iter(compared.tables.values()), list(compared.methods))
    found = [results_of(benchmark, runs, setup, shown) for benchmark in benchmarks]
    t = config.train
    recipe = f"{t.max_steps} steps of {t.batch_size * t.accumulate_grad_batches}"
    note = f"Recipe `{compared.recipe}`, {recipe}. {base_note(setup, config)}"
    file = write_results(args.out, [one for one, _ in found], compared, [note])
    sheets = [write_report(pages[page.source], page, [note])[-1] for _, page in found if page.rows]
    print(file.read_text("utf-8"))
    print(file, *sheets, sep="\n")


if __name__ == "__main__":
    run(main)
