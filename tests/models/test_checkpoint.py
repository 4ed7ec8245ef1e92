"""Files: round trips, atomic writes, and one clear line for every bad file."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import pytest
import torch
from torch import Tensor, nn

from ldm.models import checkpoint
from ldm.models.checkpoint import (
    check_replaceable,
    read_metadata,
    read_state,
    recognised,
    refused,
    write_ckpt,
    write_folder,
    write_safetensors,
)
from ldm.models.weight_files import refusing_damage

STATE = {"a": torch.arange(1000.0).reshape(10, 100), "b.c": torch.ones(3), "n": torch.tensor(7)}


class Evil:
    """Makes a directory when unpickled by a careless reader."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


def equal(state: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return state.keys() == other.keys() and all(
        state[key].dtype == other[key].dtype and torch.equal(state[key], other[key]) for key in state
    )


def failing(value: Any = None, file: BinaryIO | None = None, **_: Any) -> bytes:
    """Stands in for a writer on a full disk."""
    if file:
        file.write(b"half")
    raise OSError("no space left")


def save_legacy(value: Any, path: Path) -> None:
    torch.save(value, path, _use_new_zipfile_serialization=False)


@pytest.mark.parametrize("save", [torch.save, save_legacy])
@pytest.mark.parametrize("suffix", [".ckpt", ".pt", ".pth", ".bin"])
@pytest.mark.parametrize("wrap", [lambda s: {"state_dict": s, "global_step": 3}, lambda s: s | {"epoch": 1}])
def test_pickles_are_read(tmp_path: Path, suffix: str, wrap: Callable, save: Callable) -> None:
    save(wrap(STATE), tmp_path / f"base{suffix}")
    assert equal(read_state(tmp_path / f"base{suffix}"), STATE)


def test_parameters_are_read_as_plain_tensors(tmp_path: Path) -> None:
    torch.save({"a": nn.Parameter(torch.ones(2))}, tmp_path / "a.pt")
    assert not read_state(tmp_path / "a.pt")["a"].requires_grad


def test_a_trainers_bookkeeping_is_read_past(tmp_path: Path) -> None:
    """Stable Diffusion's own files name a Lightning callback class beside the weights."""
    import numpy as np
    from pytorch_lightning.callbacks import ModelCheckpoint

    callbacks = {ModelCheckpoint: {"best": np.float64(0.5), "all": np.arange(3)}}
    torch.save({"state_dict": STATE, "callbacks": callbacks}, tmp_path / "base.ckpt")
    assert equal(read_state(tmp_path / "base.ckpt"), STATE)


def test_written_ckpt_is_read(tmp_path: Path) -> None:
    write_ckpt(tmp_path / "new" / "base.ckpt", {"state_dict": STATE, "step": 4})
    assert equal(read_state(tmp_path / "new" / "base.ckpt"), STATE)


def test_safetensors_round_trip_with_metadata(tmp_path: Path) -> None:
    views = {"row": STATE["a"][3], "column": STATE["a"][:, 3], "wide": STATE["b.c"][:, None].expand(3, 4)}
    write_safetensors(tmp_path / "x.safetensors", STATE | views, {"format": "1"})
    assert equal(read_state(tmp_path / "x.safetensors"), STATE | views)
    assert read_metadata(tmp_path / "x.safetensors") == {"format": "1"}


def test_folder_round_trip_in_small_shards(tmp_path: Path) -> None:
    state = {f"w{i}": torch.randn(100) for i in range(10)} | {"n": torch.tensor(7), "big": torch.randn(999)}
    paths = write_folder(tmp_path, state, shard_bytes=600, dtype=torch.float16)
    assert sorted(tmp_path.iterdir()) == paths
    assert [path.name for path in paths[:2]] == [
        "model-00001-of-00005.safetensors",
        "model-00002-of-00005.safetensors",
    ]
    assert [len(read_state(path)) for path in paths] == [3, 3, 3, 2, 1]
    halves = {key: value.half() if key != "n" else value for key, value in state.items()}
    assert equal(read_state(tmp_path), halves)


def test_a_folder_is_replaced_by_fewer_shards_and_keeps_other_files(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("card")
    write_folder(tmp_path, {f"w{i}": torch.zeros(100) for i in range(10)}, shard_bytes=400)
    write_folder(tmp_path, {key: value + 1 for key, value in read_state(tmp_path).items()})
    assert {path.name for path in tmp_path.iterdir()} == {"README.md", "model-00001-of-00001.safetensors"}
    assert all(torch.equal(value, torch.ones(100)) for value in read_state(tmp_path).values())


def test_a_failed_safetensors_file_leaves_the_old_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "x.safetensors"
    write_safetensors(path, STATE)
    monkeypatch.setattr(checkpoint, "save", failing)
    with pytest.raises(OSError, match="no space"):
        write_safetensors(path, {"other": torch.zeros(1)})
    assert equal(read_state(path), STATE)
    assert list(tmp_path.iterdir()) == [path]


def test_a_failed_ckpt_leaves_the_old_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x.ckpt"
    write_ckpt(path, STATE)
    monkeypatch.setattr(torch, "save", failing)
    with pytest.raises(OSError, match="no space"):
        write_ckpt(path, {"other": torch.zeros(1)})
    assert equal(read_state(path), STATE)
    assert list(tmp_path.iterdir()) == [path]


def test_a_failed_shard_leaves_the_old_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_folder(tmp_path, STATE, shard_bytes=10)
    real = checkpoint.save

    def second_fails(state: dict[str, Tensor], **keywords: Any) -> bytes:
        return failing() if "b.c" in state else real(state, **keywords)

    monkeypatch.setattr(checkpoint, "save", second_fails)
    with pytest.raises(OSError, match="no space"):
        write_folder(tmp_path, {key: value + 1 for key, value in STATE.items()}, shard_bytes=10)
    assert equal(read_state(tmp_path), STATE)
    assert len(list(tmp_path.iterdir())) == 3


def refusal(path: Path) -> str:
    with pytest.raises((FileNotFoundError, ValueError)) as caught:
        read_state(path)
    message = str(caught.value)
    assert str(path) in message and "\n" not in message
    return message


def test_missing_file(tmp_path: Path) -> None:
    assert "does not exist; expected a .ckpt, .pt, .pth, .bin or .safetensors file" in refusal(
        tmp_path / "x.ckpt"
    )


def test_a_file_without_permission_is_not_called_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_safetensors(tmp_path / "x.safetensors", STATE)

    def refuse(path: Path, *_: object) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "open", refuse)
    with (
        pytest.raises(PermissionError, match="Permission denied"),
        refusing_damage(tmp_path / "x.safetensors"),
    ):
        raise FileNotFoundError("No such file or directory")  # as safetensors does


def test_empty_folder(tmp_path: Path) -> None:
    assert "holds no .safetensors file; put the shards there" in refusal(tmp_path)


def test_unknown_suffix(tmp_path: Path) -> None:
    (tmp_path / "x.bak").write_bytes(b"\0\1\2")
    assert "is no known kind of checkpoint; expected" in refusal(tmp_path / "x.bak")
    write_safetensors(tmp_path / "x", STATE)
    assert "a .safetensors file under another ending; rename it" in refusal(tmp_path / "x")


def test_other_files_beside_shards_are_not_read(tmp_path: Path) -> None:
    write_folder(tmp_path, STATE)
    write_safetensors(tmp_path / "another.safetensors", {"other": torch.zeros(1)})
    assert read_state(tmp_path).keys() == STATE.keys()


def test_repeated_weights_in_a_folder(tmp_path: Path) -> None:
    for name in ("1", "2"):
        write_safetensors(tmp_path / f"{name}.safetensors", STATE)
    message = refusal(tmp_path)
    assert "2.safetensors repeats weights of other files in its folder (a, b.c, n); keep" in message


@pytest.mark.parametrize("suffix", [".ckpt", ".safetensors"])
def test_zeroed_bytes_are_noticed(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"x{suffix}"
    state = {"a": torch.ones(5000), "scalar": torch.tensor(2.0, dtype=torch.bfloat16), "none": torch.ones(0)}
    if suffix == ".ckpt":
        write_ckpt(path, {"state_dict": state})
    else:
        write_safetensors(path, state)
    assert equal(read_state(path), state)
    content = bytearray(path.read_bytes())
    start = len(content) // 2
    content[start : start + 4000] = bytes(4000)
    path.write_bytes(content)
    assert "is damaged: " in refusal(path) and "checksum" in refusal(path)


@pytest.mark.parametrize("suffix", [".ckpt", ".safetensors"])
@pytest.mark.parametrize("kept", [0.0, 0.02, 0.5, 0.99])
@pytest.mark.parametrize("legacy", [False, True])
def test_truncated_files(tmp_path: Path, suffix: str, kept: float, legacy: bool) -> None:
    path = tmp_path / f"x{suffix}"
    if suffix == ".safetensors":
        write_safetensors(path, STATE)
    else:
        (save_legacy if legacy else torch.save)(STATE, path)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * kept)])
    kind = "an empty file" if not kept else "cut off" if suffix == ".safetensors" or not legacy else "damaged"
    assert f"{path} is {kind}" in refusal(path)


