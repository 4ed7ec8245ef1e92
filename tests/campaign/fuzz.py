"""Malformed inputs through the command lines: each ends in a result or one line, and the right exit code.

    python -m tests.campaign.fuzz --count 5000 --seed 0 --minutes 30

A case is a valid input of one kind with some bytes or characters changed. It fails if the script ends with a
traceback, an exit code that `--help` does not list, more than one error line, a crash, after 60 seconds of
processor time, with more than 1 GB above an undisturbed case, or with a changed input.
Failing inputs are kept.
"""

from __future__ import annotations

import json
import pickle as plain
import re
import shutil
import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from random import Random
from tempfile import mkdtemp
from typing import Any

import numpy as np
import torch
from PIL import Image

from ldm.config.cli import OneLineParser
from ldm.data.files import file_digest
from ldm.models.checkpoint import write_ckpt, write_safetensors
from ldm.models.weight_files import PICKLES
from ldm.objects.delta import save
from scripts import get_deltas, inference, objects, train
from tests.campaign.bench import End, forked, without_weights
from tests.fixtures.objects import learnt
from tests.fixtures.small import small_base, written

PICTURES = ("png", "jpg", "webp", "tif", "bmp", "gif")
TEXTS = {
    "box.txt": "8 6 24 20\n",
    "shape.json": "[[[8, 6], [24, 6], [24, 20], [8, 20]]]",
    "work.csv": "background,mask,seed\na.png,mask.png,7\nb.png,mask.png,8\n",
    "work.jsonl": '{"background": "a.png", "box": [8, 6, 24, 20], "seed": 7}\n',
    "scene.yaml": "background: a.png\nplacements:\n- {reference: r.png, box: [8, 6, 24, 20]}\n"
    "- {reference: r.png, mask: mask.png, seed: 3, order: 1}\n",
}
PIECES = (
    *("", "-1", "1e400", "nan", "inf", "0", "99999999999999999999", "\0", "\ufeff", "é", "空", "'", '"'),
    *("{", "}", "[", "]", ":", ",", ";", "\t", "\n", "\r\n", "null", "true", "../", "/dev/zero", "~", "&a"),
    *("*a", "!!python/x", "${data.root}", "<<: *a", "a" * 300, "%", "\\", "="),
)
VALUE = re.compile(r"[\w.]+")  # a name, number or word of a text
HARM = "harm"  # the file that a malicious pickle would write
Case = Callable[[Random, Path], Callable[[], None]]  # random numbers, its folder => the script to run


def material(folder: Path) -> Path:
    """Valid inputs of every kind."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for name in ("a", "b", "r"):
        picture = Image.fromarray(rng.integers(0, 256, (40, 48, 3), np.uint8))
        for kind in PICTURES:
            picture.save(folder / f"{name}.{kind}")
    Image.fromarray(rng.integers(0, 65536, (40, 48)).astype(np.uint16)).save(folder / "deep.png")
    mask = np.zeros((40, 48), np.uint8)
    mask[6:20, 8:24] = 255
    for kind in PICTURES:
        Image.fromarray(mask).save(folder / f"mask.{kind}")
    for name, text in TEXTS.items():
        (folder / name).write_text(text)
    config, _ = written(folder / "small")
    shutil.copy(config, folder / "small.yaml")
    save(learnt(small_base()), folder / "toy.safetensors")
    state = {"base.unet.x": torch.zeros(4, 4)}
    write_ckpt(
        folder / "run.ckpt", {"object": {"about": {"recipe": {}}}, "global_step": 1, "state_dict": state}
    )
    write_safetensors(folder / "lora.safetensors", {"lora_unet_x.lora_up.weight": torch.zeros(4, 4)})
    return folder


def mutated(content: bytes, random: Random) -> bytes:
    """Bytes with a few changes: flips, cuts, repeats, zeros, numbers at their limits."""
    data = bytearray(content)
    for _ in range(random.choice((1, 1, 2, 4, 16))):
        at = min(int(random.random() ** random.choice((1, 3)) * len(data)), max(len(data) - 1, 0))
        way = random.randrange(7)
        if way == 0 and data:
            data[at] ^= 1 << random.randrange(8)
        elif way == 1:
            del data[at:]
        elif way == 2:
            data[at:at] = data[at : at + random.randrange(1, 64)] * random.randrange(1, 9)
        elif way == 3:
            data[at : at + random.randrange(1, 64)] = bytes(random.randrange(1, 64))
        elif way == 4:
            data[at : at + 4] = random.choice((b"\xff" * 4, b"\x7f\xff\xff\xff", b"\0\0\0\x01", b"\0\1\0\0"))
        elif way == 5:
            data[at : at + 8] = random.randbytes(8)
        else:
            del data[at : at + random.randrange(1, 32)]
    return bytes(data)


def mangled(text: str, random: Random) -> bytes:
    """A text with a value replaced, or with pieces put in, taken out or moved; sometimes bytes of no text."""
    if random.random() < 0.5:  # the rest stays readable, so that what comes after the parser is reached
        values = [*VALUE.finditer(text)]
        old, piece = random.choice(values), random.choice((*PIECES, *(value[0] for value in values)))
        return f"{text[: old.start()]}{piece}{text[old.end() :]}".encode()
    for _ in range(random.choice((1, 1, 2, 3))):
        at, way = random.randrange(len(text) + 1), random.randrange(4)
        piece = random.choice(PIECES)
        if way == 0:
            text = text[:at] + piece + text[at:]
        elif way == 1:
            text = text[:at] + text[at + random.randrange(1, 8) :]
        elif way == 2:
            words = text.split(" ")
            words[random.randrange(len(words))] = piece
            text = " ".join(words)
        else:
            text = text[:at] + text[max(0, at - 20) :]
    coded = text.encode(random.choice(("utf-8", "utf-8", "utf-8", "utf-16", "latin-1")), "replace")
    return mutated(coded, random) if random.random() < 0.2 else coded


def insertion(folder: Path, *words: str) -> Callable[[], None]:
    """Inference with the small base's settings, without weights."""
    common = ["--config", str(folder / "small.yaml"), "--outdir", str(folder / "out"), "--device", "cpu"]
    reference = [] if "--scene" in words or "--object" in words else ["--reference", str(folder / "r.png")]

    def main() -> None:
        with without_weights():
            inference.main([*common, *reference, *words])

    return main


