"""The API of insertions, jobs and results."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Header, Query, Request, Response
from fastapi.responses import FileResponse, StreamingResponse
from pydantic import BaseModel, Field

from ldm.data.files import file_digest
from ldm.studio.imports import import_models, import_pictures
from ldm.studio.jobs import ENDED
from ldm.studio.object_files import object_files
from ldm.studio.proxies import Proxies
from ldm.studio.studio import Studio

POLL = 0.2  # seconds between looks at a job, for its event stream
KEPT = {"cache-control": "private, max-age=3600"}  # of pictures whose address changes with them
CHECKED = {"cache-control": "no-cache"}  # kept, and asked for again
NOT_KEPT = {"cache-control": "no-store"}
PICTURES, MODELS = [Depends(import_pictures)], [Depends(import_models)]
Tab = Annotated[str, Header(alias="x-tab", max_length=64)]  # each browser tab gets its turn
Side = Annotated[int, Query(ge=1)]  # pixels, the longer side of a picture that is asked for
insertions = APIRouter(tags=["insert"])
jobs = APIRouter(prefix="/jobs", tags=["jobs"])
results = APIRouter(prefix="/results", tags=["results"], dependencies=PICTURES)


def served(request: Request) -> Studio:
    """The studio of the application that got the request."""
    return request.app.state.studio


Served = Annotated[Studio, Depends(served)]


def proxy(proxies: Proxies, file: Path, longest: int, key: str = "", kept: bool = True) -> FileResponse:
    """A JPEG of a picture, about `longest` pixels on its longer side; `key`: of its content, if known."""
    headers = KEPT if kept else CHECKED
    return FileResponse(proxies.proxy(file, key or file_digest(file), longest), headers=headers)


def tile_of(proxies: Proxies, file: Path, key: str, box: tuple[int, int, int, int], longest: int) -> Response:
    """A crop of a picture file as PNG."""
    return Response(proxies.tile(file, key, box, longest), media_type="image/png", headers=KEPT)


class Placement(BaseModel):
    """One object in its mask. `object`: a name, or an object file; `reference`: a photo's id, or NAME/ID."""

    object: str = ""
    reference: str | None = None
    mask: str


class Planned(BaseModel):
    """An insertion: several placements are a scene, later ones on top."""

    background: str
    placements: list[Placement]
    settings: dict[str, Any] = Field(default_factory=dict)
    seeds: int = 1
    seed: int = 321


@insertions.get("/learnt", dependencies=PICTURES)
def learnt(studio: Served) -> list[dict[str, Any]]:
    """All object files, newest first."""
    return object_files(studio.workspace)


@insertions.post("/plan", dependencies=MODELS)
def plan(studio: Served, body: Planned) -> dict[str, Any]:
    """The regions that the model will see, warnings, and the command line that does the same."""
    return studio.plan(body.model_dump())


@insertions.post("/insert", dependencies=MODELS)
def insert(studio: Served, body: Planned, tab: Tab = "") -> dict[str, Any]:
    return studio.insert(body.model_dump(), tab).public()


@jobs.get("")
def all_jobs(studio: Served) -> list[dict[str, Any]]:
    """All jobs, newest first."""
    return [job.public() for job in studio.jobs.all()]


@jobs.get("/{own}")
def one_job(studio: Served, own: str) -> dict[str, Any]:
    return studio.jobs.get(own).public()


@jobs.post("/{own}/cancel")
def cancel_job(studio: Served, own: str) -> dict[str, Any]:
    return studio.jobs.ask(own, "cancelled").public()


@jobs.post("/{own}/pause")
def pause_job(studio: Served, own: str) -> dict[str, Any]:
    return studio.jobs.ask(own, "paused").public()


@jobs.post("/{own}/resume")
def resume_job(studio: Served, own: str) -> dict[str, Any]:
    return studio.jobs.ask(own, "queued").public()


@jobs.get("/{own}/previews/{name}")
def job_preview(studio: Served, own: str, name: str) -> Response:
    found = studio.preview(own, name)
    if isinstance(found, Path):
        return FileResponse(found, headers=KEPT)
    return Response(found, media_type="image/jpeg", headers=KEPT)


@jobs.get("/{own}/events")
async def job_events(studio: Served, own: str, request: Request) -> StreamingResponse:
    """The job as a stream of events, until it has ended."""
    studio.jobs.get(own)

    async def stream() -> AsyncIterator[str]:
        sent = None
        while not (await request.is_disconnected() or studio.worker.ending.is_set()):
            job = studio.jobs.get(own)
            if job != sent:
                yield f"data: {json.dumps(job.public())}\n\n"
                sent = job
            if job.state in ENDED:
                return
            await asyncio.sleep(POLL)

    return StreamingResponse(stream(), media_type="text/event-stream", headers=NOT_KEPT)


@results.get("")
def all_results(studio: Served) -> list[dict[str, Any]]:
    """All results, newest first."""
    return studio.results.all()


@results.get("/{own}")
def one_result(studio: Served, own: str) -> dict[str, Any]:
    return studio.results.public(studio.results.get(own))


@results.delete("/{own}")
def remove_result(studio: Served, own: str) -> list[dict[str, Any]]:
    """Remove a result that the studio made."""
    studio.remove_result(own)
    return studio.results.all()


@results.get("/{own}/image")
def result_image(studio: Served, own: str, max: Side = 2048) -> FileResponse:
    result = studio.results.get(own)
    return proxy(studio.proxies, result.file, max, result.row["key"])


@results.get("/{own}/tile")
def result_tile(studio: Served, own: str, x: int, y: int, w: int, h: int, max: Side = 1024) -> Response:
    """A crop of the full result, as PNG."""
    result = studio.results.get(own)
    return tile_of(studio.proxies, result.file, result.row["key"], (x, y, x + w, y + h), max)


@results.get("/{own}/file")
def result_file(studio: Served, own: str) -> FileResponse:
    """The full file, with its recipe in it."""
    path = studio.results.get(own).file
    return FileResponse(path, filename=path.name)


@results.get("/{own}/recipe")
def result_recipe(studio: Served, own: str) -> dict[str, Any]:
    return studio.results.recipe(studio.results.get(own))


@results.get("/{own}/mask")
def result_mask(studio: Served, own: str, index: int | None = None) -> Response:
    """All its masks in one picture, or that of placement `index`."""
    return Response(studio.results.mask(studio.results.get(own), index), media_type="image/png", headers=KEPT)


@results.get("/{own}/before")
def background_of_result(studio: Served, own: str, max: Side = 2048) -> FileResponse:
    """The background."""
    file, key = studio.results.before(studio.results.get(own))
    return proxy(studio.proxies, file, max, key)


@results.post("/{own}/replay")
def replay_result(studio: Served, own: str, tab: Tab = "") -> dict[str, Any]:
    """Make it again, and compare the pixels."""
    return studio.replay(own, tab).public()