@pytest.mark.parametrize("suffix", [".ckpt", ".safetensors"])
@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (b"<html>404</html>", "a web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "a Git LFS pointer"),
        (b"hello world, this is text", "a text file ('hello world"),
        (b"\x80\x02garbage", "damaged or no"),
        (b"PK\x03\x04", "cut off"),
        (b"\x89PNG\r\n", "a picture"),
        (b"\x1f\x8b\x08", "an archive"),
        (b"GGUF\x03\0\0\0", "a GGUF file, quantised weights of another program; give"),
        (b"\x89HDF\r\n", "an HDF5 file"),
    ],
)
def test_other_content(tmp_path: Path, suffix: str, content: bytes, kind: str) -> None:
    path = tmp_path / f"x{suffix}"
    path.write_bytes(content)
    assert f"{path} is {kind}" in refusal(path)


W = torch.zeros(2, 2)
OTHERS: list[tuple[str, dict, str]] = [
    ("a.safetensors", {"lora_unet_down_blocks_0.lora_down.weight": W}, "a LoRA of kohya's scripts"),
    ("b.safetensors", {"unet.down_blocks.0.attn1.to_q.lora.down.weight": W}, "a LoRA for diffusers"),
    ("c.safetensors", {"base_model.model.mid_block.to_q.lora_A.weight": W}, "a LoRA for diffusers"),
    ("d.bin", {"mid_block.attn2.processor.to_k_custom_diffusion.weight": W}, "a Custom Diffusion delta"),
    ("e.bin", {"unet": {"mid_block.attn2.to_k.weight": W}, "modifier_token": {"<new1>": W}}, "a Custom Diff"),
    ("f.ckpt", {"state_dict": {"embed": W, "model.diffusion_model.x.attn2.to_k.weight": W}}, "a Custom Diff"),
    ("g.ckpt", {"state_dict": {"cond_stage_model.transformer.text_model.x": W}}, "a whole Stable Diffusion"),
    ("h.pt", {"string_to_param": {"*": W}}, "a textual-inversion embedding"),
    ("q.safetensors", {"clip_g": W, "clip_l": W.clone()}, "a textual-inversion embedding"),
    ("i.ckpt", {"object": {"about": {}}, "global_step": 3, "state_dict": {"base.x": W}}, "a checkpoint of a"),
    ("k.safetensors", {"conditioner.embedders.0.x": W, "model.diffusion_model.y": W.clone()}, "a whole SDXL"),
    ("l.safetensors", {"double_blocks.0.img_attn.qkv.weight": W}, "a model of Flux's"),
    ("m.bin", {"image_proj": {"proj.weight": W}, "ip_adapter": {"1.to_k_ip.weight": W}}, "an IP-Adapter"),
    ("n.safetensors", {"encoder.conv_in.weight": W, "quant_conv.weight": W.clone()}, "a VAE alone"),
    ("o.safetensors", {"vision_model.x": W}, "a CLIP model alone"),
    ("p.ckpt", {"pytorch-lightning_version": "2", "state_dict": {"net.x": W}}, "a checkpoint of another"),
    ("j.safetensors", {"conv_in.weight": W, "down_blocks.0.x": W.clone()}, "a UNet for diffusers"),
]


