"""A hub on this machine: what its client asks of huggingface.co while it downloads, answered from folders."""

import hashlib
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from urllib.parse import urlsplit

import pytest
from huggingface_hub import constants

from tests.support.hub_cache import COMMIT

_API = re.compile(r"/api/models/(?P<model>[^/]+/[^/]+)/(?P<what>revision|tree)/(?P<revision>[^/]+)")
_FILE = re.compile(r"/(?P<model>[^/]+/[^/]+)/resolve/[^/]+/(?P<path>.+)")


class HubServer(ThreadingHTTPServer):
    """`models` are folders by hub id, each with one commit; `sent_files` are the files that were asked for."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.models: dict[str, Path] = {}
        self.sent_files: list[str] = []
        self.truncated_file: str | None = None  # a file of which only the first half comes

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    server: HubServer

    def do_GET(self) -> None:
        path = urlsplit(self.path).path
        if (match := _API.fullmatch(path)) and (folder := self.server.models.get(match["model"])):
            self._answer(json.dumps(self._describe(match, folder)).encode())
        elif (match := _FILE.fullmatch(path)) and (folder := self.server.models.get(match["model"])):
            self._send(folder / match["path"], match["path"])
        else:
            self._answer(b"{}", 404, {"X-Error-Code": "RepoNotFound"})

    do_HEAD = do_GET

    def _describe(self, match: re.Match[str], folder: Path) -> object:
        if match["what"] == "revision":
            return {"id": match["model"], "sha": COMMIT, "siblings": []}
        files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
        return [
            {"type": "file", "path": str(path.relative_to(folder)), "size": path.stat().st_size, "oid": _digest(path)}
            for path in files
        ]

    def _send(self, path: Path, name: str) -> None:
        content, headers = path.read_bytes(), {"ETag": f'"{_digest(path)}"', "X-Repo-Commit": COMMIT}
        if self.command == "GET":
            self.server.sent_files.append(name)
        self._answer(content, 200, headers, truncate=name == self.server.truncated_file)

    def _answer(
        self, body: bytes, status: int = 200, headers: dict[str, str] | None = None, truncate: bool = False
    ) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body[: len(body) // 2] if truncate else body)
        if truncate:
            self.close_connection = True

    def log_message(self, *_: object) -> None:
        pass


def _digest(path: Path) -> str:
    return hashlib.sha1(path.read_bytes(), usedforsecurity=False).hexdigest()


@contextmanager
def hub_server(monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    """The hub's client asks this one for the while."""
    with HubServer() as server:
        Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "ENDPOINT", server.address)
        template = server.address + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        yield server
        server.shutdown()
