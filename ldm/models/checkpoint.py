"""Weight files <=> state dicts, name => tensor: no code is run, writing is atomic, loading is strict."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, BinaryIO

import torch
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor, nn

from ldm.data.failure import check_file
from ldm.data.files import atomic_file, list_files
from ldm.models.weight_files import (
    BASE_GIVEN,
    OWN_PART,
    PICKLES,
    beginning,
    checksum,
    load_pickle,
    named,
    nested_names,
    read_pickle,
    refusing_damage,
)

ALIGNED = 64  # bytes; as torch allocates
OWN = "implicit-insertion"  # begins the format, or kind, of the files that this project writes
SOFTWARE = "software"  # key of a pickle that this project has written
READABLE = f"a {', '.join(PICKLES)} or .safetensors file, or a folder of .safetensors files"
SHARDS = "model-*-of-*.safetensors"
CHECKSUM = "tensors_sha256"  # key of the metadata


def read_state(path: Path) -> dict[str, Tensor]:
    """A checkpoint file or a folder of shards => its tensors on the CPU, mapped from disk where possible.

    A pickle may wrap them as {"state_dict": ...}; its other values are left out.
    """
    if not path.exists():
        raise FileNotFoundError(
            f"{path} does not exist; expected {READABLE}: check the path, or fetch the file"
        )
    if path.is_dir():
        return _read_folder(path)
    check_file(path, READABLE)
    if path.suffix == ".safetensors":
        return _read_safetensors(path)
    if path.suffix in PICKLES:
        return read_pickle(path)
    raise ValueError(f"{path} is {beginning(path) or 'no known kind of checkpoint'}; expected {READABLE}")


def read_metadata(path: Path) -> dict[str, str]:
    """The metadata of a .safetensors file but the checksum, {} if it has none."""
    with refusing_damage(path), safe_open(path, framework="pt") as file:
        return {key: value for key, value in (file.metadata() or {}).items() if key != CHECKSUM}


def recognised(path: Path) -> str:
    """What a weight file is, as "a LoRA for diffusers; ...", see `named`; "" if it is not known."""
    if not path.is_file():
        return ""
    if known := beginning(path):
        return known
    if path.suffix in PICKLES:
        return named(nested_names(load_pickle(path)), path)
    if path.suffix != ".safetensors":
        return ""
    metadata = read_metadata(path)
    if metadata.get("format", "").startswith(OWN):
        return f"an {metadata['format']} file, extracted already; give it to inference.sh as --object"
    if "fingerprint" in metadata:
        return BASE_GIVEN
    return named(list(read_shapes(path)), path)


def is_paper_file(path: Path) -> bool:
    """Whether a pickle may be an object of the paper's code: it has its parts and is nothing else known."""
    return not recognised(path) and any(OWN_PART.match(name) for name in nested_names(load_pickle(path)))


def refused(path: Path, expected: str) -> ValueError:
    """The error for a weight file that is not as `expected`: what it is, or the names of its tensors."""
    if known := recognised(path):
        return ValueError(f"{path} is {known}")
    if path.suffix == ".safetensors":
        names = list(read_shapes(path))
    else:
        names = nested_names(load_pickle(path))
    what = f"its entries are named {first_few(names)}" if names else "it holds no named tensors"
    return ValueError(f"{path} is no {expected}; {what}")


def check_replaceable(path: Path) -> None:
    """ValueError if `path` is a file that this project has not written as an object: it is not replaced."""
    if not path.exists() or (path.is_file() and (path.stat().st_size == 0 or _is_own(path))):
        return
    raise ValueError(
        f"{path} was not written as an object file and would be overwritten; move it, or give another name"
    )


def _is_own(path: Path) -> bool:
    try:
        if path.suffix in PICKLES:
            entries = load_pickle(path)
            return isinstance(entries, Mapping) and (SOFTWARE in entries or "few_shot_crops" in entries)
        about = read_metadata(path)
    except (ValueError, OSError):
        return False
    return any(about.get(key, "").startswith(OWN) for key in ("format", "kind"))


def read_shapes(path: Path) -> dict[str, tuple[str, list[int]]]:
    """Dtype ("F16" ...) and shape of every tensor of a .safetensors file, without reading the tensors."""
    with refusing_damage(path), safe_open(path, framework="pt") as file:
        slices = {key: file.get_slice(key) for key in file.keys()}  # noqa: SIM118 - it is no dict
        return {key: (value.get_dtype(), value.get_shape()) for key, value in slices.items()}


def write_safetensors(
    path: Path, state: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None
) -> None:
    """Write one .safetensors file, atomically."""
    with atomic_file(path) as file:
        _save(state, file, metadata)


def write_folder(
    folder: Path,
    state: Mapping[str, Tensor],
    shard_bytes: int = 16 * 2**20,
    dtype: torch.dtype | None = None,
    metadata: Mapping[str, str] | None = None,
) -> list[Path]:
    """Write model-00001-of-0000n.safetensors ..., floats as `dtype`; earlier shards are replaced.

    A shard holds at most `shard_bytes` unless a single tensor is larger. Returns the shards' paths.
    """
    shards = _shards(state, shard_bytes, dtype)
    paths = [folder / f"model-{i:05}-of-{len(shards):05}.safetensors" for i in range(1, len(shards) + 1)]
    with ExitStack() as stack:  # all are written before the first replaces an old one
        for path, shard in zip(paths, shards, strict=True):
            _save(shard, stack.enter_context(atomic_file(path)), metadata, dtype)
    for stale in set(folder.glob(SHARDS)) - set(paths):
        stale.unlink()
    return paths


