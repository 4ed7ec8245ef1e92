"""SIGKILL at random moments of learning, extracting, a manifest, a scene and object files; then again.

    python -m tests.campaign.kill --kills 200 --seed 0 --minutes 30

A job is started, killed at a random moment, and started again until it ends. Its files are compared with
those of an undisturbed job: none is missing, no temporary one is left, and the content is equal: pixels and
weights bit for bit; dates and timings are not compared.
"""

from __future__ import annotations

import json
import shutil
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from random import Random
from tempfile import mkdtemp
from typing import Any

import numpy as np
import torch
from PIL import Image

from ldm.batch.results_log import rows
from ldm.config.cli import OneLineParser
from ldm.data.picture import read_picture
from ldm.models.checkpoint import read_state
from ldm.objects.delta import save
from ldm.training.checkpoints import checkpoints, read_checkpoint
from scripts import get_deltas, inference, objects, train
from tests.campaign.bench import End, forked
from tests.fixtures.objects import learnt
from tests.fixtures.small import small_base, written

STEPS, EVERY = 8, 2
Call = Callable[[], None]


@dataclass(frozen=True)
class Job:
    """`call`: folder => what to run, the first time and again; `content`: folder => what it has to hold."""

    call: Callable[[Path], Call]
    content: Callable[[Path], dict[str, Any]]


def jobs(root: Path) -> dict[str, Job]:
    """The jobs, on the small base."""
    config, toy = written(root)
    small = ["--config", str(config)]
    rng = np.random.default_rng(0)
    for i in range(4):
        Image.fromarray(rng.integers(0, 256, (48, 56, 3), np.uint8)).save(root / f"{i}.png")
    mask = np.zeros((48, 56), np.uint8)
    mask[10:30, 12:36] = 255
    Image.fromarray(mask).save(root / "mask.png")
    base = small_base()
    for i in range(3):
        save(learnt(base, seed=i), root / f"toy{i}.safetensors")
    lines = "".join(f"{i}.png,mask.png,toy{i % 2}.safetensors\n" for i in range(4))
    (root / "work.csv").write_text(f"background,mask,object\n{lines}")
    placements = "".join(
        f"- {{object: toy{i}.safetensors, box: [{5 + 12 * i}, 8, {16 + 12 * i}, 24], order: {i // 2}}}\n"
        for i in range(3)
    )
    (root / "scene.yaml").write_text(f"background: 0.png\nplacements:\n{placements}")
    insert = [*small, "--steps", "2", "--device", "cpu"]
    files = [str(root / f"toy{i}.safetensors") for i in range(3)]
    learning = (
        f"--max_steps {STEPS} --checkpoint_every {EVERY} --batch_size 2 --preview_every 4 --seed 1".split()
    )

    def learn(folder: Path) -> Call:
        if checkpoints(folder / "run"):
            return partial(train.main, ["--resume", str(folder / "run")])
        place = [
            "--dataset-dir",
            str(toy),
            "--logdir",
            str(folder),
            "--name",
            "run",
            "train.cached_samples=8",
        ]
        return partial(train.main, [*small, *place, *learning, "train.cached_samples=8"])

    def extract(folder: Path) -> Call:
        return partial(
            get_deltas.main, ["--path", str(root / "learnt/run"), "--out", str(folder / "o.safetensors")]
        )

    def insertion(*words: str) -> Callable[[Path], Call]:
        return lambda folder: partial(inference.main, [*insert, *words, "--outdir", str(folder)])

    def compress(folder: Path) -> Call:
        return partial(objects.main, ["compress", *files, "--energy", "0.9", "--out", str(folder), *small])

    def merge(folder: Path) -> Call:
        return partial(objects.main, ["merge", *files, "--out", str(folder / "all.safetensors"), *small])

    return {
        "train": Job(learn, trained),
        "get_deltas": Job(extract, weights),
        "manifest": Job(insertion("--manifest", str(root / "work.csv"), "--n_samples", "2"), results),
        "scene": Job(insertion("--scene", str(root / "scene.yaml")), results),
        "objects": Job(compress, weights),
        "merge": Job(merge, weights),
    }


