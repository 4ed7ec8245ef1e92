"""The library: load a base, learn an object, insert it into a background, by the functions of the scripts.

In: settings files, folders and picture files, as on the command line. Out: object files and composites.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from ldm.batch.results_log import SHEET, check_outputs
from ldm.batch.runner import plan_request, warn_of_crops
from ldm.batch.work_item import MaskedBackground, WorkItem
from ldm.config.build import crop_context_of, from_sections, open_session
from ldm.config.loader import ROOT
from ldm.config.schema import NOT_LEARNING, Config, load_config
from ldm.data.boxes import parse_box
from ldm.data.files import overwritten, path_of, write_file
from ldm.data.insertset import load_insertset
from ldm.data.picture import Picture
from ldm.data.picture_write import write_picture
from ldm.data.text import whole_number
from ldm.insertion.mask_input import MaskOptions
from ldm.insertion.object_source import ObjectSource
from ldm.insertion.session import Session
from ldm.models.checkpoint import check_replaceable
from ldm.models.runtime import device_named

MINI = ROOT / "configs" / "mini.yaml"
OF_THE_SCRIPT = {"accelerator", "devices", *NOT_LEARNING} - {"freeze_model"}  # of scripts/train.py


@dataclass(frozen=True, eq=False)
class Model:
    """A loaded base with its settings; `device` is cpu or cuda."""

    config: Config
    session: Session
    device: str


@dataclass(frozen=True, eq=False)
class LearnedObject:
    """An object file; a newly learnt one lies in `folder`, which is deleted together with this object."""

    file: Path
    folder: TemporaryDirectory[str] | None = None

    def save(self, path: str | Path) -> Path:
        """Copy the object file to `path`, a .safetensors; missing folders are made."""
        path = path_of(str(path))
        if path.suffix != self.file.suffix:
            raise ValueError(f"{path}: expected the name of a {self.file.suffix} file")
        check_replaceable(path)
        if overwritten([path], [self.file]):
            raise ValueError(f"{path} is this object's own file; give another name")
        write_file(path, self.file.read_bytes())
        return path


@dataclass(frozen=True, eq=False)
class Composite:
    """The background with the object in it: `picture.pixels` [H,W,C] have the background's size and depth.

    `record` has the seed, the regions with their seam ratios, and the seconds; `sources` are the files that
    it was made from; `save` does not replace them.
    """

    picture: Picture
    record: dict[str, Any]
    sources: tuple[Path, ...] = ()

    def save(self, path: str | Path) -> Path:
        """Write a .png (lossless, with the background's depth and profile); ValueError for others.

        ValueError, too, if `path` is a source, or a picture that this project has not written.
        """
        path = path_of(str(path))
        check_outputs([path], self.sources, "another name")
        write_picture(path, self.picture, SHEET)
        return path


def load(config: str | Path = MINI, *settings: str, device: str | None = None) -> Model:
    """Load the base that a settings file names; `settings` like "sample.steps=8" win over the file's.

    `device`: cpu or cuda; None: cuda where there is one. Raises FileNotFoundError or ValueError that name
    what is missing or wrong.
    """
    loaded, chosen = load_config(path_of(str(config)), settings), device_named(device)
    return Model(loaded, open_session(loaded, [ObjectSource()], chosen), chosen)


def learn(model: Model, pictures: str | Path, **settings: Any) -> LearnedObject:
    """Learn the object of an object folder (data/, bbox/, test.jpg) from all of its few-shot pictures.

    `settings` are those of the config's section `train` that decide what is learnt, like max_steps=200;
    ValueError for others. The object is learnt on another copy of the base, on the model's device: `model`
    stays as it is. scripts/train.py can also use several devices, resume, hold out a picture, validate.
    """
    # imported here: Lightning takes seconds to load, and insertion does not need it
    from ldm.config.build_training import training_run_of
    from ldm.training.run import learn_to_file

    if unused := sorted(OF_THE_SCRIPT & settings.keys()):
        raise ValueError(f"learn: {', '.join(unused)} only for scripts/train.py; leave out")
    root = path_of(str(pictures))
    insertset = load_insertset(root)
    given = [f"data.root={root.resolve()}", "train.hold_out=none", "train.validate_every=0"]
    given += [f"train.{key}={value}" for key, value in settings.items()]
    config: Config = load_config(asdict(model.config), given)
    folder = TemporaryDirectory(prefix="ldm-")
    file = Path(folder.name) / f"{root.resolve().name}.safetensors"
    base = config.base
    learn_to_file(Path(base.path), base.architecture, insertset, training_run_of(config, model.device), file)
    return LearnedObject(file, folder)


def insert(
    model: Model,
    obj: LearnedObject | str | Path | None,
    background: str | Path,
    *,
    mask: str | Path | None = None,
    box: Sequence[float] | str = (),
    reference: str | Path | None = None,
    seed: int | None = None,
) -> Composite:
    """Insert an object into a background; every pixel outside the mask stays as it is.

    `obj`: a learned object, an object file, or None for a `reference` picture alone (zero-shot). `mask`: a
    picture, white where the object goes, a .txt box or a .json of polygons; or `box`: x0 y0 x1 y1 in pixels.
    `reference` replaces the object's own, `seed` that of the settings.
    """
    c = model.config
    file = obj.file if isinstance(obj, LearnedObject) else _path(obj)
    source = ObjectSource(object=file, reference=_path(reference), object_scale=c.sample.object_scale)
    source.check()
    if mask is not None and len(box):
        raise ValueError("the region is given twice; give one of mask and box")
    region = parse_box(box if isinstance(box, str) else list(box), "insert") if len(box) else ()
    masked = MaskedBackground(path_of(str(background)), mask=_path(mask), box=region)
    item = WorkItem(masked, source, seeds=(c.sample.seed if seed is None else whole_number(seed, "seed"),))
    picture, area = masked.read(from_sections(MaskOptions, c.mask))
    request = plan_request(item, area, crop_context_of(c))
    warn_of_crops(item.stem, request, crop_context_of(c))
    [[result]] = model.session.insert(picture, [request])
    return Composite(result.picture, result.record, tuple(item.sources().values()))


def _path(given: str | Path | None) -> Path | None:
    return None if given is None else path_of(str(given))