def write_ckpt(path: Path, checkpoint: Mapping[str, Any]) -> None:
    """Write {"state_dict": ...} and other keys with torch.save, atomically."""
    with atomic_file(path) as file:
        torch.save(dict(checkpoint), file)


def weight_files(folder: Path) -> list[Path]:
    """The shards that `write_folder` writes; without them every .safetensors file of the folder."""
    return sorted(folder.glob(SHARDS)) or list_files(folder, (".safetensors",))


def _read_folder(folder: Path) -> dict[str, Tensor]:
    state: dict[str, Tensor] = {}
    files = weight_files(folder)
    if not files and (folder / "model_index.json").is_file():
        raise ValueError(
            f"{folder} is a pipeline for diffusers; this project needs one file or folder of "
            "Paint-by-Example's weights"
        )
    if not files:
        raise FileNotFoundError(
            f"{folder} holds no .safetensors file; put the shards there, or name the checkpoint file"
        )
    for file in files:
        shard = _read_safetensors(file)
        if twice := sorted(state.keys() & shard.keys()):
            raise ValueError(
                f"{file} repeats weights of other files in its folder ({first_few(twice)}); "
                "keep the shards of one checkpoint only"
            )
        state |= shard
    return state


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a file; ValueError if they are not those that this project wrote into it."""
    with refusing_damage(path), safe_open(path, framework="pt") as file:
        state = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - it is no dict
        written = (file.metadata() or {}).get(CHECKSUM)  # only in files of this project
    if written is not None and written != checksum(state):
        raise ValueError(f"{path} is damaged: its checksum differs; copy or write it again")
    return state


def _shards(
    state: Mapping[str, Tensor], shard_bytes: int, dtype: torch.dtype | None
) -> list[dict[str, Tensor]]:
    """Split a state into shards, in its order."""
    shards: list[dict[str, Tensor]] = [{}]
    free = shard_bytes
    for key, value in state.items():
        size = value.numel() * _stored_dtype(value, dtype).itemsize
        if size > free and shards[-1]:
            shards.append({})
            free = shard_bytes
        shards[-1][key] = value
        free -= size
    return shards


def _stored_dtype(value: Tensor, dtype: torch.dtype | None) -> torch.dtype:
    return dtype if dtype and value.is_floating_point() else value.dtype


def _save(
    state: Mapping[str, Tensor],
    file: BinaryIO,
    metadata: Mapping[str, str] | None,
    dtype: torch.dtype | None = None,
) -> None:
    """Copy and write, with a checksum: the same bytes each time.

    safetensors accepts neither views nor other devices' tensors.
    """
    own = {
        key: value.detach().to("cpu", _stored_dtype(value, dtype), copy=True).contiguous()
        for key, value in state.items()
    }
    data = save(own, metadata={**(metadata or {}), CHECKSUM: checksum(own)})
    end = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:end])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))  # safetensors gives them any order
    text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    file.write(len(text).to_bytes(8, "little") + text)
    file.write(memoryview(data)[end:])


def load_strictly(
    module: nn.Module, state: Mapping[str, Tensor], what: str, device: torch.device | str = "cpu"
) -> None:
    """Load `state` into `module`; ValueError, and nothing loaded, if weights are missing, extra or misshaped.

    A module built on the meta device takes the weights on `device` in its dtype, copied at most once; any
    other module stays where it is. `what` names the module in errors: "the UNet of configs/v.yaml".
    """
    own = module.state_dict()
    complaints = [
        f"{len(names)} weight{'s' * (len(names) > 1)} {complaint}: {first_few(names)}"
        for complaint, names in (
            ("missing", [key for key in own if key not in state]),
            ("extra", [key for key in state if key not in own]),
            ("of another shape", _reshaped(own, state)),
        )
        if names
    ]
    if complaints:
        raise ValueError(
            f"these weights do not fit {what} ({'; '.join(complaints)}); "
            "use the config that the checkpoint was made with, or fetch the checkpoint again"
        )
    empty = any(value.is_meta for value in own.values())
    if empty:
        state = {key: _placed(state[key], device, value.dtype) for key, value in own.items()}
    module.load_state_dict(state, strict=True, assign=empty)


def first_few(names: Sequence[str], limit: int = 3) -> str:
    """The first names, and how many more there are, for messages."""
    rest = len(names) - limit
    return ", ".join(names[:limit]) + (f" and {rest} more" if rest > 0 else "")


def _reshaped(own: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> list[str]:
    return [
        f"{key} {list(state[key].shape)} instead of {list(value.shape)}"
        for key, value in own.items()
        if key in state and state[key].shape != value.shape
    ]


def _placed(value: Tensor, device: torch.device | str, dtype: torch.dtype) -> Tensor:
    """Move, then cast: half precision moves half the bytes.

    Weights mapped from a file are copied if they are not aligned as torch aligns: kernels round differently
    on unaligned memory, so that results would depend on the file.
    """
    placed = value.to(device).to(dtype)
    return placed.clone() if placed.data_ptr() % ALIGNED else placed
