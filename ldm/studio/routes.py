"""The API of the studio: each route checks its request and calls a function that knows nothing of HTTP."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Annotated, Any

from fastapi import APIRouter, FastAPI, Header, Request, Response, UploadFile
from fastapi.responses import FileResponse, StreamingResponse

from ldm.studio.jobs import ENDED

if TYPE_CHECKING:
    from ldm.studio.app import Studio

POLL = 0.2  # seconds between looks at a job, for its event stream
Tab = Annotated[str, Header(alias="x-tab", max_length=64)]


def add_routes(app: FastAPI, studio: Studio) -> None:
    """Add all routes below /api."""
    for router in (background_routes(studio), job_routes(studio)):
        app.include_router(router, prefix="/api")

    @app.get("/api/info")
    def info() -> dict[str, Any]:
        """The base, the settings and the limits."""
        return studio.info()


def background_routes(studio: Studio) -> APIRouter:
    """Backgrounds and masks."""
    api, found = APIRouter(prefix="/backgrounds", tags=["backgrounds"]), studio.backgrounds

    @api.get("")
    def every() -> list[dict[str, Any]]:
        return found.all()

    @api.post("")
    def add(file: UploadFile) -> dict[str, Any]:
        """Store a picture, byte for byte."""
        return found.add(file.filename or "", file.file)

    @api.get("/{own}")
    def one(own: str) -> dict[str, Any]:
        return found.get(own)

    @api.delete("/{own}")
    def remove(own: str) -> list[dict[str, Any]]:
        found.remove(own)
        return found.all()

    @api.get("/{own}/image")
    def image(own: str, max: int = 2048) -> FileResponse:
        """A JPEG of about `max` pixels on its longer side."""
        file, key = found.file(own)
        return _picture(FileResponse(studio.proxies.proxy(file, key, max)))

    @api.get("/{own}/tile")
    def tile(own: str, x: int, y: int, w: int, h: int, max: int = 1024) -> Response:
        """A crop of the full picture as PNG."""
        file, key = found.file(own)
        return _picture(
            Response(studio.proxies.tile(file, key, (x, y, x + w, y + h), max), media_type="image/png")
        )

    @api.get("/{own}/original")
    def original(own: str) -> FileResponse:
        """The file as it was uploaded."""
        return FileResponse(found.file(own)[0])

    @api.put("/{own}/masks/{mask}")
    async def put_mask(own: str, mask: str, request: Request) -> dict[str, Any]:
        """Store a mask: a grey PNG of the background's size, white where the object goes."""
        data = await request.body()
        return await asyncio.to_thread(found.put_mask, own, mask, data)

    @api.get("/{own}/masks/{mask}")
    def get_mask(own: str, mask: str) -> FileResponse:
        return FileResponse(found.mask_file(own, mask), headers={"cache-control": "no-cache"})

    @api.delete("/{own}/masks/{mask}")
    def remove_mask(own: str, mask: str) -> dict[str, Any]:
        found.remove_mask(own, mask)
        return found.get(own)

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

    @api.get("/{own}/events")
    async def events(own: str, request: Request) -> StreamingResponse:
        """The job as a stream of events, until it has ended."""
        book.get(own)

        async def stream() -> AsyncIterator[str]:
            sent = None
            while not await request.is_disconnected():
                job = book.get(own)
                if job != sent:
                    yield f"data: {json.dumps(job.public())}\n\n"
                    sent = job
                if job.state in ENDED:
                    return
                await asyncio.sleep(POLL)

        headers = {"cache-control": "no-store", "x-accel-buffering": "no"}
        return StreamingResponse(stream(), media_type="text/event-stream", headers=headers)

    return api


def _picture(response: Response) -> Any:
    """A picture that does not change as long as its address does not."""
    response.headers["cache-control"] = "private, max-age=3600"
    return response
