"""What a process that inserts does not load; what imports make is kept from the garbage collector."""

from __future__ import annotations

import gc
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image

from ldm.config.process import gc_frozen
from ldm.models.base import base_fingerprint, save_base
from ldm.objects import baked
from ldm.objects.object_file import ObjectMetadata
from tests.fixtures.small import SMALL, YAML, small_base

ROOT = Path(__file__).parents[2]
LEARNING = ("pytorch_lightning", "torchmetrics", "ldm.training", "ldm.evaluation", "torchvision", "skimage")
CLIP = "transformers.models.clip.modeling_clip"
INSERT = f"""
import gc, sys
from scripts.inference import main
for source in ("--object HERE/baked.safetensors", "--reference HERE/grey.png"):
    common = "--config HERE/small.yaml --example_img HERE/grey.png --box 30 30 60 60 --steps 1 --device cpu"
    words = f"{{common}} --outdir HERE/out {{source}}".split()
    main([word.replace("HERE", sys.argv[1]) for word in words])
    assert gc.isenabled() and gc.get_freeze_count() > len(gc.get_objects())
    names = {(*LEARNING, CLIP, "diffusers.pipelines.pipeline_utils")}
    print("loaded:", *[name for name in names if name in sys.modules])
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    base = small_base()
    save_base(base, tmp_path / "base", torch.float32)
    (tmp_path / "small.yaml").write_text(YAML.format(base=tmp_path / "base"))
    about = ObjectMetadata(base_fingerprint(base), "small", freeze_model="crossattn-kv")
    baked.save(
        baked.bake(base, about, torch.zeros(1, 3, SMALL.reference_size, SMALL.reference_size)),
        tmp_path / "baked.safetensors",
    )
    Image.new("RGB", (90, 90), "grey").save(tmp_path / "grey.png")
    return tmp_path


def test_a_baked_object_needs_no_clip_and_none_needs_what_learns(folder: Path) -> None:
    """In one process, one after the other: what it has loaded, of what it may have no use for."""
    command = [sys.executable, "-c", INSERT, str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    said = [line for line in done.stdout.splitlines() if line.startswith("loaded:")]
    assert said == ["loaded:", f"loaded: {CLIP}"]


def test_only_what_imports_made_is_kept_from_collection(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "made_for_this_test.py").write_text("objects = [[] for _ in range(1000)]")
    monkeypatch.syspath_prepend(tmp_path)
    before = gc.get_freeze_count()
    with gc_frozen():
        assert not gc.isenabled()
    assert gc.isenabled() and gc.get_freeze_count() == before
    with gc_frozen():
        __import__("made_for_this_test")
    try:
        assert gc.isenabled() and gc.get_freeze_count() > before + 1000
    finally:
        gc.unfreeze()
