"""Pictures as answers, and masks as bodies of requests."""

from __future__ import annotations

from pathlib import Path

from fastapi import Request, Response
from fastapi.responses import FileResponse

from ldm.data.files import file_digest
from ldm.studio.proxies import Proxies

LARGEST_MASK = 64 << 20  # bytes of a mask's PNG
KEPT = {"cache-control": "private, max-age=3600"}  # of pictures whose address changes with them
CHECKED = {"cache-control": "no-cache"}  # kept, and asked for again
NOT_KEPT = {"cache-control": "no-store"}


def proxy(proxies: Proxies, file: Path, longest: int, key: str = "", kept: bool = True) -> FileResponse:
    """A JPEG of a picture, about `longest` pixels on its longer side; `key`: of its content, if known."""
    headers = KEPT if kept else CHECKED
    return FileResponse(proxies.proxy(file, key or file_digest(file), longest), headers=headers)


def tile_of(proxies: Proxies, file: Path, key: str, box: tuple[int, int, int, int], longest: int) -> Response:
    """A crop of a picture file as PNG."""
    data = proxies.tile(file, key, box, longest)
    return Response(data, media_type="image/png", headers=KEPT)


def fresh(file: Path) -> FileResponse:
    """A file that may change."""
    return FileResponse(file, headers=CHECKED)


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