@pytest.mark.parametrize(("name", "content", "kind"), OTHERS)
def test_files_of_other_programs_are_recognised(tmp_path: Path, name: str, content: dict, kind: str) -> None:
    path = tmp_path / name
    (write_safetensors if path.suffix == ".safetensors" else write_ckpt)(path, content)
    assert recognised(path).startswith(kind) and "; " in recognised(path)


def test_what_is_not_recognised_is_named_by_its_entries(tmp_path: Path) -> None:
    write_safetensors(tmp_path / "a.safetensors", {"foo": W, "bar": W.clone()})
    torch.save([W], tmp_path / "b.pt")
    assert "is no object; its entries are named bar, foo" in str(
        refused(tmp_path / "a.safetensors", "object")
    )
    assert "is no object; it holds no named tensors" in str(refused(tmp_path / "b.pt", "object"))
    (tmp_path / "a.safetensors").rename(tmp_path / "a.ckpt")
    assert "is a .safetensors file under another ending" in str(refused(tmp_path / "a.ckpt", "object"))


def test_only_objects_of_this_project_are_replaced(tmp_path: Path) -> None:
    for name, content, _ in OTHERS:
        path = tmp_path / name
        (write_safetensors if path.suffix == ".safetensors" else write_ckpt)(path, content)
        with pytest.raises(ValueError, match="was not written as an object file"):
            check_replaceable(path)
    write_safetensors(tmp_path / "own.safetensors", {"a": W}, {"format": "implicit-insertion object"})
    write_ckpt(tmp_path / "own.ckpt", {"state_dict": {"a": W}, "software": "implicit-insertion"})
    for name in ("own.safetensors", "own.ckpt", "new.safetensors"):
        check_replaceable(tmp_path / name)


