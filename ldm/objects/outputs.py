"""Where the files go that are made of object files: checked before anything is read or written."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ldm.data.atomic import check_folder

OBJECT_SUFFIX = ".safetensors"


def outputs(files: Sequence[Path], out: Path, suffix: str = OBJECT_SUFFIX) -> list[Path]:
    """A file to write for each one that is read: `out` itself, or by its name in the folder `out`.

    Raises ValueError if one would overwrite what is read, or two would have one name.
    """
    if len(files) == 1 and out.suffix and not out.is_dir():
        return [output(out, files, suffix)]
    targets = [out / (file.stem + suffix) for file in files]
    if len(set(targets)) < len(targets):
        raise ValueError(
            f"two of the files have one name, both would become a file in {out}; convert them apart"
        )
    refuse_inputs(targets, files)
    return targets


def output(out: Path, files: Sequence[Path], suffix: str = OBJECT_SUFFIX) -> Path:
    """The one file to write for all that are read."""
    if out.suffix != suffix or out.is_dir():
        raise ValueError(f"--out {out}: expected the name of a {suffix} file")
    refuse_inputs([out], files)
    return out


def refuse_inputs(targets: Sequence[Path], files: Sequence[Path]) -> None:
    """ValueError if a file that is read would be overwritten, or a file stands where a folder must be."""
    inputs = {file.resolve() for file in files}
    if clash := [target for target in targets if target.resolve() in inputs]:
        raise ValueError(f"--out would overwrite {clash[0]}, which is read; give another name")
    for target in targets:
        check_folder(target.parent, f"--out {target}")
