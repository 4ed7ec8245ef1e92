"""Pickled checkpoints => flat dicts of tensors, without running code from the file."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any
from zipfile import ZipFile, is_zipfile

import torch
from torch import Tensor

from ldm.data.failure import check_file, of_machine
from ldm.models.weight_kinds import beginning, named, nested_names

CHECKED = 2**31  # bytes: the largest pickle whose checksums are compared
PICKLES = (".ckpt", ".pt", ".pth", ".bin")
ZIP = b"PK\x03\x04"
BOOKKEEPING = (
    "pytorch_lightning.",
    "lightning.",
    "numpy.",
)  # modules whose objects checkpoints hold beside the weights


def read_pickle(path: Path) -> dict[str, Tensor]:
    """The tensors of {"state_dict": {...}} or of a flat dict, on the CPU, mapped from disk where possible.

    Other values are left out. Raises ValueError if the file is damaged, has no weights or needs code.
    """
    checkpoint = load_pickle(path)
    check_sums(path)
    return tensors_of(checkpoint, path)


def check_sums(path: Path) -> None:
    """ValueError if a part of a zipped pickle differs from its CRC-32, which torch does not check.

    Files above CHECKED are not read through: a base would take seconds longer at every start.
    """
    with refusing_damage(path):
        if path.stat().st_size > CHECKED or not is_zipfile(path):
            return  # files of torch before 1.6 have no checksums
        with ZipFile(path) as file:
            part = file.testzip()
    if part:
        raise ValueError(
            f"{path} is damaged: the checksum of {part} differs; copy it again, or write it again"
        )


def tensors_of(checkpoint: Any, path: Path) -> dict[str, Tensor]:
    """The tensors of what `load_pickle` has read from `path`, as `read_pickle`."""
    state = checkpoint.get("state_dict", checkpoint) if isinstance(checkpoint, Mapping) else {}
    entries = state.items() if isinstance(state, Mapping) else ()
    tensors = {key: value.detach() for key, value in entries if isinstance(value, Tensor)}
    if not tensors:
        if known := named(nested_names(checkpoint), path):
            raise ValueError(f"{path} is {known}")
        raise ValueError(
            f"{path} holds no weights but a {type(checkpoint).__name__}; expected a dict of tensors "
            'or {"state_dict": ...}: save the model\'s state_dict()'
        )
    return tensors


@contextmanager
def refusing_damage(path: Path) -> Iterator[None]:
    """Convert what readers raise on a damaged or unsafe weight file to a one-line ValueError."""
    try:
        yield
    except Exception as error:  # readers raise nearly anything on damaged bytes, TypeError included
        if isinstance(error, FileNotFoundError) and path.is_file():
            path.open("rb").close()  # to safetensors, a file without permission is a missing one
        if of_machine(error) or isinstance(error, FileNotFoundError):
            raise
        if isinstance(error, OSError) and error.filename is not None:
            raise
        if known := beginning(path):
            raise ValueError(f"{path} is {known}") from error
        if code := re.search(r"GLOBAL (\S+)", str(error)):
            raise ValueError(
                f"{path} would run code when read ({code[1]}); expected plain tensors: "
                "save the model's state_dict() alone on the machine that made it, best as .safetensors"
            ) from error
        # before this mark, torch's message advises to run the code anyway
        reason = str(error).split("WeightsUnpickler error:")[-1].strip().split("\n")[0][:80]
        raise ValueError(
            f"{path} is damaged or no {path.suffix} checkpoint ({reason or type(error).__name__}); "
            "fetch or write it again"
        ) from error


def load_pickle(path: Path) -> Any:
    """All that the file holds, tensors on the CPU; a trainer's objects are replaced by empty stand-ins.

    Also reads files of torch before 1.6, which are not zip files. Raises ValueError if the file is damaged or
    needs code.
    """
    check_file(path, "a checkpoint")
    with path.open("rb") as file:
        zipped = file.read(len(ZIP)) == ZIP  # files of torch < 1.6 are not, and cannot be mapped
    with (
        refusing_damage(path),
        _standing_in(path) if zipped else nullcontext(),
        warnings.catch_warnings(),
    ):
        warnings.filterwarnings("ignore", "Detected pickle protocol")
        return torch.load(path, map_location="cpu", mmap=zipped, weights_only=True)


def _standing_in(path: Path) -> AbstractContextManager[None]:
    """Read a trainer's objects beside the weights (callbacks, numpy scalars) as empty stand-ins."""
    names = torch.serialization.get_unsafe_globals_in_checkpoint(path)  # reads names, runs no code
    inert = [(_StandIn, name) for name in names if name.startswith(BOOKKEEPING)]
    return torch.serialization.safe_globals(inert)


class _StandIn:
    """Replaces an object that no weight needs; the class that the file names is never imported."""

    def __init__(self, *arguments: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        pass
