"""Insert an object into backgrounds. Every pixel outside the mask stays as it is.

Exit code: 0 all is fine, 1 a seam is above insert.max_seam (or a replay differs), 2 a mistake before anything
was made, 10 + n: n items (at most 100 are told apart) could not be read and were skipped.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from tqdm import tqdm

from ldm.config.cli import run, say, uncollected, warnings_in_a_line

with uncollected():  # torch is among them
    from ldm.batch.best_of import BestOfSeeds
    from ldm.batch.replay import apart, repeat, replay_warnings
    from ldm.batch.results_log import ResultsLog
    from ldm.batch.runner import MISTAKES, Options, Outcome, RunSummary, prepare, view, work
    from ldm.batch.work_item import WorkItem
    from ldm.config.inference_cli import items_of, options_of, parse, parse_replay, scene_of, session_of
    from ldm.config.schema import Config
    from ldm.data.picture import Picture, read_picture
    from ldm.data.picture_write import write_picture
    from ldm.insertion.contact_sheet import Gallery, draw_plan
    from ldm.insertion.crop_plan import lines, plan, scaling
    from ldm.insertion.roi import Roi
    from ldm.scenes.layout import Placed, groups, joint, place
    from ldm.scenes.runner import PlacementCache, run_scene

if TYPE_CHECKING:  # what loads a model is imported when one is loaded: --plan answers at once
    from ldm.insertion.session import Session

HELP = __doc__ or ""


def open_with_choice(
    args: argparse.Namespace, config: Config, options: Options, items: Sequence[WorkItem]
) -> tuple[Session, Options]:
    """Load the base and, to choose the best of several seeds, the network that tells likeness."""
    sources = [item.source for item in items]
    if not any(item.best for item in items):
        return session_of(args, config, sources), options
    from ldm.features.imagenet import ImageNetFeatures, likeness

    like = partial(likeness, ImageNetFeatures())
    session, sheets = session_of(args, config, sources), Path(config.insert.outdir) / "candidates"
    return session, replace(options, choose=BestOfSeeds(like, session.reference, sheets))


def insert_items(args: argparse.Namespace, config: Config) -> RunSummary:
    """Make what is missing in the folder of results, or only show the plan."""
    items, options = items_of(args, config), options_of(args, config)
    few = args.example_img is not None and not any(path.is_dir() for path in args.example_img)
    if args.plan:
        return show_plans(items, options, config, strict=few)
    if args.manifest is None:
        items[0].source.check()
    for item in items if few else ():  # every mistake shows before a model is loaded
        prepare(item, options)
    session, options = open_with_choice(args, config, options, items)
    if args.manifest is None:
        session.take_on(items[0].source)
    return work_through(items, session, options, config)


def work_through(items: Sequence[WorkItem], session: Session, options: Options, config: Config) -> RunSummary:
    """Results one by one, told as they come, and a contact sheet of the first ones."""
    log, summary, gallery = (
        ResultsLog(Path(config.insert.outdir)),
        RunSummary(config.insert.max_seam),
        Gallery(),
    )
    for outcome in work(tqdm(items, unit="picture", disable=len(items) < 4), session, options, log):
        tell(outcome, log)
        summary.add(outcome, log)
        if config.insert.contact_sheet and not gallery.full and not outcome.error:
            seen = view(outcome, options, log.folder)
            gallery.add(seen.background, seen.request.hole, seen.request.rois[0], seen.results)
    if gallery.rows:
        sheet = log.folder / "sheet.png"
        write_picture(sheet, gallery.picture(captions(items)))
        print(f"{sheet}: contact sheet")
    return summary


def tell(outcome: Outcome, log: ResultsLog) -> None:
    """A line for each result, or for why there is none."""
    if outcome.error:
        tqdm.write(f"skipped {outcome.item.stem}: {outcome.error}", file=sys.stderr)
        return
    for seed, file in outcome.files.items():
        done = f"{outcome.seconds / len(outcome.made):.1f} s" if seed in outcome.made else "is there already"
        tqdm.write(f"{log.folder / file}: {done}, seam {log.seam(file):.2f}")


def captions(items: Sequence[WorkItem]) -> list[str]:
    """Of results on a contact sheet: their seeds where all items have the same."""
    first = items[0]
    alike = not first.best and all(item.seeds == first.seeds for item in items)
    return [f"seed {seed}" if alike else "result" for seed in first.files()]


def show_plans(items: Sequence[WorkItem], options: Options, config: Config, strict: bool) -> RunSummary:
    """The plan of every item; what cannot be read is skipped unless the few files were named."""
    summary = RunSummary()
    for item in items:
        try:
            background, request = prepare(item, options)
        except MISTAKES as error:
            if strict:
                raise
            summary.skipped += 1
            say(f"skipped {item.stem}: {error}")
            continue
        show_plan(item.stem, background, request.hole, request.rois, config)
    return summary


def show_plan(name: str, background: Picture, mask: np.ndarray, rois: Sequence[Roi], config: Config) -> None:
    """Print the regions of one background and draw them."""
    planned = plan(mask, rois, config.base.architecture.image_size)
    print(f"{name}:", *lines(planned), sep="\n")
    file = Path(config.insert.outdir) / f"{name}_plan.png"
    file.parent.mkdir(parents=True, exist_ok=True)
    write_picture(file, draw_plan(background, mask, rois, [scaling(region) for region in planned.regions]))
    print(file)


def insert_scene(args: argparse.Namespace, config: Config) -> RunSummary:
    """Make one picture of several placements, or only show the plan."""
    scene, options = scene_of(args, config), options_of(args, config)
    background = read_picture(scene.background)
    placed = place(scene, background, options.tools, options.context)
    ordered = groups(placed)
    if args.plan:
        mask, rois = joint(placed, background.size), [roi for p in placed for roi in p.rois]
        show_plan(scene.file.stem, background, mask, rois, config)
        return RunSummary()
    items = [item for p in placed for item in p.placement.items]
    session, options = open_with_choice(args, config, options, items)
    log, summary = ResultsLog(Path(config.insert.outdir)), RunSummary(config.insert.max_seam)
    kept = PlacementCache(log.folder / "placements")
    outcome = run_scene(scene, background, ordered, session, options, log, kept, tell_placement)
    kept.prune(config.insert.cache_mb * 1e6)
    tell(outcome, log)
    summary.add(outcome, log)
    return summary


def tell_placement(placed: Placed, made: bool) -> None:
    print(f"{placed.placement.item.name}: {'made' if made else 'is known already'}")


def replay(argv: Sequence[str] | None, args: argparse.Namespace) -> int:
    """Make a result again and compare; the exit code is 1 if a pixel differs."""
    found, config = parse_replay(argv, args, HELP)
    options = options_of(args, config)
    for doubt in replay_warnings(found.recipe, options.facts["machine"]):
        say(f"warning: {doubt}")
    picture = repeat(found, session_of(args, config, found.sources), options)
    file = Path(config.insert.outdir) / f"{found.file.stem}_replay.png"
    file.parent.mkdir(parents=True, exist_ok=True)
    write_picture(file, picture, {"recipe": json.dumps(found.recipe)})
    difference = apart(read_picture(found.file), read_picture(file))
    print(f"{file}: {f'{difference} from' if difference else 'the same pixels as'} {found.file}")
    return int(bool(difference))


def main(argv: list[str] | None = None) -> None:
    with warnings_in_a_line():
        args, config = parse(argv, HELP)
        if args.replay is not None:
            raise SystemExit(replay(argv, args))
        summary = insert_scene(args, config) if args.scene is not None else insert_items(args, config)
    for line in summary.complaints():
        say(line)
    if summary.exit_code:
        raise SystemExit(summary.exit_code)


if __name__ == "__main__":
    run(main)