def change(file: Path, random: Random) -> str:
    """Mutate a file in place; returns its path."""
    file.write_bytes(mutated(file.read_bytes(), random))
    return str(file)


def background(random: Random, folder: Path) -> Callable[[], None]:
    file = change(folder / random.choice([*(f"a.{kind}" for kind in PICTURES), "deep.png"]), random)
    return insertion(folder, "--example_img", file, "--box", "8", "6", "24", "20")


def mask(random: Random, folder: Path) -> Callable[[], None]:
    file = change(folder / f"mask.{random.choice(PICTURES)}", random)
    return insertion(folder, "--example_img", str(folder / "a.png"), "--mask", file)


def given(folder: Path, name: str) -> Callable[[], None]:
    """Inference with one of TEXTS."""
    flags = {"box.txt": "--mask", "shape.json": "--mask", "scene.yaml": "--scene"}
    flag = flags.get(name, "--manifest")
    image = ["--example_img", str(folder / "a.png")] if flag == "--mask" else []
    return insertion(folder, *image, flag, str(folder / name))


def text_file(name: str, random: Random, folder: Path) -> Callable[[], None]:
    (folder / name).write_bytes(mangled(TEXTS[name], random))
    return given(folder, name)


def settings(random: Random, folder: Path) -> Callable[[], None]:
    file = folder / "small.yaml"
    more = "insert: {blend: membrane, roi_factor: 2}\nmask: {grow: 1}\nsample: {seed: 3, steps: 2}\n"
    file.write_bytes(mangled(file.read_text() + more, random))
    return insertion(folder, "--example_img", str(folder / "a.png"), "--mask", str(folder / "mask.png"))


def flags(random: Random, folder: Path) -> Callable[[], None]:
    words = [
        "--example_img",
        str(folder / "a.png"),
        "--box",
        "8",
        "6",
        "24",
        "20",
        "--seed",
        "3",
        "--steps",
        "2",
    ]
    for _ in range(random.choice((1, 2))):
        words[random.randrange(len(words))] = random.choice(PIECES).replace("\0", "") or "-"
    return insertion(folder, *words)


def object_folder(random: Random, folder: Path) -> Callable[[], None]:
    toy = folder / "small/toy"
    file = random.choice(sorted(path for path in toy.rglob("*") if path.is_file()))
    if file.suffix == ".txt":
        file.write_bytes(mangled(file.read_text(), random))
    else:
        change(file, random)
    run = ["--logdir", str(folder / "logs"), "--name", "run", "--max_steps", "1"]
    words = ["--config", str(folder / "small.yaml"), "--dataset-dir", str(toy), *run]
    return partial(train.main, words)


def object_file(random: Random, folder: Path) -> Callable[[], None]:
    file = change(folder / random.choice(("toy.safetensors", "toy.safetensors", "lora.safetensors")), random)
    command = random.choice(
        (["info"], ["verify", "--no-base"], ["verify", "--config", str(folder / "small.yaml")])
    )
    return partial(objects.main, [command[0], file, *command[1:]])


def pickle(random: Random, folder: Path) -> Callable[[], None]:
    return partial(
        get_deltas.main, ["--path", change(folder / "run.ckpt", random), "--out", str(folder / "o.ckpt")]
    )


