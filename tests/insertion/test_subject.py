"""What is inserted is checked before a model is loaded."""

from pathlib import Path

import pytest

from ldm.insertion.subject import Subject


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
