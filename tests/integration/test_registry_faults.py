"""What registries do wrong, each with what the user is told and what is left: nothing."""

from __future__ import annotations

import contextvars
import gc
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cellwall.runtime.errors import (
    Cancelled,
    DigestMismatch,
    ImageError,
    NotFound,
    RegistryError,
    UnsupportedError,
)
from cellwall.runtime.images.image import PullEvent
from cellwall.runtime.images.settings import Patience, RegistryConfig, RegistrySettings
from cellwall.runtime.images.store import ImageStore
from cellwall.runtime.paths import Paths

from ..fault_registry import Fault, FaultRegistry, run_fault_registry
from ..registries import (
    DOCKER_TYPES,
    OCI_INDEX,
    OCI_MANIFEST,
    free_port,
    make_image,
    make_index,
    sha256_of,
    tar_of,
)
from ..tar_driver import TarDriver
from ..waiting import PATIENCE_S

# Random, so that it stays as large when compressed: there must be a middle to break in.
LARGE = tar_of({"large": os.urandom(600_000)})
SMALL = tar_of({"small": b"1"})
IMAGE = make_image([LARGE, SMALL])
BIG = IMAGE.layers[0]
# Quick, so that the tests are; the numbers of tries are the real ones.
QUICK = Patience(backoff_s=0.01, backoff_limit_s=0.02, connect_s=PATIENCE_S, read_s=PATIENCE_S)


@pytest.fixture
def registry() -> Iterator[FaultRegistry]:
    with run_fault_registry() as running:
        running.add("lab/x", IMAGE)
        yield running


@pytest.fixture
def name(registry: FaultRegistry) -> str:
    return f"{registry.host}/lab/x:latest"


