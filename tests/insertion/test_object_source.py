"""What is inserted is checked before a model is loaded."""

from pathlib import Path

import pytest
import torch
from PIL import Image

from ldm.batch.work_item import MaskedBackground, WorkItem
from ldm.insertion.object_source import ObjectSource


def test_each_mistake_is_one_line_with_its_remedy(tmp_path: Path) -> None:
    there, gone = tmp_path / "there.ckpt", tmp_path / "gone"
    key = "cond_stage_model.final_ln.weight"
    torch.save({"state_dict": {key: torch.zeros(1)}}, there)
    for source, message in [
        (ObjectSource(), "give --object FILE or --reference PICTURE"),
        (ObjectSource(gone.with_suffix(".safetensors")), "no such object file; get_deltas.sh writes one"),
        (ObjectSource(gone.with_suffix(".ckpt"), pictures=tmp_path), "gone.ckpt: no such file"),
        (ObjectSource(reference=gone), "gone: no such file"),
        (ObjectSource(there), "give its pictures too: --dataset-dir"),
    ]:
        with pytest.raises((ValueError, FileNotFoundError), match=message) as error:
            source.check()
        assert "\n" not in str(error.value)
    ObjectSource(there, pictures=tmp_path).check()
    ObjectSource(reference=there).check()


def test_the_silhouette_beside_a_reference_counts(tmp_path: Path) -> None:
    """A result made without it is not that made with it."""
    for name in ("a", "mug", "mug_mask"):
        Image.new("RGB", (8, 8), (200, 0, 0)).save(tmp_path / f"{name}.png")
    item = WorkItem(
        MaskedBackground(tmp_path / "a.png", box=(1, 1, 5, 5)),
        ObjectSource(reference=tmp_path / "mug.png"),
        (1,),
    )
    first = item.digests()
    assert item.sources()["reference_mask"] == tmp_path / "mug_mask.png"
    Image.new("RGB", (8, 8), (255, 255, 255)).save(tmp_path / "mug_mask.png")
    assert item.digests() != first
    (tmp_path / "mug_mask.png").unlink()
    assert "reference_mask" not in item.sources()
