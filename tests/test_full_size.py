"""The whole path at Paint-by-Example's size, on the CPU, with synthetic weights: `bash test.sh -m slow`.

Needs about 24 GB of memory (object files alone, `-k object_files`: 12 GB), 12 GB of disk below pytest's
temporary folder, and some minutes.
"""

from __future__ import annotations

import resource
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ldm.config.schema import load_config
from ldm.data.picture import read_picture
from ldm.models.base import load_base
from ldm.models.weight_files import read_pickle
from ldm.objects.delta import save
from scripts import get_deltas, inference, objects, train
from tests.fixtures.objects import learnt
from tests.fixtures.synth import state_for
from tests.fixtures.tiny import shapes

OBJECT = Path("examples/objects/rocket_bee")
BACKGROUND, MASK = Path("examples/scenes/rocks.jpg"), Path("examples/scenes/rocks_mask.png")
CONFIG, PAPER = Path("configs/v.yaml"), Path("configs/paper.yaml")
GIGABYTE = 2**20  # ru_maxrss counts kilobytes


def write_model(folder: Path) -> Path:
    """A file like Paint-by-Example's model.ckpt: every key and shape, synthetic values."""
    file = folder / "model.ckpt"
    state = state_for(shapes("full", prior_encoder=False))
    torch.save({"state_dict": state, "global_step": 0}, file)
    return file


@pytest.mark.slow
def test_full_size_learns_extracts_and_inserts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    seconds = {}
    start = time.time()
    model = write_model(tmp_path)
    common = f"--config {CONFIG} --base {model} base.architecture.image_size=256"

    seconds["write the checkpoint"], start = time.time() - start, time.time()
    train.main(
        f"--dataset-dir {OBJECT} --logdir {tmp_path} --name rocket --max_steps 2 --accelerator cpu {common} "
        "train.preview_every=0 train.validate_every=0".split()
    )
    seconds["load, 2 training steps"], start = time.time() - start, time.time()
    get_deltas.main(["--path", str(tmp_path / "rocket")])
    seconds["get_deltas"], start = time.time() - start, time.time()
    inference.main(
        f"--example_img {BACKGROUND} --mask {MASK} --object {tmp_path}/rocket/rocket.safetensors "
        f"--device cpu --steps 2 --outdir {tmp_path}/out {common}".split()
    )
    seconds["load, insert with 2 steps"], start = time.time() - start, time.time()
    learnt, base = (
        tmp_path / "rocket/rocket.safetensors",
        ["--config", str(CONFIG), "--base", str(model)],
    )
    objects.main(["bake", str(learnt), "--out", str(tmp_path / "baked.safetensors"), *base])
    seconds["bake"], start = time.time() - start, time.time()
    inference.main(
        f"--example_img {BACKGROUND} --mask {MASK} --object {tmp_path}/baked.safetensors "
        f"--device cpu --steps 2 --outdir {tmp_path}/out_baked {common}".split()
    )
    seconds["load, insert the baked one"], start = time.time() - start, time.time()
    objects.main(
        ["compress", str(learnt), "--energy", "0.99", "--out", str(tmp_path / "small.safetensors"), *base]
    )
    seconds["compress"] = time.time() - start

    sizes = {file.stem: file.stat().st_size / 1e6 for file in (learnt, *tmp_path.glob("*.safetensors"))}
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / GIGABYTE
    with capsys.disabled():
        print({k: round(v, 1) for k, v in seconds.items()}, f"peak {peak:.1f} GB")
        print({k: round(v, 3) for k, v in sizes.items()}, "MB")
    before, after = read_picture(BACKGROUND).pixels, read_picture(tmp_path / "out/rocks.png").pixels
    mask = np.asarray(Image.open(MASK)) > 127
    assert (before[~mask] == after[~mask]).all() and (before[mask] != after[mask]).any()
    baked = read_picture(tmp_path / "out_baked/rocks.png").pixels
    assert np.abs(baked.astype(int) - after).max() <= 2
    assert sizes["baked"] <= 0.35
    assert peak < 24


@pytest.mark.slow
def test_the_published_recipe_at_full_size(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The prior encoder's 269 M weights train in fp32 with Adam's state; the .ckpt has 146 tensors."""
    model, seconds, start = write_model(tmp_path), {}, time.time()
    common = f"--config {PAPER} --base {model} base.architecture.image_size=256"
    train.main(
        f"--dataset-dir {OBJECT} --logdir {tmp_path} --name rocket --max_steps 2 --accelerator cpu {common} "
        "train.preview_every=0".split()
    )
    seconds["load, 2 training steps"], start = time.time() - start, time.time()
    get_deltas.main(["--path", str(tmp_path / "rocket")])
    seconds["get_deltas"], start = time.time() - start, time.time()
    inference.main(
        f"--example_img {BACKGROUND} --mask {MASK} --object {tmp_path}/rocket --device cpu --steps 2 "
        f"--outdir {tmp_path}/out {common}".split()
    )
    seconds["load, insert with 2 steps"] = time.time() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / GIGABYTE
    weights = read_pickle(tmp_path / "rocket/rocket.ckpt")
    with capsys.disabled():
        print({k: round(v, 1) for k, v in seconds.items()}, f"peak {peak:.1f} GB, {len(weights)} tensors")
    assert len(weights) == 146 and sum(weight.numel() for weight in weights.values()) > 370e6
    before, after = read_picture(BACKGROUND).pixels, read_picture(tmp_path / "out/rocks.png").pixels
    mask = np.asarray(Image.open(MASK)) > 127
    assert (before[~mask] == after[~mask]).all() and (before[mask] != after[mask]).any()
    assert peak < 24


@pytest.mark.slow
@torch.no_grad()
def test_object_files_at_full_size(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Sizes of every kind of file from objects that moved every trained weight."""
    model = write_model(tmp_path)
    common = ["--config", str(CONFIG), "--base", str(model)]
    whole = {
        f"{mode}_{n + 1}": (mode, n) for mode, n in (("crossattn-kv", 4), ("crossattn", 4), ("crossattn", 5))
    }
    base = load_base(model, load_config(CONFIG).base.architecture)
    for seed, (name, (mode, n)) in enumerate([*whole.items(), ("other", ("crossattn-kv", 4))]):
        save(learnt(base, seed, mode, n), tmp_path / f"{name}.safetensors")
    del base
    files = [str(tmp_path / f"{name}.safetensors") for name in whole]
    kv, other = files[0], str(tmp_path / "other.safetensors")
    objects.main(["bake", *files, "--out", str(tmp_path / "baked"), *common])
    objects.main(
        ["compress", kv, "--energy", "0.99", "--out", str(tmp_path / "low_rank.safetensors"), *common]
    )
    objects.main(["merge", kv, other, "--out", str(tmp_path / "merged.safetensors"), *common])
    made = [tmp_path / "baked" / f"{name}.safetensors" for name in whole]
    made += [tmp_path / "low_rank.safetensors", tmp_path / "merged.safetensors"]
    megabytes = {file.stem: file.stat().st_size / 1e6 for file in made}
    with capsys.disabled():
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / GIGABYTE
        print({k: round(v, 3) for k, v in megabytes.items()}, f"MB, peak {peak:.1f} GB")
    assert megabytes["crossattn-kv_5"] <= 0.35 and megabytes["crossattn_5"] <= 2.5
    assert megabytes["low_rank"] <= 40
