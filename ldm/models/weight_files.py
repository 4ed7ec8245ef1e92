"""Weight files: what one of another program is; pickles => tensors, without running code; hashes."""

from __future__ import annotations

import hashlib
import json
import re
import shlex
import struct
import warnings
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ldm.data.failure import check_file, of_machine
from ldm.data.files import AGAIN, PICTURE, START, foreign_kind

PICKLES = (".ckpt", ".pt", ".pth", ".bin")
ZIP = b"PK\x03\x04"
SAMPLE = 4096  # values of a tensor that its fingerprint looks at
CHECKED = 2**31  # bytes: the largest pickle whose checksums are compared
# modules whose objects checkpoints hold beside the weights
BOOKKEEPING = ("pytorch_lightning.", "lightning.", "numpy.")


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
        if path.stat().st_size > CHECKED or not zipfile.is_zipfile(path):
            return  # files of torch before 1.6 have no checksums
        with zipfile.ZipFile(path) as file:
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


LEARN = "learn the object from its pictures instead: bash train.sh --dataset-dir FOLDER"
BASE_GIVEN = "a base's checkpoint; give it as --base, and the object as --object"
BASES = "this project needs Paint-by-Example's weights"
TEXT = re.compile(rb"[\t\n\r\x20-\x7e]+")
NAMES = {  # pattern of a tensor's name => what the file is; what to do
    r"(lora|lycoris)_(unet|te\d?|transformer)_.+": "a LoRA of kohya's scripts, for a text-to-image model; "
    f"{LEARN}",
    r".+\.processor\.(to_\w+_custom_diffusion|custom_diffusion).*|modifier_token\..+": "a Custom Diffusion "
    f"delta, for a text-to-image model; {LEARN}",
    r".+[._](lora\.(up|down)|lora_(A|B|up|down)|to_\w+_lora\.\w+)(\.\w+)*": f"a LoRA for diffusers; {LEARN}",
    r"string_to_param\..+|emb_params|<.+>|clip_[gl]": f"a textual-inversion embedding; {LEARN}",
    r"conditioner\.embedders\..+": f"a whole SDXL checkpoint, which text drives; {BASES}",
    r"(model\.diffusion_model\.|transformer\.)?(double_blocks|single_blocks|joint_blocks)\..+": "a model of "
    f"Flux's or Stable Diffusion 3's kind, which text drives; {BASES}",
    r"(image_proj|ip_adapter)\..+": f"an IP-Adapter, for a text-to-image model; {LEARN}",
    r"cond_stage_model\.(transformer\.text_model|model\.transformer)\..+": "a whole Stable Diffusion "
    f"checkpoint, which text drives; {BASES}",
    r"control_model\..+|controlnet_cond_embedding\..+": f"a ControlNet; {LEARN}",
}
BASE = re.compile(r"(model\.diffusion_model\.input_blocks\.0\.0|unet\.conv_in)\.weight")
VAE = re.compile(r"(first_stage_model\.)?(encoder|decoder|quant_conv|post_quant_conv)\.")
CLIP = re.compile(r"(vision_model|text_model|visual_projection|text_projection|logit_scale)\b")
OWN_PART = re.compile(r"(cond_stage_model\.|conditioner\.)?(mapper|final_ln|proj_out|learnable_vector)\b.*")
KEYS_AND_VALUES = re.compile(r"embed|model\.diffusion_model\..+\.attn2\.to_[kv]\.weight")


def beginning(path: Path) -> str:
    """What a file is by its bytes, as "an empty file; fetch it again"; "" if they are fine, or no file."""
    if not path.is_file():
        return ""
    if kind := foreign_kind(path):
        return kind if "; " in kind else f"{kind}; give a weight file"
    with path.open("rb") as file:
        start = file.read(START)
    if PICTURE.match(start):
        return "a picture; give a weight file"
    if start.startswith(b"PK"):
        return _zipped(path)
    if TEXT.fullmatch(start):
        return f"a text file ({' '.join(start.decode().split())[:40]!r} ...), no weights; {AGAIN}"
    if path.suffix == ".safetensors":
        return _cut_off(path, start)
    header = int.from_bytes(start[:8], "little")
    if start[8:9] == b"{" and header < path.stat().st_size:
        return "a .safetensors file under another ending; rename it to .safetensors"
    return ""


