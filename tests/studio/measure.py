"""Measures what docs/studio.md says of time and memory: `python -m tests.studio.measure`.

A studio with the included base in an empty folder, used with chromium: the first page, a stroke of the brush
on 24 megapixels, a background of 100 megapixels, an insertion into it. Memory: of the server, at most.
"""

from __future__ import annotations

import re
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from tests.fixtures.browser import ROOT, Server, browser, browsing, serving
from tests.studio.test_pages import Editor, chosen_option, photo

STROKE, LARGE = (6000, 4000), (11600, 8700)  # pixels, width and height


def memory(server: Server) -> int:
    """The largest memory of the server so far, MB."""
    assert server.process is not None
    status = Path(f"/proc/{server.process.pid}/status").read_text()
    return int(re.search(r"VmHWM:\s*(\d+) kB", status)[1]) // 1024  # type: ignore[index]


def said(server: Server, what: str, seconds: float) -> None:
    print(f"{what}: {seconds:.2f} s, {memory(server)} MB", flush=True)


def stroke(server: Server, context: Any, folder: Path) -> None:
    """A brush of 600 pixels on 24 megapixels."""
    editor = Editor(server, context.new_page()).drop(photo(folder, "24.jpg", STROKE))
    editor.brush(600)
    with editor.saving():
        editor.drag(*((1000 + 400 * i, 2000 + 500 * (i % 3)) for i in range(10)), size=STROKE)
    spent = editor.page.evaluate("performance.getEntriesByName('stroke').map((one) => one.duration)")
    middle, high = np.percentile(spent, (50, 95))
    print(f"brush, events of a frame: median {middle:.1f} ms, 95 % below {high:.1f} ms, {len(spent)} frames")


def insertion(server: Server, context: Any, folder: Path) -> None:
    """A background of 100 megapixels: in the page, its mask and plan, an insertion."""
    file, page = photo(folder, "100.jpg", LARGE), context.new_page()
    begun = time.monotonic()
    editor = Editor(server, page).drop(file)
    said(server, "background of 100 megapixels in the page", time.monotonic() - begun)
    chosen_option(page, "Object", "rocket_bee")
    begun = time.monotonic()
    editor.drag((5500, 4000), (6100, 4600), size=LARGE)
    page.locator(".marks .region").wait_for()
    said(server, "mask stored, region known", time.monotonic() - begun)
    begun = time.monotonic()
    page.get_by_role("button", name="Insert", exact=True).click()
    page.locator(".previews img").first.wait_for(timeout=600_000)
    said(server, "click to the first preview", time.monotonic() - begun)
    page.locator(".grid .card").wait_for(timeout=600_000)
    said(server, "click to the result", time.monotonic() - begun)
    begun = time.monotonic()
    page.locator(".grid img").evaluate("(image) => image.decode()")
    said(server, "its picture", time.monotonic() - begun)


def main() -> None:
    (ROOT / "outputs").mkdir(exist_ok=True)
    with TemporaryDirectory(dir=ROOT / "outputs") as name, browser() as started:
        folder = Path(name)
        (folder / "studio").mkdir()
        begun = time.monotonic()
        with serving(folder / "studio", "--device", "cpu") as server, browsing(started) as context:
            page = context.new_page()
            page.goto(server.url)
            page.get_by_text("Teach the model an object").wait_for()
            said(server, "start to the first usable page", time.monotonic() - begun)
            opened = page.request.post(
                f"{server.url}/api/objects/open", data={"folder": "examples/objects/rocket_bee"}
            )
            assert opened.ok, opened.text()
            stroke(server, context, folder)
            insertion(server, context, folder)


if __name__ == "__main__":
    main()
