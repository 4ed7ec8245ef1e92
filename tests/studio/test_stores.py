"""Uploads of backgrounds, masks and photos: stored byte for byte, or refused in one line."""

from __future__ import annotations

import hashlib
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("fastapi", reason="the extra `studio` is not installed")

from fastapi.testclient import TestClient

from ldm.batch.results_log import append
from ldm.data.insertset import load_insertset
from ldm.data.picture import Picture
from ldm.data.picture_write import write_picture
from ldm.studio.backgrounds import Backgrounds
from ldm.studio.results import ASKED, Results
from ldm.studio.workspace import Workspace, write_json
from tests.fixtures.small import object_folder, written
from tests.studio.serving import (
    background_of,
    client_of,
    decoded,
    encoded,
    mask_png,
    object_of,
    photo,
)


@pytest.fixture
def client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> TestClient:
    """A studio whose workers do not run."""
    config, _ = written(tmp_path)
    return client_of(config, tmp_path / "studio")


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def test_a_background_is_stored_as_it_is_whatever_its_name(client: TestClient) -> None:
    data, name = photo(1, (300, 200)), "<img src=x onerror=alert(1)>.jpg"
    found = background_of(client, data, name)
    assert found["name"] == name and (found["width"], found["height"]) == (300, 200)
    assert found["sha256"] == sha256(data)
    assert client.get(f"/api/backgrounds/{found['id']}/original").content == data
    assert decoded(client.get(f"{found['image']}?max=256").content).shape == (171, 256, 3)
    assert [entry["name"] for entry in client.get("/api/backgrounds").json()] == [name]
    assert client.delete(f"/api/backgrounds/{found['id']}").json() == []


@pytest.mark.parametrize(
    ("data", "name", "expected"),
    [
        (b"no picture", "a.png", "not a readable picture"),
        (photo(1)[:40], "a.jpg", "picture"),
        (photo(1, (400, 300))[:-5000], "a.jpg", "broken picture"),
        (b"", "a.png", "an empty file"),
        (photo(1), "a.exe", "expected a picture"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "a.svg", "expected a picture"),
        (encoded(np.zeros((8, 8, 4), np.uint8), "TIFF")[:60], "a.tif", "picture"),
    ],
)
def test_what_is_no_picture_is_refused_and_leaves_nothing(
    client: TestClient, data: bytes, name: str, expected: str
) -> None:
    for route, field in (("/api/backgrounds", "file"), ("/api/objects/cup/photos", "files")):
        client.post("/api/objects", json={"name": "cup"})
        answer = client.post(route, files={field: (name, data)})
        assert answer.status_code == 400 and expected in answer.json()["error"]
        assert "\n" not in answer.json()["error"] and "/tmp" not in answer.json()["error"]
    assert client.get("/api/backgrounds").json() == []
    assert client.get("/api/objects/cup").json()["photos"] == []


def test_too_many_pixels(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ldm.studio.backgrounds.PIXELS", 90 * 70 - 1)
    answer = client.post("/api/backgrounds", files={"file": ("a.jpg", photo(1))})
    assert answer.status_code == 400 and "megapixels" in answer.json()["error"]


def test_a_mask_comes_back_as_it_was_drawn(client: TestClient) -> None:
    own = background_of(client, photo(1, (60, 40)))["id"]
    address = f"/api/backgrounds/{own}/masks/m1"
    assert client.get(address).status_code == 404
    data = mask_png((60, 40), (5, 6, 25, 26))
    assert client.put(address, content=data).json() == {"id": "m1"}
    assert client.get(address).content == data
    assert client.get(f"/api/backgrounds/{own}").json()["masks"] == ["m1"]


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (mask_png((40, 60), (1, 1, 5, 5)), "40 x 60 pixels, its picture 60 x 40"),
        (encoded(np.zeros((40, 60, 3), np.uint8)), "colour mode RGB"),
        (encoded(np.zeros((40, 60), np.uint8), "TIFF"), "the mask is no PNG; send a grey PNG"),
        (mask_png((60, 40), (1, 1, 5, 5))[:-30], "no readable PNG"),
        (b"", "the mask is no PNG; send a grey PNG"),
    ],
)
def test_masks_that_do_not_fit(client: TestClient, data: bytes, expected: str) -> None:
    own = background_of(client, photo(1, (60, 40)))["id"]
    answer = client.put(f"/api/backgrounds/{own}/masks/m1", content=data)
    assert answer.status_code == 400 and expected in answer.json()["error"]


