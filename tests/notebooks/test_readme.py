"""The README's blocks, run as they stand, on an image called ``debian`` that is busybox with the few programs which they name."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import nbformat
import pytest

from .. import registries
from ..registries import MadeImage, Registry, busybox_layer, make_image, tar_of, write_layout
from ..tree import TOP
from .driver import Notebook
from .test_magics_kernel import ok

pytestmark = pytest.mark.needs("root", "overlay", "docker-registry", "skopeo")
registry = registries.registry


def blocks() -> list[str]:
    """The README's code blocks."""
    text = (TOP / "README.md").read_text()
    fenced = re.findall(r"^```[^\n]*\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    return fenced + [
        re.sub(r"^    ", "", block, flags=re.MULTILINE) for block in re.findall(r"(?:^    .*\n)+", text, re.MULTILINE)
    ]


def block(start: str) -> str:
    (found,) = [text for text in blocks() if text.startswith(start)]
    return found


def debian() -> MadeImage:
    """What the README's blocks ask of the image ``debian``."""
    programs: dict[str, bytes | str | None] = {
        "bin/bash": b'#!/bin/sh\nexec sh "$@"\n',
        "bin/apt-get": b"#!/bin/sh\necho apt of the README\n",
        "bin/python3": b'#!/bin/sh\necho "python3 $*" of $(cat /usr/share/site/page)\n',
        "bin/useradd": b'#!/bin/sh\nmkdir -p /home/$2 && echo "$2:x:1000:1000::/home/$2:/bin/sh" >> /etc/passwd\n',
        "etc": None,
        "etc/os-release": b'PRETTY_NAME="Debian of the README"\n',
        "etc/passwd": b"root:x:0:0::/root:/bin/sh\n",
        "home": None,
        "root": None,
    }
    return make_image([busybox_layer(), tar_of(programs)])


@pytest.fixture
def environment(registry: Registry, cellwall_root: Path, tmp_path: Path) -> Iterator[dict[str, str]]:
    """Where ``debian`` comes from a registry of the test's own, and ``cellwall`` is this one."""
    layout = write_layout(tmp_path / "layout", {"it": debian()})
    registry.push(f"oci:{layout}:it", "library/debian:latest")
    config = tmp_path / "config.toml"
    config.write_text(f'[registries."docker.io"]\nmirrors = ["http://{registry.host}"]\n')
    program = tmp_path / "bin/cellwall"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m cellwall "$@"\n')
    program.chmod(0o755)
    yield {
        "CELLWALL_CONFIG": str(config),
        "CELLWALL_ROOT": str(cellwall_root),
        "PATH": f"{program.parent}:{os.environ['PATH']}",
        "PYTHONPATH": str(TOP / "src"),
        "REGISTRY": registry.host,
    }


# A network and a /var of the notebook's own: it opens a port of the machine, and looks through the machine's folders.
INSIDE = """
ip link set lo up; mount -t tmpfs tmpfs /var; mount -t tmpfs tmpfs /opt
mkdir -p /var/log /opt/tool; echo installed > /var/log/dpkg.log; echo chosen > /var/log/alternatives.log
exec "$@"
"""


def test_the_cells(environment: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "site").mkdir()
    (tmp_path / "site/page").write_text("the site\n")
    (tmp_path / "requirements.txt").write_text("nothing\n")
    # The registry is on the machine's own loopback.
    subprocess.run(["cellwall", "pull", "-q", "debian"], env=os.environ | environment, check=True, capture_output=True)
    inside = ["unshare", "--net", "--mount", "sh", "-euc", INSIDE, "sh"]
    with Notebook(environment, cwd=tmp_path, inside=inside) as kernel:
        ok(kernel.run(block("%load_ext cellwall")))
        shown = ok(kernel.run(block("%%container debian -m 256m"))).text()
        assert shown.startswith("apt of the README\nuid=0(root)")
        assert re.search(r"^ +0 +[1-9]\d* +65536$", shown, re.MULTILINE), (
            "root inside is an id outside that owns nothing"
        )
        assert "lab:1" in ok(kernel.run(block("%%dockerfile -t lab:1"))).shown
        assert "lab:2" in ok(kernel.run(block("%%layer lab:1 -t lab:2"))).shown
        assert ok(kernel.run("%%container lab:2\nls /home")).text() == "student\n"
        lived = ok(kernel.run(block("%container run -d --name web"))).text()
        assert "python3 -m http.server 80 -d /usr/share/site of the site\n" in lived
        ok(kernel.run("%container rm -f web\n%network rm lab\n%volume rm data"))
        union = ok(kernel.run(block("%%union"))).value
        assert re.search(r"^deleted +log/alternatives.log +/var +whiteout", union, re.MULTILINE)
        assert re.search(r"^copied up +log/dpkg.log +/var ", union, re.MULTILINE)
        # Writes are in a layer of the union's own.
        assert ok(kernel.run("!cat /var/log/*")).text() == "chosen\r\ninstalled\r\n"


def test_the_python(environment: dict[str, str], tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", block("import cellwall")],
        env=os.environ | environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert 'PRETTY_NAME="Debian of the README"\n 0 False Usage(' in done.stdout
    assert "'RUN echo hello > /hello', 'miss'" in done.stdout
    assert done.stdout.endswith("kept\n\n")


def test_the_command_lines(environment: dict[str, str], tmp_path: Path) -> None:
    """Each line by a shell that stops at the first command which fails; a person says yes where they are asked."""
    folder = tmp_path / "here"
    folder.mkdir()
    (folder / "README.md").write_text("read me\n")
    (folder / "Dockerfile").write_text("FROM debian\nARG VERSION\nRUN echo $VERSION > /version\n")
    shown = ""
    for line in (
        block("cellwall run -it --rm debian bash").replace("registry.example", environment["REGISTRY"]).splitlines()
    ):
        terminal = " -it " in line
        done = subprocess.run(
            ["script", "-qec", line, "/dev/null"] if terminal else ["sh", "-ec", line],
            env=os.environ | environment,
            cwd=folder,
            input="exit\n" if terminal else "y\ny\n",
            capture_output=True,
            text=True,
        )
        # doctor's status says what this machine lacks.
        assert done.returncode == 0 or line == "cellwall doctor", f"{line}\n{done.stdout}{done.stderr}"
        shown += done.stdout
    for sign in (
        "README.md",
        "Total reclaimed space",
        "Loaded image",
        "Untagged: debian:latest",
        "REPOSITORY",
        "Status: ",
    ):
        assert sign in shown, sign


def test_the_locks(environment: dict[str, str], tmp_path: Path) -> None:
    """Each line by a shell; papermill is the one beside this Python."""
    new = nbformat.v4.new_code_cell
    cells = [new(text) for text in ("%load_ext cellwall", "%%container debian\ncat /etc/os-release")]  # type: ignore[no-untyped-call]
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    notebook = nbformat.v4.new_notebook(cells=cells, metadata=kernel)  # type: ignore[no-untyped-call]
    (tmp_path / "lab.ipynb").write_text(json.dumps(notebook))
    path = f"{environment['PATH']}:{Path(sys.executable).parent}"
    for line in block("cellwall lock lab.ipynb").splitlines():
        done = subprocess.run(
            ["sh", "-ec", line],
            env=os.environ | environment | {"PATH": path, "IPYTHONDIR": str(tmp_path / "ipython")},
            cwd=tmp_path,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, f"{line}\n{done.stdout}{done.stderr}"
    assert "Debian of the README" in (tmp_path / "out.ipynb").read_text()
    assert (tmp_path / "lab.tar").stat().st_size > 1000
