"""The image that is pulled: Debian, Python and numpy in four layers, made here from Debian's packages, and a registry with it.

cellwall makes it (``bootstrap``, ``build``, ``save``); skopeo compresses its layers, so that they are gzip as Go writes it,
which is what registries hold, whatever cellwall's own compressor does.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

# Two of the layers come from apt: one that is mostly small files, one that is mostly libraries.
DOCKERFILE = """\
FROM {base}
RUN --network=host printf 'Dir::Cache::pkgcache "";\\nDir::Cache::srcpkgcache "";\\n' > /etc/apt/apt.conf.d/90image \\
 && apt-get update && apt-get install -y --no-install-recommends python3 python3-dev python3-pip python3-venv \\
 && apt-get clean && rm -rf /var/lib/apt/lists/*
RUN --network=host apt-get update && apt-get install -y --no-install-recommends python3-numpy \\
 && apt-get clean && rm -rf /var/lib/apt/lists/*
RUN printf 'import numpy\\nprint(numpy.arange(10).sum())\\n' > /srv/sum.py
CMD ["python3", "/srv/sum.py"]
"""
NUMPY = ("python3", "-c", "import numpy")
_START_TIMEOUT_S = 30.0


class MakingFailed(Exception):
    """A program that the image or its registry needs isn't there or failed; the text says what it said."""


def make_image(cache: Path) -> Path:
    """The image as an OCI layout in ``cache``, where it is made unless it is there. Needs root and Debian's package archive."""
    layout = cache / "layout"
    if layout.is_dir():
        return layout
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".tmp-", dir=cache) as folder:
        work = Path(folder)
        print(f"making the image in {cache}, once: some minutes", file=sys.stderr)
        base = _cellwall(work, "bootstrap", "debian").strip().splitlines()[-1]
        context = work / "context"
        context.mkdir()
        (context / "Dockerfile").write_text(DOCKERFILE.format(base=base))
        _cellwall(work, "build", "-t", "pulled", str(context))
        _cellwall(work, "save", "-o", str(work / "image.tar"), "pulled")
        _run(["skopeo", "copy", "--quiet", f"docker-archive:{work}/image.tar", f"oci:{work}/layout:latest"])
        (work / "layout").rename(layout)
    return layout


def described(layout: Path) -> str:
    """How many layers the image has, and their sizes as they are transferred."""
    index = json.loads((layout / "index.json").read_bytes())
    manifest = json.loads(_blob(layout, index["manifests"][0]["digest"]))
    sizes = [layer["size"] for layer in manifest["layers"]]
    return f"{len(sizes)} layers, {sum(sizes) / 1e6:.0f} MB compressed ({', '.join(f'{size / 1e6:.1f}' for size in sizes)})"


def _blob(layout: Path, digest: str) -> bytes:
    return (layout / "blobs" / digest.replace(":", "/")).read_bytes()


def _cellwall(root: Path, *words: str) -> str:
    return _run([sys.executable, "-m", "cellwall", *words], CELLWALL_ROOT=str(root / "store"))


def _run(argv: list[str], **environment: str) -> str:
    try:
        done = subprocess.run(
            argv, env=dict(os.environ) | environment, stdin=subprocess.DEVNULL, capture_output=True, text=True
        )
    except FileNotFoundError as err:
        raise MakingFailed(f"{argv[0]} is not installed") from err
    if done.returncode:
        lines = (done.stderr or done.stdout).strip().splitlines() or ["it said nothing"]
        raise MakingFailed(f"{' '.join(argv)}: status {done.returncode}: {lines[-1]}")
    return done.stdout


@contextmanager
def served(layout: Path, folder: Path) -> Iterator[str]:
    """Debian's docker-registry on a loopback port with the image in it, its data in ``folder``; the image's name there."""
    if shutil.which("docker-registry") is None:
        raise MakingFailed("docker-registry is not installed")
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    folder.mkdir()
    config = {
        "version": "0.1",
        "log": {"level": "error", "accesslog": {"disabled": True}},
        "storage": {"filesystem": {"rootdirectory": str(folder / "data")}},
        "http": {"addr": f"127.0.0.1:{port}"},
    }
    # JSON is YAML, as docker-registry reads it.
    (folder / "registry.yml").write_text(json.dumps(config))
    with open(folder / "log", "wb") as log:
        process = subprocess.Popen(
            ["docker-registry", "serve", str(folder / "registry.yml")],
            stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
        )  # fmt: skip
    try:
        deadline = time.monotonic() + _START_TIMEOUT_S
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            except OSError as err:
                if process.poll() is not None or time.monotonic() > deadline:
                    raise MakingFailed(f"docker-registry: {(folder / 'log').read_text()[-500:]}") from err
                time.sleep(0.05)
        name = f"127.0.0.1:{port}/pulled:latest"
        _run(["skopeo", "copy", "--quiet", "--dest-tls-verify=false", f"oci:{layout}:latest", f"docker://{name}"])
        yield name
    finally:
        process.terminate()
        process.wait()
