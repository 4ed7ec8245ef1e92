"""Run the comparison of the paper's claims and ours on test benches, and write RESULTS.md; resumable."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

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
from ldm.config.loader import ROOT, place
from ldm.config.published import published, with_learning
from ldm.config.schema import Config, Parser, how_to_learn, load_config
from ldm.data.files import check_folder
from ldm.data.insertset import InsertSet
from ldm.evaluation.ablations import Comparison, ablations
from ldm.evaluation.cells import Cell, Study, cells_of
from ldm.evaluation.fid import real_pictures, set_scores
from ldm.evaluation.insertion import Insertion
from ldm.evaluation.metrics import MEASURES
from ldm.evaluation.publish import Run, publish
from ldm.evaluation.sites import Ground, load_ground
from ldm.evaluation.study_report import Found, write_results
from ldm.evaluation.summary import Row
from ldm.insertion.crop_plan import Context
from ldm.insertion.session import Session
from ldm.models.base import base_fingerprint, load_base
from ldm.models.inpainting_model import InpaintingModel
from ldm.models.runtime import device_named, twin
from ldm.training.run import learn_to_file

BENCHES = ("../shared/data/insertbench", "../shared/data/photos")
PAPER = ("configs/paper.yaml", "configs/paper_virtual.yaml")
QUICK = (
    "flat", "poisson", "cut-out", "zero-shot", "none-kv", "linear-kv", "tokens-kv", "tokens-crossattn",
    "paper-kv", "paper-zero-shot",
)  # fmt: skip
OF_SETS = {measure.metric for measure in MEASURES.values() if measure.of_set}
QUICK_OBJECTS, QUICK_SITES, QUICK_STEPS = 2, 2, 4  # objects a bench, sites an object, times fewer steps


def parser() -> Parser:
    p = Parser(__doc__ or "", RECIPE_FLAGS, "configs/mini.yaml")
    benches = [Path(place(bench, ROOT)) for bench in BENCHES]
    p.add_argument("--benches", type=Path, nargs="+", metavar="FOLDER", default=benches,
                   help="benches, or InsertSet objects (with --backgrounds) [our two]")  # fmt: skip
    p.add_argument(
        "--backgrounds",
        type=Path,
        metavar="FOLDER",
        help="test bench of InsertSet: image/, mask/; or a folder with one for each object",
    )
    p.add_argument(
        "--out",
        type=Path,
        default=Path(place("runs/reproduce", ROOT)),
        metavar="FOLDER",
        help="[runs/reproduce]",
    )
    p.add_argument("--published", type=Path, nargs="*", metavar="YAML",
                   default=[Path(place(file, ROOT)) for file in PAPER],
                   help=f"the paper's recipe, scaled to the base [{' '.join(PAPER)}]")  # fmt: skip
    p.add_argument(
        "--variants", nargs="+", default=[], metavar="NAME", help="of those that --plan lists [all]"
    )
    p.add_argument("--objects", type=int, default=0, metavar="N", help="objects of a bench [all]")
    p.add_argument("--sites", type=int, default=0, metavar="N", help="backgrounds of an object [all]")
    p.add_argument("--quick", action="store_true", help=f"{len(QUICK)} variants, {QUICK_OBJECTS} objects a "
                   f"bench, {QUICK_SITES} sites an object, a quarter of the steps")  # fmt: skip
    p.add_argument("--plan", action="store_true", help="say what is done and what is missing; do nothing")
    p.add_argument("--report", action="store_true", help="write RESULTS.md of what is there; do nothing else")
    add_judging(p)
    return p


def presets_of(config: Config) -> dict[str, dict[str, Any]]:
    """The settings of sampling that inference's presets change."""
    own, found = asdict(config.sample), {}
    for name, given in INFERENCE.items():
        preset = asdict(load_config(asdict(config), given).sample)
        if changes := {key: value for key, value in preset.items() if value != own[key]}:
            found[name] = changes
    return found


