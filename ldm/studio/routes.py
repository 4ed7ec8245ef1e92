"""The API: each route checks its request and calls a function that knows nothing of HTTP."""

from __future__ import annotations

import asyncio
from typing import Any

from fastapi import APIRouter, FastAPI, Request, Response, UploadFile
from fastapi.responses import FileResponse
from pydantic import BaseModel, Field

from ldm.studio.job_routes import (
    CHECKED,
    MODELS,
    NOT_KEPT,
    PICTURES,
    Served,
    Side,
    Tab,
    insertions,
    jobs,
    proxy,
    results,
    tile_of,
)
from ldm.studio.workspace import checked_name

Uploads = list[UploadFile]
LARGEST_MASK = 64 << 20  # bytes of a mask's PNG
objects = APIRouter(prefix="/objects", tags=["objects"], dependencies=PICTURES)
backgrounds = APIRouter(prefix="/backgrounds", tags=["backgrounds"])


class Named(BaseModel):
    """A new object."""

    name: str


class Opened(BaseModel):
    """An object folder, relative to the project or absolute."""

    folder: str


class Boxed(BaseModel):
    """A box x0 y0 x1 y1 in displayed pixels; `propose`: with a new silhouette in it."""

    box: tuple[float, float, float, float]
    propose: bool = False


class Chosen(BaseModel):
    """The photo that is the reference."""

    photo: str


class Learning(BaseModel):
    """Settings of learning, by key."""

    settings: dict[str, Any] = Field(default_factory=dict)


async def mask_of(request: Request) -> bytes:
    """The body of a request, as far as it can be a mask."""
    data = bytearray()
    async for part in request.stream():
        data += part
        if len(data) > LARGEST_MASK:
            raise ValueError(
                f"the mask has more than {LARGEST_MASK >> 20} MB; send a PNG of one grey channel"
            )
    return bytes(data)


@objects.get("")
def all_objects(studio: Served) -> list[dict[str, Any]]:
    return studio.objects.all()


@objects.post("")
def create_object(studio: Served, body: Named) -> dict[str, Any]:
    return studio.objects.create(checked_name(body.name))


@objects.post("/open")
def open_object(studio: Served, body: Opened) -> dict[str, Any]:
    """Open an object folder inside the project."""
    return studio.objects.open(body.folder)


@objects.get("/{name}")
def one_object(studio: Served, name: str) -> dict[str, Any]:
    return studio.objects.get(name)


@objects.delete("/{name}")
def remove_object(studio: Served, name: str) -> list[dict[str, Any]]:
    """Remove an object's folder; one that was opened elsewhere is only closed."""
    studio.remove_object(name)
    return studio.objects.all()


@objects.post("/{name}/photos")
def add_photos(studio: Served, name: str, files: Uploads) -> dict[str, Any]:
    """Store photos byte for byte, with a proposed box and silhouette each."""
    return studio.objects.add_photos(name, [(file.filename or "", file.file) for file in files])


@objects.get("/{name}/photos/{own}/image")
def photo_image(studio: Served, name: str, own: str, max: Side = 1600, original: int = 0) -> FileResponse:
    """A JPEG of about `max` pixels on its longer side, or the stored bytes."""
    file = studio.objects.photo(name, own)
    return FileResponse(file) if original else proxy(studio.proxies, file, max)


@objects.get("/{name}/photos/{own}/mask")
def photo_mask(studio: Served, name: str, own: str) -> FileResponse:
    return FileResponse(studio.objects.mask(name, own), headers=CHECKED)


@objects.put("/{name}/photos/{own}/mask")
async def put_photo_mask(studio: Served, name: str, own: str, request: Request) -> dict[str, Any]:
    """Store a silhouette: a grey PNG of the photo's displayed size, white where the object is."""
    return await asyncio.to_thread(studio.objects.put_mask, name, own, await mask_of(request))


@objects.put("/{name}/photos/{own}")
def put_photo_box(studio: Served, name: str, own: str, body: Boxed) -> dict[str, Any]:
    return studio.objects.put_box(name, own, body.box, body.propose)


