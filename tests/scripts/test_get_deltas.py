"""From a run to an object file with the trained weights, in both formats."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from ldm.config.process import run
from ldm.data.insertset import load_insertset
from ldm.models.base import base_state, save_base
from ldm.objects.delta import apply, is_trained, load
from ldm.objects.paper_file import read_with_pictures
from ldm.training.checkpoints import find_checkpoint, read_checkpoint
from scripts import get_deltas, objects, train
from tests.fixtures.ldm_names import diffusers_to_ldm
from tests.fixtures.refusal import refusal
from tests.fixtures.small import SMALL_IMAGES, small_base, written

LAYER = "cond_stage_model.prior_encoder.prior_block.1."


def learn(folder: Path, *more: str) -> Path:
    """A run of three big steps."""
    config, root = written(folder)
    rates = [f"train.{rate}=0.01" for rate in ("lr", "lr_conditioner", "lr_tokens")]
    options = [
        "--max_steps",
        "3",
        "--preview_every",
        "0",
        "--validate_every",
        "0",
        "--warmup_steps",
        "0",
        *rates,
        *more,
    ]
    train.main(
        ["--config", str(config), "--dataset-dir", str(root), "--logdir", str(folder / "logs"), *options]
    )
    return folder / "logs/toy"


def trained(folder: Path) -> dict[str, torch.Tensor]:
    """The run's weights without its few-shot part."""
    state = read_checkpoint(find_checkpoint(folder))["state_dict"]
    own = {key.removeprefix("base."): value for key, value in state.items()}
    return {key: value for key, value in own.items() if "few_shot" not in key and "prior_encoder" not in key}


@pytest.mark.parametrize("mode", ["crossattn-kv", "crossattn"])
@pytest.mark.parametrize("few_shot", ["none", "linear", "tokens"])
def test_the_object_file_has_the_trained_weights(tmp_path: Path, mode: str, few_shot: str) -> None:
    folder = learn(tmp_path, "--freeze_model", mode, "--few_shot", few_shot)
    get_deltas.main(["--path", str(folder), "--dtype", "fp32", "--author", "Ada", "--licence", "CC0"])
    delta, base = load(folder / "toy.safetensors"), small_base()
    apply(base, delta)
    now = base.state_dict()
    assert all(torch.equal(now[key], value) for key, value in trained(folder).items())
    about = delta.metadata
    assert (about.freeze_model, about.few_shot, about.step) == (mode, few_shot, 3)
    assert about.few_shot_count == (0 if few_shot == "none" else 3)
    assert (about.author, about.licence) == ("Ada", "CC0") and about.date.startswith("2")
    assert about.recipe["train"]["freeze_model"] == mode
    reference = SMALL_IMAGES.reference(tmp_path / "toy/test.png")[0]
    assert delta.reference is not None
    assert torch.equal(delta.reference.float(), (reference * 127.5 + 127.5).round())


@pytest.mark.parametrize("few_shot", ["none", "linear", "tokens"])
def test_both_formats_insert_the_same(tmp_path: Path, few_shot: str) -> None:
    folder = learn(tmp_path, "--few_shot", few_shot, "--few_shot_features", "raw")
    for options in ([], ["--dtype", "fp32", "--out", str(folder / "exact.safetensors")], ["--format", "ldm"]):
        get_deltas.main(["--path", str(folder), *options])
    base, reference = small_base(), SMALL_IMAGES.reference(tmp_path / "toy/test.png")
    pictures = load_insertset(tmp_path / "toy")
    paper = read_with_pictures(folder / "toy.ckpt", base, pictures, SMALL_IMAGES)
    objects = [load(folder / "exact.safetensors"), paper]
    contexts = []
    for delta in [*objects, load(folder / "toy.safetensors")]:
        with apply(base, delta), torch.no_grad():
            contexts.append(base.context(reference))
    assert contexts[0].shape[1] == (1 if few_shot == "none" else 4)
    assert torch.allclose(contexts[0], contexts[1], atol=1e-4)
    assert torch.allclose(contexts[0], contexts[2], atol=1e-2)


