"""The objects of the studio: object folders that `ldm/prepare` writes and corrects."""

from __future__ import annotations

import shlex
import shutil
import threading
from collections import defaultdict
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, BinaryIO

from ldm.config.schema import load_config
from ldm.data.failure import reason
from ldm.data.files import file_digest, list_files
from ldm.studio.backgrounds import calling, mask_levels, stored_picture
from ldm.studio.object_files import learnt_from, photo_entry, read_prepared
from ldm.studio.workspace import Workspace, checked_name, read_json, shown_path, write_json

if TYPE_CHECKING:
    from ldm.data.boxes import Box
    from ldm.prepare.object_folder import PreparedObject

OPENED = "opened.json"  # name => folder, of object folders elsewhere in the project
NAMES = ".studio.json"  # of an object folder: sha256 of a photo that was uploaded into it => its name


class Objects:
    """The object folders of a workspace, by name."""

    def __init__(self, workspace: Workspace) -> None:
        self.workspace = workspace
        self._locks: defaultdict[str, threading.RLock] = defaultdict(threading.RLock)

    def all(self) -> list[dict[str, Any]]:
        """A summary of each, in the order of their names; of a faulty one the fault."""
        own = [path.name for path in self.workspace.part("objects").glob("[!.]*") if path.is_dir()]
        return [self._summary(name) for name in sorted({*own, *self._opened()})]

    def root(self, name: str) -> Path:
        """The folder of an object; FileNotFoundError if there is none."""
        folder = self.folder(name)
        if not folder.is_dir():
            raise FileNotFoundError(f"object {name}: no such object")
        return folder

    def folder(self, name: str) -> Path:
        """The folder of an object, which may be gone."""
        own = self.workspace.part("objects", name)
        return own if own.is_dir() else Path(self._opened().get(name, own))

    def create(self, name: str) -> dict[str, Any]:
        """A new object without photos."""
        try:
            if name in self._opened():
                raise FileExistsError
            self.workspace.part("objects", name).mkdir()
        except FileExistsError as error:
            raise ValueError(f"there is an object {name} already; give another name") from error
        return self.get(name)

    def open(self, given: str) -> dict[str, Any]:
        """Open an object folder of the project; boxes and silhouettes that it lacks are proposed."""
        from ldm.prepare.object_folder import write_object_folder

        folder, name = self.workspace.inside(given), checked_name(Path(given).name)
        if not list_files(folder / "data"):
            raise FileNotFoundError(f"{given}: no object folder; expected one with pictures in data/")
        there = self._opened().get(name) or str(self.workspace.part("objects", name).resolve())
        if Path(there).is_dir() and Path(there).resolve() != folder:
            raise ValueError(f"there is an object {name} already, {there}; rename one of the folders")
        with self._locks[name]:
            write_object_folder(folder)
        if folder.parent != self.workspace.part("objects").resolve():
            write_json(self.workspace.folder / OPENED, {**self._opened(), name: str(folder)})
        return self.get(name)

    def get(self, name: str) -> dict[str, Any]:
        """All that is known of an object."""
        root = self.root(name)
        with self._locks[name]:
            found = self._prepared(name)
        names = _uploaded(root)
        photos = [] if found is None else [photo_entry(name, photo, names) for photo in found.photos]
        category = [
            {"name": file.name, "image": f"/api/objects/{name}/category/{file.name}"}
            for file in list_files(root / "reg_data")
        ]
        config = shown_path(self.workspace.config)
        return {
            "name": name,
            "folder": shown_path(root),
            "opened": name in self._opened(),
            "reference": (found.reference or None) if found else None,
            "photos": photos,
            "category": category,
            "warnings": list(found.warnings) if found else ["no photos yet: drop 3 to 6 of them here"],
            "learnt": learnt_from(self.workspace, root),
            "command": shlex.join(
                ["bash", "train.sh", "--config", config, "--dataset-dir", shown_path(root)]
            ),
        }

    def add_photos(self, name: str, files: Sequence[tuple[str, BinaryIO]]) -> dict[str, Any]:
        """Store photos byte for byte, with a proposed box and silhouette each; known ones are left out."""
        from ldm.data.picture import read_frame
        from ldm.prepare.object_folder import write_object_folder

        root = self.root(name)
        with TemporaryDirectory(dir=self.workspace.part("cache")) as folder:
            stored, names = [], {}
            for number, (given, data) in enumerate(files):
                file, digest = stored_picture(Path(folder) / str(number), given, data)
                names[digest] = given
                with calling(file, given):
                    read_frame(file)  # decodes it, so damage shows before anything is added
                stored.append(file)
            with self._locks[name]:
                for file in list_files(root / "data"):  # what was there before is not the studio's
                    names.pop(file_digest(file), None)
                write_object_folder(root, stored)
                write_json(root / NAMES, {**_uploaded(root), **names})
        return self.get(name)

    def photo(self, name: str, own: str) -> Path:
        """The file of a photo."""
        from ldm.prepare.photo_files import photo_of

        return photo_of(self.root(name), checked_name(own))

    def mask(self, name: str, own: str) -> Path:
        """The file of a photo's silhouette."""
        from ldm.prepare.photo_files import mask_file

        self.photo(name, own)
        return mask_file(self.root(name), own)

    def put_mask(self, name: str, own: str, data: bytes) -> dict[str, Any]:
        """Store a silhouette that a person drew; the box becomes the one around it."""
        from ldm.data.picture import read_size
        from ldm.prepare.object_folder import correct_photo

        levels = mask_levels(data, read_size(self.photo(name, own), convert=True))
        with self._locks[name]:
            correct_photo(self.root(name), own, silhouette=levels)
            return self._one(name, own)

    def put_box(self, name: str, own: str, box: Box, propose: bool) -> dict[str, Any]:
        """Store a box that a person drew; `propose`: with a new silhouette in it, else the old one stays."""
        from ldm.data.mask_levels import read_silhouette
        from ldm.prepare.object_folder import correct_photo

        with self._locks[name]:
            kept = None if propose else read_silhouette(self.mask(name, own))
            correct_photo(self.root(name), checked_name(own), box, kept)
            return self._one(name, own)

    def remove_photo(self, name: str, own: str) -> dict[str, Any]:
        """Remove a photo with its box and silhouette; of a folder opened elsewhere only an uploaded one."""
        from ldm.prepare.object_folder import remove_photo

        with self._locks[name]:
            root = self.root(name)
            if file_digest(self.photo(name, own)) not in _uploaded(root):
                self._own_root(name)
            remove_photo(root, own)
            return self.get(name)

    def choose_reference(self, name: str, own: str) -> dict[str, Any]:
        """Make a photo the reference."""
        from ldm.prepare.object_folder import write_object_folder

        self.photo(name, own)
        with self._locks[name]:
            write_object_folder(self.root(name), reference=own)
            return self.get(name)

    def add_category(self, name: str, files: Sequence[tuple[str, BinaryIO]]) -> dict[str, Any]:
        """Add pictures of other objects of the category."""
        from ldm.prepare.object_folder import write_object_folder

        with TemporaryDirectory(dir=self.workspace.part("cache")) as folder:
            stored = [
                stored_picture(Path(folder) / str(number), *file)[0] for number, file in enumerate(files)
            ]
            with self._locks[name]:
                write_object_folder(self.root(name), category=stored)
        return self.get(name)

    def category_file(self, name: str, file: str) -> Path:
        """A same-category picture."""
        found = {path.name: path for path in list_files(self.root(name) / "reg_data")}
        if file not in found:
            raise FileNotFoundError(f"{file[:80]}: no such same-category picture")
        return found[file]

    def remove_category(self, name: str, file: str) -> dict[str, Any]:
        """Remove a same-category picture and its box."""
        root, picture = self._own_root(name), self.category_file(name, file)
        (root / "reg_bbox" / f"{picture.stem}.txt").unlink(missing_ok=True)
        picture.unlink()
        return self.get(name)

    def remove(self, name: str) -> None:
        """Remove an object's folder; one that was opened elsewhere is only closed."""
        opened = self._opened()
        if name in opened:
            write_json(self.workspace.folder / OPENED, {k: v for k, v in opened.items() if k != name})
        else:
            shutil.rmtree(self.root(name))

    def shown(self, name: str) -> bytes:
        """What the model is shown of the object, as PNG: the reference, then each photo's crop."""
        import torch
        from PIL import Image

        from ldm.config.build import object_images
        from ldm.data.image import to_bytes
        from ldm.data.insertset import load_insertset

        insertset, images = load_insertset(self.root(name)), object_images(load_config(self.workspace.config))
        row = torch.cat([images.reference(insertset.reference)[0], *images.few_shot(insertset)], dim=2)[:3]
        out = BytesIO()
        Image.fromarray(to_bytes(row).permute(1, 2, 0).numpy()).save(out, "PNG")
        return out.getvalue()

    def _summary(self, name: str) -> dict[str, Any]:
        try:
            whole = self.get(name)
        except (ValueError, OSError) as error:
            whole = {"photos": [], "learnt": [], "warnings": [reason(error)]}
        warnings = [*whole["warnings"], *(text for photo in whole["photos"] for text in photo["warnings"])]
        return {
            "name": name,
            "photos": len(whole["photos"]),
            "names": {photo["id"]: photo["name"] for photo in whole["photos"]},
            "learnt": [entry["file"] for entry in whole["learnt"]],
            "warnings": warnings,
            "thumb": f"/api/objects/{name}/thumb" if whole["photos"] else "",
        }

    def thumb(self, name: str) -> Path:
        """The picture that stands for an object: its reference."""
        root = self.root(name)
        found = [path for path in list_files(root) if path.stem == "test"] or list_files(root / "data")
        if not found:
            raise FileNotFoundError(f"{name}: no photos yet")
        return found[0]

    def _opened(self) -> dict[str, str]:
        file = self.workspace.folder / OPENED
        return read_json(file) if file.is_file() else {}

    def _own_root(self, name: str) -> Path:
        """The folder of an object; ValueError if it was opened elsewhere: the user's files stay there."""
        root = self.root(name)
        if name in self._opened():
            raise ValueError(f"{name} was opened from {root}: its pictures are kept; remove them there")
        return root

    def _one(self, name: str, own: str) -> dict[str, Any]:
        return next(photo for photo in self.get(name)["photos"] if photo["id"] == own)

    def _prepared(self, name: str) -> PreparedObject | None:
        from ldm.prepare.object_folder import write_object_folder

        if not list_files((root := self.root(name)) / "data"):
            return None
        try:
            return read_prepared(root)
        except FileNotFoundError:  # of photos that are new in data/, or whose upload was killed
            return write_object_folder(root)


def _uploaded(root: Path) -> dict[str, str]:
    """The photos that were uploaded into an object folder: sha256 => name."""
    return read_json(root / NAMES) if (root / NAMES).is_file() else {}