@objects.delete("/{name}/photos/{own}")
def remove_photo(studio: Served, name: str, own: str) -> dict[str, Any]:
    return studio.remove_photo(name, own)


@objects.put("/{name}/reference")
def choose_reference(studio: Served, name: str, body: Chosen) -> dict[str, Any]:
    return studio.objects.choose_reference(name, body.photo)


@objects.post("/{name}/category")
def add_category(studio: Served, name: str, files: Uploads) -> dict[str, Any]:
    """Add pictures of other objects of the category."""
    return studio.objects.add_category(name, [(file.filename or "", file.file) for file in files])


@objects.get("/{name}/category/{file}")
def category_image(studio: Served, name: str, file: str, max: Side = 512) -> FileResponse:
    return proxy(studio.proxies, studio.objects.category_file(name, file), max)


@objects.delete("/{name}/category/{file}")
def remove_category(studio: Served, name: str, file: str) -> dict[str, Any]:
    return studio.remove_category(name, file)


@objects.get("/{name}/thumb")
def object_thumb(studio: Served, name: str, max: Side = 256) -> FileResponse:
    return proxy(studio.proxies, studio.objects.thumb(name), max, kept=False)


@objects.get("/{name}/shown", dependencies=MODELS)
def shown_object(studio: Served, name: str) -> Response:
    """What the model is shown: the reference, then each photo's crop, side by side."""
    return Response(studio.objects.shown(name), media_type="image/png", headers=NOT_KEPT)


@objects.post("/{name}/learn")
def learn_object(studio: Served, name: str, body: Learning, tab: Tab = "") -> dict[str, Any]:
    return studio.learn(name, body.settings, tab).public()


@backgrounds.get("")
def all_backgrounds(studio: Served) -> list[dict[str, Any]]:
    return studio.backgrounds.all()


@backgrounds.post("", dependencies=PICTURES)
def add_background(studio: Served, file: UploadFile) -> dict[str, Any]:
    """Store a picture, byte for byte."""
    return studio.backgrounds.add(file.filename or "", file.file)


@backgrounds.get("/{own}")
def one_background(studio: Served, own: str) -> dict[str, Any]:
    return studio.backgrounds.get(own)


@backgrounds.delete("/{own}")
def remove_background(studio: Served, own: str) -> list[dict[str, Any]]:
    studio.remove_background(own)
    return studio.backgrounds.all()


@backgrounds.get("/{own}/image", dependencies=PICTURES)
def background_image(studio: Served, own: str, max: Side = 2048) -> FileResponse:
    """A JPEG of about `max` pixels on its longer side."""
    file, key = studio.backgrounds.file(own)
    return proxy(studio.proxies, file, max, key)


@backgrounds.get("/{own}/tile", dependencies=PICTURES)
def background_tile(studio: Served, own: str, x: int, y: int, w: int, h: int, max: Side = 1024) -> Response:
    """A crop of the full picture, as PNG of at most `max` pixels a side."""
    return tile_of(studio.proxies, *studio.backgrounds.file(own), (x, y, x + w, y + h), max)


@backgrounds.get("/{own}/original")
def original_background(studio: Served, own: str) -> FileResponse:
    """The file as it was uploaded."""
    return FileResponse(studio.backgrounds.file(own)[0])


@backgrounds.put("/{own}/masks/{mask}")
async def put_background_mask(studio: Served, own: str, mask: str, request: Request) -> dict[str, Any]:
    """Store a mask: a grey PNG of the background's size, white where the object goes."""
    return await asyncio.to_thread(studio.backgrounds.put_mask, own, mask, await mask_of(request))


@backgrounds.get("/{own}/masks/{mask}")
def background_mask(studio: Served, own: str, mask: str) -> FileResponse:
    return FileResponse(studio.backgrounds.mask_file(own, mask), headers=CHECKED)


def add_routes(app: FastAPI) -> None:
    """Add all routes below /api."""
    for router in (objects, backgrounds, insertions, jobs, results):
        app.include_router(router, prefix="/api")

    @app.get("/api/info", tags=["info"])
    def info(studio: Served) -> dict[str, Any]:
        """The base, the settings and the limits."""
        return studio.info()
