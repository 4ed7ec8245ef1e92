"""The whole way through the API: photos, object, learning, insertion, result, replay, the command line."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("fastapi", reason="the extra `studio` is not installed")

from fastapi.testclient import TestClient

from ldm.data.picture import Picture, read_picture
from ldm.data.picture_write import embedded_text, write_picture
from ldm.models.runtime import threads
from scripts import inference
from tests.fixtures.small import written
from tests.studio.serving import (
    FAST,
    LEARNING,
    background_of,
    client_of,
    decoded,
    ended,
    mask_png,
    object_of,
    waited,
)

SIZE = (120, 90)  # of the backgrounds, width and height


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    folder = tmp_path_factory.mktemp("studio")
    config, _ = written(folder)
    with client_of(config, folder / "studio") as client:
        object_of(client)
        yield client


@pytest.fixture(scope="module")
def learnt(client: TestClient) -> str:
    """The object file of the object `disc`, learnt once."""
    job = client.post("/api/objects/disc/learn", json={"settings": LEARNING}).json()
    job = ended(client, job)
    assert job["step"] == job["steps"] == 2 and job["progress"] == 1
    assert len(job["previews"]) == 2
    assert client.get(job["previews"][0]).headers["content-type"] == "image/png"
    [entry] = client.get("/api/objects/disc").json()["learnt"]
    assert entry["steps"] == 2
    return entry["file"]


def background(client: TestClient, tmp_path: Path, deep: bool = False) -> dict:
    """A noisy background with a mask m1; `deep`: of 16 bits."""
    kind = np.uint16 if deep else np.uint8
    pixels = np.random.default_rng(5).integers(0, np.iinfo(kind).max, (SIZE[1], SIZE[0], 3), kind)
    write_picture(tmp_path / "room.png", Picture(pixels))
    found = background_of(client, (tmp_path / "room.png").read_bytes())
    put(client, found["id"], "m1", (30, 20, 60, 50))
    return found


def put(client: TestClient, own: str, mask: str, box: tuple[int, int, int, int]) -> None:
    assert client.put(f"/api/backgrounds/{own}/masks/{mask}", content=mask_png(SIZE, box)).is_success


def asked(own: str, *objects: str, **more: object) -> dict:
    placements = [{"object": name, "mask": f"m{i}"} for i, name in enumerate(objects, start=1)]
    return {"background": own, "placements": placements, "settings": FAST, **more}


def test_what_is_inserted_is_what_the_command_makes(client: TestClient, learnt: str, tmp_path: Path) -> None:
    found = background(client, tmp_path, deep=True)
    request = asked(found["id"], "disc", seeds=2, seed=7)
    planned = client.post("/api/plan", json=request).json()
    [[x0, y0, x1, y1]] = planned["rois"]
    assert x0 <= 30 and y0 <= 20 and x1 >= 60 and y1 >= 50 and x1 - x0 == y1 - y0

    job = ended(client, client.post("/api/insert", json=request).json())
    assert len(job["results"]) == 2
    results = {r["seed"]: r for r in client.get("/api/results").json() if r["id"] in job["results"]}
    assert set(results) == {7, 8} and (results[7]["width"], results[7]["height"]) == SIZE
    file = tmp_path / "from_studio.png"
    file.write_bytes(client.get(f"/api/results/{results[8]['id']}/file").content)
    before, after = read_picture(tmp_path / "room.png").pixels, read_picture(file).pixels
    inside = decoded(mask_png(SIZE, (30, 20, 60, 50))) > 127
    assert after.dtype == np.uint16 and (after[~inside] == before[~inside]).all()
    assert (after[inside] != before[inside]).any()
    assert json.loads(embedded_text(file)["recipe"])["seed"] == 8

    words = shlex.split(planned["command"])
    assert words[:2] == ["bash", "inference.sh"] and learnt in words
    words[words.index("--outdir") + 1] = str(tmp_path / "shell")
    inference.main(words[2:])
    assert (read_picture(tmp_path / "shell/room_8.png").pixels == after).all()

    mask = decoded(client.get(results[7]["mask"]).content)
    assert ((mask > 127) == inside).all()
    recipe = client.get(f"/api/results/{results[7]['id']}/recipe").json()
    assert recipe["seed"] == 7 and recipe["settings"]["sample"]["steps"] == 2


def test_a_replay_gives_the_same_pixels_though_the_mask_was_drawn_over(
    client: TestClient, learnt: str, tmp_path: Path
) -> None:
    found = background(client, tmp_path)
    job = ended(client, client.post("/api/insert", json=asked(found["id"], "disc")).json())
    put(client, found["id"], "m1", (10, 10, 40, 40))
    [own] = job["results"]
    again = ended(client, client.post(f"/api/results/{own}/replay").json())
    assert again["message"].startswith("the same pixels")
    inference_words = shlex.split(again["command"])
    assert inference_words[:3] == ["python", "scripts/inference.py", "--replay"]


def test_after_a_replay_the_worker_has_the_threads_that_it_had(
    client: TestClient, learnt: str, tmp_path: Path
) -> None:
    def made_with() -> int:
        job = ended(client, client.post("/api/insert", json=asked(found["id"], "disc")).json())
        return client.get(f"/api/results/{job['results'][0]}/recipe").json()["machine"]["threads"]

    found = background(client, tmp_path)
    before = made_with()
    words = shlex.split(client.post("/api/plan", json=asked(found["id"], "disc")).json()["command"])[2:]
    results = client.app.state.studio.workspace.part("results")  # type: ignore[attr-defined]
    words[words.index("--outdir") + 1] = str(results / "shell")
    with threads(before + 1):
        inference.main(words)
    [own] = [one["id"] for one in client.get("/api/results").json() if one["id"].startswith("shell~")]
    again = ended(client, client.post(f"/api/results/{own}/replay").json())
    assert again["message"] == "the same pixels"  # without a warning of another machine
    assert made_with() == before


def test_a_scene_of_two_objects(client: TestClient, learnt: str, tmp_path: Path) -> None:
    found = background(client, tmp_path)
    put(client, found["id"], "m2", (70, 50, 100, 80))
    request = asked(found["id"], "disc", learnt, seeds=2, seed=3)
    planned = client.post("/api/plan", json=request).json()
    assert len(planned["rois"]) == 2
    assert any(text.startswith("object 1 (disc), object 2 (disc): ") for text in planned["warnings"])
    job = ended(client, client.post("/api/insert", json=request).json())
    results = {r["name"]: r for r in client.get("/api/results").json() if r["id"] in job["results"]}
    assert {name: one["seed"] for name, one in results.items()} == {"room_3.png": 3, "room_4.png": 4}
    assert job["message"].count("shrunk") <= 1 and job["object"] == "disc, disc"
    after = decoded(client.get(f"/api/results/{results['room_3.png']['id']}/file").content)
    before = np.asarray(Image.open(tmp_path / "room.png"))
    inside = np.maximum(*(decoded(mask_png(SIZE, b)) for b in ((30, 20, 60, 50), (70, 50, 100, 80)))) > 127
    assert (after[~inside] == before[~inside]).all()
    for y, x in ((35, 45), (65, 85)):
        assert (after[y - 5 : y + 5, x - 5 : x + 5] != before[y - 5 : y + 5, x - 5 : x + 5]).any()
    assert ((decoded(client.get(results["room_3.png"]["mask"]).content) > 127) == inside).all()

    first = shlex.split(planned["command"].splitlines()[0])
    first[first.index("--outdir") + 1] = str(tmp_path / "shell")
    inference.main(first[2:])
    assert (read_picture(tmp_path / "shell/room_3.png").pixels == after).all()
    again = ended(client, client.post(f"/api/results/{results['room_4.png']['id']}/replay").json())
    assert again["message"].startswith("the same pixels")


def test_without_an_object_file_the_reference_is_inserted(client: TestClient, tmp_path: Path) -> None:
    object_of(client, "other")
    found = background(client, tmp_path)
    request = asked(found["id"], "other")
    request["placements"][0]["reference"] = "2"
    job = ended(client, client.post("/api/insert", json=request).json())
    words = shlex.split(job["command"])
    assert words[:2] == ["python", "scripts/inference.py"] and "--object" not in words
    assert words[words.index("--reference") + 1].endswith("objects/other/data/2.jpg")


def test_a_running_insertion_is_cancelled_between_two_steps(
    client: TestClient, learnt: str, tmp_path: Path
) -> None:
    found = background(client, tmp_path)
    request = asked(found["id"], "disc", settings={"sample.steps": 499, "sample.sampler": "ddim"})
    job = client.post("/api/insert", json=request).json()
    job = waited(client, job, lambda job: job["previews"] or job["finished"])
    shown = client.get(job["previews"][0])
    if shown.status_code == 200:  # else a newer one has replaced it
        assert shown.headers["content-type"] == "image/jpeg"
    client.post(f"/api/jobs/{job['id']}/cancel")
    job = ended(client, job, "cancelled")
    assert 0 < job["step"] < 499 and job["results"] == []
    events = client.get(f"/api/jobs/{job['id']}/events").text  # of a job that has ended: one, then the end
    assert json.loads(events.removeprefix("data: ")) == job
    ended(client, client.post("/api/insert", json=asked(found["id"], "disc")).json())


def test_removing_takes_what_the_studio_wrote_and_nothing_else(
    client: TestClient, learnt: str, tmp_path: Path
) -> None:
    found = background(client, tmp_path)
    job = ended(client, client.post("/api/insert", json=asked(found["id"], "disc", seeds=2, seed=7)).json())
    studio = client.app.state.studio  # type: ignore[attr-defined]
    folder = studio.workspace.part("results", job["id"])
    first, second = job["results"]
    left = client.delete(f"/api/results/{first}").json()
    assert {first, second} & {one["id"] for one in left} == {second} and folder.is_dir()
    assert client.get(f"/api/results/{first}").status_code == 404
    client.delete(f"/api/results/{second}")
    assert not folder.exists() and client.get(f"/api/backgrounds/{found['id']}").status_code == 200

    job = ended(client, client.post("/api/insert", json=asked(found["id"], "disc")).json())
    (studio.workspace.part("results", job["id"]) / "asked.json").unlink()  # as if it was made in a shell
    answer = client.delete(f"/api/results/{job['results'][0]}")
    assert answer.status_code == 400 and "not made by the studio" in answer.json()["error"]
    assert client.get(f"/api/results/{job['results'][0]}/file").status_code == 200

    request = asked(found["id"], "disc", settings={"sample.steps": 499, "sample.sampler": "ddim"})
    running = client.post("/api/insert", json=request).json()
    answer = client.delete(f"/api/backgrounds/{found['id']}")
    assert answer.status_code == 400 and "is in use" in answer.json()["error"]
    client.post(f"/api/jobs/{running['id']}/cancel")
    ended(client, running, "cancelled")
    assert found["id"] not in {one["id"] for one in client.delete(f"/api/backgrounds/{found['id']}").json()}


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"settings": {"sample.nonsense": 1}}, "unknown setting"),
        ({"settings": {"sample.steps": 0}}, "expected 1 or more"),
        ({"settings": {"sample.sampler": "magic"}}, "expected one of"),
        ({"seeds": 99}, "expected 1 to 16"),
        ({"placements": []}, "nothing to insert"),
        ({"placements": [{"object": "disc", "mask": "nowhere"}]}, "not drawn yet"),
        ({"placements": [{"object": "nobody", "mask": "m1"}]}, "no such object"),
        ({"placements": [{"object": "../../etc", "mask": "m1"}]}, "expected a name"),
        ({"placements": [{"object": "/etc/x.safetensors", "mask": "m1"}]}, "not in the project"),
        ({"background": "../objects"}, "expected a name"),
    ],
)
def test_mistakes_are_one_line_before_anything_is_queued(
    client: TestClient, tmp_path: Path, change: dict, expected: str
) -> None:
    found = background(client, tmp_path)
    jobs = len(client.get("/api/jobs").json())
    for route in ("/api/plan", "/api/insert"):
        answer = client.post(route, json={**asked(found["id"], "disc"), **change})
        assert answer.status_code in (400, 404) and expected in answer.json()["error"]
        assert "\n" not in answer.json()["error"]
    assert len(client.get("/api/jobs").json()) == jobs
