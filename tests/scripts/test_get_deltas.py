"""From a run to an object file that inserts what was learnt, in both formats."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from ldm.config.command_line import run
from ldm.data.insertset import load_insertset
from ldm.models.base import save_base
from ldm.objects.applied import apply
from ldm.objects.delta import load
from ldm.objects.exchange import load_ldm_delta
from ldm.training.checkpoints import find_checkpoint, read_checkpoint
from scripts import get_deltas, train
from tests.fixtures.small import SMALL_IMAGES, small_base, written


def learn(folder: Path, *more: str) -> Path:
    """A run of three big steps."""
    config, root = written(folder)
    rates = [f"train.{rate}=0.01" for rate in ("lr", "lr_conditioner", "lr_tokens")]
    options = [
        "--max_steps",
        "3",
        "--preview_every",
        "0",
        "--judge_every",
        "0",
        "--warmup",
        "0",
        *rates,
        *more,
    ]
    train.main(
        ["--config", str(config), "--dataset-dir", str(root), "--logdir", str(folder / "logs"), *options]
    )
    return folder / "logs/toy"


def learnt(folder: Path) -> dict[str, torch.Tensor]:
    """What the run's weights are, without its few-shot part."""
    state = read_checkpoint(find_checkpoint(folder))["state_dict"]
    own = {key.removeprefix("base."): value for key, value in state.items()}
    return {key: value for key, value in own.items() if "few_shot" not in key and "prior_encoder" not in key}


@pytest.mark.parametrize("mode", ["crossattn-kv", "crossattn"])
@pytest.mark.parametrize("few_shot", ["none", "linear", "tokens"])
def test_the_object_file_is_what_was_learnt(tmp_path: Path, mode: str, few_shot: str) -> None:
    folder = learn(tmp_path, "--freeze_model", mode, "--few_shot", few_shot)
    get_deltas.main(["--path", str(folder), "--dtype", "fp32", "--author", "Ada", "--licence", "CC0"])
    delta, base = load(folder / "toy.safetensors"), small_base()
    apply(base, delta)
    now = base.state_dict()
    assert all(torch.equal(now[key], value) for key, value in learnt(folder).items())
    about = delta.about
    assert (about.freeze_model, about.few_shot, about.step) == (mode, few_shot, 3)
    assert about.few_shot_count == (0 if few_shot == "none" else 3)
    assert (about.author, about.licence) == ("Ada", "CC0") and about.date.startswith("2")
    assert about.preview and about.recipe["train"]["freeze_model"] == mode
    reference = SMALL_IMAGES.reference(tmp_path / "toy/test.png")[0]
    assert delta.reference is not None
    assert torch.equal(delta.reference.float(), (reference * 127.5 + 127.5).round())


@pytest.mark.parametrize("few_shot", ["none", "linear", "tokens"])
def test_both_formats_insert_the_same(tmp_path: Path, few_shot: str) -> None:
    folder = learn(tmp_path, "--few_shot", few_shot, "--few_shot_features", "raw")
    for options in ([], ["--dtype", "fp32", "--out", str(folder / "exact.safetensors")], ["--format", "ldm"]):
        get_deltas.main(["--path", str(folder), *options])
    base, reference = small_base(), SMALL_IMAGES.reference(tmp_path / "toy/test.png")
    crops = SMALL_IMAGES.few_shot(load_insertset(tmp_path / "toy"))
    objects = [load(folder / "exact.safetensors"), load_ldm_delta(folder / "toy.ckpt", base, crops)]
    contexts = []
    for delta in [*objects, load(folder / "toy.safetensors")]:
        with apply(base, delta), torch.no_grad():
            contexts.append(base.context(reference))
    assert contexts[0].shape[1] == (1 if few_shot == "none" else 4)
    assert torch.allclose(contexts[0], contexts[1], atol=1e-4)
    assert torch.allclose(contexts[0], contexts[2], atol=1e-2)


def test_it_says_what_it_wrote(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = learn(tmp_path)
    capsys.readouterr()
    get_deltas.main(["--path", str(find_checkpoint(folder)), "--out", str(tmp_path / "a/b.safetensors")])
    said = capsys.readouterr().out
    assert f"{tmp_path / 'a/b.safetensors'}: " in said and "MB" in said
    assert "step 3 of crossattn-kv on small" in said and "3 few-shot tokens" in said


def test_the_best_is_taken_unless_the_last_is_asked_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = learn(tmp_path)
    best = read_checkpoint(find_checkpoint(folder)) | {"global_step": 2}
    torch.save(best, folder / "best.ckpt")
    get_deltas.main(["--path", str(folder)])
    assert load(folder / "toy.safetensors").about.step == 3  # nothing says that it is the best
    (folder / "best.txt").write_text("step 2: score 0.500, the highest score of 3 judgements\n")
    capsys.readouterr()
    get_deltas.main(["--path", str(folder)])
    assert load(folder / "toy.safetensors").about.step == 2
    assert "step 2: score 0.500, the highest" in capsys.readouterr().out
    for options in (["--which", "last"], ["--path", str(find_checkpoint(folder))]):
        get_deltas.main(["--path", str(folder), *options])
        assert load(folder / "toy.safetensors").about.step == 3


def test_another_base_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = learn(tmp_path)
    save_base(small_base(seed=9), tmp_path / "base", dtype=torch.float32)
    with pytest.raises(SystemExit) as stop:
        run(lambda: get_deltas.main(["--path", str(folder)]))
    assert stop.value.code == 2
    said = capsys.readouterr().err
    assert "made on the base" in said and not list(folder.glob("*.safetensors"))


@pytest.mark.parametrize(
    ("flags", "hint"),
    [
        ([], "no run given"),
        (["--path", "nowhere"], "nowhere: no such run"),
        (["--path", ".", "--format", "pickle"], "expected one of safetensors, ldm"),
    ],
)
def test_mistakes_are_one_line(capsys: pytest.CaptureFixture[str], flags: list[str], hint: str) -> None:
    with pytest.raises(SystemExit) as stop:
        run(lambda: get_deltas.main(flags))
    assert stop.value.code == 2
    said = capsys.readouterr().err
    assert hint in said and said.count("\n") == 1