@pytest.mark.parametrize(
    "address",
    [
        "/api/backgrounds/..%2F..%2F/original",
        "/api/backgrounds/%2e%2e/original",
        "/api/backgrounds/x/masks/..%2F..%2Fabout",
        "/api/objects/..%2Fbackgrounds",
        "/api/objects/cup/photos/..%2F..%2Ftest/mask",
        "/api/objects/cup/category/..%2F..%2Fx.jpg",
        "/api/results/..~results.jsonl/file",
        "/api/results/x~..%2F..%2Fstudio.db/file",
        "/api/jobs/..%2Fx/previews/y",
        "/..%2Fapp.py",
        "/../app.py",
    ],
)
def test_no_address_leads_out_of_the_studio(client: TestClient, address: str) -> None:
    client.post("/api/objects", json={"name": "cup"})
    assert client.get(address).status_code in (400, 404)


def test_photos_become_an_object_folder_byte_for_byte(client: TestClient, tmp_path: Path) -> None:
    name = "<script>alert(1)</script>.jpg"
    client.post("/api/objects", json={"name": "cup"})
    data = [photo(i) for i in range(3)]
    files = [("files", (name if i == 0 else f"{i}.jpg", part)) for i, part in enumerate(data)]
    found = client.post("/api/objects/cup/photos", files=files).json()
    assert [entry["sha256"] for entry in found["photos"]] == [sha256(part) for part in data]
    assert found["photos"][0]["name"] == name
    for entry, part in zip(found["photos"], data, strict=True):
        assert client.get(f"/api/objects/cup/photos/{entry['id']}/image?original=1").content == part
        assert decoded(client.get(entry["mask"]).content).shape == (entry["height"], entry["width"])
        assert decoded(client.get(entry["image"]).content).shape == (70, 90, 3)
    loaded = load_insertset(tmp_path / "studio/objects/cup")
    assert len(loaded.few_shot) == 3 and found["reference"] in "123"
    assert [sample.boxes[0] for sample in loaded.few_shot] == [tuple(e["box"]) for e in found["photos"]]
    summary = client.get("/api/objects").json()
    assert [(entry["name"], entry["photos"]) for entry in summary] == [("cup", 3)]
    assert client.get(summary[0]["thumb"]).headers["content-type"] == "image/jpeg"
    assert decoded(client.get("/api/objects/cup/shown").content).shape == (28, 4 * 28, 3)
    assert client.post("/api/objects", json={"name": "cup"}).status_code == 400


def test_a_persons_box_and_silhouette_are_kept(client: TestClient, tmp_path: Path) -> None:
    object_of(client, "cup")
    address, folder = "/api/objects/cup/photos/2", tmp_path / "studio/objects/cup"
    drawn = mask_png((90, 70), (20, 10, 50, 60))
    changed = client.put(f"{address}/mask", content=drawn).json()
    assert changed["box"] == [20, 10, 50, 60] and changed["mask_source"] == "corrected"
    assert (decoded(client.get(changed["mask"]).content) == decoded(drawn)).all()
    changed = client.put(address, json={"box": [15, 5, 55, 65]}).json()
    assert changed["box"] == [15, 5, 55, 65]
    assert (decoded(client.get(changed["mask"]).content) == decoded(drawn)).all()
    assert (folder / "bbox/2.txt").read_text().split() == ["15", "5", "55", "65"]
    proposed = client.put(address, json={"box": [15, 5, 75, 65], "propose": True}).json()
    assert (decoded(client.get(proposed["mask"]).content) != decoded(drawn)).any()
    for wrong in ([200, 200, 300, 300], [50, 5, 15, 65]):
        assert client.put(address, json={"box": wrong, "propose": True}).status_code == 400
    assert client.put(address, json={"box": [1, 2, 3]}).status_code == 422


def test_one_faulty_object_does_not_hide_the_others(client: TestClient, tmp_path: Path) -> None:
    root = tmp_path / "studio/objects"
    for name in ("disc", "cut"):
        object_of(client, name)
    (root / ".ipynb_checkpoints").mkdir()
    (root / "cut/data/9.jpg").write_bytes(photo(9))  # no box yet: added by hand, or the upload was killed
    assert [(one["name"], one["photos"]) for one in client.get("/api/objects").json()] == [
        ("cut", 4),
        ("disc", 3),
    ]
    (root / "cut/bbox/1.txt").write_text("no box")
    (root / "@eaDir").mkdir()  # of a network disk
    foreign, cut, disc = client.get("/api/objects").json()
    assert disc["photos"] == 3 and "'no box'" in cut["warnings"][0]
    assert "expected a name of letters" in foreign["warnings"][0]