@pytest.fixture(autouse=True)
def no_credentials(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The machine's own credentials stay out of it; returns where docker's file would be."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "session"))
    for variable in ("REGISTRY_AUTH_FILE", "DOCKER_CONFIG", "XDG_CONFIG_HOME"):
        monkeypatch.delenv(variable, raising=False)
    return tmp_path / "home/.docker/config.json"


class Rig:
    """A store on a tar driver, and what it was told while pulling."""

    def __init__(self, folder: Path, config: RegistryConfig) -> None:
        self.paths = Paths(folder / "data", folder / "run")
        self.driver = TarDriver(self.paths.storage / "vfs")
        self.store = ImageStore(self.paths, self.driver, config)
        self.events: list[PullEvent] = []

    def pull(self, name: str, **options: Any) -> Any:
        return self.store.pull(name, progress=self.events.append, **options)

    def retries(self) -> list[str]:
        return [event.message for event in self.events if event.phase == "retrying"]

    def assert_empty(self) -> None:
        usual = {"oci-layout", "index.json", "blobs", "sha256", ".lock-use", ".lock-index", ".lock-names"}
        assert [path.name for path in self.paths.images.rglob("*") if path.name not in usual] == []
        assert not self.driver.layers() and self.store.list() == []


@pytest.fixture
def rig(tmp_path: Path) -> Rig:
    return Rig(tmp_path, RegistryConfig(patience=QUICK))


def test_without_a_fault_it_is_pulled_whole(rig: Rig, registry: FaultRegistry, name: str) -> None:
    image = rig.pull(name)
    assert (image.id, image.digest, image.reference) == (IMAGE.config_digest, IMAGE.digest, name)
    assert image.repo_digests == (f"{registry.host}/lab/x@{IMAGE.digest}",)
    assert [rig.driver.path(chain_id).read_bytes() for chain_id in image.chain_ids] == [LARGE, SMALL]
    phases = [event.phase for event in rig.events if event.layer == BIG[7:19]]
    assert phases[0] == "waiting" and phases[-1] == "done"
    assert {"downloading", "verifying", "unpacking"} <= set(phases)
    assert len(registry.paths("/blobs/")) == 3
    # Again: only the manifest is asked for.
    assert rig.pull(name) == image
    assert len(registry.paths("/blobs/")) == 3 and len(registry.paths("/manifests/")) == 2
    assert registry.asked[-1].headers["user-agent"].startswith("cellwall/")


def test_progress_is_told_in_the_caller_s_context(rig: Rig, name: str) -> None:
    """ipykernel sends what a callback prints to the cell that its context names."""
    cell = contextvars.ContextVar("cell", default="another")
    cell.set("this")
    seen = {}
    rig.store.pull(
        name, progress=lambda event: seen.update({(event.phase, threading.current_thread().name): cell.get()})
    )
    threads = {thread.partition("_")[0] for _, thread in seen}
    assert threads == {"cellwall-images", "cellwall-network", "cellwall-layers"}
    assert set(seen.values()) == {"this"}


def test_what_is_here_isn_t_asked_for(rig: Rig, registry: FaultRegistry, name: str) -> None:
    image = rig.pull(name)
    count = len(registry.asked)
    assert rig.store.get(name) == image
    assert rig.store.get(name, pull="never") == image
    assert len(registry.asked) == count


# -- the manifest


@pytest.mark.parametrize(
    ("fault", "error", "said"),
    [
        (Fault(404), NotFound, "no such image: .*doesn't have it.*check the name and the tag"),
        (Fault(403), RegistryError, "denies access.*; check the name, and that your log-in may read it"),
        (Fault(200, {"Content-Type": "text/html"}, b"<html>log in</html>"), RegistryError, "HTML page"),
        (Fault(200, {"Content-Type": OCI_MANIFEST}, b"<html>log in</html>"), RegistryError, "HTML page"),
        (Fault(200, {"Content-Type": OCI_MANIFEST}, b'{"schemaVersion": 2'), RegistryError, "isn't JSON"),
        (Fault(200, {"Content-Type": OCI_MANIFEST}, b"x" * (5 << 20)), RegistryError, "more than 4194304 bytes"),
        (
            Fault(418, {}, b'{"errors": [{"code": "TEAPOT", "message": "short and stout"}]}'),
            RegistryError,
            "418.*short and stout",
        ),
        (
            Fault(200, {"Docker-Content-Digest": sha256_of(b"other")}, IMAGE.manifest),
            DigestMismatch,
            sha256_of(b"other"),
        ),
        (Fault(200, {}, b'{"schemaVersion": 1, "fsLayers": []}'), UnsupportedError, "schema 1"),
        (Fault(302, {"Location": "file:///etc/passwd"}), RegistryError, "redirects to file"),
        (Fault(401, {"WWW-Authenticate": "Kerberos"}), RegistryError, "log-in of a kind"),
    ],
)
def test_bad_manifests(
    rig: Rig, registry: FaultRegistry, name: str, fault: Fault, error: type[Exception], said: str
) -> None:
    registry.faults["/manifests/"] = [fault]
    with pytest.raises(error, match=said) as caught:
        rig.pull(name)
    assert "\n" not in str(caught.value)
    rig.assert_empty()


def test_redirects_that_never_end(rig: Rig, registry: FaultRegistry, name: str) -> None:
    registry.faults["/manifests/"] = [Fault(302, {"Location": "/v2/lab/x/manifests/latest"})] * 10
    with pytest.raises(RegistryError, match="redirects more than 5 times"):
        rig.pull(name)


def test_an_unknown_platform_names_those_there_are(rig: Rig, registry: FaultRegistry) -> None:
    images = {f"linux/{arch}": make_image([SMALL], architecture=arch) for arch in ("amd64", "arm64", "s390x")}
    name = registry.add_index("multi", make_index(images), list(images.values()))
    with pytest.raises(NotFound, match="isn't there for linux/riscv64; it has: linux/amd64, linux/arm64, linux/s390x"):
        rig.pull(name, platform="linux/riscv64")
    rig.assert_empty()
    index_digest = sha256_of(make_index(images))
    for platform, image in images.items():
        got = rig.pull(name, platform=platform)
        assert (got.id, got.platform, got.index_digest) == (image.config_digest, platform, index_digest)
        assert got.repo_digests == (f"{registry.host}/multi@{index_digest}",)
    assert rig.store.find(f"{registry.host}/multi@{index_digest}", "linux/s390x").platform == "linux/s390x"


def test_a_single_image_for_another_platform(rig: Rig, registry: FaultRegistry) -> None:
    name = registry.add("arm", make_image([SMALL], architecture="arm64"))
    with pytest.raises(NotFound, match="isn't there for linux/s390x; it has: linux/arm64"):
        rig.pull(name, platform="linux/s390x")
    assert rig.pull(name).platform == "linux/arm64"


def test_an_index_that_lies_about_a_manifest(rig: Rig, registry: FaultRegistry) -> None:
    index = make_index({"linux/amd64": IMAGE})
    name = registry.add_index("multi", index, [IMAGE])
    registry.manifests[f"multi:{IMAGE.digest}"] = (OCI_MANIFEST, IMAGE.manifest + b" ")
    with pytest.raises(DigestMismatch, match=IMAGE.digest):
        rig.pull(name, platform="linux/amd64")
    rig.assert_empty()


def test_by_digest(rig: Rig, registry: FaultRegistry) -> None:
    name = f"{registry.host}/lab/x@{IMAGE.digest}"
    assert rig.pull(name).reference == name
    assert rig.store.find(name).id == IMAGE.config_digest
    with pytest.raises(NotFound):
        rig.pull(f"{registry.host}/lab/x@{sha256_of(b'')}")


def test_schema_2_is_kept_as_oci_under_its_own_digest(rig: Rig, registry: FaultRegistry) -> None:
    image = make_image([LARGE, SMALL], media_types=DOCKER_TYPES)
    name = registry.add("schema2", image)
    got = rig.pull(name)
    assert got.digest == image.digest != got.manifest_digest
    assert rig.store.find(f"{registry.host}/schema2@{image.digest}") == got
    assert rig.store.find(name).layers[0].media_type == "application/vnd.oci.image.layer.v1.tar+gzip"


# -- blobs


@pytest.mark.parametrize(
    ("fault", "error", "said"),
    [
        (
            Fault(corrupt=True),
            DigestMismatch,
            f"layer {BIG[7:19]}.*expected {BIG}, got sha256:.*nothing of it was kept",
        ),
        (Fault(404), NotFound, "doesn't have it"),
        (Fault(403, {}, b'{"errors": [{"code": "DENIED"}]}'), RegistryError, "403 .DENIED"),
        (Fault(200, {}, b"x" * 700_000), ImageError, "longer than the"),
    ],
)
def test_bad_blobs(
    rig: Rig, registry: FaultRegistry, name: str, fault: Fault, error: type[Exception], said: str
) -> None:
    registry.faults[BIG] = [fault]
    with pytest.raises(error, match=said):
        rig.pull(name)
    rig.assert_empty()


def test_a_wrong_config(rig: Rig, registry: FaultRegistry, name: str) -> None:
    registry.faults[IMAGE.config_digest] = [Fault(corrupt=True)]
    with pytest.raises(DigestMismatch, match=IMAGE.config_digest):
        rig.pull(name)
    rig.assert_empty()


@pytest.mark.parametrize(
    "faults",
    [
        [Fault(cut_at=200_000)],
        [Fault(cut_at=0)] * 4,
        [Fault(short_at=200_000)],
        # Each try moves on, so that there may be more of them than tries without any progress.
        [Fault(cut_at=60_000)] * 7,
        [Fault(503), Fault(cut_at=100_000), Fault(429, {"Retry-After": "0"}), Fault(cut_at=100_000), Fault(500)],
    ],
    ids=["cut", "cut at once", "short", "cut often", "mixed"],
)
def test_a_download_goes_on_where_it_broke(rig: Rig, registry: FaultRegistry, name: str, faults: list[Fault]) -> None:
    registry.faults[BIG] = list(faults)
    image = rig.pull(name)
    assert rig.driver.path(image.chain_ids[0]).read_bytes() == LARGE
    assert len(rig.retries()) == len(faults)
    asked = registry.paths(BIG)
    assert len(asked) == len(faults) + 1
    broke = sum(fault.cut_at or fault.short_at or 0 for fault in faults)
    # What had come wasn't asked for again (the client may have lost the last bytes that were in the pipe).
    last = asked[-1].headers.get("range", "bytes=0-")
    start = int(last[6:].partition("-")[0])
    assert start <= broke and (start > 0) == (broke > 0)


def test_a_registry_without_ranges_is_asked_from_the_beginning(rig: Rig, registry: FaultRegistry, name: str) -> None:
    registry.faults[BIG] = [Fault(cut_at=200_000), Fault(no_ranges=True)]
    image = rig.pull(name)
    assert rig.driver.path(image.chain_ids[0]).read_bytes() == LARGE


def test_a_resumed_download_of_another_file_is_begun_again(rig: Rig, registry: FaultRegistry, name: str) -> None:
    registry.faults[BIG] = [Fault(cut_at=100_000), Fault(corrupt=True)]
    image = rig.pull(name)
    assert rig.driver.path(image.chain_ids[0]).read_bytes() == LARGE
    assert [asked.headers.get("range", "") != "" for asked in registry.paths(BIG)] == [False, True, False]


def test_a_blob_that_is_always_cut_short(rig: Rig, registry: FaultRegistry, name: str) -> None:
    whole = registry.blobs[BIG]
    registry.blobs[BIG] = whole[:1000]
    with pytest.raises(RegistryError, match=f"it ended after 1000 of {len(whole)} bytes"):
        rig.pull(name)
    rig.assert_empty()


def test_a_failure_doesn_t_wait_for_the_other_layers(rig: Rig, registry: FaultRegistry, name: str) -> None:
    """The first layer would come for an hour; the second isn't there."""
    registry.faults[BIG] = [Fault(slow=True)]
    registry.faults[IMAGE.layers[1]] = [Fault(404)]
    with pytest.raises(NotFound, match=f"layer {IMAGE.layers[1][7:19]}.*doesn't have it"):
        rig.pull(name)
    rig.assert_empty()


# -- busy, slow, gone


def test_too_many_requests_then_well(rig: Rig, registry: FaultRegistry, name: str) -> None:
    registry.faults["/manifests/"] = [Fault(429, {"Retry-After": "0"}), Fault(503)]
    rig.pull(name)
    assert [message.partition(";")[0] for message in rig.retries()] == ["too many requests", "the server answered 503"]


def test_too_many_requests_for_long(rig: Rig, registry: FaultRegistry, name: str) -> None:
    registry.faults["/manifests/"] = [Fault(429, {"Retry-After": "3600"})]
    with pytest.raises(RegistryError, match="too many requests; it asks to come back in 3600 s") as caught:
        rig.pull(name)
    assert caught.value.status == 429
    assert len(registry.paths("/manifests/")) == 1


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
def test_a_registry_that_stays_busy(rig: Rig, registry: FaultRegistry, name: str, status: int) -> None:
    registry.faults["/manifests/"] = [Fault(status)] * 9
    with pytest.raises(RegistryError, match="after 5 tries") as caught:
        rig.pull(name)
    assert caught.value.status == status
    assert len(registry.paths("/manifests/")) == 5
    rig.assert_empty()


def test_a_registry_that_is_down(rig: Rig) -> None:
    host = f"127.0.0.1:{free_port()}"
    with pytest.raises(RegistryError, match=f"{host}: no connection.*after 3 tries; check the name, the network"):
        rig.pull(f"{host}/x")
    rig.assert_empty()


def test_a_host_that_isn_t_there(rig: Rig) -> None:
    with pytest.raises(RegistryError, match=r"no-such-host.invalid: no connection \(\D+\) after 3 tries"):
        rig.pull("no-such-host.invalid/x")
    rig.assert_empty()


def test_other_tags_that_are_here_are_named_when_a_registry_is_down(rig: Rig, name: str) -> None:
    host = f"127.0.0.1:{free_port()}"
    rig.pull(name)
    rig.store.tag(name, f"{host}/x:old")
    with pytest.raises(RegistryError, match=f"; or run what is here: {host}/x:old$"):
        rig.pull(f"{host}/x")
    with pytest.raises(RegistryError, match="that the registry runs$"):
        rig.pull(f"{host}/y")


def test_a_registry_that_says_nothing(tmp_path: Path, registry: FaultRegistry, name: str) -> None:
    rig = Rig(tmp_path, RegistryConfig(patience=Patience(attempts=2, backoff_s=0.01, read_s=0.2)))
    registry.faults["/manifests/"] = [Fault(silent=True)] * 2
    with pytest.raises(RegistryError, match="no answer in time after 2 tries"):
        rig.pull(name)
    rig.assert_empty()


def test_a_slow_pull_is_cancelled(rig: Rig, registry: FaultRegistry, name: str) -> None:
    registry.faults[BIG] = [Fault(slow=True)]
    moving = threading.Event()

    def progress(event: PullEvent) -> None:
        if event.layer == BIG[7:19] and event.phase == "downloading":
            moving.set()

    with pytest.raises(Cancelled):
        rig.store.pull(name, progress=progress, cancelled=moving.is_set)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("cellwall")]
    rig.assert_empty()


