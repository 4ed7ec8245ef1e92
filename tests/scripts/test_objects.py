"""objects.py: every command from files to files, and every mistake as one line that leaves nothing behind."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from ldm.merge.merged_file import apply_merged, load_merged
from ldm.models.base import base_fingerprint, load_inpainting_model
from ldm.models.checkpoint import read_metadata
from ldm.models.cross_attention import Folded
from ldm.objects import baked
from ldm.objects.delta import apply, load, save
from ldm.objects.object_context import reference_of
from scripts import objects
from tests.fixtures.objects import as_tuned, learnt
from tests.fixtures.refusal import refusal
from tests.fixtures.small import SMALL, small_base, state_of, written


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """small.yaml, its base, an object folder toy/, and objects: a, b (K/V), all (crossattn), tuned (fp32)."""
    written(tmp_path)
    base = small_base()
    save(learnt(base, 1, author="Ada", licence="CC0"), tmp_path / "a.safetensors")
    save(learnt(base, 2), tmp_path / "b.safetensors")
    save(learnt(base, 3, "crossattn"), tmp_path / "all.safetensors")
    save(as_tuned(learnt(base, 1), base), tmp_path / "tuned.safetensors")
    return tmp_path


def call(folder: Path, *words: str) -> None:
    """Words that name files get the folder's path before them; commands get the config but `info`."""
    config = [] if words[0] == "info" else ["--config", str(folder / "small.yaml")]
    objects.main([str(folder / w) if "." in w and not w[0].isdigit() else w for w in words] + config)


