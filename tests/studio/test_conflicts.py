"""What conflicts with a job that has not ended, or with a request of the same moment, is refused."""

from __future__ import annotations

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier
from typing import Any

import numpy as np
import pytest

pytest.importorskip("fastapi", reason="the extra `studio` is not installed")

from fastapi.testclient import TestClient

from ldm.batch.results_log import append
from ldm.data.picture import Picture
from ldm.data.picture_write import write_picture
from ldm.studio.learning import training_words
from ldm.studio.objects import Objects
from tests.fixtures.small import object_folder, written
from tests.studio.serving import FAST, background_of, client_of, mask_png, object_of, photo

SIZE = (120, 90)


@pytest.fixture
def client(tmp_path: Path) -> TestClient:
    """A studio with an object `mug`, whose workers do not run: every job waits."""
    config, _ = written(tmp_path)
    client = client_of(config, tmp_path / "studio")
    object_of(client, "mug")
    return client


def insertion(client: TestClient, *placements: dict[str, str]) -> dict[str, Any]:
    """A waiting insertion, one mask for each placement."""
    own = background_of(client, photo(1, SIZE))["id"]
    for number, _ in enumerate(placements):
        mask = mask_png(SIZE, (10 + 60 * number, 20, 40 + 60 * number, 50))
        client.put(f"/api/backgrounds/{own}/masks/m{number}", content=mask)
    placed = [{**one, "mask": f"m{number}"} for number, one in enumerate(placements)]
    answer = client.post("/api/insert", json={"background": own, "placements": placed, "settings": FAST})
    assert answer.status_code == 200, answer.text
    return answer.json()


def replay(client: TestClient, tmp_path: Path, **files: Path) -> dict[str, Any]:
    """A waiting replay of a result that was made of these files."""
    folder = tmp_path / "studio/results/shell"
    write_picture(folder / "a.png", Picture(np.zeros((4, 4, 3), np.uint8)))
    paths = {role: str(path) for role, path in files.items()}
    append(folder / "results.jsonl", {"file": "a.png", "key": "k", "seam": 1, **paths, "sha256": paths})
    return client.post("/api/results/shell~a.png/replay").json()


def check_in_use(client: TestClient, job: dict[str, Any], *addresses: str) -> None:
    """These cannot be removed until the job has ended; the last one can be afterwards."""
    for address in addresses:
        answer = client.delete(address)
        assert answer.status_code == 400 and "is in use; cancel its job first" in answer.json()["error"]
    client.post(f"/api/jobs/{job['id']}/cancel")
    assert client.delete(addresses[-1]).status_code == 200


def test_the_reference_of_a_waiting_insertion_stays(client: TestClient) -> None:
    job = insertion(client, {"object": "mug"})
    for number in "123":  # the reference may become another one with each of them
        assert client.delete(f"/api/objects/mug/photos/{number}").status_code == 400
    object_of(client, "cup")
    assert client.delete("/api/objects/cup/photos/2").status_code == 200
    assert client.delete("/api/objects/cup").status_code == 200
    check_in_use(client, job, "/api/objects/mug")


def test_of_a_chosen_photo_the_others_can_go(client: TestClient) -> None:
    job = insertion(client, {"object": "mug", "reference": "2"})
    assert client.delete("/api/objects/mug/photos/3").status_code == 200
    check_in_use(client, job, "/api/objects/mug", "/api/objects/mug/photos/2")


def test_all_objects_of_a_scene_stay(client: TestClient) -> None:
    object_of(client, "cup")
    job = insertion(client, {"object": "mug"}, {"object": "cup", "reference": "mug/2"})
    check_in_use(client, job, "/api/objects/mug/photos/2", "/api/objects/mug")
    assert client.delete("/api/objects/cup").status_code == 200


def test_what_is_learnt_keeps_its_pictures(client: TestClient) -> None:
    client.post("/api/objects/mug/category", files={"files": ("other.jpg", photo(7))})
    job = client.post("/api/objects/mug/learn", json={}).json()
    parts = ("/photos/2", "/category/other.jpg", "")
    check_in_use(client, job, *(f"/api/objects/mug{part}" for part in parts))


def test_what_a_replay_needs_stays(client: TestClient, tmp_path: Path) -> None:
    own = background_of(client, photo(1, SIZE))["id"]
    files = {
        "background": next((tmp_path / "studio/backgrounds" / own).glob("room.png")),
        "reference": tmp_path / "studio/objects/mug/data/2.jpg",
    }
    job = replay(client, tmp_path, **files)
    check_in_use(client, job, "/api/objects/mug/photos/2", "/api/objects/mug", f"/api/backgrounds/{own}")


def test_an_opened_folder_that_is_gone_can_be_closed(client: TestClient, tmp_path: Path) -> None:
    folder = object_folder(tmp_path / "studio/mine")
    client.post("/api/objects/open", json={"folder": str(folder)})
    folder.rename(tmp_path / "moved")
    assert [one["name"] for one in client.delete("/api/objects/mine").json()] == ["mug"]


def test_two_requests_to_learn_an_object_at_once(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    both = Barrier(2)

    def words(*arguments: Any) -> list[str]:
        both.wait(60)  # both have chosen the name of their run
        return training_words(*arguments)

    monkeypatch.setattr("ldm.studio.studio.training_words", words)
    with ThreadPoolExecutor(2) as pool:
        waiting = [pool.submit(client.post, "/api/objects/mug/learn", json={}) for _ in range(2)]
        done, refused = sorted((one.result() for one in waiting), key=lambda answer: answer.status_code)
    assert (done.status_code, refused.status_code) == (200, 400)
    assert "run mug: another request" in refused.json()["error"]
    assert len(client.get("/api/jobs").json()) == 1


def test_an_object_is_made_once(client: TestClient) -> None:
    objects: Objects = client.app.state.studio.objects  # type: ignore[attr-defined]

    def make(number: int) -> str:
        try:
            return objects.create(f"cup{number // 4}")["name"]
        except ValueError as error:
            return str(error).partition(";")[0]

    with ThreadPoolExecutor(4) as pool:
        found = Counter(pool.map(make, range(200)))
    assert found == {
        **{f"cup{number}": 1 for number in range(50)},
        **{f"there is an object cup{number} already": 3 for number in range(50)},
    }
