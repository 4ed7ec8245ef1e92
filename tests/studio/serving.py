"""A studio on the small base, for tests: its client, pictures and masks, and waiting for jobs."""

from __future__ import annotations

import time
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from fastapi.testclient import TestClient
from PIL import Image

from ldm.studio.access import Policy
from ldm.studio.app import create_app
from ldm.studio.workspace import Workspace

ADDRESS = "http://127.0.0.1:7860"
FAST = {"sample.steps": 2, "sample.sampler": "ddim"}
LEARNING = {
    "train.max_steps": 2, "train.preview_every": 1, "train.validate_every": 0, "train.checkpoint_every": 1
}  # fmt: skip


def client_of(config: Path, folder: Path, **policy: Any) -> TestClient:
    """A client of a studio; `with` starts its workers."""
    app = create_app(Workspace(folder, config), Policy(**policy), "cpu")
    return TestClient(app, base_url=ADDRESS)


def photo(seed: int, size: tuple[int, int] = (90, 70)) -> bytes:
    """A JPEG (width, height) of a bright disc on noise."""
    width, height = size
    pixels = np.random.default_rng(seed).integers(0, 90, (height, width, 3), np.uint8)
    y, x = np.mgrid[:height, :width]
    pixels[(y - height / 2) ** 2 + (x - width / 2) ** 2 < (min(size) / 4) ** 2] = (230, 200, 40 + 10 * seed)
    return encoded(pixels, "JPEG")


def encoded(pixels: np.ndarray, format: str = "PNG") -> bytes:
    out = BytesIO()
    Image.fromarray(pixels).save(out, format)
    return out.getvalue()


def decoded(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(BytesIO(data)))


def mask_png(size: tuple[int, int], box: tuple[int, int, int, int]) -> bytes:
    """A mask of (width, height), white in the box x0 y0 x1 y1."""
    levels = np.zeros((size[1], size[0]), np.uint8)
    levels[box[1] : box[3], box[0] : box[2]] = 255
    return encoded(levels)


def background_of(client: TestClient, data: bytes, name: str = "room.png") -> dict[str, Any]:
    answer = client.post("/api/backgrounds", files={"file": (name, data)})
    assert answer.status_code == 200, answer.text
    return answer.json()


def object_of(client: TestClient, name: str = "disc", photos: int = 3) -> dict[str, Any]:
    """A new object with photos."""
    assert client.post("/api/objects", json={"name": name}).status_code == 200
    files = [("files", (f"{i}.jpg", photo(i))) for i in range(photos)]
    answer = client.post(f"/api/objects/{name}/photos", files=files)
    assert answer.status_code == 200, answer.text
    return answer.json()


def waited(
    client: TestClient, job: dict[str, Any], until: Callable[[dict[str, Any]], bool], seconds: float = 900
) -> Any:
    """The job as it is when `until` holds."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        job = client.get(f"/api/jobs/{job['id']}").json()
        if until(job):
            return job
        time.sleep(0.05)
    raise AssertionError(f"job did not get there: {job}")


def ended(client: TestClient, job: dict[str, Any], state: str = "done") -> dict[str, Any]:
    """The job when it has ended, which must be in this state."""
    job = waited(client, job, lambda job: job["state"] in ("done", "failed", "cancelled"))
    assert job["state"] == state, job
    return job