@pytest.mark.parametrize("save", [torch.save, save_legacy])
def test_code_in_a_pickle_is_never_run(tmp_path: Path, save: Callable) -> None:
    path, made = tmp_path / "x.ckpt", tmp_path / "made"
    save({"state_dict": STATE, "extra": Evil(made)}, path)
    message = refusal(path)
    assert not made.exists()
    assert (
        "would run code when read (posix.mkdir); expected plain tensors: save the model's state_dict()"
        in message
    )


@pytest.mark.filterwarnings("ignore:Detected pickle protocol 4")
def test_a_plain_pickle_is_not_run_either(tmp_path: Path) -> None:
    path, made = tmp_path / "x.ckpt", tmp_path / "made"
    path.write_bytes(pickle.dumps({"state_dict": Evil(made)}, protocol=4))
    assert "is damaged or no .ckpt checkpoint" in refusal(path)
    assert not made.exists()


@pytest.mark.parametrize("save", [torch.save, save_legacy])
def test_a_refusal_does_not_advise_to_run_the_code(tmp_path: Path, save: Callable) -> None:
    path = tmp_path / "x.ckpt"
    for content in ({"a": Evil(tmp_path / "made")}, {"a": {1, nn.Linear}}):
        save(content, path)
        assert "weights_only" not in refusal(path)


def test_a_whole_module_is_refused(tmp_path: Path) -> None:
    torch.save(nn.Linear(2, 2), tmp_path / "x.pt")
    assert "would run code when read (torch.nn.modules.linear.Linear)" in refusal(tmp_path / "x.pt")


@pytest.mark.parametrize(
    "value", [[1, 2], {}, {"step": 3}, {"state_dict": 3}, {"state_dict": {}}, torch.ones(2)]
)
def test_files_without_weights(tmp_path: Path, value: Any) -> None:
    torch.save(value, tmp_path / "x.pt")
    assert "holds no weights but a " in refusal(tmp_path / "x.pt")
