"""A registry on loopback that misbehaves on demand: what Debian's docker-registry can't be made to do.

It serves images from memory over plain HTTP, keeps a record of what it was asked, and takes one fault after another from
the queue of the requests they are meant for.
"""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from .registries import OCI_INDEX, OCI_MANIFEST, MadeImage, sha256_of


@dataclass(frozen=True)
class Fault:
    """One wrong answer. ``status`` with ``headers`` and ``body``; or the right body, but: ``cut_at`` bytes of it and then the
    connection breaks; ``short_at`` bytes of it, declared as if that were all; ``corrupt`` in its middle; ``slow``, a byte now and
    then, for ever; ``no_ranges``, from its beginning whatever was asked; ``silent``: no answer at all.
    """

    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    cut_at: int | None = None
    short_at: int | None = None
    corrupt: bool = False
    slow: bool = False
    no_ranges: bool = False
    silent: bool = False


@dataclass(frozen=True)
class Asked:
    """One request as it came."""

    method: str
    path: str
    headers: dict[str, str]


class FaultRegistry:
    """``faults`` are by a part of the path (``/manifests/``, ``/blobs/``, a digest): the first queue that matches gives its next.

    ``login`` None: open. ``("basic", user, password)`` or ``("bearer", user, password)``: as registries ask for it; with an empty
    user the token server gives tokens to everybody.
    """

    def __init__(self) -> None:
        self.faults: dict[str, list[Fault]] = {}
        self.asked: list[Asked] = []
        self.login: tuple[str, str, str] | None = None
        self.token_answer: dict[str, Any] | None = None
        self.realm_host = ""
        self.refresh_token = ""
        self.tokens: set[str] = set()
        self.blobs: dict[str, bytes] = {}
        self.manifests: dict[str, tuple[str, bytes]] = {}
        self.closing = threading.Event()
        self.lock = threading.Lock()
        self.host = ""

    def add(self, name: str, image: MadeImage, tag: str = "latest") -> str:
        """Serves ``image``; its full name."""
        self.blobs |= image.blobs
        media_type = json.loads(image.manifest)["mediaType"]
        for target in (tag, image.digest):
            self.manifests[f"{name}:{target}"] = (media_type, image.manifest)
        return f"{self.host}/{name}:{tag}"

    def add_index(self, name: str, index: bytes, images: list[MadeImage], tag: str = "latest") -> str:
        for image in images:
            self.add(name, image, image.digest)
        for target in (tag, sha256_of(index)):
            self.manifests[f"{name}:{target}"] = (OCI_INDEX, index)
        return f"{self.host}/{name}:{tag}"

    def add_raw(self, name: str, raw: bytes, media_type: str = OCI_MANIFEST, tag: str = "latest") -> str:
        self.manifests[f"{name}:{tag}"] = (media_type, raw)
        return f"{self.host}/{name}:{tag}"

    def next_fault(self, path: str) -> Fault | None:
        with self.lock:
            for part, queue in self.faults.items():
                if part in path and queue:
                    return queue.pop(0)
        return None

    def paths(self, part: str) -> list[Asked]:
        """The requests whose path has ``part`` in it."""
        return [asked for asked in self.asked if part in asked.path]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    registry: FaultRegistry

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def do_POST(self) -> None:
        self._answer("POST")

    def do_GET(self) -> None:
        self._answer("GET")

    def _answer(self, method: str) -> None:
        registry = self.registry
        length = int(self.headers.get("content-length") or 0)
        form = self.rfile.read(length).decode()
        registry.asked.append(Asked(method, self.path, {k.lower(): v for k, v in self.headers.items()}))
        path = urlsplit(self.path).path
        if path == "/token":
            self._token(form)
            return
        fault = registry.next_fault(self.path)
        if fault is not None and fault.silent:
            registry.closing.wait()
            self.close_connection = True
            return
        if fault is not None and fault.status:
            self._send(fault.status, fault.body, fault.headers)
            return
        if path != "/v2/" and not self._logged_in():
            self._ask_for_login()
            return
        self._content(path, fault or Fault())

    def _content(self, path: str, fault: Fault) -> None:
        name, _, target = path.removeprefix("/v2/").rpartition("/")
        name, _, kind = name.rpartition("/")
        if path == "/v2/":
            self._send(200, b"{}", {"Content-Type": "application/json"})
        elif kind == "manifests" and (found := self.registry.manifests.get(f"{name}:{target}")):
            self._body(found[1], {"Content-Type": found[0]}, fault)
        elif kind == "blobs" and target in self.registry.blobs:
            self._body(self.registry.blobs[target], {"Content-Type": "application/octet-stream"}, fault)
        else:
            code = "MANIFEST_UNKNOWN" if kind == "manifests" else "BLOB_UNKNOWN"
            self._send(404, json.dumps({"errors": [{"code": code, "message": "not known here"}]}).encode(), {})

    def _body(self, content: bytes, headers: dict[str, str], fault: Fault) -> None:
        if fault.corrupt:
            middle = len(content) // 2
            content = content[:middle] + bytes([content[middle] ^ 0xFF]) + content[middle + 1 :]
        status, start = 200, 0
        asked = self.headers.get("range", "")
        if asked.startswith("bytes=") and not fault.no_ranges:
            start = int(asked[6:].partition("-")[0])
            status = 206
            headers = {**headers, "Content-Range": f"bytes {start}-{len(content) - 1}/{len(content)}"}
        part = content[start:]
        if fault.short_at is not None:
            part = part[: fault.short_at]
        self.send_response(status)
        for key, value in headers.items():
            self.send_header(key, value)
        self.send_header("Content-Length", str(len(part)))
        self.end_headers()
        if fault.slow:
            # A byte now and then, until the test is over: the client can't tell it from a very bad line.
            for byte in part:
                self.wfile.write(bytes([byte]))
                self.wfile.flush()
                if self.registry.closing.wait(0.05):
                    return
        elif fault.cut_at is not None:
            self.wfile.write(part[: fault.cut_at])
            self.wfile.flush()
            self.close_connection = True
        else:
            self.wfile.write(part)

    def _send(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for key, value in headers.items():
            self.send_header(key, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    # -- log-in

    def _logged_in(self) -> bool:
        login = self.registry.login
        given = self.headers.get("authorization", "")
        if login is None:
            return True
        kind, user, password = login
        if kind == "basic":
            return given == _basic(user, password)
        return given.removeprefix("Bearer ") in self.registry.tokens

    def _ask_for_login(self) -> None:
        assert self.registry.login is not None
        if self.registry.login[0] == "basic":
            challenge = 'Basic realm="cells"'
        else:
            host = self.registry.realm_host or self.registry.host
            challenge = f'Bearer realm="http://{host}/token",service="cells, and walls",scope="repository:x:pull"'
        body = json.dumps({"errors": [{"code": "UNAUTHORIZED", "message": "authentication required"}]}).encode()
        self._send(401, body, {"WWW-Authenticate": challenge})

    def _token(self, form: str) -> None:
        registry = self.registry
        assert registry.login is not None
        _, user, password = registry.login
        fields = parse_qs(form)
        if self.command == "POST":
            allowed = fields.get("refresh_token") == [registry.refresh_token]
        else:
            allowed = not user or self.headers.get("authorization") == _basic(user, password)
        if not allowed:
            self._send(401, b"{}", {})
            return
        token = f"token-{len(registry.tokens)}"
        registry.tokens.add(token)
        answer = registry.token_answer if registry.token_answer is not None else {"token": token, "expires_in": 300}
        self._send(200, json.dumps(answer).encode(), {"Content-Type": "application/json"})


def _basic(user: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that goes away in the middle is what many of these tests are about."""


@contextmanager
def run_fault_registry() -> Iterator[FaultRegistry]:
    """A FaultRegistry on a free loopback port, ended when the block ends."""
    registry = FaultRegistry()
    handler = type("Handler", (_Handler,), {"registry": registry})
    server = _Server(("127.0.0.1", 0), handler)
    registry.host = f"127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield registry
    finally:
        registry.closing.set()
        server.shutdown()
        server.server_close()
        thread.join()