@pytest.mark.parametrize("few_shot", ["linear", "tokens"])
def test_the_papers_code_computes_the_trained_tokens_from_the_folder(
    tmp_path: Path, few_shot: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Computed here: int box, bilinear, 0-255, axes swapped, CLIP, one layer; no held-out picture."""
    folder = learn(tmp_path, "--few_shot", few_shot, "--few_shot_features", "raw", "--hold_out", "1")
    capsys.readouterr()
    for options in (["--dtype", "fp32"], ["--format", "ldm"]):
        get_deltas.main(["--path", str(folder), *options])
    output = capsys.readouterr().err
    assert "picture 1 was held out of training; move data/1.* and bbox/1.txt out" in output
    file = torch.load(folder / "toy.ckpt", weights_only=True)
    assert (file["few_shot_pictures"], file["held_out"]) == (["0", "2"], "1")
    crops = []
    for name in file["few_shot_pictures"]:
        pixels = cv2.cvtColor(cv2.imread(str(tmp_path / f"toy/data/{name}.png")), cv2.COLOR_BGR2RGB)
        x0, y0, x1, y1 = map(int, map(float, (tmp_path / f"toy/bbox/{name}.txt").read_text().split()))
        crops.append(cv2.resize(pixels[y0:y1, x0:x1], (28, 28)))
    pixels = torch.tensor(np.stack(crops)).float().transpose(1, 3)
    with torch.no_grad():
        hidden = small_base().conditioner.clip(pixels).last_hidden_state
    layer = [file["state_dict"][LAYER + part] for part in ("weight", "bias")]
    tokens, trained_ones = hidden.flatten(1) @ layer[0].T + layer[1], load(folder / "toy.safetensors").tokens
    assert trained_ones is not None and tokens.shape == trained_ones.shape == (2, 16)
    assert float((tokens - trained_ones).norm() / trained_ones.norm()) < 1e-3
    config, target = str(tmp_path / "small.yaml"), str(tmp_path / "again.ckpt")
    words = ["--to", "ldm", "--dataset-dir", str(tmp_path / "toy"), "--config", config, "--out", target]
    objects.main(["convert", str(folder / "toy.safetensors"), *words])
    assert torch.load(target, weights_only=True)["few_shot_pictures"] == ["0", "2"]


def paper_checkpoint(path: Path) -> dict[str, torch.Tensor]:
    """A training checkpoint of the paper's code on the small base: all weights, the tuned ones moved."""
    g = torch.Generator().manual_seed(2)
    own = base_state(small_base())
    tuned = {
        k: v + 0.1 * torch.randn(v.shape, generator=g) if is_trained(k, "crossattn") else v
        for k, v in own.items()
    }
    weight = torch.randn(16, 5 * 16, generator=g)
    linear = {LAYER + "weight": weight, LAYER + "bias": weight[:, 0].clone()}
    torch.save(
        {"state_dict": diffusers_to_ldm(tuned) | linear, "global_step": 9, "optimizer_states": []}, path
    )
    return tuned


def test_a_training_checkpoint_of_the_papers_code_is_extracted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config, root = written(tmp_path)
    whole = tmp_path / "last.ckpt"
    tuned = paper_checkpoint(whole)
    with pytest.raises(SystemExit):
        run(lambda: get_deltas.main(["--path", str(whole)]))
    assert "give the object's pictures: --dataset-dir FOLDER" in capsys.readouterr().err
    options = ["--base_config", str(config), "--dataset-dir", str(root), "--dtype", "fp32"]
    get_deltas.main(["--path", str(whole), *options])
    get_deltas.main(["--path", str(whole), "--format", "ldm"])
    output = capsys.readouterr().out
    assert "step 9 of crossattn on small" in output and "3 few-shot tokens (linear)" in output
    base = small_base()
    apply(base, load(tmp_path / "last_object.safetensors"))
    now = base_state(base)
    assert all(torch.equal(now[key], value) for key, value in tuned.items())
    for name, target in (("last.ckpt", "a.ckpt"), ("last_object.ckpt", "b.safetensors")):
        to = "ldm" if target.endswith("ckpt") else "object"
        words = [
            "--to",
            to,
            "--dataset-dir",
            str(root),
            "--config",
            str(config),
            "--out",
            str(tmp_path / target),
        ]
        objects.main(["convert", str(tmp_path / name), *words])
    assert (tmp_path / "a.ckpt").read_bytes() == (tmp_path / "last_object.ckpt").read_bytes()
    one, other = (load(tmp_path / f"{name}.safetensors") for name in ("last_object", "b"))
    assert one.tokens is not None and other.tokens is not None and torch.equal(one.tokens, other.tokens)
    with pytest.raises(SystemExit):
        run(lambda: get_deltas.main(["--path", str(whole), "--format", "ldm", "--out", str(whole)]))


def test_it_prints_what_it_wrote(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = learn(tmp_path)
    capsys.readouterr()
    get_deltas.main(["--path", str(find_checkpoint(folder)), "--out", str(tmp_path / "a/b.safetensors")])
    output = capsys.readouterr().out
    assert f"{tmp_path / 'a/b.safetensors'}: " in output and "MB" in output
    assert "step 3 of crossattn-kv on small" in output and "3 few-shot tokens" in output
    get_deltas.main(["--path", str(folder), "--out", str(tmp_path / "again.safetensors")])
    assert (tmp_path / "again.safetensors").read_bytes() == (tmp_path / "a/b.safetensors").read_bytes()


def test_the_best_is_extracted_unless_the_last_is_asked_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = learn(tmp_path)
    best = read_checkpoint(find_checkpoint(folder)) | {"global_step": 2}
    torch.save(best, folder / "best.ckpt")
    get_deltas.main(["--path", str(folder)])
    assert load(folder / "toy.safetensors").metadata.step == 3  # no best.txt: not known to be the best
    (folder / "best.txt").write_text("step 2: score 0.500, the highest score of 3 validations\n")
    capsys.readouterr()
    get_deltas.main(["--path", str(folder)])
    assert load(folder / "toy.safetensors").metadata.step == 2
    assert "step 2: score 0.500, the highest" in capsys.readouterr().out
    for options in (["--which", "last"], ["--path", str(find_checkpoint(folder))]):
        get_deltas.main(["--path", str(folder), *options])
        assert load(folder / "toy.safetensors").metadata.step == 3


def test_another_base_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = learn(tmp_path)
    save_base(small_base(seed=9), tmp_path / "base", dtype=torch.float32)
    with pytest.raises(SystemExit) as stop:
        run(lambda: get_deltas.main(["--path", str(folder)]))
    assert stop.value.code == 2
    output = capsys.readouterr().err
    assert "made on the base" in output and not list(folder.glob("*.safetensors"))


def refused(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """The one line of a refusal."""
    capsys.readouterr()
    return refusal(lambda: get_deltas.main(words), capsys)


def test_a_file_with_the_ending_of_another_format_is_not_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, whole = learn(tmp_path), tmp_path / "last.ckpt"
    paper_checkpoint(whole)
    get_deltas.main(["--path", str(folder)])
    extracted = folder / "toy.safetensors"
    assert "object file, extracted already; give it to inference.sh" in refused(
        capsys, "--path", str(extracted)
    )
    monkeypatch.setattr(get_deltas, "load_base", None)  # refused before any work
    before = sorted(tmp_path.rglob("*"))
    for name, format, suffix in (
        ("x.ckpt", "safetensors", ".safetensors"),
        ("x", "safetensors", ".safetensors"),
        ("x.safetensors", "ldm", ".ckpt"),
    ):
        for path in (folder, whole):
            words = ["--path", str(path), "--format", format, "--out", str(tmp_path / name)]
            assert f"{name}: expected the name of a {suffix} file" in refused(capsys, *words)
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    ("flags", "hint"),
    [
        ([], "no run given"),
        (["--path", "nowhere"], "nowhere: no such run"),
        (["--path", ".", "--format", "pickle"], "expected one of safetensors, ldm"),
    ],
)
def test_mistakes_are_one_line(capsys: pytest.CaptureFixture[str], flags: list[str], hint: str) -> None:
    assert hint in refused(capsys, *flags)
