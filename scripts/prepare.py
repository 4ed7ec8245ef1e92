"""Make an object folder from photos: propose boxes and silhouettes, and warn of doubtful ones.

Look at sheet.png in the folder. Where a box or a silhouette is wrong, correct bbox/N.txt (x0 y0 x1 y1) or
mask/N.png (white: object), and run the same command again: it keeps corrections and adds new photos.
"""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from ldm.config.process import run, say, starting

with starting():
    from tqdm import tqdm

    from ldm.batch.results_log import SHEET, check_outputs
    from ldm.config.cli import OneLineParser
    from ldm.data.files import file_digest, path_of
    from ldm.data.picture_write import write_picture
    from ldm.prepare.object_folder import PreparedObject, write_object_folder
    from ldm.prepare.photo_files import find_photos
    from ldm.prepare.segmenter import SEGMENTERS, load_segmenter
    from ldm.prepare.sheet import draw_sheet

SHEET_NAME = "sheet.png"


def parser() -> OneLineParser:
    p = OneLineParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    p.add_argument("photos", type=path_of, metavar="PHOTOS", help="folder of photos of one object")
    p.add_argument(
        "--out", type=path_of, required=True, metavar="FOLDER", help="object folder to make or update"
    )
    p.add_argument("--reference", type=path_of, metavar="PICTURE",
                   help="reference: a photo (file or number) or another picture [best photo]")  # fmt: skip
    p.add_argument(
        "--category", type=path_of, metavar="FOLDER", help="pictures of other objects of the category"
    )
    p.add_argument("--segmenter", default="matting", metavar="NAME",
                   help=f"{', '.join(SEGMENTERS)}, or an ONNX saliency model [matting]")  # fmt: skip
    return p


def check_category(photos: Sequence[Path], category: Sequence[Path]) -> None:
    """ValueError if the pictures of other objects are the photos themselves; a warning if some are."""
    if not category:
        return
    if category[0].parent.samefile(photos[0].parent):
        raise ValueError(
            f"--category {category[0].parent} is the folder of the object's own photos; "
            "give pictures of other objects of its category"
        )
    own = {file_digest(photo) for photo in photos}
    if same := [picture for picture in category if file_digest(picture) in own]:
        say(f"warning: --category: {len(same)} of its pictures, like {same[0]}, are photos of the object too")


def report(prepared: PreparedObject) -> None:
    """Print warnings, what was found, and what to do next."""
    for photo in prepared.photos:
        for warning in photo.warnings:
            say(f"{photo.image.name}: {warning}")
    for warning in prepared.warnings:
        say(warning)
    root, reference = prepared.root, prepared.reference
    shown = f"photo {reference}" if reference else "another picture"
    print(f"{root}: {len(prepared.photos)} photos, the reference shows {shown}")
    print(f"look at {root / SHEET_NAME}; correct bbox/ and mask/ where they are wrong, then run this again")
    words = ["bash", "train.sh", "--dataset-dir", str(root), "--name", root.resolve().name]
    print(f"next: {shlex.join(words)}")


def main(argv: Sequence[str] | None = None) -> None:
    args = parser().parse_args(argv)
    segmenter = load_segmenter(args.segmenter)
    photos, out = find_photos(args.photos), args.out
    category = find_photos(args.category) if args.category else []
    if out.resolve() in (path.resolve() for path in (args.photos, photos[0].parent, args.category) if path):
        raise ValueError(f"--out {out} is a folder of the given photos; give another folder")
    check_category(photos, category)
    bar = partial(tqdm, unit="photo", leave=False, disable=None)
    check_outputs([out / SHEET_NAME], photos, "another --out")
    prepared = write_object_folder(out, photos, args.reference, category, segmenter, bar)
    write_picture(out / SHEET_NAME, draw_sheet(prepared), SHEET)
    report(prepared)


if __name__ == "__main__":
    run(main)
