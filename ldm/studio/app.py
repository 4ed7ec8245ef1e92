"""The studio's web application: pages, API, and the workers behind them."""

from __future__ import annotations

import warnings
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from html import escape
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, HTMLResponse, JSONResponse
from fastapi.staticfiles import StaticFiles
from PIL import Image
from starlette.exceptions import HTTPException

from ldm import __version__
from ldm.studio.access import Access, Policy
from ldm.studio.routes import add_routes
from ldm.studio.studio import Studio
from ldm.studio.workspace import Workspace

PAGES = Path(__file__).parent / "pages"
PATIENCE = 2.0  # seconds that a worker has to end


def create_app(workspace: Workspace, policy: Policy | None = None, device: str | None = None) -> FastAPI:
    """The application; its workers run while it is served. `device`: cpu, cuda, or None for the best."""
    policy = policy or Policy()
    studio = Studio(workspace, policy, device)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        studio.start()
        yield
        studio.stop(PATIENCE)

    app = FastAPI(
        title="Studio", version=__version__, lifespan=lifespan,
        openapi_url="/api/openapi.json", docs_url=None, redoc_url=None,
    )  # fmt: skip
    warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)  # uploads are limited anyway
    app.state.studio = studio
    app.add_middleware(Access, policy=policy)
    _add_errors(app)
    add_routes(app)

    @app.get("/", include_in_schema=False)
    def index() -> FileResponse:
        return FileResponse(PAGES / "index.html")

    @app.get("/api", include_in_schema=False)
    def api() -> HTMLResponse:
        return HTMLResponse(api_page(app.openapi()))

    app.mount("/", StaticFiles(directory=PAGES, check_dir=False), name="pages")
    return app


def _add_errors(app: FastAPI) -> None:
    """A user's mistake as {"error": one line} with a status of 4xx."""

    def answer(status: int, text: str) -> JSONResponse:
        return JSONResponse({"error": " ".join(text.split())}, status)

    @app.exception_handler(ValueError)
    def refused(request: Request, error: ValueError) -> JSONResponse:
        return answer(400, str(error))

    @app.exception_handler(FileNotFoundError)
    def missing(request: Request, error: FileNotFoundError) -> JSONResponse:
        return answer(404, str(error))

    @app.exception_handler(RequestValidationError)
    def malformed(request: Request, error: RequestValidationError) -> JSONResponse:
        return answer(422, "; ".join(_fault(fault) for fault in error.errors()))

    @app.exception_handler(HTTPException)
    def other(request: Request, error: HTTPException) -> JSONResponse:
        return answer(error.status_code, str(error.detail))


def _fault(fault: Mapping[str, Any]) -> str:
    return f"{'.'.join(str(part) for part in fault['loc'][1:])}: {fault['msg']}"


def api_page(openapi: Mapping[str, Any]) -> str:
    """The API as a page without scripts: every route and what it does."""
    rows = []
    for path, methods in openapi["paths"].items():
        for method, route in methods.items():
            about = route.get("description") or route["summary"].capitalize()
            cells = (method.upper(), path, " ".join(about.split()))
            rows.append("".join(f"<td>{escape(cell)}</td>" for cell in cells))
    table = "\n".join(f"<tr>{row}</tr>" for row in rows)
    head = "<tr><th>method<th>address<th>what it does</tr>"
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8"><title>Studio API</title>'
        '<link rel="stylesheet" href="/style.css"><main class="page"><h1>Studio API</h1>'
        '<p>With the fields of each body: <a href="/api/openapi.json">/api/openapi.json</a></p>'
        f"<table>{head}{table}</table></main></html>"
    )