class Trap:
    """Writes a file when a careless reader unpickles it."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.file,)


def malicious(random: Random, folder: Path) -> Callable[[], None]:
    """A pickle with code in each container that is read, under each name and flag."""
    file = folder / f"trap{random.choice((*PICKLES, '.safetensors'))}"
    content = {"state_dict": {"x": torch.zeros(2), "y": Trap(folder / HARM)}, "object": Trap(folder / HARM)}
    way = random.randrange(3)
    if way == 2:
        file.write_bytes(plain.dumps(content, protocol=random.randrange(2, 6)))
    else:
        torch.save(content, file, _use_new_zipfile_serialization=bool(way))
    small, toy = ["--config", str(folder / "small.yaml")], str(folder / "small/toy")
    out, own = ["--out", str(folder / "o.safetensors")], str(folder / "toy.safetensors")
    folders = ["--dataset-dir", toy]
    insert = ["--example_img", str(folder / "a.png"), "--box", "8", "6", "24", "20"]
    return random.choice(
        (
            partial(objects.main, ["info", str(file)]),
            partial(objects.main, ["verify", "--no-base", str(file)]),
            partial(objects.main, ["convert", str(file), "--to", "object", *folders, *out, *small]),
            partial(objects.main, ["bake", own, "--base", str(file), *out, *small]),
            partial(get_deltas.main, ["--path", str(file), *out]),
            partial(inference.main, [*small, "--object", str(file), *folders, *insert]),
        )
    )


KINDS: dict[str, Case] = {
    "background": background,
    "mask": mask,
    "box file": partial(text_file, "box.txt"),
    "polygons": partial(text_file, "shape.json"),
    "manifest csv": partial(text_file, "work.csv"),
    "manifest jsonl": partial(text_file, "work.jsonl"),
    "scene": partial(text_file, "scene.yaml"),
    "settings": settings,
    "flags": flags,
    "object folder": object_folder,
    "object file": object_file,
    "pickle": pickle,
    "malicious pickle": malicious,
}
CODES = {0, 1, 2, *range(11, 111)}


def fault(end: End, before: dict[Path, str], usual: float) -> str:
    """What is wrong with how a case ended; "" if nothing is."""
    if any((file.parent / HARM).exists() for file in before):
        return "code of a pickle ran"
    if end.code not in CODES:
        last = [line for line in end.text.splitlines() if line.strip()][-3:]
        return f"exit code {end.code}: {' / '.join(last)[:300]}"
    if "Traceback" in end.text:
        return "traceback"
    errors = [line for line in end.text.splitlines() if line.startswith("error:")]
    if (end.code == 2) != (len(errors) == 1) and end.code in (0, 2):
        return f"exit code {end.code} with {len(errors)} error lines"
    if end.megabytes > usual + 1024:
        return f"{end.megabytes:.0f} MB"
    if changed := [file.name for file, digest in before.items() if file_digest(file) != digest]:
        return f"changed {changed[0]}"
    return ""


def undisturbed(valid: Path, log: Path) -> End:
    """Of the valid texts' results, the one that took the most memory; an input that gives none is a fault."""
    ends = [forked(given(valid, name), log) for name in TEXTS]
    assert all(end.code == 0 for end in ends), [end.text for end in ends if end.code]
    shutil.rmtree(valid / "out")
    return max(ends, key=lambda end: end.megabytes)


def main() -> None:
    parser = OneLineParser(description=__doc__, epilog="")
    parser.add_argument("--count", type=int, default=5000)
    parser.add_argument("--start", type=int, default=0, help="number of the first case")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--show", action="store_true", help="print how each case ended")
    parser.add_argument("--kinds", nargs="+", choices=list(KINDS), default=list(KINDS))
    args = parser.parse_args()
    torch.set_num_threads(1)
    root = Path(mkdtemp(prefix="fuzz-"))
    valid, started = material(root / "valid"), time.perf_counter()
    usual = undisturbed(valid, root / "log")
    counts: dict[str, Counter[str]] = {kind: Counter() for kind in args.kinds}
    slowest = largest = 0.0
    for number in range(args.start, args.start + args.count):
        if time.perf_counter() - started > 60 * args.minutes:
            break
        kind, random = args.kinds[number % len(args.kinds)], Random(f"{args.seed}/{number}")
        folder = root / "case"
        shutil.copytree(valid, folder)
        work = KINDS[kind](random, folder)
        before = {file: file_digest(file) for file in folder.rglob("*") if file.is_file()}
        end = forked(work, root / "log")
        slowest, largest = max(slowest, end.seconds), max(largest, end.megabytes)
        wrong = fault(end, before, usual.megabytes)
        way = "fault" if wrong else "result" if end.code in (0, 1) else "one line"
        counts[kind][way] += 1
        if args.show:
            print(f"{kind} {number}: {end.code} {' '.join(end.text.split()[-30:])}", flush=True)
        if wrong:
            kept = root / f"fault-{number}"
            folder.rename(kept)
            print(f"{kind} {number}: {wrong} ({kept})", flush=True)
        shutil.rmtree(folder, ignore_errors=True)
    done: dict[str, Any] = {kind: dict(counter) for kind, counter in counts.items()}
    total = sum(sum(counter.values()) for counter in counts.values())
    seconds = time.perf_counter() - started
    print(json.dumps(done, indent=1))
    memory = f"largest {largest:.0f} MB, an undisturbed case {usual.megabytes:.0f} MB"
    print(f"{total} cases in {seconds:.0f} s, slowest {slowest:.1f} s, {memory}")


if __name__ == "__main__":
    main()
