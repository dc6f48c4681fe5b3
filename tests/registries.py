"""Registries on loopback and small images to put in them: Debian's docker-registry as it is, and skopeo to fill it.

Plain functions and context managers, and the fixtures ``registry`` and ``tls_registry`` made of them. No root is needed,
only the programs: docker-registry, skopeo, openssl, and a static busybox for the images.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import random
import re
import shutil
import signal
import socket
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from .waiting import until

PROGRAMS = ("docker-registry", "skopeo", "openssl", "busybox")
USER, PASSWORD = "cell", "wall and more"


def missing_programs() -> list[str]:
    """What of PROGRAMS isn't installed."""
    return [program for program in PROGRAMS if shutil.which(program) is None]


def free_port() -> int:
    """A port that nobody has on loopback, and that the kernel gives to nobody who asks for any: what another worker does leaves it free."""
    first_given = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    # Not by ``random`` itself, which Hypothesis seeds alike in each worker.
    chance = random.SystemRandom()
    while True:
        with socket.socket() as listener:
            try:
                # A machine that gives almost all of them leaves none for this.
                listener.bind(("127.0.0.1", chance.randrange(10_000, first_given) if first_given > 20_000 else 0))
            except OSError:
                continue
            port: int = listener.getsockname()[1]
            return port


@dataclass(frozen=True)
class Registry:
    """A running registry. ``host`` is ``127.0.0.1:port``; ``ca_file`` and the log-in are there where it speaks TLS."""

    host: str
    directory: Path
    ca_file: Path | None = None
    username: str = ""
    password: str = ""
    log: Path = field(default=Path("/dev/null"))

    def name(self, repository: str) -> str:
        return f"{self.host}/{repository}"

    def push(self, source: str, repository: str, *options: str) -> str:
        """Copies ``source`` (``oci:DIR:NAME``, …) to ``repository`` with skopeo; the image's full name."""
        command = ["skopeo", "copy", "--quiet", *options]
        if self.ca_file is not None:
            command += ["--dest-cert-dir", str(self.ca_file.parent), "--dest-creds", f"{self.username}:{self.password}"]
        else:
            command += ["--dest-tls-verify=false"]
        subprocess.run(
            [*command, source, f"docker://{self.name(repository)}"], check=True, capture_output=True, timeout=60
        )
        return self.name(repository)

    def auth_file(self, path: Path) -> Path:
        """Writes docker's auth file with this registry's log-in."""
        import base64

        encoded = base64.b64encode(f"{self.username}:{self.password}".encode()).decode()
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({"auths": {self.host: {"auth": encoded}}}))
        return path


@contextmanager
def run_registry(
    directory: Path, *, tls: bool = False, port: int | None = None, inside: Sequence[str] = ()
) -> Iterator[Registry]:
    """Debian's docker-registry on a loopback port (None: one that is free), its data below ``directory``; ended when the block ends.

    ``inside`` is what a command line begins with to run in other namespaces than this process's.
    """
    directory.mkdir(parents=True, exist_ok=True)
    config: dict[str, Any] = {
        "version": "0.1",
        "log": {"level": "info", "accesslog": {"disabled": True}},
        "storage": {"filesystem": {"rootdirectory": str(directory / "data")}, "delete": {"enabled": True}},
        # It takes a free port by itself, and says which: one that was looked for before may be another's by now.
        "http": {"addr": f"127.0.0.1:{port or 0}"},
    }
    ca_file = None
    if tls:
        ca_file = _certificates(directory / "certs")
        password_file = directory / "htpasswd"
        password_file.write_text(f"{USER}:{_bcrypt(PASSWORD)}\n")
        config["http"]["tls"] = {
            "certificate": str(ca_file.parent / "server.crt.pem"),
            "key": str(ca_file.parent / "server.key.pem"),
        }
        config["auth"] = {"htpasswd": {"realm": "cells", "path": str(password_file)}}
    # JSON is YAML, as docker-registry reads it.
    config_file = directory / "registry.yml"
    config_file.write_text(json.dumps(config))
    log = directory / "registry.log"
    with open(log, "ab") as output:
        begun = output.tell()
        process = subprocess.Popen(
            [*inside, "docker-registry", "serve", str(config_file)], stdout=output, stderr=output
        )
    try:
        port = _port_of(process, log, begun)
        login = (USER, PASSWORD) if tls else ("", "")
        yield Registry(f"127.0.0.1:{port}", directory, ca_file, *login, log=log)
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _port_of(process: subprocess.Popen[bytes], log: Path, begun: int) -> int:
    """The port that it listens on, as its log says from ``begun`` on."""

    def look() -> int:
        has_ended = process.poll() is not None
        said = log.read_bytes()[begun:].decode(errors="replace")
        if has_ended:
            raise RuntimeError(f"docker-registry ended with {process.returncode}: {said[-2000:]}")
        found = re.search(r"listening on 127\.0\.0\.1:(\d+)", said)
        return int(found[1]) if found else 0

    return until(look, lambda: f"docker-registry to listen: {log.read_text()[-2000:]}")


