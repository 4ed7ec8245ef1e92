"""A sheet to look at: each photo of an object folder with its box, silhouette, name and warnings."""

from __future__ import annotations

import textwrap

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from ldm.compositing.cut_out import scaled_down
from ldm.data.boxes import Box
from ldm.data.picture import OPAQUE, Picture
from ldm.prepare.object_folder import PreparedObject, PreparedPhoto
from ldm.prepare.photo_files import annotated

TILE, MARGIN, COLUMNS = 320, 10, 4  # pixels, pixels, tiles
LINE, LETTERS = 16, 48  # pixels; letters a line
FONT = 12
PAPER, INK, DOUBT = (255, 255, 255), (40, 40, 40), (190, 30, 30)
BOX, EDGE, REFERENCE = (255, 210, 0), (0, 230, 120), (0, 120, 255)
GROUND = 0.45  # of its brightness: what is not the object is darkened


def draw_sheet(prepared: PreparedObject) -> Picture:
    """The photos in rows: ground darkened, box yellow, silhouette green; the reference framed in blue."""
    texts = [_lines(photo, photo.name == prepared.reference) for photo in prepared.photos]
    columns = min(COLUMNS, max(len(texts), 1))
    rows = [texts[i : i + columns] for i in range(0, len(texts), columns)]
    heights = [TILE + 2 * MARGIN + LINE * max(map(len, row)) for row in rows]
    foot = [line for warning in prepared.warnings for line in textwrap.wrap(warning, LETTERS * columns)]
    size = columns * (TILE + MARGIN) + MARGIN, sum(heights) + LINE * len(foot) + 2 * MARGIN
    sheet = Image.new("RGB", size, PAPER)
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(FONT)
    for i, (photo, lines) in enumerate(zip(prepared.photos, texts, strict=True)):
        left = MARGIN + i % columns * (TILE + MARGIN)
        top = MARGIN + sum(heights[: i // columns])
        tile = Image.fromarray(drawn(*annotated(prepared.root, photo.image)))
        x, y = left + (TILE - tile.width) // 2, top + (TILE - tile.height) // 2
        sheet.paste(tile, (x, y))
        if photo.name == prepared.reference:
            frame = (x - 4, y - 4, x + tile.width + 3, y + tile.height + 3)
            draw.rectangle(frame, outline=REFERENCE, width=4)
        for n, line in enumerate(lines):
            draw.text((left, top + TILE + 4 + n * LINE), line, DOUBT if n else INK, font)
    for n, line in enumerate(foot):
        draw.text((MARGIN, sum(heights) + MARGIN + n * LINE), line, DOUBT, font)
    return Picture(np.asarray(sheet))


def drawn(image: np.ndarray, box: Box, silhouette: np.ndarray) -> np.ndarray:
    """A photo uint8 [H,W,3], at most TILE px, with its box and silhouette uint8 [H,W] drawn."""
    factor = min(1.0, TILE / max(image.shape[:2]))
    tile, inside = scaled_down(image, factor), scaled_down(silhouette, factor) > OPAQUE
    tile = np.where(inside[..., None], tile, (tile * GROUND).astype(np.uint8))
    edges, _ = cv2.findContours(inside.astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    cv2.drawContours(tile, edges, -1, EDGE, 1)
    x0, y0, x1, y1 = (round(value * factor) for value in box)
    return cv2.rectangle(tile, (x0, y0), (x1 - 1, y1 - 1), BOX, 1)


def _lines(photo: PreparedPhoto, reference: bool) -> list[str]:
    """The photo's name and where its box comes from; then its warnings."""
    origin = f"{photo.source}{', corrected' if photo.corrected else ''}"
    first = f"{photo.image.name}: {origin}{', reference' if reference else ''}"
    return [first, *(line for warning in photo.warnings for line in textwrap.wrap(warning, LETTERS))]
