"""Full disks, read-only disks and files that vanish, on a small tmpfs (needs root to mount it).

    python -m tests.campaign.disk --seed 0 --count 60

Results and object files are written to a disk of random size: each command ends done, or with one line that
names a path and exit code 3, and leaves no half file. With space again the same command finishes. On a
read-only disk the exit code is 2. A background that vanishes after listing is skipped and counted.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from random import Random
from tempfile import mkdtemp

import torch

from ldm.config.cli import OneLineParser
from ldm.data.picture import read_picture
from scripts import inference, objects
from tests.campaign.bench import End, forked, without_weights
from tests.campaign.fuzz import material

Call = Callable[[], None]


def jobs(valid: Path, out: Path) -> dict[str, Call]:
    """What is written onto the disk."""
    config = ["--config", str(valid / "small.yaml"), "--device", "cpu"]
    pictures = [str(valid / f"{name}.png") for name in ("a", "b", "r")]
    words = ["--example_img", *pictures, "--box", "8", "6", "24", "20", "--reference", str(valid / "r.png")]
    toy, small = str(valid / "toy.safetensors"), ["--config", str(valid / "small.yaml")]

    pictured = ["--to", "ldm", "--dataset-dir", str(valid / "small/toy"), *small]

    def insertion() -> None:
        with without_weights():
            inference.main([*config, *words, "--outdir", str(out / "results"), "--n_samples", "2"])

    return {
        "insertion": insertion,
        "object file": partial(objects.main, ["bake", toy, "--out", str(out / "baked.safetensors"), *small]),
        "ckpt": partial(objects.main, ["convert", toy, "--out", str(out / "d.ckpt"), *pictured]),
    }


def mount(folder: Path, options: str) -> None:
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "none", str(folder)], check=True)


def one_line(end: End, code: int) -> str:
    """What is wrong with a refusal; "" if nothing is."""
    errors = [line for line in end.text.splitlines() if line.startswith("error:")]
    if end.code != code or len(errors) != 1 or "Traceback" in end.text:
        return f"exit code {end.code}: {end.text[-300:]}"
    return ""


def halves(out: Path) -> list[str]:
    """Temporary files, and pictures that cannot be read."""
    bad = [str(file) for file in out.rglob("*.part")]
    for file in out.rglob("*.png"):
        try:
            read_picture(file)
        except ValueError:
            bad.append(str(file))
    return bad


def full(job: Call, disk: Path, size: int, log: Path) -> tuple[str, str]:
    """Run on a disk of `size` bytes, then with space => how it ended, what was wrong."""
    mount(disk, f"size={size}")
    try:
        end = forked(job, log)
        wrong = "" if end.code == 0 else one_line(end, 3)
        wrong = wrong or ("" if end.code == 0 or str(disk) in end.text else f"no path: {end.text[-300:]}")
        if bad := halves(disk):
            wrong = wrong or f"left {bad}"
        subprocess.run(["mount", "-o", "remount,size=100m", str(disk)], check=True)
        again = forked(job, log)
        wrong = wrong or ("" if again.code == 0 else f"again: exit code {again.code}: {again.text[-300:]}")
        return "done" if end.code == 0 else "one line", wrong
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)


def vanishing(valid: Path, root: Path) -> str:
    """The second background of three is removed when the first is done."""
    pictures = [shutil.copy(valid / "a.png", root / f"v{i}.png") for i in range(3)]
    words = ["--config", str(valid / "small.yaml"), "--device", "cpu", "--reference", str(valid / "r.png")]
    (root / "work.csv").write_text("background,box\n" + "".join(f"{p},8 6 24 20\n" for p in pictures))

    def main() -> None:
        with without_weights():
            session, _ = inference.session_for_items(None, None, None, None)
            whole = session.insert

            def insert(*given: object) -> object:
                Path(pictures[1]).unlink(missing_ok=True)
                return whole(*given)

            session.insert = insert
            inference.session_for_items = lambda args, config, options, items: (session, options)
            inference.main([*words, "--manifest", str(root / "work.csv"), "--outdir", str(root / "vanished")])

    end = forked(main, root / "log")
    there = sorted(file.name for file in (root / "vanished").glob("v*.png"))
    good = end.code == 11 and there == ["v0.png", "v2.png"] and "no such" in end.text
    return "" if good else f"exit code {end.code}, {there}: {end.text[-300:]}"


def main() -> None:
    parser = OneLineParser(description=__doc__, epilog="")
    parser.add_argument("--count", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    torch.set_num_threads(1)
    root, random, counts = Path(mkdtemp(prefix="disk-")), Random(args.seed), Counter[str]()
    valid, disk, log = material(root / "valid"), root / "disk", root / "log"
    disk.mkdir()
    todo, wrong = jobs(valid, disk), []
    for number in range(args.count):
        name = list(todo)[number % len(todo)]
        way, problem = full(todo[name], disk, 4096 * random.randrange(1, 40), log)
        counts[f"{name}: {way}"] += 1
        wrong += [f"{name} {number}: {problem}"] if problem else []
    for name, job in todo.items():
        mount(disk, "size=1m,ro")
        end = forked(job, log)
        subprocess.run(["umount", "-l", str(disk)], check=True)
        problem = one_line(end, 2)
        counts[f"{name}, read-only: {'fault' if problem else 'one line'}"] += 1
        wrong += [f"{name}, read-only: {problem}"] if problem else []
    problem = vanishing(valid, root)
    counts[f"vanished background: {'fault' if problem else 'skipped'}"] += 1
    print(*wrong, *filter(None, [problem]), sep="\n")
    print(json.dumps(counts, indent=1))


if __name__ == "__main__":
    main()
