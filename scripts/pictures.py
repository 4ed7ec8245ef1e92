"""Draw one insertion for the README: its plan and its result, and its seam with every treatment.

    python scripts/pictures.py --object logs/rocket_bee/rocket_bee.safetensors --outdir outputs/pictures \\
        --example_img examples/scenes/street.jpg --mask examples/scenes/street_mask.png

Writes <outdir>/scene.png and <outdir>/seams.png; takes the flags of inference.py.
"""

from __future__ import annotations

from pathlib import Path

from ldm.config.command_line import run, warnings_in_a_line
from ldm.config.insertion_request import items_of, options_of, parse, session_of
from ldm.data.save import write_picture
from ldm.insertion.blend import BLENDS, treatment
from ldm.insertion.showcase import plan_and_result, seams
from ldm.insertion.work import prepare


def main(argv: list[str] | None = None) -> None:
    with warnings_in_a_line():
        args, config = parse(argv, __doc__ or "")
        if args.scene is not None or args.replay is not None:
            raise ValueError("expected a background and its mask; give --example_img and --mask")
        item = items_of(args, config)[0]
        item.subject.check()
        background, task = prepare(item, options_of(args, config))
        session, results = session_of(args, config, [item.subject]), {}
        for name in BLENDS:  # the same seed: only the seam differs
            session.seam = treatment(name, halo=config.insert.halo)
            [[result, *_]] = session.insert(background, [task])
            seam = max(region["seam"] for region in result.record["regions"])
            results[name] = f"{name}, seam {seam:.2f}", result.picture
    side, folder = config.base.architecture.image_size, Path(config.insert.outdir)
    folder.mkdir(parents=True, exist_ok=True)
    best = results[config.insert.blend][1]
    write_picture(folder / "scene.png", plan_and_result(background, task, best, side))
    write_picture(folder / "seams.png", seams(background, task, dict(results.values())))
    print(folder / "scene.png", folder / "seams.png", sep="\n")


if __name__ == "__main__":
    run(main)