def _certificates(folder: Path) -> Path:
    """A CA and a certificate for 127.0.0.1 and localhost; the CA's file (its folder works as skopeo's --cert-dir)."""
    folder.mkdir(parents=True, exist_ok=True)

    def openssl(*arguments: str) -> None:
        subprocess.run(["openssl", *arguments], check=True, capture_output=True, cwd=folder)

    curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    openssl(
        "req", "-x509", *curve, "-keyout", "ca.key.pem", "-out", "ca.crt", "-days", "2", "-subj", "/CN=cellwall test CA"
    )
    openssl("req", *curve, "-keyout", "server.key.pem", "-out", "server.csr", "-subj", "/CN=127.0.0.1")
    (folder / "san").write_text("subjectAltName=IP:127.0.0.1,DNS:localhost\n")
    openssl(
        *("x509", "-req", "-in", "server.csr", "-CA", "ca.crt", "-CAkey", "ca.key.pem", "-CAcreateserial"),
        *("-days", "2", "-extfile", "san", "-out", "server.crt.pem"),
    )
    return folder / "ca.crt"


def _bcrypt(password: str) -> str:
    """docker-registry takes bcrypt only, and htpasswd(1) is in a package that nothing else here needs."""
    # crypt(3) of Debian's libxcrypt knows $2b$; the salt is 22 characters of bcrypt's own alphabet.
    import ctypes
    import ctypes.util

    library = ctypes.CDLL(ctypes.util.find_library("crypt") or "libcrypt.so.1")
    library.crypt.restype = ctypes.c_char_p
    library.crypt.argtypes = [ctypes.c_char_p, ctypes.c_char_p]
    hashed: bytes | None = library.crypt(password.encode(), b"$2b$04$abcdefghijklmnopqrstuu")
    if hashed is None or not hashed.startswith(b"$2"):
        raise RuntimeError("crypt(3) makes no bcrypt hashes here: install libcrypt1")
    return hashed.decode()


# -- images


def tar_of(files: dict[str, bytes | str | None], *, mode: int = 0o755, mtime: int = 1_700_000_000) -> bytes:
    """A tar: bytes are a file, a str is a symlink to it, None is a folder; in the order given."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.mode, member.mtime = mode, mtime
            if content is None:
                member.type = tarfile.DIRTYPE
            elif isinstance(content, str):
                member.type, member.linkname = tarfile.SYMTYPE, content
            else:
                member.size = len(content)
            tar.addfile(member, io.BytesIO(content) if isinstance(content, bytes) else None)
    return buffer.getvalue()


def busybox_layer() -> bytes:
    """A root of the machine's static busybox with its usual names."""
    busybox = Path(shutil.which("busybox") or "/bin/busybox")
    program = busybox.read_bytes()
    commands = subprocess.run([busybox, "--list"], capture_output=True, text=True, check=True).stdout.split()
    files: dict[str, bytes | str | None] = {"bin": None, "bin/busybox": program}
    files |= {f"bin/{name}": "busybox" for name in commands if name != "busybox"}
    files |= dict.fromkeys(("dev", "etc", "proc", "sys", "tmp", "root", "home"))
    files["etc/passwd"] = b"root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n"
    files["etc/group"] = b"root:x:0:\nnobody:x:65534:\n"
    return tar_of(files)


OCI_LAYER = "application/vnd.oci.image.layer.v1.tar"
OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX = "application/vnd.oci.image.index.v1+json"
DOCKER_TYPES = (
    "application/vnd.docker.distribution.manifest.v2+json",
    "application/vnd.docker.container.image.v1+json",
    "application/vnd.docker.image.rootfs.diff.tar",
)


