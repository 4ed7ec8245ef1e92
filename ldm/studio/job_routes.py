"""The API of insertions, jobs and results."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from fastapi import APIRouter, Depends, Header, Request, Response
from fastapi.responses import FileResponse, StreamingResponse
from pydantic import BaseModel, Field

from ldm.studio.imports import import_models, import_pictures
from ldm.studio.jobs import ENDED
from ldm.studio.object_files import object_files
from ldm.studio.responses import KEPT, NOT_KEPT, proxy, tile_of

if TYPE_CHECKING:
    from ldm.studio.studio import Studio

POLL = 0.2  # seconds between looks at a job, for its event stream
PICTURES, MODELS = [Depends(import_pictures)], [Depends(import_models)]
Tab = Annotated[str, Header(alias="x-tab", max_length=64)]  # each browser tab gets its turn


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


def insert_routes(studio: Studio) -> APIRouter:
    """Insertions, and the object files that can be inserted."""
    api = APIRouter(tags=["insert"])

    @api.get("/learnt", dependencies=PICTURES)
    def learnt() -> list[dict[str, Any]]:
        """All object files, newest first."""
        return object_files(studio.workspace)

    @api.post("/plan", dependencies=MODELS)
    def plan(body: Planned) -> dict[str, Any]:
        """The regions that the model will see, warnings, and the command line that does the same."""
        return studio.plan(body.model_dump())

    @api.post("/insert", dependencies=MODELS)
    def insert(body: Planned, tab: Tab = "") -> dict[str, Any]:
        return studio.insert(body.model_dump(), tab).public()

    return api


def job_routes(studio: Studio) -> APIRouter:
    """Jobs."""
    api, book = APIRouter(prefix="/jobs", tags=["jobs"]), studio.jobs

    @api.get("")
    def every() -> list[dict[str, Any]]:
        """All jobs, newest first."""
        return [job.public() for job in book.all()]

    @api.get("/{own}")
    def one(own: str) -> dict[str, Any]:
        return book.get(own).public()

    @api.post("/{own}/cancel")
    def cancel(own: str) -> dict[str, Any]:
        return book.ask(own, "cancelled").public()

    @api.post("/{own}/pause")
    def pause(own: str) -> dict[str, Any]:
        return book.ask(own, "paused").public()

    @api.post("/{own}/resume")
    def resume(own: str) -> dict[str, Any]:
        return book.ask(own, "queued").public()

    @api.get("/{own}/previews/{name}")
    def preview(own: str, name: str) -> Response:
        found = studio.preview(own, name)
        if isinstance(found, Path):
            return FileResponse(found, headers=KEPT)
        return Response(found, media_type="image/jpeg", headers=KEPT)

    @api.get("/{own}/events")
    async def events(own: str, request: Request) -> StreamingResponse:
        """The job as a stream of events, until it has ended."""
        book.get(own)

        async def stream() -> AsyncIterator[str]:
            sent = None
            while not (await request.is_disconnected() or studio.worker.ending.is_set()):
                job = book.get(own)
                if job != sent:
                    yield f"data: {json.dumps(job.public())}\n\n"
                    sent = job
                if job.state in ENDED:
                    return
                await asyncio.sleep(POLL)

        return StreamingResponse(stream(), media_type="text/event-stream", headers=NOT_KEPT)

    return api


def result_routes(studio: Studio) -> APIRouter:
    """Results."""
    api, found = (
        APIRouter(prefix="/results", tags=["results"], dependencies=PICTURES),
        studio.results,
    )

    @api.get("")
    def every() -> list[dict[str, Any]]:
        """All results, newest first."""
        return found.all()

    @api.get("/{own}")
    def one(own: str) -> dict[str, Any]:
        return found.public(found.get(own))

    @api.get("/{own}/image")
    def image(own: str, max: int = 2048) -> FileResponse:
        result = found.get(own)
        return proxy(studio.proxies, result.file, max, result.key)

    @api.get("/{own}/tile")
    def tile(own: str, x: int, y: int, w: int, h: int, max: int = 1024) -> Response:
        """A crop of the full result, as PNG."""
        result = found.get(own)
        return tile_of(studio.proxies, result.file, result.key, (x, y, x + w, y + h), max)

    @api.get("/{own}/file")
    def file(own: str) -> FileResponse:
        """The full file, with its recipe in it."""
        path = found.get(own).file
        return FileResponse(path, filename=path.name)

    @api.get("/{own}/recipe")
    def recipe(own: str) -> dict[str, Any]:
        return found.recipe(found.get(own))

    @api.get("/{own}/mask")
    def mask(own: str, index: int | None = None) -> Response:
        """All its masks in one picture, or that of placement `index`."""
        return Response(found.mask(found.get(own), index), media_type="image/png", headers=KEPT)

    @api.get("/{own}/before")
    def before(own: str, max: int = 2048) -> FileResponse:
        """The background."""
        file, key = found.before(found.get(own))
        return proxy(studio.proxies, file, max, key)

    @api.post("/{own}/replay")
    def replay(own: str, tab: Tab = "") -> dict[str, Any]:
        """Make it again, and compare the pixels."""
        return studio.replay(own, tab).public()

    return api
