"""Serves the page to a browser on this machine, and what is new in the traces while it is open.

Prompts are private: the address has a secret that other users of the machine do not know, and
requests that some other page makes under a name of its own are refused.
"""

from __future__ import annotations

import secrets
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from helium_agents.errors import HeliumError
from helium_agents.viewer.page import compressed, page
from helium_agents.viewer.runs import ViewedRuns

_HOST = "127.0.0.1"


class ViewerServer(ThreadingHTTPServer):
    """The server; `serve_forever` serves, `shutdown` from another thread ends it.

    Args:
        runs: What it shows.
        port: Where; 0 for one that is free.

    Raises:
        OSError: The port is taken.
    """

    daemon_threads = True

    def __init__(self, runs: ViewedRuns, port: int = 0) -> None:
        super().__init__((_HOST, port), _Handler)
        self.runs = runs
        self.secret = secrets.token_urlsafe(16)

    @property
    def url(self) -> str:
        """The page's address."""
        return f"http://{_HOST}:{self.server_port}/{self.secret}/"


class _Handler(BaseHTTPRequestHandler):
    server: ViewerServer

    def do_GET(self) -> None:
        host = self.headers.get("Host", "")
        names = {f"{name}:{self.server.server_port}" for name in (_HOST, "localhost")}
        prefix = f"/{self.server.secret}/"
        if host not in names or not self.path.startswith(prefix):
            self._answer(HTTPStatus.NOT_FOUND, "text/plain", b"not here")
            return
        name = self.path.removeprefix(prefix)
        if not name:
            self._answer(HTTPStatus.OK, "text/html; charset=utf-8", page().encode())
            return
        try:
            self._answer_data(name)
        except KeyError:
            self._answer(HTTPStatus.NOT_FOUND, "text/plain", b"not here")
        except HeliumError as error:
            text = str(error).encode()
            self._answer(HTTPStatus.CONFLICT, "text/plain; charset=utf-8", text)

    def _answer_data(self, name: str) -> None:
        tag = f'"{self.server.runs.tag(name)}"'
        if self.headers.get("If-None-Match") == tag:
            self._answer(HTTPStatus.NOT_MODIFIED, "application/json", b"", tag)
            return
        body = compressed(self.server.runs.get(name))
        self._answer(HTTPStatus.OK, "application/json", body, tag, "gzip")

    def _answer(
        self, status: HTTPStatus, kind: str, body: bytes, tag: str = "", encoding: str = ""
    ) -> None:
        self.send_response(status)
        headers = {
            "Content-Type": kind,
            "Content-Length": str(len(body)),
            "Content-Encoding": encoding,
            "ETag": tag,
            "Cache-Control": "no-store",
            "Referrer-Policy": "no-referrer",
            "X-Content-Type-Options": "nosniff",
        }
        for header, value in headers.items():
            if value:
                self.send_header(header, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing: the terminal is the command's."""