def what_to_compare(args: argparse.Namespace, config: Config) -> tuple[Config, Comparison]:
    """The variants around the settings' recipe; `--quick` learns less."""
    if args.quick:
        fewer = max(1, config.train.max_steps // QUICK_STEPS)
        config = replace(config, train=replace(config.train, max_steps=fewer))
    t, s = config.train, config.sample
    full = ablations(
        freeze_model=t.freeze_model, max_steps=t.max_steps, sampler=s.sampler, steps=s.steps, scale=s.guidance_scale,
        cached_samples=t.cached_samples, single_view=t.single_view, presets=presets_of(config),
        published=[published(file, config) for file in args.published],
    )  # fmt: skip
    names = args.variants or (QUICK if args.quick else list(full.variants))
    return config, full.of(names)


def study_of(args: argparse.Namespace, config: Config) -> Study:
    """Load judges and base."""
    judges = judges_of(args)
    base, s = load_base(Path(config.base.path), config.base.architecture).to(args.device), config.sample
    i = config.insert

    def learn(insertset: InsertSet, learning: Mapping[str, Any], file: Path) -> None:
        """On a base of its own."""
        run = training_run_of(with_learning(config, learning))
        learn_to_file(Path(config.base.path), config.base.architecture, insertset, run, file)

    fingerprint = base_fingerprint(base)

    def open_session(changes: Mapping[str, Any]) -> tuple[Session, InpaintingModel]:
        """The base makes contexts in fp32, a twin of the precision asked for samples."""
        own = with_settings(config, changes)
        return session_for(own, base, fingerprint), twin(base, runtime_of(own, args.device))

    return Study(
        folder=args.out,
        base=base,
        fingerprint=fingerprint,
        context=Context(config.base.architecture.image_size, i.roi_factor, i.context_px, i.zoom),
        judges=judges,
        metrics=args.metrics,
        learn=learn,
        settings=how_to_learn(config) | {"freeze_model": config.train.freeze_model},
        insert_settings=lambda changes: insert_settings(with_settings(config, changes)),
        open_session=open_session,
        seed=s.seed,
    )


def show_plan(cells: Sequence[Cell]) -> None:
    """A line a variant: how many of its cells are missing."""
    variants: dict[str, list[Cell]] = {}
    for cell in cells:
        variants.setdefault(cell.variant.name, []).append(cell)
    for name, own in variants.items():
        missing = sum(bool(cell.missing()) for cell in own)
        print(f"{name:32} {missing:3} of {len(own):3} cells to do  {own[0].variant.title}")


def fill(cells: Sequence[Cell]) -> None:
    """Run the cells; a line for each one that was not done."""
    for number, cell in enumerate(cells, start=1):
        if made := sum(1 for _ in cell.run()):
            what = f"{cell.ground.name}, {cell.object}, {cell.variant.name}: {made} results"
            print(f"[{number}/{len(cells)}] {what}", flush=True)


def found_on(ground: Ground, cells: Sequence[Cell], study: Study, paged: Sequence[str]) -> tuple[Found, Run]:
    """All rows of a ground and, for the page, those of some variants with their pictures."""
    own = [cell for cell in cells if cell.ground is ground]
    rows: dict[str, list[Row]] = {cell.variant.name: [] for cell in own}
    results: dict[str, list[Insertion]] = {name: [] for name in rows}
    for cell in own:
        made = cell.rows()
        names = {row["name"] for row in made}
        rows[cell.variant.name] += made
        results[cell.variant.name] += [x for s in cell.sites if (x := cell.insertion(s)).name in names]
    sets = {
        name: set_scores(found, real_pictures(found, None)[0], study.metrics, study.judges)
        for name, found in results.items()
        if found and OF_SETS & set(study.metrics)
    }
    shown = [x for name in paged for x in results.get(name, [])]
    page = Run(ground.name, shown, [row for name in paged for row in rows.get(name, [])], sets)
    return Found(ground.name, rows, sum(not cell.missing() for cell in own), len(own), sets), page


def main(argv: Sequence[str] | None = None) -> None:
    args, config = parser().parse_config(argv)
    args.device = device_named(args.device)
    check_folder(args.out, f"--out {args.out}")
    config, compared = what_to_compare(args, config)
    objects, sites = (QUICK_OBJECTS, QUICK_SITES) if args.quick else (0, 0)
    most = args.sites or sites, args.objects or objects
    with warnings_in_a_line():
        grounds = [load_ground(bench, args.backgrounds, *most) for bench in args.benches]
    study = study_of(args, config)
    cells = cells_of(study, compared.variants, grounds)
    if args.plan:
        show_plan(cells)
        return
    if not args.report:
        fill(cells)
    paged = compared.series[0].names if compared.series else list(compared.variants)
    found = [found_on(ground, cells, study, paged) for ground in grounds]
    t, s = config.train, config.sample
    note = (
        f"Base {study.fingerprint} ({config.base.architecture.name}); recipe `{compared.recipe}`, "
        f"{t.max_steps} steps of {t.batch_size * t.accumulate_grad_batches}; {s.sampler}, {s.steps} steps, scale "
        f"{s.guidance_scale:g}, start noise {s.init_noise_sigma:g}; {args.device}, {torch.get_num_threads()} threads."
    )
    file = write_results(args.out, [one for one, _ in found], compared, [note])
    pages = [publish(args.out / "pages" / seen.source, seen, [note])[-1] for _, seen in found if seen.rows]
    print(file.read_text("utf-8"))
    print(file, *pages, sep="\n")


if __name__ == "__main__":
    run(main)