def test_a_silent_pull_is_cancelled(rig: Rig, registry: FaultRegistry, name: str) -> None:
    registry.faults["/manifests/"] = [Fault(silent=True)]
    with pytest.raises(Cancelled):
        rig.store.pull(name, cancelled=lambda: bool(registry.paths("/manifests/")))
    rig.assert_empty()


def test_a_silent_handshake_is_cancelled(rig: Rig) -> None:
    """The connection is closed by then, not by whoever collects garbage: of that pytest would hear a warning here."""
    greeted = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as server:

        def listen() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(1)
                greeted.set()
                while connection.recv(65536):
                    pass

        thread = threading.Thread(target=listen)
        thread.start()
        with pytest.raises(Cancelled):
            rig.store.pull(f"127.0.0.1:{server.getsockname()[1]}/lab/x", cancelled=greeted.is_set)
        gc.collect()
        thread.join(PATIENCE_S)
    assert not thread.is_alive()
    rig.assert_empty()


def test_waiting_for_another_try_is_cancelled(rig: Rig, registry: FaultRegistry, name: str) -> None:
    registry.faults["/manifests/"] = [Fault(429, {"Retry-After": "50"})]
    with pytest.raises(Cancelled):
        rig.store.pull(name, progress=rig.events.append, cancelled=lambda: bool(rig.retries()))
    rig.assert_empty()


