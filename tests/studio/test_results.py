"""Results made by a shell in the studio's folder: what cannot be shown of one hides no other."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("fastapi", reason="the extra `studio` is not installed")

from fastapi.testclient import TestClient

from ldm.batch.results_log import append
from ldm.data.picture import Picture
from ldm.data.picture_write import write_picture
from tests.studio.serving import client_of, decoded, mask_png

SIZE = (12, 8)
BOX = (2, 1, 6, 5)


@pytest.fixture
def client(tmp_path: Path) -> TestClient:
    """A studio whose workers do not run."""
    return client_of(Path("configs/mini.yaml"), tmp_path / "studio")


def made(tmp_path: Path, name: str, **row: Any) -> str:
    """The id of a result that a shell made."""
    folder = tmp_path / "studio/results/shell"
    write_picture(folder / f"{name}.png", Picture(np.zeros((*SIZE[::-1], 3), np.uint8)))
    facts = {"background": str(tmp_path / "room.png"), "regions": [], "seconds": 1, "seed": 3}
    append(folder / "results.jsonl", {"file": f"{name}.png", "key": name, "seam": 1, **facts, **row})
    return f"shell~{name}.png"


def mask_file(folder: Path, name: str, data: bytes = b"") -> str:
    folder.mkdir(exist_ok=True)
    (folder / name).write_bytes(data or mask_png(SIZE, BOX))
    return str(folder / name)


@pytest.mark.parametrize("name", ["room_mask.png", "box.txt", "polygon.json", "gone.png"])
def test_a_mask_that_is_no_picture_in_the_project_is_left_out(
    client: TestClient, tmp_path: Path, name: str
) -> None:
    folder = tmp_path if name == "room_mask.png" else tmp_path / "studio/masks"
    own = made(tmp_path, "a", mask=mask_file(folder, name, b"" if name.endswith("png") else b"1 1 5 5"))
    if name == "gone.png":
        (folder / name).unlink()
    other = made(tmp_path, "b", mask=mask_file(tmp_path / "studio/masks", "room_mask.png"))
    answer = client.get("/api/results")
    assert answer.status_code == 200, answer.text
    masks = {one["id"]: one["mask"] for one in answer.json()}
    assert masks == {own: "", other: f"/api/results/{other}/mask"}
    assert client.get(f"/api/results/{own}/mask").status_code == 404
    assert decoded(client.get(masks[other]).content).sum() == 255 * 16


def test_the_masks_of_a_scene_keep_their_numbers(client: TestClient, tmp_path: Path) -> None:
    outside, inside = mask_file(tmp_path, "m.png"), mask_file(tmp_path / "studio/masks", "m.png")
    own = made(tmp_path, "a", placements=[{"mask": outside}, {"box": [1, 1, 5, 5]}, {"mask": inside}])
    found = [client.get(f"/api/results/{own}/mask?index={i}").status_code for i in range(4)]
    assert found == [404, 404, 200, 404]
    assert client.get(f"/api/results/{own}/mask").status_code == 200
