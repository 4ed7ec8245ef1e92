"""Cases of loading a base, and of starting an insertion."""

from __future__ import annotations

import subprocess
import sys
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.measure import Case
from ldm.models.architecture import Architecture
from ldm.models.base import Base, load_base, load_inpainting_model, read_base
from ldm.models.checkpoint import load_strictly
from ldm.models.ldm_keys import match_clip_keys

FIRST_STEP = """
import os, sys
from diffusers import UNet2DConditionModel
from scripts import inference
UNet2DConditionModel.forward = lambda *_, **__: os._exit(0)  # nothing is tidied up
inference.main(sys.argv[1:])
sys.exit("the UNet was not run")
"""
SCENE = "examples/scenes/table.jpg --mask examples/scenes/table_mask.png"
REFERENCE = "examples/objects/rocket_bee/test.jpg"


def loading(path: Path, architecture: Architecture, device: str) -> list[Case]:
    """A whole base, and what a baked object needs of it; plainly: weights drawn, read, copied, moved."""

    def plain() -> None:
        base = Base(architecture)
        load_strictly(base, match_clip_keys(read_base(path), base.state_dict()), "the base")
        base.to(device)

    return [
        Case("plain", plain),
        Case("whole base", partial(load_base, path, architecture, device=device)),
        Case("for a baked object", partial(load_inpainting_model, path, architecture, device=device)),
    ]


def starting(config: Path, device: str) -> list[Case]:
    """A process that inserts, from its start to the UNet's first step; imports included."""

    def start() -> None:
        with TemporaryDirectory() as folder:
            given = f"--config {config} --example_img {SCENE} --reference {REFERENCE} --device {device}"
            command = [sys.executable, "-c", FIRST_STEP, *given.split(), "--outdir", folder]
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)

    return [Case("inference, to the first UNet step", start, counted=False)]
