"""Where objects are to be inserted: benches of any layout => sites, checked before any work.

Three layouts: a bench with truth (`scenes/`, `objects/`, see `ldm.evaluation.bench`); photos with suggested
objects (`insertions/cases.json`, `id_image/<object>/`); InsertSet, any object folder with a test bench
(`image/NNNN_img.png`, `mask/NNNN_mask.png`, a list file if wanted) for all objects, or one for each object.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ldm.batch.manifest import bench_cases
from ldm.batch.work_item import Case
from ldm.data.files import natural_key
from ldm.data.insertset import InsertSet, load_insertset
from ldm.evaluation.bench import load_bench
from ldm.insertion.roi import Roi

CASES = "insertions/cases.json"


@dataclass(frozen=True)
class Site:
    """One insertion: an object, and the case that shows where it goes; the truth, where there is one."""

    name: str
    object: str
    case: Case
    rois: tuple[Roi, ...] = ()
    truth: Path | None = None
    object_mask: Path | None = None


@dataclass(frozen=True)
class Ground:
    """A named set of sites, and the objects that go there."""

    name: str
    objects: dict[str, InsertSet]
    sites: tuple[Site, ...]

    def of(self, name: str) -> list[Site]:
        """The sites of one object."""
        return [site for site in self.sites if site.object == name]


def load_ground(root: Path, backgrounds: Path | None = None, limit: int = 0, objects: int = 0) -> Ground:
    """Read and check a bench folder; errors in one line for whatever does not fit.

    `backgrounds` is the test bench of InsertSet objects; `limit` keeps so many sites of an object, `objects`
    so many objects, 0: all.
    """
    if not root.is_dir():
        raise FileNotFoundError(f"{root}: no such folder of a bench or of InsertSet objects")
    if (root / "scenes").is_dir():
        found = _with_truth(root)
    elif (root / CASES).is_file():
        found = _photos(root)
    else:
        found = _insertset(root, backgrounds)
    names = sorted(found.objects, key=natural_key)
    kept = {name: found.objects[name] for name in _spread(names, objects)}
    sites = [site for name in kept for site in _spread(found.of(name), limit)]
    return Ground(found.name, kept, tuple(sites))


def _with_truth(root: Path) -> Ground:
    bench = load_bench(root)
    sites = tuple(
        Site(
            scene.name,
            scene.object,
            Case(scene.folder / "background.png", scene.folder / "mask.png"),
            (scene.roi,),
            scene.folder / "truth.png",
            scene.folder / "object_mask.png",
        )
        for scene in bench.scenes
    )
    return Ground(root.name, dict(bench.objects), sites)


def _photos(root: Path) -> Ground:
    """Real objects in real photos; cases with objects from elsewhere are left out."""
    folder = (root / CASES).parent
    try:
        rows = [
            row for row in json.loads((root / CASES).read_text("utf-8")) if row["object_from"] == "id_image"
        ]
        sites = tuple(
            Site(row["id"], row["object"], Case(folder / row["background"], folder / row["mask"]))
            for row in rows
        )
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{root / CASES}: not a list of cases ({error!r})") from error
    sites = tuple(sites)
    names = dict.fromkeys(site.object for site in sites)
    return Ground(root.name, {name: load_insertset(root / "id_image" / name) for name in names}, sites)


def _insertset(root: Path, backgrounds: Path | None) -> Ground:
    """One object folder, or a folder of them: each object goes into every background of its bench."""
    own = (root / "data").is_dir()
    folders = [root] if own else [path for path in root.iterdir() if (path / "data").is_dir()]
    if not folders:
        raise ValueError(
            f"{root}: neither a bench (scenes/, objects/), nor an InsertSet folder (data/, bbox/, test.jpg) "
            "or a folder of those"
        )
    if backgrounds is None:
        raise ValueError(f"{root}: InsertSet objects need a test bench: --backgrounds FOLDER (image/, mask/)")
    objects = {folder.resolve().name: load_insertset(folder) for folder in folders}
    sites = tuple(
        Site(case.name, name, case) for name in objects for case in bench_cases(_bench_of(name, backgrounds))
    )
    return Ground(root.resolve().name, objects, sites)


def _bench_of(name: str, backgrounds: Path) -> Path:
    """The test bench of an object: its own, `<backgrounds>/<name>`, else the one for all."""
    own = backgrounds / name
    if (own / "image").is_dir():
        return own
    if not (backgrounds / "image").is_dir():
        raise FileNotFoundError(
            f"{backgrounds / 'image'}: no such folder, nor {own / 'image'}; a test bench has image/ and "
            "mask/, for all objects or one for each"
        )
    return backgrounds


def _spread(items: Sequence, count: int) -> list:
    """So many of the items, evenly spread; 0: all."""
    if not 0 < count < len(items):
        return list(items)
    return [items[i * len(items) // count] for i in range(count)]