def refused(folder: Path, capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """The one line of a refusal, after which the folder is as before."""
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    capsys.readouterr()
    message = refusal(lambda: call(folder, *words), capsys)
    assert message.startswith("error: "), message
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before
    return message


def test_info_is_readable(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    call(folder, "info", "a.safetensors", "all.safetensors")
    message = capsys.readouterr().out
    for fact in (
        "a.safetensors",
        "Ada",
        "CC0",
        base_fingerprint(small_base()),
        "(small)",
        "3 tokens (tokens)",
    ):
        assert fact in message
    assert (
        "crossattn-kv" in message and message.count("format version  1") == 2 and "made from" not in message
    )


def test_info_as_json(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    call(folder, "compress", "a.safetensors", "--energy", "0.9", "--out", "small.safetensors")
    capsys.readouterr()
    call(folder, "info", "--json", "a.safetensors", "small.safetensors")
    a, small = json.loads(capsys.readouterr().out)
    assert (a["version"], small["version"], a["low_rank"]) == (1, 2, 0) and small["low_rank"] > 10
    assert a["bytes"] == (folder / "a.safetensors").stat().st_size > small["bytes"]
    assert a["tensors"] == len(load_file(folder / "a.safetensors"))
    assert (a["author"], a["step"], a["few_shot_count"], a["kind"]) == ("Ada", 7, 3, "delta")
    [parent] = small["parents"]
    assert parent["name"] == "a" and len(parent["sha256"]) == 64 and parent["author"] == "Ada"
    assert small["recipe"]["compressed"][0]["energy"] == 0.9


def test_verify_names_all_bad_files(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    call(folder, "merge", "a.safetensors", "b.safetensors", "--out", "merged.safetensors")
    good = ["a.safetensors", "tuned.safetensors", "merged.safetensors"]
    call(folder, "verify", *good)
    assert capsys.readouterr().out.count("ok: ") == 3
    whole = (folder / "a.safetensors").read_bytes()
    (folder / "cut.safetensors").write_bytes(whole[:-9])
    (folder / "text.safetensors").write_text("no object")
    save_file({"x": torch.zeros(1)}, folder / "foreign.safetensors")
    tensors, metadata = load_file(folder / "a.safetensors"), read_metadata(folder / "a.safetensors")
    save_file(tensors, folder / "newer.safetensors", metadata | {"version": "99"})
    save_file(tensors, folder / "other.safetensors", metadata | {"base": "0" * 16})
    save_file(
        tensors | {"delta.conditioner.proj_out.bias": torch.zeros(3)}, folder / "shape.safetensors", metadata
    )
    tensors["delta.conditioner.proj_out.bias"][0] = torch.nan
    save_file(tensors, folder / "nan.safetensors", metadata)
    names = ["cut", "text", "foreign", "newer", "other", "shape", "nan", "missing"]
    with pytest.raises(SystemExit) as stop:
        call(folder, "verify", *[f"{name}.safetensors" for name in names], *good)
    out, err = capsys.readouterr()
    assert stop.value.code == 2 and out.count("ok: ") == 3
    lines = err.strip().split("\n")
    hints = [
        "cut off, ",
        "a text file ('no object' ...)",
        "no object file",
        "version 99",
        "0000000000000000",
        "proj_out",
        "NaN",
        "no such",
    ]
    assert len(lines) == len(names)
    for line, name, hint in zip(lines, names, hints, strict=True):
        assert line.startswith("error: ") and f"{name}.safetensors" in line and hint in line


def test_info_goes_on_after_a_bad_file(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "text.safetensors").write_text("no object")
    files = ["a.safetensors", "gone.safetensors", "text.safetensors", "b.safetensors"]
    for form in ([], ["--json"]):
        with pytest.raises(SystemExit) as stop:
            call(folder, "info", *form, *files)
        out, err = capsys.readouterr()
        bad = [line.partition(": ")[0::2] for line in err.splitlines()]
        assert stop.value.code == 2 and [kind for kind, _ in bad] == ["error", "error"]
        assert all(name in told for (_, told), name in zip(bad, files[1:3], strict=True))
        if form:
            assert [Path(each["file"]).name for each in json.loads(out)] == [files[0], files[3]]
        else:
            assert out.count("format version  1") == 2 and "Ada" in out


def test_verify_without_a_base_checks_the_file_alone(folder: Path) -> None:
    save_file(
        load_file(folder / "a.safetensors"),
        folder / "other.safetensors",
        read_metadata(folder / "a.safetensors") | {"base": "0" * 16},
    )
    objects.main(["verify", "--no-base", str(folder / "other.safetensors")])


def test_compress_prints_the_losses(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    call(folder, "compress", "a.safetensors", "--energy", "0.9", "--out", "small.safetensors")
    message = capsys.readouterr().out
    new = load(folder / "small.safetensors")
    record = new.metadata.recipe["compressed"][0]
    assert f"relative error of all weights {record['error']:.3%}" in message
    for name, (_, error) in record["layers"].items():
        assert any(line.startswith(name) and f"{error:.2%}" in line for line in message.split("\n"))
    assert new.metadata.author == "Ada"


def test_compress_many_files(folder: Path) -> None:
    files = ("a.safetensors", "tuned.safetensors")
    call(folder, "compress", *files, "--energy", "0.9", "--out", str(folder / "small"))
    assert sorted(path.name for path in (folder / "small").iterdir()) == sorted(files)
    for name in files:
        assert (folder / "small" / name).stat().st_size < (folder / name).stat().st_size
        load(folder / "small" / name)


@pytest.mark.parametrize("name", ["a", "all", "tuned"])
def test_bake_keeps_what_the_object_does(folder: Path, name: str) -> None:
    """With its own reference, at the given object_scale; a model without CLIP, K and V agrees."""
    call(folder, "bake", f"{name}.safetensors", "--out", "baked.safetensors", "--object_scale", "0.7")
    assert (folder / "baked.safetensors").stat().st_size < (folder / f"{name}.safetensors").stat().st_size
    made = baked.load(folder / "baked.safetensors")
    assert made.metadata.kind == "baked" and made.metadata.parents[0]["name"] == name
    base, delta = small_base(), load(folder / f"{name}.safetensors")
    with apply(base, delta, 0.7):
        expected = base.contexts(base.context(reference_of(delta)))
    model, fingerprint = load_inpainting_model(folder / "base", SMALL)
    for ours, theirs in zip(baked.contexts(made, model, fingerprint)[:2], expected[:2], strict=True):
        assert isinstance(ours, Folded) and isinstance(theirs, Folded)
        for layer, constants in theirs.layers.items():
            for a, b in zip(ours.layers[layer], constants, strict=True):
                assert torch.allclose(a, b, rtol=2e-3, atol=2e-3)


def test_bake_takes_another_reference(folder: Path) -> None:
    Image.new("RGB", (40, 40), (255, 0, 0)).save(folder / "red.png")
    call(folder, "bake", "a.safetensors", "--out", "own.safetensors")
    call(folder, "bake", "a.safetensors", "--out", "red.safetensors", "--reference", "red.png")
    own, red = (load_file(folder / f"{name}.safetensors") for name in ("own", "red"))
    assert own.keys() == red.keys() and any(not torch.equal(own[key], red[key]) for key in own)


def test_merge_makes_one_file_that_a_base_takes(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    call(folder, "merge", "a.safetensors", "b.safetensors", "--out", "merged.safetensors")
    message = capsys.readouterr().out
    merged = load_merged(folder / "merged.safetensors")
    assert merged.names == ["a", "b"] and merged.metadata.author == "Ada"
    residual = merged.metadata.recipe["merged"]["residual"]
    assert all(f"{name:30} {residual[name]:12.2e}" in message for name in "ab")
    apply_merged(small_base(), merged)


@pytest.mark.parametrize("to", ["diffusers", "ldm"])
@pytest.mark.parametrize("name", ["a", "all", "tuned"])
def test_convert_and_back_is_the_same_object(folder: Path, to: str, name: str) -> None:
    base, middle = small_base(), {"diffusers": "middle.safetensors", "ldm": "middle.ckpt"}[to]
    pictures = ["--dataset-dir", str(folder / "toy")]
    call(folder, "convert", f"{name}.safetensors", "--to", to, "--out", middle, *pictures)
    call(folder, "convert", middle, "--to", "object", "--out", "back.safetensors", *pictures)
    call(
        folder, "convert", middle, "--to", "object", "--dtype", "fp16", "--out", "half.safetensors", *pictures
    )
    sizes = [(folder / f"{file}.safetensors").stat().st_size for file in ("half", "back")]
    assert sizes[0] < 0.7 * sizes[1] and not load(folder / "half.safetensors").absolute
    with apply(base, load(folder / f"{name}.safetensors")):
        expected = state_of(base)
    for file, exact in (("back", True), ("half", False)):
        with apply(base, load(folder / f"{file}.safetensors")):
            for key, value in base.state_dict().items():
                if key.endswith("few_shot_tokens") or not exact:
                    assert torch.allclose(value, expected[key], rtol=1e-3, atol=1e-4), key
                else:
                    assert torch.equal(value, expected[key]), key


def test_half_of_a_converted_object_is_refused(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    call(folder, "convert", "a.safetensors", "--to", "diffusers", "--out", "unet.safetensors")
    words = ["convert", "unet.conditioner.safetensors", "--to", "object", "--out", "back.safetensors"]
    message = refused(folder, capsys, *words)
    assert f"is only the conditioner of an object; give {folder / 'unet.safetensors'}; both" in message
    message = refused(folder, capsys, "verify", "unet.conditioner.safetensors")
    assert "unet.conditioner.safetensors: this object has no weights of the UNet" in message


MISTAKES = {
    "bake a.safetensors --reference_view 9 --out x.safetensors": "view 9: this object has",
    "bake a.safetensors --reference_view -2 --out x.safetensors": "view -2: this object has",
    "bake a.safetensors --object_scale nan --out x.safetensors": "argument --object_scale: 'nan' is not a",
    "compress a.safetensors --energy 2 --out x.safetensors": "energy 2: expected a share",
    "compress a.safetensors --out x.safetensors": "required: --energy",
    "compress a.safetensors --energy 0.9 --out a.safetensors": "would overwrite",
    "compress a.safetensors ./a.safetensors --energy 0.9 --out .": "same name",
    "compress a.safetensors b.safetensors --energy 0.9 --out .": "would overwrite",
    "compress a.safetensors --energy 0.9 --out x.ckpt": "expected the name of a .safetensors file",
    "compress a.safetensors b.safetensors --energy 0.9 --out small.yaml": "is a file, not a folder",
    "compress tuned.safetensors --no-base --energy 0.9 --out x.safetensors": "give the base it was made on",
    "compress missing.safetensors --energy 0.9 --out x.safetensors": "no such object file",
    "compress small.yaml --energy 0.9 --out x.safetensors": "small.yaml is a text file",
    "merge a.safetensors all.safetensors --out x.safetensors": "all.safetensors: this object was learnt with",
    "merge a.safetensors ./a.safetensors --out x.safetensors": "called a; rename",
    "merge a.safetensors b.safetensors --out .": "expected the name of a .safetensors file",
    "convert a.safetensors --to ldm --out x.ckpt": "--dataset-dir",
    "convert a.safetensors --to ldm --out x.safetensors": "expected the name of a .ckpt file",
    "convert a.safetensors --to paper --out x.ckpt": "choose from",
    "convert base/model.ckpt --to object --out x.safetensors": "no such file",
    "info gone.safetensors": "no such object file",
    "info a.safetensors --jsn": "did you mean --json?",
    "inof a.safetensors": "choose from",
}


@pytest.mark.parametrize("line", MISTAKES)
def test_mistakes_are_one_line_and_leave_nothing(
    folder: Path, capsys: pytest.CaptureFixture[str], line: str
) -> None:
    assert MISTAKES[line] in refused(folder, capsys, *line.split())


def test_what_needs_code_is_not_read(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save({"state_dict": {"x": torch.zeros(1)}, "trap": Path("x")}, folder / "trap.ckpt")
    words = ["--dataset-dir", str(folder / "toy"), "--to", "object", "--out", "x.safetensors"]
    assert "would run code" in refused(folder, capsys, "convert", "trap.ckpt", *words)
    assert "would run code" in refused(folder, capsys, "info", "trap.ckpt")


def test_baked_objects_are_verified_and_described(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    base = small_base()
    delta = load(folder / "a.safetensors")
    with apply(base, delta):
        baked.save(baked.bake(base, delta.metadata, reference_of(delta)), folder / "baked.safetensors")
    call(folder, "verify", "baked.safetensors")
    call(folder, "info", "baked.safetensors")
    message = capsys.readouterr().out
    assert "ok: " in message and "kind            baked" in message
    tensors = load_file(folder / "baked.safetensors")
    broken = {key: value[..., :-1].contiguous() for key, value in tensors.items()}
    save_file(broken, folder / "broken.safetensors", read_metadata(folder / "baked.safetensors"))
    assert "does not fit" in refused(folder, capsys, "verify", "broken.safetensors")


def test_an_object_for_another_base_is_refused(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = small_base(seed=5)
    save(learnt(other), folder / "c.safetensors")
    out = ["--out", "x.safetensors"]
    for words in (
        ["compress", "c.safetensors", "--energy", "0.9"],
        ["merge", "a.safetensors", "c.safetensors"],
        ["convert", "c.safetensors", "--to", "diffusers"],
    ):
        message = refused(folder, capsys, *words, *out)
        assert "c.safetensors" in message and base_fingerprint(other) in message


def test_a_merge_needs_references(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save(replace(learnt(small_base()), reference=None), folder / "bare.safetensors")
    message = refused(folder, capsys, "merge", "a.safetensors", "bare.safetensors", "--out", "x.safetensors")
    assert "bare.safetensors: this object file has no reference picture" in message
