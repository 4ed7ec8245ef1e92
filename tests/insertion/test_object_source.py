"""What is inserted is checked before a model is loaded."""

from pathlib import Path

import pytest
from PIL import Image

from ldm.batch.work_item import Case, Item
from ldm.insertion.object_source import Subject


def test_each_mistake_is_one_line_with_its_remedy(tmp_path: Path) -> None:
    there, gone = tmp_path / "there.ckpt", tmp_path / "gone"
    there.touch()
    for subject, message in [
        (Subject(), "give --object FILE or --reference PICTURE"),
        (Subject(gone.with_suffix(".safetensors")), "no such object file; get_deltas.sh makes one"),
        (Subject(gone.with_suffix(".ckpt"), pictures=tmp_path), "gone.ckpt: no such file"),
        (Subject(reference=gone), "gone: no such file"),
        (Subject(there), "give its pictures too: --dataset-dir"),
    ]:
        with pytest.raises((ValueError, FileNotFoundError), match=message) as error:
            subject.check()
        assert "\n" not in str(error.value)
    Subject(there, pictures=tmp_path).check()
    Subject(reference=there).check()


def test_the_silhouette_beside_a_reference_counts(tmp_path: Path) -> None:
    """A result made without it is not that made with it."""
    for name in ("a", "mug", "mug_mask"):
        Image.new("RGB", (8, 8), (200, 0, 0)).save(tmp_path / f"{name}.png")
    item = Item(Case(tmp_path / "a.png", box=(1, 1, 5, 5)), Subject(reference=tmp_path / "mug.png"), (1,))
    first = item.digests()
    assert item.sources()["reference_mask"] == tmp_path / "mug_mask.png"
    Image.new("RGB", (8, 8), (255, 255, 255)).save(tmp_path / "mug_mask.png")
    assert item.digests() != first
    (tmp_path / "mug_mask.png").unlink()
    assert "reference_mask" not in item.sources()