def trained(folder: Path) -> dict[str, Any]:
    """The names of a run's files, and its last checkpoint's weights and optimizer.

    metrics.csv is written after a step's checkpoint: a kill between them loses that line.
    """
    run = folder / "run"
    last = read_checkpoint(checkpoints(run)[-1])
    states = {"weights": last["state_dict"], "optimizer": last["optimizer_states"][0]["state"]}
    files = [name for name in names(run) if name != "metrics.csv"]
    return {"files": files, "step": last["global_step"], **states}


def weights(folder: Path) -> dict[str, Any]:
    """The tensors of all object files."""
    return {"files": names(folder)} | {file.name: read_state(file) for file in folder.glob("*.safetensors")}


def results(folder: Path) -> dict[str, Any]:
    """The pixels of all pictures, and the files that the log names."""
    logged = Counter(row["file"] for row in rows(folder / "results.jsonl"))
    pixels = {name: read_picture(folder / name).pixels for name in logged}
    return {"files": names(folder), "logged": sorted(logged), **pixels}


def names(folder: Path) -> list[str]:
    """All files, temporary ones included; those of the logs of TensorBoard are not compared."""
    found = [str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file()]
    return sorted(name for name in found if "events.out" not in name)


def equal(one: Any, other: Any) -> bool:
    """Bit for bit, in nested dicts and lists."""
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(equal(one[key], other[key]) for key in one)
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    return np.array_equal(one, other) if isinstance(one, np.ndarray) else one == other


def ended(end: End, name: str) -> None:
    """Stop the campaign if an undisturbed job fails."""
    if end.code not in (0, 1):
        raise SystemExit(f"{name} ended with {end.code}: {end.text[-600:]}")


def main() -> None:
    parser = OneLineParser(description=__doc__, epilog="")
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--minutes", type=float, default=30)
    args = parser.parse_args()
    torch.set_num_threads(1)
    root, random, started = Path(mkdtemp(prefix="kill-")), Random(args.seed), time.perf_counter()
    log, kinds = root / "log", jobs(root)
    wanted, seconds = {}, {}
    (root / "learnt").mkdir()
    ended(forked(kinds["train"].call(root / "learnt"), log), "train")
    for name, job in kinds.items():
        folder = root / f"whole-{name}"
        folder.mkdir()
        end = forked(job.call(folder), log)
        ended(end, name)
        wanted[name], seconds[name] = job.content(folder), end.seconds
    kills, runs, wrong = Counter[str](), Counter[str](), []
    while sum(kills.values()) < args.kills and time.perf_counter() - started < 60 * args.minutes:
        name = list(kinds)[sum(runs.values()) % len(kinds)]
        folder, job = root / "job", kinds[name]
        folder.mkdir()
        runs[name] += 1
        while True:
            moment = random.random() * seconds[name] if random.random() < 0.75 else None
            end = forked(job.call(folder), log, moment)
            if end.code != -9:
                break
            kills[name] += 1
        if end.code not in (0, 1):
            wrong.append(f"{name}: exit code {end.code} after a kill: {end.text[-300:]}")
        elif not equal(found := job.content(folder), wanted[name]):
            other = [k for k in {*found, *wanted[name]} if not equal(found.get(k), wanted[name].get(k))]
            wrong.append(f"{name}: {', '.join(other)} differ ({root}/wrong-{len(wrong)})")
            shutil.copytree(folder, root / f"wrong-{len(wrong) - 1}")
        shutil.rmtree(folder)
    print(*wrong, sep="\n")
    done = {name: f"{kills[name]} kills in {runs[name]} jobs of {seconds[name]:.1f} s" for name in kinds}
    print(json.dumps(done, indent=1))
    total = f"{sum(kills.values())} kills in {sum(runs.values())} jobs, {time.perf_counter() - started:.0f} s"
    print(f"{total}: {len(wrong)} differ")


if __name__ == "__main__":
    main()
