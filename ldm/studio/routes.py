"""The API: each route checks its request and calls a function that knows nothing of HTTP."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from fastapi import APIRouter, FastAPI, Request, Response, UploadFile
from fastapi.responses import FileResponse
from pydantic import BaseModel, Field

from ldm.studio.job_routes import MODELS, PICTURES, Tab, insert_routes, job_routes, result_routes
from ldm.studio.responses import NOT_KEPT, fresh, mask_of, proxy, tile_of
from ldm.studio.workspace import checked_name

if TYPE_CHECKING:
    from ldm.studio.studio import Studio

Uploads = list[UploadFile]


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


def add_routes(app: FastAPI, studio: Studio) -> None:
    """Add all routes below /api."""
    for made in (object_routes, background_routes, insert_routes, job_routes, result_routes):
        app.include_router(made(studio), prefix="/api")

    @app.get("/api/info", tags=["info"])
    def info() -> dict[str, Any]:
        """The base, the settings and the limits."""
        return studio.info()


def object_routes(studio: Studio) -> APIRouter:
    """Objects: photos, boxes, silhouettes, learning."""
    api, found = APIRouter(prefix="/objects", tags=["objects"], dependencies=PICTURES), studio.objects

    @api.get("")
    def every() -> list[dict[str, Any]]:
        return found.all()

    @api.post("")
    def create(body: Named) -> dict[str, Any]:
        return found.create(checked_name(body.name))

    @api.post("/open")
    def open_folder(body: Opened) -> dict[str, Any]:
        """Open an InsertSet folder inside the project."""
        return found.open(body.folder)

    @api.get("/{name}")
    def one(name: str) -> dict[str, Any]:
        return found.get(name)

    @api.delete("/{name}")
    def remove(name: str) -> list[dict[str, Any]]:
        """Remove an object's folder; one that was opened elsewhere is only closed."""
        found.remove(name)
        return found.all()

    @api.post("/{name}/photos")
    def add_photos(name: str, files: Uploads) -> dict[str, Any]:
        """Store photos byte for byte, with a proposed box and silhouette each."""
        return found.add_photos(name, [(file.filename or "", file.file) for file in files])

    @api.get("/{name}/photos/{own}/image")
    def image(name: str, own: str, max: int = 1600, original: int = 0) -> FileResponse:
        """A JPEG of about `max` pixels on its longer side, or the stored bytes."""
        file = found.photo(name, own)
        return FileResponse(file) if original else proxy(studio.proxies, file, max)

    @api.get("/{name}/photos/{own}/mask")
    def mask(name: str, own: str) -> FileResponse:
        return fresh(found.mask(name, own))

    @api.put("/{name}/photos/{own}/mask")
    async def put_mask(name: str, own: str, request: Request) -> dict[str, Any]:
        """Store a silhouette: a grey PNG of the photo's displayed size, white where the object is."""
        return await asyncio.to_thread(found.put_mask, name, own, await mask_of(request))

    @api.put("/{name}/photos/{own}")
    def put_box(name: str, own: str, body: Boxed) -> dict[str, Any]:
        return found.put_box(name, own, body.box, body.propose)

    @api.delete("/{name}/photos/{own}")
    def remove_photo(name: str, own: str) -> dict[str, Any]:
        return found.remove_photo(name, own)

    @api.put("/{name}/reference")
    def reference(name: str, body: Chosen) -> dict[str, Any]:
        return found.choose_reference(name, body.photo)

    @api.post("/{name}/category")
    def add_category(name: str, files: Uploads) -> dict[str, Any]:
        """Add pictures of other objects of the category."""
        return found.add_category(name, [(file.filename or "", file.file) for file in files])

    @api.get("/{name}/category/{file}")
    def category(name: str, file: str, max: int = 512) -> FileResponse:
        return proxy(studio.proxies, found.category_file(name, file), max)

    @api.delete("/{name}/category/{file}")
    def remove_category(name: str, file: str) -> dict[str, Any]:
        return found.remove_category(name, file)

    @api.get("/{name}/thumb")
    def thumb(name: str, max: int = 256) -> FileResponse:
        return proxy(studio.proxies, found.thumb(name), max, kept=False)

    @api.get("/{name}/shown", dependencies=MODELS)
    def shown(name: str) -> Response:
        """What the model is shown: the reference, then each photo's crop, side by side."""
        return Response(found.shown(name), media_type="image/png", headers=NOT_KEPT)

    @api.post("/{name}/learn")
    def learn(name: str, body: Learning, tab: Tab = "") -> dict[str, Any]:
        return studio.learn(name, body.settings, tab).public()

    return api


def background_routes(studio: Studio) -> APIRouter:
    """Backgrounds and masks."""
    api, found = APIRouter(prefix="/backgrounds", tags=["backgrounds"]), studio.backgrounds

    @api.get("")
    def every() -> list[dict[str, Any]]:
        return found.all()

    @api.post("", dependencies=PICTURES)
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

    @api.get("/{own}/image", dependencies=PICTURES)
    def image(own: str, max: int = 2048) -> FileResponse:
        """A JPEG of about `max` pixels on its longer side."""
        file, key = found.file(own)
        return proxy(studio.proxies, file, max, key)

    @api.get("/{own}/tile", dependencies=PICTURES)
    def tile(own: str, x: int, y: int, w: int, h: int, max: int = 1024) -> Response:
        """A crop of the full picture, as PNG of at most `max` pixels a side."""
        return tile_of(studio.proxies, *found.file(own), (x, y, x + w, y + h), max)

    @api.get("/{own}/original")
    def original(own: str) -> FileResponse:
        """The file as it was uploaded."""
        return FileResponse(found.file(own)[0])

    @api.put("/{own}/masks/{mask}")
    async def put_mask(own: str, mask: str, request: Request) -> dict[str, Any]:
        """Store a mask: a grey PNG of the background's size, white where the object goes."""
        return await asyncio.to_thread(found.put_mask, own, mask, await mask_of(request))

    @api.get("/{own}/masks/{mask}")
    def get_mask(own: str, mask: str) -> FileResponse:
        return fresh(found.mask_file(own, mask))

    @api.delete("/{own}/masks/{mask}")
    def remove_mask(own: str, mask: str) -> dict[str, Any]:
        found.remove_mask(own, mask)
        return found.get(own)

    return api