def sha256_of(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


@dataclass
class MadeImage:
    """An image made by hand: its blobs by digest, its manifest, its config."""

    manifest: bytes
    config: bytes
    blobs: dict[str, bytes]
    layers: list[str]

    @property
    def digest(self) -> str:
        return sha256_of(self.manifest)

    @property
    def config_digest(self) -> str:
        return sha256_of(self.config)


def make_image(
    layers: list[bytes],
    *,
    compression: str = "gzip",
    architecture: str = "amd64",
    config: dict[str, Any] | None = None,
    media_types: tuple[str, str, str] = (OCI_MANIFEST, OCI_CONFIG, OCI_LAYER),
    diff_ids: list[str] | None = None,
    history: list[dict[str, Any]] | None = None,
) -> MadeImage:
    """An image of the tars ``layers``, base first. ``compression``: gzip, zstd or none."""
    manifest_type, config_type, layer_type = media_types
    separator = "." if "docker" in layer_type else "+"
    blobs: dict[str, bytes] = {}
    described: list[dict[str, Any]] = []
    for tar in layers:
        if compression == "gzip":
            packed, suffix = gzip.compress(tar, 1, mtime=0), f"{separator}gzip"
        elif compression == "zstd":
            import zstandard

            packed, suffix = zstandard.ZstdCompressor().compress(tar), f"{separator}zstd"
        else:
            packed, suffix = tar, ""
        blobs[sha256_of(packed)] = packed
        described.append({"mediaType": layer_type + suffix, "digest": sha256_of(packed), "size": len(packed)})
    document = {
        "created": "2024-01-02T03:04:05Z",
        "architecture": architecture,
        "os": "linux",
        "config": {"Cmd": ["sh"], "Env": ["PATH=/bin"], **(config or {})},
        "rootfs": {"type": "layers", "diff_ids": diff_ids or [sha256_of(tar) for tar in layers]},
        "history": history or [{"created_by": f"layer {number}"} for number in range(len(layers))],
    }
    raw_config = json.dumps(document).encode()
    blobs[sha256_of(raw_config)] = raw_config
    manifest = {
        "schemaVersion": 2,
        "mediaType": manifest_type,
        "config": {"mediaType": config_type, "digest": sha256_of(raw_config), "size": len(raw_config)},
        "layers": described,
    }
    raw = json.dumps(manifest).encode()
    return MadeImage(raw, raw_config, blobs, [layer["digest"] for layer in described])


def make_index(images: dict[str, MadeImage]) -> bytes:
    """An index of images by platform (``linux/amd64``)."""
    entries = []
    for platform, image in images.items():
        os_name, architecture, *variant = platform.split("/")
        described: dict[str, Any] = {"os": os_name, "architecture": architecture}
        if variant:
            described["variant"] = variant[0]
        entries.append(
            {"mediaType": OCI_MANIFEST, "digest": image.digest, "size": len(image.manifest), "platform": described}
        )
    return json.dumps({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": entries}).encode()


def write_layout(folder: Path, images: dict[str, MadeImage]) -> Path:
    """An OCI layout with ``images`` by name."""
    blobs = folder / "blobs" / "sha256"
    blobs.mkdir(parents=True, exist_ok=True)
    (folder / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    entries = []
    for name, image in images.items():
        for digest, content in [*image.blobs.items(), (image.digest, image.manifest)]:
            (blobs / digest.partition(":")[2]).write_bytes(content)
        entries.append(
            {
                "mediaType": OCI_MANIFEST,
                "digest": image.digest,
                "size": len(image.manifest),
                "annotations": {"org.opencontainers.image.ref.name": name},
            }
        )
    (folder / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": entries}))
    return folder


def busybox_image(**config: Any) -> MadeImage:
    """A runnable image: busybox, with an added layer of one file."""
    return make_image([busybox_layer(), tar_of({"etc/motd": b"hello from a layer\n"}, mode=0o644)], config=config)


# -- fixtures (conftest.py takes them from here)


def _need_programs() -> None:
    if missing := missing_programs():
        pytest.skip(f"not installed: {', '.join(missing)}")


@pytest.fixture(scope="session")
def registry() -> Iterator[Registry]:
    """A plain registry with ``busybox:latest`` in it, for the whole session. Push under a name of the test's own."""
    _need_programs()
    with tempfile.TemporaryDirectory(prefix="cellwall-registry-") as folder:
        layout = write_layout(Path(folder, "layout"), {"busybox:latest": busybox_image()})
        with run_registry(Path(folder, "registry")) as running:
            running.push(f"oci:{layout}:busybox:latest", "busybox:latest")
            yield running


@pytest.fixture(scope="session")
def tls_registry() -> Iterator[Registry]:
    """A registry with TLS and a log-in, with ``busybox:latest`` in it, for the whole session."""
    _need_programs()
    with tempfile.TemporaryDirectory(prefix="cellwall-registry-") as folder:
        layout = write_layout(Path(folder, "layout"), {"busybox:latest": busybox_image()})
        with run_registry(Path(folder, "registry"), tls=True) as running:
            running.push(f"oci:{layout}:busybox:latest", "busybox:latest")
            yield running
