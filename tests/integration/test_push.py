"""Pushes to Debian's docker-registry, read back by skopeo and podman; and to a registry that breaks off, asks for tokens, or is full."""

from __future__ import annotations

import hashlib
import http.server
import json
import re
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from cellwall.runtime.errors import Cancelled, InvalidReference, NotFound, RegistryError
from cellwall.runtime.images.image import PullEvent
from cellwall.runtime.images.job import Stop
from cellwall.runtime.images.progress import Reporter
from cellwall.runtime.images.publish import publish
from cellwall.runtime.images.reference import Reference
from cellwall.runtime.images.settings import Patience, RegistryConfig, RegistrySettings
from cellwall.runtime.images.store import ImageStore
from cellwall.runtime.paths import Paths

from .. import registries
from ..registries import Registry, busybox_layer, sha256_of, tar_of
from ..tar_driver import TarDriver
from ..waiting import PATIENCE_S
from .test_registry_pull import no_credentials

__all__ = ["no_credentials"]

registry = registries.registry
tls_registry = registries.tls_registry

QUICK = Patience(attempts=3, connect_attempts=1, backoff_s=0.01, backoff_limit_s=0.02)
# Doesn't compress, so that it takes several pieces.
NOISE = b"".join(hashlib.sha256(bytes([n % 256, n // 256])).digest() for n in range(8192))


def store_of(tmp_path: Path, name: str = "data", config: RegistryConfig | None = None) -> ImageStore:
    paths = Paths(tmp_path / name, tmp_path / "run")
    return ImageStore(paths, TarDriver(paths.storage / "vfs"), config or RegistryConfig(patience=QUICK))


def add(store: ImageStore, name: str, *tars: bytes) -> None:
    folder = store._layout.root.parent
    files = []
    for number, tar in enumerate(tars):
        files.append(folder.with_name(f"{folder.name}-{number}.tar"))
        files[-1].write_bytes(tar)
    store.add_image(name, {"config": {"Cmd": ["sh"], "Env": ["PATH=/bin"]}}, files)


def events_of(store: ImageStore, name: str) -> dict[str, list[PullEvent]]:
    """The last word on each blob, by phase."""
    last: dict[str, PullEvent] = {}
    store.push(name, progress=lambda event: last.__setitem__(event.layer, event))
    found: dict[str, list[PullEvent]] = {}
    for event in last.values():
        found.setdefault(event.phase, []).append(event)
    return found


def test_only_what_is_missing_is_sent(registry: Registry, tmp_path: Path) -> None:
    store = store_of(tmp_path)
    name = registry.name("push/one:1")
    add(store, name, busybox_layer(), tar_of({"file": b"1"}))
    assert {phase: len(each) for phase, each in events_of(store, name).items()} == {"pushed": 3}
    image = store.find(name)
    assert image.repo_digests == (f"{registry.name('push/one')}@{image.digest}",)
    assert {phase: len(each) for phase, each in events_of(store, name).items()} == {"there": 3}
    # Into another repository the layers are mounted; the config isn't known to be there.
    other = registry.name("push/two:latest")
    store.tag(name, other)
    found = events_of(store, other)
    assert {phase: len(each) for phase, each in found.items()} == {"mounted": 2, "pushed": 1}
    assert {event.message for event in found["mounted"]} == {"from push/one"}
    for pushed in (name, other):
        answer = subprocess.run(
            ["skopeo", "inspect", "--tls-verify=false", f"docker://{pushed}"], check=True, capture_output=True
        )
        seen = json.loads(answer.stdout)
        assert seen["Digest"] == image.digest
        assert seen["Layers"] == [layer.digest for layer in image.layers]
    assert store_of(tmp_path, "fresh").pull(other).id == image.id


def test_log_in(tls_registry: Registry, tmp_path: Path, no_credentials: Path) -> None:
    config = RegistryConfig({tls_registry.host: RegistrySettings(ca_file=tls_registry.ca_file)}, patience=QUICK)
    store = store_of(tmp_path, config=config)
    name = tls_registry.name("push/secret:1")
    add(store, name, tar_of({"file": b"1"}))
    with pytest.raises(RegistryError, match="refuses the push: nobody is logged in; log in with"):
        store.push(name)
    tls_registry.auth_file(no_credentials)
    assert store.push(name) == store.find(name).digest
    wrong = Registry(tls_registry.host, tls_registry.directory, None, "cell", "wrong")
    wrong.auth_file(no_credentials)
    with pytest.raises(RegistryError, match="may not write there"):
        store.push(name)


def test_what_cannot_be_pushed(tmp_path: Path) -> None:
    store = store_of(tmp_path)
    add(store, "127.0.0.1:1/lab:1", tar_of({"file": b"1"}))
    with pytest.raises(NotFound, match="no such image here"):
        store.push("127.0.0.1:1/lab:2")
    with pytest.raises(InvalidReference):
        store.push(str(store.find("127.0.0.1:1/lab:1").id).removeprefix("sha256:"))
    with pytest.raises(InvalidReference, match="a name with a tag"):
        store.push("oci:/tmp/nothing:x")
    with pytest.raises(RegistryError, match="can't push"):
        store.push("127.0.0.1:1/lab:1")


class Flaky(http.server.ThreadingHTTPServer):
    """A registry that takes uploads in pieces, behind a token server of its own, and fails as it is told."""

    def __init__(self) -> None:
        self.blobs: dict[str, bytes] = {}
        self.manifests: dict[str, bytes] = {}
        self.uploads: dict[str, bytearray] = {}
        self.scopes: list[list[str]] = []
        self.said: list[str] = []
        self.break_after = -1
        self.takes_pieces = True
        self.full = False
        self.hangs = threading.Event()
        self.hangs.set()
        self.rights = "pull,push"
        super().__init__(("127.0.0.1", 0), Handler)

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self.server_address[1]}"

    def handle_error(self, request: Any, client_address: Any) -> None:
        pass  # a client that was cancelled hangs up


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Flaky

    def log_message(self, *arguments: object) -> None:
        pass

    def answer(self, status: int, body: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        for key, value in headers.items():
            self.send_header(key.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def body(self) -> bytes:
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def handle_any(self) -> None:
        server, url = self.server, urlsplit(self.path)
        server.said.append(f"{self.command} {url.path}")
        if url.path == "/token":
            server.scopes.append(parse_qs(url.query)["scope"])
            self.answer(200, json.dumps({"token": server.rights}).encode())
            return
        if url.path == "/v2/":
            self.answer(200)
            return
        if self.headers.get("Authorization") != "Bearer pull,push":
            self.body()
            challenge = f'Bearer realm="http://{server.host}/token",service="s",scope="repository:lab:pull"'
            self.answer(401, WWW_Authenticate=challenge)
            return
        getattr(self, f"on_{self.command.lower()}")(url)

    do_GET = do_HEAD = do_POST = do_PATCH = do_PUT = handle_any

    def on_head(self, url: Any) -> None:
        self.answer(200 if url.path.rpartition("/")[2] in self.server.blobs else 404)

    def on_post(self, url: Any) -> None:
        key = str(len(self.server.uploads))
        self.server.uploads[key] = bytearray()
        self.answer(202, Location=f"/v2/lab/blobs/uploads/{key}?state=x", Range="0-0")

    def on_get(self, url: Any) -> None:
        done = self.server.uploads[url.path.rpartition("/")[2]]
        self.answer(204, Location=self.path, Range=f"0-{max(0, len(done) - 1)}")

    def on_patch(self, url: Any) -> None:
        server, done = self.server, self.server.uploads[url.path.rpartition("/")[2]]
        server.hangs.wait(2 * PATIENCE_S)
        if not server.takes_pieces:
            self.body()
            self.answer(405)
            return
        start, end = map(int, re.fullmatch(r"(\d+)-(\d+)", self.headers["Content-Range"]).groups())  # type: ignore[union-attr]
        if start != len(done) or end - start + 1 != int(self.headers["Content-Length"]):
            self.body()
            self.answer(416)
            return
        if 0 <= server.break_after < end:
            done += self.rfile.read(server.break_after - start)
            server.break_after = -1
            self.connection.close()
            return
        done += self.body()
        self.answer(202, Location=self.path, Range=f"0-{len(done) - 1}")

    def on_put(self, url: Any) -> None:
        server, data = self.server, self.body()
        name = url.path.rpartition("/")[2]
        if "/manifests/" in url.path:
            server.manifests[name] = data
            self.answer(201, Docker_Content_Digest=sha256_of(data))
            return
        if server.full:
            self.answer(500, b'{"errors":[{"code":"UNKNOWN","detail":{"Enclosed":{"Op":"write","Err":28}}}]}')
            return
        content, digest = bytes(server.uploads[name]) + data, parse_qs(url.query)["digest"][0]
        if sha256_of(content) != digest:
            self.answer(400, b'{"errors":[{"code":"DIGEST_INVALID","message":"digest invalid"}]}')
            return
        server.blobs[digest] = content
        self.answer(201, Docker_Content_Digest=digest)


@pytest.fixture
def flaky() -> Iterator[Flaky]:
    server = Flaky()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    yield server
    server.hangs.set()
    server.shutdown()
    thread.join()
    server.server_close()


def push_in_pieces(store: ImageStore, name: str, told: list[PullEvent], stop: Stop | None = None) -> None:
    publish(
        store._layout,
        store._catalog,
        store.registries,
        store.find(name),
        Reference.parse(name),
        Reporter(told.append),
        stop or Stop(),
        piece_bytes=50_000,
    )


def test_it_goes_on_where_it_broke_off(flaky: Flaky, tmp_path: Path) -> None:
    store = store_of(tmp_path)
    name = f"{flaky.host}/lab:1"
    add(store, name, tar_of({"noise": NOISE}))
    flaky.break_after = 120_000
    told: list[PullEvent] = []
    push_in_pieces(store, name, told)
    image = store.find(name)
    assert set(flaky.blobs) == {image.id, image.layers[0].digest}
    assert json.loads(flaky.manifests["1"])["config"]["digest"] == image.id
    assert any(event.phase == "retrying" for event in told)
    # One upload for each blob: the broken one was asked how far it had come.
    assert len(flaky.uploads) == 2
    assert any(line.startswith("GET /v2/lab/blobs/uploads/") for line in flaky.said)
    assert flaky.scopes[0] == ["repository:lab:pull,push"]


def test_a_registry_that_takes_no_pieces(flaky: Flaky, tmp_path: Path) -> None:
    store = store_of(tmp_path)
    name = f"{flaky.host}/lab:1"
    add(store, name, tar_of({"noise": NOISE}))
    flaky.takes_pieces = False
    push_in_pieces(store, name, [])
    assert store.find(name).layers[0].digest in flaky.blobs


def test_no_rights(flaky: Flaky, tmp_path: Path) -> None:
    store = store_of(tmp_path)
    name = f"{flaky.host}/lab:1"
    add(store, name, tar_of({"file": b"1"}))
    flaky.rights = "pull"
    with pytest.raises(RegistryError, match="refuses the push"):
        store.push(name)
    assert flaky.manifests == {}


def test_a_full_registry(flaky: Flaky, tmp_path: Path) -> None:
    store = store_of(tmp_path)
    name = f"{flaky.host}/lab:1"
    add(store, name, tar_of({"file": b"1"}))
    flaky.full = True
    with pytest.raises(RegistryError, match=r"has no room left for layer [0-9a-f]{12} of 127"):
        store.push(name)
    assert flaky.manifests == {}


def test_cancelled(flaky: Flaky, tmp_path: Path) -> None:
    store = store_of(tmp_path)
    name = f"{flaky.host}/lab:1"
    add(store, name, tar_of({"noise": NOISE}))
    flaky.hangs.clear()
    stop = Stop()
    told: list[PullEvent] = []
    failures: list[BaseException] = []

    def push() -> None:
        try:
            push_in_pieces(store, name, told, stop)
        except Cancelled as error:
            failures.append(error)

    thread = threading.Thread(target=push)
    thread.start()
    while not any("PATCH" in line for line in list(flaky.said)):
        thread.join(0.01)
        assert thread.is_alive()
    stop.set()
    thread.join(PATIENCE_S)
    assert not thread.is_alive()
    assert len(failures) == 1
    flaky.hangs.set()
    assert flaky.manifests == {}
