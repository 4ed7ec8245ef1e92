"""What is inserted: an object file, a reference picture, or both; checked without loading a model."""

from __future__ import annotations

import re
import shlex
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ldm.data.files import list_files
from ldm.data.insertset import parts_in_folder, silhouette_beside
from ldm.models.checkpoint import SHARDS, is_paper_file, refused
from ldm.models.weight_files import BASE_GIVEN, PICKLES
from ldm.objects.object_file import read_object_metadata


@dataclass(frozen=True)
class ObjectSource:
    """An object file (none: zero-shot), its reference (none: the object's own) and the factor of its change.

    `pictures` is the object folder, which a .ckpt of the paper's code needs; `pick` names one of
    a merged file's objects.
    """

    object: Path | None = None
    reference: Path | None = None
    object_scale: float = 1.0
    pictures: Path | None = None
    pick: str = ""

    def reference_parts(self) -> dict[str, Path]:
        """What belongs to the reference: its silhouette beside it, or box and silhouette in its folder."""
        if self.reference is None:
            return {}
        if (beside := silhouette_beside(self.reference)).is_file():
            return {"reference_mask": beside}
        box, mask = parts_in_folder(self.reference)
        found = {"reference_box": box, "reference_mask": mask}
        return {role: path for role, path in found.items() if path is not None}

    def state(self) -> tuple[tuple[str, int, int], ...]:
        """Its files as they are now: name, size and time of change of each."""
        given = [path for path in (self.object, self.reference, self.pictures) if path is not None]
        inside = [] if self.pictures is None else self.pictures.rglob("*")
        files = sorted({*given, *self.reference_parts().values(), *inside})
        known = [(str(file), file.stat()) for file in files if file.exists()]
        return tuple((name, stat.st_size, stat.st_mtime_ns) for name, stat in known)

    def kind(self) -> str:
        """Of the object file: delta, baked, merged; `pickle` of the paper's code, "" if there is none."""
        if self.object is None:
            return ""
        return "pickle" if self.object.suffix in PICKLES else read_object_metadata(self.object).kind

    def check(self) -> None:
        """Raises ValueError or FileNotFoundError in one line if files are missing or of another kind."""
        if self.object is None and self.reference is None and self.pictures is None:
            raise ValueError("no reference picture; give --object FILE or --reference PICTURE")
        pickled = self.object is not None and self.object.suffix in PICKLES
        if self.object is not None and not pickled:
            read_object_metadata(self.object)
        if self.pick and self.kind() != "merged":
            given = self.object or "the object"
            raise ValueError(f"--pick {self.pick}: {given} is no merged file; leave it out")
        for file in (self.reference, self.pictures, self.object):
            if file is not None and not file.exists():
                raise FileNotFoundError(f"{file}: no such file")
        if pickled and self.pictures is None:
            assert self.object is not None
            if not is_paper_file(self.object):
                raise refused(self.object, "object file")
            raise ValueError(
                f"{self.object} is the paper's format; give its pictures too: --dataset-dir FOLDER"
            )


def extracted(run: Path, suffixes: Sequence[str]) -> Path:
    """A run folder => the object file that get_deltas wrote there, with the first of these suffixes.

    ValueError or FileNotFoundError in one line if there is none; a warning if the run has learnt more since.
    """
    word = shlex.quote(str(run))
    names = [run / (run.resolve().name + suffix) for suffix in suffixes]
    if file := next((name for name in names if name.is_file()), None):
        _warn_if_older(file, run)
        return file
    if (run / "data").is_dir():
        raise ValueError(
            f"{run} is an object folder, of pictures; learn it: bash train.sh --dataset-dir {word}"
        )
    if any(run.glob(SHARDS)):
        raise ValueError(f"{run} is {BASE_GIVEN}")
    if not (run / "config.yaml").is_file():
        files = ", ".join(file.name for file in list_files(run, suffixes)[:5])
        raise ValueError(
            f"{run} is no folder of a run; give an object file" + (f": {files}" if files else "")
        )
    raise FileNotFoundError(f"{names[0]}: no such file; write it: bash get_deltas.sh --path {word}")


def _warn_if_older(file: Path, run: Path) -> None:
    """Warn if a run has learnt more since its object file was extracted."""
    every = list_files(run / "checkpoints", (".ckpt",))
    saved = [path for path in every if re.match(r"step-\d+\.", path.name)]
    if not saved or saved[-1].stat().st_mtime <= file.stat().st_mtime:
        return
    pickled = file.suffix in PICKLES  # does not say its step
    if pickled or read_object_metadata(file).step < int(saved[-1].stem.removeprefix("step-")):
        warnings.warn(
            f"{file} is older than {saved[-1].name} of its run; extract it again: "
            f"bash get_deltas.sh --path {shlex.quote(str(run))}",
            stacklevel=4,
        )