def test_an_animation_is_a_warning_of_its_photo(client: TestClient) -> None:
    client.post("/api/objects", json={"name": "disc"})
    frames, data = [Image.open(BytesIO(photo(seed))) for seed in (1, 2)], BytesIO()
    frames[0].save(data, "GIF", save_all=True, append_images=frames[1:])
    files = {"files": ("a.gif", data.getvalue())}
    with pytest.warns(UserWarning, match="the first of 2 is taken"):
        found = client.post("/api/objects/disc/photos", files=files).json()
    assert found["photos"][0]["warnings"][0] == "animated or of several pages: the first of 2 is taken"


def test_one_bad_photo_of_several_adds_none(client: TestClient) -> None:
    object_of(client, "cup", photos=1)
    good, bad = photo(5), photo(6, (400, 300))[:-5000]
    files = [("files", ("good.jpg", good)), ("files", ("bad.jpg", bad))]
    answer = client.post("/api/objects/cup/photos", files=files)
    assert answer.status_code == 400 and "broken picture" in answer.json()["error"]
    assert len(client.get("/api/objects/cup").json()["photos"]) == 1


def test_two_tabs_change_one_object_at_once(client: TestClient) -> None:
    object_of(client, "cup")

    def change(i: int) -> int:
        box = [10 + i, 10, 60 + i, 60]
        return client.put(f"/api/objects/cup/photos/{1 + i % 3}", json={"box": box}).status_code

    with ThreadPoolExecutor(4) as pool:
        assert set(pool.map(change, range(6))) == {200}
    boxes = [entry["box"] for entry in client.get("/api/objects/cup").json()["photos"]]
    assert [box[0] for box in boxes] in [
        [10 + a, 11 + b, 12 + c] for a in (0, 3) for b in (0, 3) for c in (0, 3)
    ]


def test_reference_removed_photos_and_category(client: TestClient, tmp_path: Path) -> None:
    object_of(client, "cup")
    assert client.put("/api/objects/cup/reference", json={"photo": "3"}).json()["reference"] == "3"
    left = client.delete("/api/objects/cup/photos/3").json()
    assert [entry["id"] for entry in left["photos"]] == ["1", "2"] and left["reference"] != "3"
    back = client.post("/api/objects/cup/photos", files={"files": ("again.jpg", photo(2))}).json()
    assert len(back["photos"]) == 3
    name = "x onerror=1.jpg"
    added = client.post("/api/objects/cup/category", files={"files": (name, photo(7))}).json()
    [entry] = added["category"]
    assert client.get(entry["image"]).status_code == 200
    assert load_insertset(tmp_path / "studio/objects/cup").same_category
    assert client.delete(entry["image"]).json()["category"] == []


def test_same_category_pictures_of_one_name_are_all_kept(client: TestClient) -> None:
    object_of(client, "cup")
    files = [("files", ("image.jpg", photo(seed))) for seed in (7, 8)]
    client.post("/api/objects/cup/category", files=files)
    third = {"files": ("image.jpg", photo(9))}
    for _ in range(2):  # known ones are left out
        added = client.post("/api/objects/cup/category", files=third).json()["category"]
        assert [entry["name"] for entry in added] == ["image.jpg", "image_2.jpg", "image_3.jpg"]


def test_pictures_of_a_folder_made_elsewhere_are_never_removed(client: TestClient, tmp_path: Path) -> None:
    folder = object_folder(tmp_path / "studio/mine")
    own = [folder / "data/0.png", folder / "reg_data/0.png", folder / "reg_bbox/0.txt", folder / "test.png"]
    before = [file.read_bytes() for file in own]
    client.post("/api/objects/open", json={"folder": str(folder)})
    for address in ("photos/0", "category/0.png"):
        answer = client.delete(f"/api/objects/mine/{address}")
        assert answer.status_code == 400 and f"opened from {folder}" in answer.json()["error"]
    answer = client.put("/api/objects/mine/reference", json={"photo": "1"})
    assert answer.status_code == 400 and "would replace" in answer.json()["error"]
    assert [file.read_bytes() for file in own] == before


