"""Insert an object into backgrounds. Every pixel outside the mask stays as it is."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from ldm.config.process import run, say, starting

with starting():  # torch is among them; what loads a model is imported when one is loaded
    from tqdm import tqdm

    from ldm.batch.contact_sheet import write_plan
    from ldm.batch.results_log import ResultsLog, RunSummary, check_outputs
    from ldm.batch.runner import plan_items, prepare, run_items
    from ldm.config.build import inside_the_mask
    from ldm.config.inference_cli import (
        check_overwriting,
        items_of,
        options_of,
        parse,
        parse_replay,
        scene_of,
        session_for_items,
        session_of,
    )  # fmt: skip
    from ldm.config.schema import Config
    from ldm.data.files import fitting_name, locked_folder
    from ldm.models.runtime import threads
    from ldm.scenes.layout import lay_out
    from ldm.scenes.replay import Replay, replay_warnings, write_replay
    from ldm.scenes.runner import run_scene

HELP = __doc__ or ""
WAIT = "wait for it, or give another --outdir"
MEMORY = "give a smaller --batch_size, --precision bf16, or smaller pictures"


def insert_items(args: argparse.Namespace, config: Config) -> RunSummary:
    """One object into one or many backgrounds; with --plan only the regions."""
    items, options, folder = items_of(args, config), options_of(args, config), Path(config.insert.outdir)
    check_overwriting(args, config, items)
    print(inside_the_mask(config))
    few = args.example_img is not None and not any(path.is_dir() for path in args.example_img)
    if args.compare:
        from ldm.batch.comparison import check_comparison, write_comparison

        check_comparison(items)
    if args.plan:
        return plan_items(items, options, folder, print, strict=few)
    if args.manifest is None:
        items[0].source.check()
    for item in items if few else ():  # every mistake shows before a model is loaded
        prepare(item, options)
    progress = partial(tqdm, unit="image", disable=len(items) < 4)
    with locked_folder(folder, WAIT):
        log = ResultsLog(folder)
        session, options = session_for_items(args, config, options, items)
        if args.manifest is None:
            session.load_object(items[0].source)
            if args.compare or items[0].best:
                session.reference(items[0].source)  # a merged or baked file may hold none
        summary = run_items(items, session, options, log, tqdm.write, progress)
        if args.compare:
            done = [item for item in items if item not in summary.failed]
            print(f"{write_comparison(done, session, options, folder) or 'no result'}: what learning changed")
    return summary


def insert_scene(args: argparse.Namespace, config: Config) -> RunSummary:
    """Several objects into one background; with --plan only the regions."""
    options, folder = options_of(args, config), Path(config.insert.outdir)
    layout, summary = lay_out(scene_of(args, config), options), RunSummary(config.insert.max_seam)
    check_overwriting(args, config, layout.scene.items, layout.scene.file.stem)
    print(inside_the_mask(config))
    if args.plan:
        file = folder / fitting_name(layout.scene.file.stem, "_plan.png")
        rois = [roi for placed in layout.placed for roi in placed.rois]
        write_plan(file, layout.background, layout.mask, rois, layout.model_side, print)
        return summary
    with locked_folder(folder, WAIT):
        log = ResultsLog(folder)
        session, options = session_for_items(args, config, options, layout.scene.items)
        result = run_scene(layout, session, options, log, print)
    print(*result.lines(log), sep="\n")
    summary.add(result, log)
    return summary


def replay(argv: Sequence[str] | None, args: argparse.Namespace) -> int:
    """Repeat a result and compare; the exit code is 1 if a pixel differs."""
    found, config = parse_replay(argv, args, HELP)
    with threads(found.recipe["machine"]["threads"]):
        return compare_replay(found, args, config)


def compare_replay(found: Replay, args: argparse.Namespace, config: Config) -> int:
    """Make a result again beside the old one => the exit code."""
    options = options_of(args, config)
    file = Path(config.insert.outdir) / fitting_name(found.file.stem, "_replay.png")
    check_outputs([file], [found.file, *(Path(found.recipe[role]) for role in found.recipe["sha256"])])
    for warning in replay_warnings(found.recipe, options.facts):
        say(f"warning: {warning}")
    differs = write_replay(found, session_of(args, config, found.sources), options, file)
    print(f"{file}: {f'{differs} from' if differs else 'the same pixels as'} {found.file}")
    return int(bool(differs))


def main(argv: list[str] | None = None) -> None:
    args, config = parse(argv, HELP)
    if args.replay is not None:
        raise SystemExit(replay(argv, args))
    summary = (insert_items if args.scene is None else insert_scene)(args, config)
    for line in summary.problems():
        say(line)
    if summary.exit_code:
        raise SystemExit(summary.exit_code)


if __name__ == "__main__":
    run(main, MEMORY)
