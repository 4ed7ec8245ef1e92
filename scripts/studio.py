"""Serve the studio: prepare objects, draw masks, insert and compare in a browser on this machine."""

from __future__ import annotations

import atexit
import os
import secrets
import socket
import sys
from argparse import Namespace
from collections.abc import Sequence
from types import FrameType
from typing import TYPE_CHECKING

from ldm.config.process import INTERRUPTED, run, starting

with starting():
    from ldm.config.cli import OneLineParser
    from ldm.config.loader import ROOT, rooted
    from ldm.data.files import check_folder, locked_folder, path_of

if TYPE_CHECKING:
    from fastapi import FastAPI

    from ldm.studio.studio import Studio

EXTRA = "the studio needs the packages of the extra `studio`: pip install -e '.[studio]'"


def arguments(argv: Sequence[str] | None) -> Namespace:
    """The command line."""
    parser = OneLineParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--config", type=path_of, default=rooted("configs/mini.yaml", ROOT), metavar="YAML",
                        help="settings file of the base to serve [configs/mini.yaml]")  # fmt: skip
    parser.add_argument("--folder", type=path_of, default=rooted("outputs/studio", ROOT), metavar="FOLDER",
                        help="folder for objects, backgrounds, runs, results [outputs/studio]")  # fmt: skip
    parser.add_argument("--host", default="127.0.0.1", metavar="ADDRESS",
                        help="address; any but a loopback address needs a token [127.0.0.1]")  # fmt: skip
    parser.add_argument("--port", type=int, default=7860, metavar="N", help="port [7860]")
    parser.add_argument("--token", default="", metavar="TEXT",
                        help="secret of all requests [made if one is needed]")  # fmt: skip
    parser.add_argument("--max_upload_mb", type=int, default=1024, metavar="N",
                        help="largest upload in MB [1024]")  # fmt: skip
    parser.add_argument("--device", metavar="NAME", help="cpu or cuda [cuda if there is one]")
    return parser.parse_args(argv)


def listening(host: str, port: int) -> socket.socket:
    """A listening socket; ValueError if the port is taken or the address is not of this machine."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    found = socket.socket(family)
    found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        found.bind((host, port))
        found.listen()
    except (OSError, OverflowError) as error:
        found.close()
        raise ValueError(
            f"--host {host} --port {port}: {error}; give another one, like --port 7861"
        ) from None
    return found


def serve(app: FastAPI, own: socket.socket) -> None:
    """Answer requests until Ctrl-C. A second one is ignored while the workers end, which takes seconds."""
    import uvicorn

    class Server(uvicorn.Server):
        def handle_exit(self, sig: int, frame: FrameType | None) -> None:
            if not self.should_exit:
                super().handle_exit(sig, frame)

    options = uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=1)
    Server(options).run(sockets=[own])


def leave(studio: Studio) -> None:
    """End the process at once if a thread still works: the interpreter's end may abort it, in C++ code."""
    if studio.is_working():
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(INTERRUPTED)


def main(argv: Sequence[str] | None = None) -> None:
    args = arguments(argv)
    try:
        from ldm.studio.access import LOOPBACK, Policy
        from ldm.studio.app import create_app
        from ldm.studio.workspace import Workspace
    except ModuleNotFoundError as error:
        if error.name and error.name.partition(".")[0] in ("fastapi", "uvicorn", "starlette", "pydantic"):
            raise ModuleNotFoundError(EXTRA) from None
        raise
    folder = args.folder
    check_folder(folder, f"--folder {folder}")
    token = args.token or ("" if args.host in LOOPBACK else secrets.token_urlsafe(18))
    with listening(args.host, args.port) as own, locked_folder(folder, "give another --folder"):
        policy = Policy(args.host, own.getsockname()[1], token, args.max_upload_mb << 20)
        app = create_app(Workspace(folder, args.config), policy, args.device)
        atexit.register(leave, app.state.studio)
        print(f"studio: {policy.address}{f'?token={token}' if token else ''} (Ctrl-C ends it)", flush=True)
        serve(app, own)


if __name__ == "__main__":
    run(main)