def test_an_interrupt_while_pulling(tmp_path: Path, registry: FaultRegistry, name: str) -> None:
    """A real SIGINT to a real process, whose download would go on for an hour."""
    registry.faults[BIG] = [Fault(slow=True)]
    script = f"""
import sys
from pathlib import Path
from cellwall.runtime.images.store import ImageStore
from cellwall.runtime.paths import Paths
from tests.tar_driver import TarDriver
paths = Paths(Path({str(tmp_path / "data")!r}), Path({str(tmp_path / "run")!r}))
store = ImageStore(paths, TarDriver(paths.storage / "vfs"))
try:
    store.pull({name!r}, progress=lambda event: print(event.phase, flush=True))
except KeyboardInterrupt:
    print("interrupted", store.list(), sorted(p.name for p in paths.images.glob(".tmp-*")), flush=True)
"""
    top = Path(__file__).resolve().parents[2]
    environment = {**os.environ, "PYTHONPATH": f"{top}:{top / 'src'}"}
    process = subprocess.Popen(
        [sys.executable, "-c", script], cwd=top, env=environment, stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        for line in process.stdout:
            if line == "downloading\n":
                process.send_signal(signal.SIGINT)
                break
        rest, _ = process.communicate(timeout=60)
    finally:
        process.kill()
        process.wait()
    assert rest.splitlines()[-1] == "interrupted [] []"
    assert process.returncode == 0


def test_two_pulls_of_one_name_download_once(rig: Rig, registry: FaultRegistry, name: str) -> None:
    other = Rig(rig.paths.data.parent, RegistryConfig(patience=QUICK))
    waiting, results = threading.Event(), []
    registry.faults[BIG] = [Fault(slow=True)]

    def second() -> None:
        def progress(event: PullEvent) -> None:
            if "another pull" in event.message:
                waiting.set()

        results.append(other.store.get(name, progress=progress))

    moving, stop = threading.Event(), threading.Event()
    thread = threading.Thread(target=second)

    def first_progress(event: PullEvent) -> None:
        if event.phase == "downloading" and not moving.is_set():
            moving.set()
            thread.start()

    with pytest.raises(Cancelled):
        rig.store.pull(name, progress=first_progress, cancelled=waiting.is_set)
    thread.join()
    # The first was cancelled while the second waited: the second did it.
    assert results[0].id == IMAGE.config_digest
    assert not stop.is_set()


# -- log-in


def write_auth(file: Path, host: str, entry: dict[str, Any]) -> None:
    file.parent.mkdir(parents=True)
    file.write_text(json.dumps({"auths": {host: entry}}))


LOGIN = {"username": "cell", "password": "wall"}


def test_basic_auth(rig: Rig, registry: FaultRegistry, name: str, no_credentials: Path) -> None:
    registry.login = ("basic", "cell", "wall")
    with pytest.raises(RegistryError, match=f"needs a log-in: log in with `docker login {registry.host}`") as caught:
        rig.pull(name)
    assert caught.value.status == 401
    rig.assert_empty()
    write_auth(no_credentials, registry.host, LOGIN)
    assert rig.pull(name).id == IMAGE.config_digest


@pytest.mark.parametrize("kind", ["basic", "bearer"])
def test_wrong_credentials_name_their_file(
    rig: Rig, registry: FaultRegistry, name: str, no_credentials: Path, kind: str
) -> None:
    registry.login = (kind, "cell", "wall")
    write_auth(no_credentials, registry.host, {**LOGIN, "password": "hunter2"})
    with pytest.raises(RegistryError, match=f"refuses the log-in of {no_credentials}") as caught:
        rig.pull(name)
    assert "hunter2" not in str(caught.value)
    rig.assert_empty()


def test_bearer_tokens(rig: Rig, registry: FaultRegistry, name: str, no_credentials: Path) -> None:
    registry.login = ("bearer", "cell", "wall")
    write_auth(no_credentials, registry.host, LOGIN)
    assert rig.pull(name).id == IMAGE.config_digest
    asked = registry.paths("/token")
    # One token for the manifest, the config and both layers.
    assert len(asked) == 1
    assert "service=cells%2C+and+walls" in asked[0].path and "scope=repository%3Ax%3Apull" in asked[0].path


def test_anonymous_bearer_tokens(rig: Rig, registry: FaultRegistry, name: str) -> None:
    registry.login = ("bearer", "", "")
    assert rig.pull(name).id == IMAGE.config_digest
    assert "authorization" not in registry.paths("/token")[0].headers


def test_a_token_that_ends_in_the_middle(rig: Rig, registry: FaultRegistry, name: str) -> None:
    registry.login = ("bearer", "", "")

    def progress(event: PullEvent) -> None:
        if event.phase == "waiting" and event.layer == BIG[7:19]:
            registry.tokens.clear()
            registry.tokens.add("nobody's")

    rig.store.pull(name, progress=progress)
    assert 2 <= len(registry.paths("/token")) <= 3


def test_an_identity_token(rig: Rig, registry: FaultRegistry, name: str, no_credentials: Path) -> None:
    registry.login = ("bearer", "cell", "wall")
    registry.refresh_token = "refresh me"
    write_auth(no_credentials, registry.host, {"identitytoken": "refresh me"})
    assert rig.pull(name).id == IMAGE.config_digest
    assert [asked.method for asked in registry.paths("/token")] == ["POST"]


@pytest.mark.parametrize("answer", [{}, {"token": None}, {"token": "x", "expires_in": "soon"}])
def test_a_token_server_that_answers_nonsense(
    rig: Rig, registry: FaultRegistry, name: str, answer: dict[str, Any]
) -> None:
    registry.login = ("bearer", "", "")
    registry.token_answer = answer
    with pytest.raises(RegistryError, match="answered no token"):
        rig.pull(name)
    rig.assert_empty()


def test_a_redirect_takes_no_credentials_along(
    rig: Rig, registry: FaultRegistry, name: str, no_credentials: Path
) -> None:
    registry.login = ("basic", "cell", "wall")
    write_auth(no_credentials, registry.host, LOGIN)
    with run_fault_registry() as elsewhere:
        elsewhere.add("lab/x", IMAGE)
        path = f"/v2/lab/x/blobs/{BIG}"
        registry.faults[BIG] = [Fault(307, {"Location": f"http://{elsewhere.host}{path}"})]
        assert rig.pull(name).id == IMAGE.config_digest
        (asked,) = elsewhere.paths(BIG)
    assert "authorization" not in asked.headers
    assert all("authorization" in asked.headers for asked in registry.paths(BIG))


# -- mirrors


def mirrored(folder: Path, domain: str, *mirrors: str) -> Rig:
    return Rig(folder, RegistryConfig({domain: RegistrySettings(mirrors=mirrors)}, patience=QUICK))


def test_a_mirror_is_asked_instead(tmp_path: Path, registry: FaultRegistry, name: str) -> None:
    with run_fault_registry() as mirror:
        mirror.add("proxy/lab/x", IMAGE)
        rig = mirrored(tmp_path, registry.host, f"http://{mirror.host}/proxy")
        assert rig.pull(name).reference == name
        assert len(mirror.paths("/blobs/")) == 3
    assert registry.asked == []


def test_docker_hub_through_a_mirror(tmp_path: Path) -> None:
    with run_fault_registry() as mirror:
        mirror.add("library/busybox", IMAGE)
        rig = mirrored(tmp_path, "docker.io", mirror.host)
        assert rig.pull("busybox").reference == "busybox:latest"


@pytest.mark.parametrize("fault", [Fault(404), Fault(500), Fault(200, {}, b"<html>")], ids=["404", "500", "html"])
def test_a_mirror_that_fails_is_passed_over(tmp_path: Path, registry: FaultRegistry, name: str, fault: Fault) -> None:
    with run_fault_registry() as mirror:
        mirror.add("lab/x", IMAGE)
        mirror.faults["/manifests/"] = [fault] * 5
        rig = mirrored(tmp_path, registry.host, f"127.0.0.1:{free_port()}", mirror.host)
        assert rig.pull(name).id == IMAGE.config_digest
        assert mirror.paths("/blobs/") == []
    assert len([message for message in rig.retries() if "passed over" in message]) == 2


def test_a_mirror_that_lacks_a_layer(tmp_path: Path, registry: FaultRegistry, name: str) -> None:
    with run_fault_registry() as mirror:
        mirror.add("lab/x", IMAGE)
        mirror.faults[BIG] = [Fault(corrupt=True)]
        rig = mirrored(tmp_path, registry.host, mirror.host)
        assert rig.pull(name).id == IMAGE.config_digest
    assert len(registry.paths(BIG)) == 1 and len(registry.asked) == 2


def test_when_all_fail_the_registry_itself_is_named(tmp_path: Path, registry: FaultRegistry) -> None:
    with run_fault_registry() as mirror:
        rig = mirrored(tmp_path, registry.host, mirror.host)
        with pytest.raises(NotFound, match=f"{registry.host} doesn't have it"):
            rig.pull(f"{registry.host}/gone")


def test_an_alias(tmp_path: Path, registry: FaultRegistry) -> None:
    rig = Rig(tmp_path, RegistryConfig(aliases={"ubuntu64": f"{registry.host}/lab/x"}, patience=QUICK))
    assert rig.pull("ubuntu64").reference == f"{registry.host}/lab/x:latest"
    assert rig.store.find("ubuntu64:latest").id == IMAGE.config_digest


def test_an_artifact_index_without_images(rig: Rig, registry: FaultRegistry) -> None:
    name = registry.add_raw("empty", json.dumps({"schemaVersion": 2, "manifests": []}).encode(), OCI_INDEX)
    with pytest.raises(NotFound, match="it has: none"):
        rig.pull(name)


def test_a_damaged_blob_is_mended_by_a_pull(rig: Rig, name: str) -> None:
    image = rig.pull(name)
    for digest in (image.id, image.manifest_digest):
        blob = rig.paths.images / "blobs/sha256" / digest.encoded
        blob.write_bytes(b"x" * blob.stat().st_size)
        fresh = Rig(rig.paths.data.parent, RegistryConfig(patience=QUICK))
        with pytest.raises(ImageError, match="damaged: pull the image again"):
            fresh.store.find(name)
        assert fresh.pull(name) == image
        assert fresh.store.find(name) == image


@pytest.mark.parametrize("host", ["a" * 70 + ".example", "x" + ".y" * 130])
def test_hosts_that_no_url_can_name(rig: Rig, host: str) -> None:
    with pytest.raises(RegistryError) as caught:
        rig.pull(f"{host}/x")
    assert host in str(caught.value)
    rig.assert_empty()


@pytest.mark.parametrize("proxy", ["ftp://proxy:1", "socks5://proxy:1", "://"])
def test_a_proxy_that_can_t_be_used(rig: Rig, monkeypatch: pytest.MonkeyPatch, proxy: str) -> None:
    monkeypatch.setenv("HTTPS_PROXY", proxy)
    with pytest.raises(RegistryError, match="the proxy in the environment can't be used"):
        rig.pull("registry.invalid/x")
    rig.assert_empty()


def test_this_machine_is_asked_without_a_proxy(
    rig: Rig, registry: FaultRegistry, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(variable, f"http://127.0.0.1:{free_port()}")
    assert rig.pull(name).id == IMAGE.config_digest


@pytest.mark.parametrize("location", ["http://[::1", "//", "http://x:y/"])
def test_redirects_to_nonsense(rig: Rig, registry: FaultRegistry, name: str, location: str) -> None:
    registry.faults["/manifests/"] = [Fault(302, {"Location": location})] * 9
    with pytest.raises(RegistryError):
        rig.pull(name)
    rig.assert_empty()