def test_of_a_folder_made_elsewhere_only_uploaded_photos_can_be_removed(
    client: TestClient, tmp_path: Path
) -> None:
    folder = object_folder(tmp_path / "studio/mine")
    client.post("/api/objects/open", json={"folder": str(folder)})
    before = {file: file.read_bytes() for file in folder.rglob("*.*") if not file.name.startswith(".")}
    same = ("files", ("again.png", (folder / "data/0.png").read_bytes()))  # is there: not the studio's
    found = client.post("/api/objects/mine/photos", files=[("files", ("new.jpg", photo(3))), same]).json()
    [added] = [one["id"] for one in found["photos"] if one["name"] == "new.jpg"]
    assert len(found["photos"]) == 4
    assert client.delete("/api/objects/mine/photos/0").status_code == 400
    left = client.delete(f"/api/objects/mine/photos/{added}")
    assert left.status_code == 200 and added not in [one["id"] for one in left.json()["photos"]]
    after = {file: file.read_bytes() for file in folder.rglob("*.*") if not file.name.startswith(".")}
    assert after == before


def test_a_folder_made_elsewhere_opens(client: TestClient, tmp_path: Path) -> None:
    folder = object_folder(tmp_path / "studio/mine")
    found = client.post("/api/objects/open", json={"folder": str(folder)}).json()
    assert found["name"] == "mine" and len(found["photos"]) == 3 and len(found["category"]) == 2
    assert found["photos"][0]["box"] == [8, 10, 30, 36]
    assert client.delete("/api/objects/mine").json() == [] and (folder / "data/0.png").is_file()
    for wrong in ("/etc", "..", str(tmp_path / "toy"), str(tmp_path / "studio/objects")):
        assert client.post("/api/objects/open", json={"folder": wrong}).status_code in (400, 404)


@pytest.mark.parametrize("file", ["", "image.py", "notes.txt"])
def test_a_folder_without_pictures_is_no_object_folder(client: TestClient, tmp_path: Path, file: str) -> None:
    folder = tmp_path / "studio/code/data"
    folder.mkdir(parents=True)
    if file:
        (folder / file).write_text("no picture")
    answer = client.post("/api/objects/open", json={"folder": str(folder.parent)})
    assert answer.status_code == 404 and "expected one with pictures in data/" in answer.json()["error"]
    assert list(folder.parent.iterdir()) == [folder] and client.get("/api/objects").json() == []


@pytest.mark.parametrize("side", [0, -1])
def test_a_picture_has_at_least_one_pixel(client: TestClient, side: int) -> None:
    found = background_of(client, photo(1, (60, 40)))
    for route in ("image", "tile"):
        address = f"/api/backgrounds/{found['id']}/{route}?x=0&y=0&w=60&h=1&max="
        answer = client.get(f"{address}{side}")
        assert answer.status_code == 422 and "max: " in answer.json()["error"]
        assert client.get(f"{address}1").status_code == 200


def test_two_uploads_at_once_get_ids_of_their_own(client: TestClient) -> None:
    studio: Backgrounds = client.app.state.studio.backgrounds  # type: ignore[attr-defined]
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda i: studio.add(f"{i}.jpg", BytesIO(photo(i % 3))), range(24)))
    assert len({entry["id"] for entry in found}) == 24 == len(studio.all())


@pytest.mark.parametrize("kept", [[], ["a_retouched.jpg"]])
def test_a_folder_of_results_goes_with_the_last_but_for_own_pictures(tmp_path: Path, kept: list[str]) -> None:
    results = Results(Workspace(tmp_path, tmp_path / "none.yaml"))
    folder = results.workspace.part("results", "job")
    for name in ("a.png", "b.png"):
        write_picture(folder / name, Picture(np.zeros((4, 4, 3), np.uint8)))
        append(folder / "results.jsonl", {"file": name, "key": "k", "seam": 1})
    write_json(folder / ASKED, {"seed": 3})
    for name in kept:
        (folder / name).write_bytes(photo(1))
    results.remove("job~a.png")
    assert (folder / "b.png").is_file()
    results.remove("job~b.png")
    assert [file.name for file in folder.glob("*.*g")] == kept and folder.is_dir() == bool(kept)
