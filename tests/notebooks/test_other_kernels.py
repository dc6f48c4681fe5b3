"""A kernel that isn't Python, and that knows TCP alone: Deno's, in a container without a network."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from ..founding_images import layer, libraries
from ..registries import busybox_layer, make_image, tar_of, write_layout
from .kernel_home import Client, Home, client, home, image

__all__ = ["client", "home", "image"]

pytestmark = [pytest.mark.soak, pytest.mark.needs("root", "overlay")]

SPEC = b'{"argv": ["deno", "jupyter", "--kernel", "--conn", "{connection_file}"], "display_name": "Deno", "language": "typescript"}'


@pytest.fixture
def deno(tmp_path: Path) -> Path:
    """An image with Deno, which the package index has as a wheel with one program in it."""
    words = [
        "install",
        "--quiet",
        "--no-deps",
        "--disable-pip-version-check",
        "--target",
        str(tmp_path / "wheel"),
        "deno",
    ]
    done = subprocess.run([sys.executable, "-m", "pip", *words], capture_output=True, text=True)
    program = tmp_path / "wheel/bin/deno"
    if done.returncode or not program.exists():
        pytest.skip(f"the package index has no Deno for this machine: {done.stderr[-200:]}")
    layers = [
        busybox_layer(),
        layer(libraries([str(program)])),
        tar_of({"usr/bin/deno": program.read_bytes()}, mode=0o755),
        tar_of({"usr/local/share/jupyter/kernels/deno/kernel.json": SPEC, "tmp": None}),
    ]
    made = make_image(layers, compression="none", config={"Env": ["PATH=/usr/bin:/bin", "HOME=/tmp", "NO_COLOR=1"]})
    return write_layout(tmp_path / "image", {"latest": made})


def printed(client: Client, code: str) -> str:
    """What a cell prints. Deno says that a cell has ended before it has sent what was printed last, unless something is waited for."""
    return client.text(f"{code}; await new Promise((done) => setTimeout(done, 1000))")


def test_deno(client: Client, home: Home, deno: Path) -> None:
    words = ["kernel", "install", "--image", f"oci:{deno}:latest", "--pull", "never", "-m", "600m"]
    home.cli("pull", "-q", f"oci:{deno}:latest")
    home.cli(*words, "--name", "deno")
    client.tell("start", "deno", str(home.notebooks), {})
    assert printed(client, "let kept: number = 6; console.log(kept * 7)") == "42\n"
    # Many messages, and a large one.
    assert len(printed(client, "for (let n = 0; n < 200; n++) console.log('x'.repeat(500))")) == 200 * 501
    assert len(printed(client, "console.log('y'.repeat(3 << 20))")) == (3 << 20) + 1
    assert client.run("throw new RangeError('no')")["errors"] == ["RangeError"]
    names = "[...new Set(Deno.networkInterfaces().map((one) => one.name))]"
    assert printed(client, f"console.log({names}.join())") == "lo\n"
    client.tell("restart")
    assert client.run("console.log(kept)")["errors"] == ["ReferenceError"]
    client.tell("shutdown")
    home.cli(*words, "--name", "bare", "--network", "host")
    with pytest.raises(AssertionError, match="it listens at ports: take another network"):
        client.tell("start", "bare", str(home.notebooks), {})
    home.cli("kernel", "remove", "deno", "bare")
