"""Random pictures, masks and settings through files: no pixel outside the mask changes; memory stays flat.

    python -m tests.campaign.outside --count 1000 --seed 0          # difference outside the mask
    python -m tests.campaign.outside --load 1000                    # resident memory over one run

A case has a random size, depth, mode, profile, mask and blend. It is written, inserted into by
scripts/inference.py with a model without weights, and read by Pillow or OpenCV, not by this project's reader.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory

import cv2
import numpy as np
import torch
from PIL import Image, ImageCms

from ldm.config.cli import OneLineParser
from ldm.insertion.blend import BLENDS
from scripts import inference
from tests.campaign.bench import without_weights
from tests.fixtures.small import written

MODES = ("RGB", "RGBA", "L", "LA", "RGB16", "L16")
BYTES_PER_PAGE = 4096


def picture(random: Random, folder: Path) -> tuple[Path, tuple[int, int], str]:
    """A random background: its file, size (height, width) and mode."""
    mode, size = random.choice(MODES), (random.randrange(24, 120), random.randrange(24, 120))
    rng = np.random.default_rng(random.randrange(10**9))
    if mode.endswith("16"):
        shape = size if mode == "L16" else (*size, 3)
        file = folder / f"a.{random.choice(('png', 'tif'))}"
        cv2.imwrite(str(file), rng.integers(0, 65536, shape).astype(np.uint16))
        return file, size, mode
    pixels = rng.integers(0, 256, (*size, len(mode)), np.uint8)
    icc = (
        ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes() if random.random() < 0.3 else None
    )
    icc = icc if mode.startswith("RGB") else None
    file = folder / f"a.{random.choice(('png', 'tif', 'webp') if mode.startswith('RGB') else ('png', 'tif'))}"
    more = {"lossless": True, "exact": True} if file.suffix == ".webp" else {}
    Image.fromarray(pixels if len(mode) > 1 else pixels[..., 0]).save(file, icc_profile=icc, **more)
    return file, size, mode


def mask(random: Random, size: tuple[int, int], file: Path) -> np.ndarray:
    """A random mask of boxes and noise, written; the pixels that count."""
    rng, marked = np.random.default_rng(random.randrange(10**9)), np.zeros(size, bool)
    for _ in range(random.randrange(1, 4)):
        y, x = random.randrange(size[0] - 9), random.randrange(size[1] - 9)
        part = marked[y : y + random.randrange(8, 60), x : x + random.randrange(8, 60)]
        part |= rng.random(part.shape) < random.choice((0.9, 1.0))
    Image.fromarray((255 * marked).astype(np.uint8)).save(file)
    return marked


def decoded(file: Path) -> np.ndarray:
    """All channels of a picture as other programs read them, [H,W,C]."""
    deep = cv2.imread(str(file), cv2.IMREAD_UNCHANGED)
    if deep is not None and deep.dtype == np.uint16:
        return deep.reshape(*deep.shape[:2], -1)
    with Image.open(file) as opened:
        pixels = np.asarray(opened)
    return pixels.reshape(*pixels.shape[:2], -1)


def case(random: Random, folder: Path, config: Path) -> tuple[str, int]:
    """One insertion => its kind, and the largest difference outside the mask."""
    file, size, mode = picture(random, folder)
    marked = mask(random, size, folder / "mask.png")
    blend = random.choice(sorted(BLENDS))
    words = ["--config", str(config), "--device", "cpu", "--reference", str(folder / "r.png"), "--outdir"]
    words += [str(folder / "out"), "--example_img", str(file), "--mask", str(folder / "mask.png")]
    words += ["--roi_factor", str(random.choice((1.0, 2.0, 3.5)))]
    with without_weights(blend), redirect_stdout(StringIO()):
        inference.main(words)
    before, after = decoded(file), decoded(folder / "out" / "a.png")
    differs = (
        np.abs(before.astype(np.int64) - after)[~marked] if before.shape == after.shape else np.array([99999])
    )
    return f"{mode} {file.suffix} {blend}", int(differs.max(initial=0))


def resident() -> float:
    """Resident memory of this process in MB."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * BYTES_PER_PAGE / 2**20


def load(count: int, folder: Path, config: Path) -> None:
    """Insert into so many backgrounds in one run; print the memory after a tenth and at the end."""
    rng = np.random.default_rng(0)
    for i in range(count):
        Image.fromarray(rng.integers(0, 256, (96, 128, 3), np.uint8)).save(folder / f"{i:05}.png")
    lines = "".join(f"{i:05}.png,30 20 70 60\n" for i in range(count))
    (folder / "work.csv").write_text(f"background,box\n{lines}")
    seen: list[float] = []
    with without_weights():
        session, _ = inference.session_for_items(None, None, None, None)  # type: ignore[arg-type]
        whole: Callable = session.insert

        def measured(*given: object) -> object:
            seen.append(resident())
            return whole(*given)

        session.insert = measured  # type: ignore[method-assign, assignment]
        inference.session_for_items = lambda args, config, options, items: (session, options)  # type: ignore
        words = [
            "--config",
            str(config),
            "--device",
            "cpu",
            "--reference",
            str(folder / "r.png"),
            "--manifest",
        ]
        with redirect_stdout(StringIO()):
            inference.main([*words, str(folder / "work.csv"), "--outdir", str(folder / "out")])
    early, late = float(np.median(seen[count // 10 : count // 5])), float(np.median(seen[-count // 10 :]))
    change = f"{early:.0f} MB after a tenth, {late:.0f} MB at the end ({late / early - 1:+.1%})"
    print(f"{len(seen)} backgrounds: {change}")


def main() -> None:
    parser = OneLineParser(description=__doc__, epilog="")
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--load", type=int, default=0, metavar="BACKGROUNDS")
    args = parser.parse_args()
    torch.set_num_threads(1)
    started, kinds, worst = time.perf_counter(), Counter[str](), 0
    with TemporaryDirectory() as whole:
        root = Path(whole)
        config, _ = written(root)
        reference = root / "toy/test.png"
        if args.load:
            (root / "load").mkdir()
            (root / "load/r.png").write_bytes(reference.read_bytes())
            load(args.load, root / "load", config)
            return
        for number in range(args.count):
            if time.perf_counter() - started > 60 * args.minutes:
                break
            folder = root / str(number)
            folder.mkdir()
            (folder / "r.png").write_bytes(reference.read_bytes())
            kind, differs = case(Random(f"{args.seed}/{number}"), folder, config)
            kinds[kind] += 1
            worst = max(worst, differs)
            if differs:
                print(f"{number}: {kind}: {differs}", flush=True)
    seconds = time.perf_counter() - started
    print(f"{sum(kinds.values())} cases of {len(kinds)} kinds in {seconds:.0f} s: largest difference {worst}")


if __name__ == "__main__":
    main()