def _zipped(path: Path) -> str:
    try:
        with zipfile.ZipFile(path) as file:
            names = file.namelist()
    except (zipfile.BadZipFile, NotImplementedError):
        return f"cut off, its end is missing; {AGAIN}"
    if not any(name.endswith("data.pkl") for name in names):
        return "a zip archive; unpack it and give the file in it"
    if any("/code/" in name for name in names):
        return "a TorchScript program; save the model's state_dict() instead"
    if path.suffix == ".safetensors":
        return "a pickle of torch, not a .safetensors; give it the ending .ckpt"
    return ""


def _cut_off(path: Path, start: bytes) -> str:
    """Whether the tensors that the header of a .safetensors lists are not all there."""
    size, [header] = path.stat().st_size, struct.unpack("<Q", start[:8].ljust(8, b"\0"))
    if start[8:9] != b"{":
        return ""
    if size < 8 + header:
        return f"cut off within its header, {size:,} bytes are there; {AGAIN}"
    with path.open("rb") as file:
        text = file.read(8 + header)[8:]
    try:
        entries = json.loads(text)
        end = max((v["data_offsets"][1] for k, v in entries.items() if k != "__metadata__"), default=0)
    except (ValueError, KeyError, TypeError, IndexError, AttributeError):
        return ""
    whole = 8 + header + end
    return f"cut off, {size:,} of {whole:,} bytes are there; {AGAIN}" if size < whole else ""


def named(names: Sequence[str], path: Path) -> str:
    """What a file of tensors (or entries) of these names is, as `beginning`; "" if it is not known."""
    for pattern, kind in NAMES.items():
        if any(re.fullmatch(pattern, name) for name in names):
            return kind
    if "object.about" in names or {"object", "global_step"} <= set(names):
        run = path.parent.parent if path.parent.name == "checkpoints" else path
        word = shlex.quote(str(run))
        return f"a checkpoint of a training run; extract its object: bash get_deltas.sh --path {word}"
    if names and all(KEYS_AND_VALUES.fullmatch(name) for name in names):
        return f"a Custom Diffusion delta, for a text-to-image model; {LEARN}"
    if any(BASE.fullmatch(name) for name in names):
        if any(OWN_PART.match(name) for name in names):
            return BASE_GIVEN
        return f"a UNet of another model; {BASES}"
    if names and all(VAE.match(name) for name in names):
        return f"a VAE alone; {BASES}"
    if names and all(CLIP.match(name) for name in names):
        return f"a CLIP model alone; {BASES}"
    if "conv_in.weight" in names and any(name.startswith("down_blocks.") for name in names):
        return "a UNet for diffusers; turn it into an object file: scripts/objects.py convert --to object"
    if any(name.startswith("pytorch-lightning_version") for name in names):
        return f"a checkpoint of another program's training; {BASES}, or an object file"
    return ""


def nested_names(values: Any) -> list[str]:
    """The names in a pickle's dict; those of dicts in it as `outer.inner`, of its state_dict as `inner`."""
    if not isinstance(values, Mapping):
        return []
    out = []
    for key, value in values.items():
        if isinstance(value, Mapping):
            prefix = "" if key in ("state_dict", "unet") else f"{key}."
            out += [f"{prefix}{inner}" for inner in value]
        out.append(str(key))
    return [name for name in out if name not in ("state_dict", "unet")]


def checksum(state: Mapping[str, Tensor]) -> str:
    """sha256 over the bytes of all tensors on the CPU, sorted by name."""
    digest = hashlib.sha256()
    for key in sorted(state):
        digest.update(state[key].reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def fingerprint(state: Mapping[str, Tensor]) -> str:
    """16 hex digits that identify a base: sha256 over the floating-point tensors, sorted by name.

    Hashed are each tensor's name, shape and at most 4096 evenly spaced values, rounded to fp16: fp32 weights
    and their fp16 copy agree, and a billion weights take seconds. A change between the samples or below
    fp16's resolution is not detected; a copy in bf16 counts as another base.
    """
    digest = hashlib.sha256()
    for key in sorted(state):
        if state[key].is_floating_point():
            digest.update(f"{key}{list(state[key].shape)}".encode())
            digest.update(_sample(state[key]).numpy().tobytes())
    return digest.hexdigest()[:16]


def _sample(value: Tensor) -> Tensor:
    """At most `SAMPLE` evenly spaced values => fp16 on the CPU."""
    stride = max(1, -(-value.numel() // SAMPLE))
    return value.detach().reshape(-1)[::stride].cpu().to(torch.float16)
