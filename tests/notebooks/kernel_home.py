"""What tests of kernels in containers share: a state folder with a kernel's image, kernelspecs of it, and clients in processes of their own."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cellwall.runtime.paths import Paths

from ..kernel_image import kernel_image
from ..leaks import processes
from ..registries import write_layout
from ..tree import TOP

PATIENCE_S = 60.0
# A cell that says something and goes on until it is interrupted. In short steps: Python heeds a signal that comes just before one
# of its waits only after that wait, in the plain kernel too (9 of 1,200 interrupts sent at this moment; 5 of 1,200 here).
ENDLESS = "print('.', flush=True)\nimport time\nwhile True: time.sleep(0.05)"
ENTRY_POINT = "[jupyter_client.kernel_provisioners]\ncellwall = cellwall.kernel.provisioner:CellwallProvisioner\n"


class Home:
    """A state folder with the image ``kernel:1``, and a Jupyter that knows the kernels ``box`` (by provisioner) and ``argv``.

    ``account``: uid and gid of an ordinary user whose it is.
    """

    def __init__(self, root: Path, image: Path, account: tuple[int, int] | None = None) -> None:
        self.root = root
        self.account = account
        self.notebooks = root / "notebooks"
        self.notebooks.mkdir()
        self.run = Paths.default({"CELLWALL_ROOT": str(root / "s")}).run
        # The provisioner's entry point, also where the package is not installed but on the path.
        known = root / "path" / "cellwall-0.dist-info"
        known.mkdir(parents=True)
        (known / "METADATA").write_text("Metadata-Version: 2.1\nName: cellwall\nVersion: 0\n")
        (known / "entry_points.txt").write_text(ENTRY_POINT)
        packages = [path for path in sys.path if path.endswith("site-packages")]
        self.environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(root / "home"),
            "PYTHONPATH": os.pathsep.join([str(root / "path"), str(self._source()), *(packages if account else [])]),
            "PYTHONDONTWRITEBYTECODE": "1",
            "CELLWALL_ROOT": str(root / "s"),
            "JUPYTER_DATA_DIR": str(root / "jupyter"),
            "JUPYTER_RUNTIME_DIR": str(root / "r"),
            "JUPYTER_CONFIG_DIR": str(root / "config"),
            "JUPYTER_PLATFORM_DIRS": "1",
            "IPYTHONDIR": str(root / "ipython"),
            "NO_COLOR": "1",
        }
        (root / "home").mkdir()
        if account is not None:
            for folder, _, _ in os.walk(root):
                os.chown(folder, *account)
        self.cli("pull", "-q", f"oci:{image}:latest")
        self.cli("tag", f"oci:{image}:latest", "kernel:1")
        self.cli("kernel", "install", "--image", "kernel:1", "--name", "box", "-m", "200m", "--cpus", "1")
        spec = json.loads((root / "jupyter/kernels/box/kernel.json").read_text())
        del spec["metadata"]["kernel_provisioner"]
        spec["display_name"] += " by argv"
        shutil.copytree(root / "jupyter/kernels/box", root / "jupyter/kernels/argv")
        (root / "jupyter/kernels/argv/kernel.json").write_text(json.dumps(spec))

    def _source(self) -> Path:
        if self.account is None:
            return TOP / "src"
        # The checkout may lie where that user can't read.
        ignore = shutil.ignore_patterns("__pycache__")
        for name in ("runtime", "kernel"):
            shutil.copytree(TOP / name, self.root / "source/cellwall" / name, ignore=ignore)
        for name in ("__init__.py", "__main__.py"):
            shutil.copy(TOP / name, self.root / "source/cellwall" / name)
        for name in ("kernel_client.py", "kernel_suite.py", "patient_suite.py"):
            shutil.copy(Path(__file__).parent / name, self.root / "source")
        return self.root / "source"

    @property
    def python(self) -> str:
        return (
            sys.executable
            if self.account is None
            else (shutil.which("python3", path="/usr/bin:/bin") or sys.executable)
        )

    def popen(self, *words: str, **options: Any) -> subprocess.Popen[str]:
        if self.account is not None:
            options |= {"user": self.account[0], "group": self.account[1], "extra_groups": []}
        return subprocess.Popen(
            [self.python, *words],
            env=self.environment,
            cwd=self.notebooks,
            text=True,
            start_new_session=True,
            **options,
        )

    def script(self, *words: str, status: int = 0) -> str:
        """What a Python program printed, on both streams."""
        process = self.popen(*words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL)
        try:
            said, _ = process.communicate(timeout=PATIENCE_S * 2)
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.communicate()
        assert process.returncode == status, said
        return said

    def suite(self, kind: str) -> str:
        """What Jupyter's own suite for kernels says of the kernel ``kind``."""
        self.environment["KERNEL_UNDER_TEST"] = kind
        place = self.root / "source" if self.account else Path(__file__).parent
        return self.script(str(place / "kernel_suite.py"), "-v")

    def cli(self, *words: str, status: int = 0) -> str:
        return self.script("-m", "cellwall", *words, status=status)

    def left(self) -> list[str]:
        """What is still there of kernels, once what ends by itself has ended."""
        deadline = time.monotonic() + PATIENCE_S
        while (found := self._left()) and time.monotonic() < deadline:
            time.sleep(0.05)
        return found

    def _left(self) -> list[str]:
        found = [str(path) for name in ("k", "containers", "ids") for path in (self.run / name).glob("*")]
        return found + [command for _, _, command in processes() if str(self.root) in command]


class Client:
    """A kernel_client.py of ``home``'s, told what to do by calling its methods."""

    def __init__(self, home: Home) -> None:
        place = home.root / "source/kernel_client.py" if home.account else Path(__file__).parent / "kernel_client.py"
        self.process = home.popen(str(place), stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def tell(self, method: str, *arguments: object) -> Any:
        assert self.process.stdin and self.process.stdout
        self.process.stdin.write(json.dumps([method, *arguments]) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        assert line, "the client ended"
        answer = json.loads(line)
        if "error" in answer:
            raise AssertionError(answer["error"])
        return answer["result"]

    def run(self, code: str, then: str = "") -> Any:
        return self.tell("execute", code, then)

    def text(self, code: str) -> str:
        done = self.run(code)
        assert done["status"] == "ok", done
        return str(done["text"])

    def end(self) -> None:
        assert self.process.stdin and self.process.stdout
        self.process.stdin.close()
        self.process.wait(PATIENCE_S)
        self.process.stdout.close()

    def kill(self) -> None:
        assert self.process.stdin and self.process.stdout
        self.process.kill()
        self.process.wait(PATIENCE_S)
        self.process.stdin.close()
        self.process.stdout.close()


@pytest.fixture(scope="session")
def image() -> Iterator[Path]:
    """The kernel's image as an OCI layout that other users can read."""
    folder = Path(tempfile.mkdtemp(prefix="cw-image-", dir="/tmp"))
    folder.chmod(0o755)
    yield write_layout(folder, {"latest": kernel_image()})
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def home(image: Path) -> Iterator[Home]:
    root = Path(tempfile.mkdtemp(prefix="cw-k", dir="/tmp"))
    yield Home(root, image)
    shutil.rmtree(root)


@pytest.fixture
def client(home: Home) -> Iterator[Client]:
    """A client of a test's own; nothing of its kernels is left after the test."""
    made = Client(home)
    yield made
    if made.process.poll() is None:
        made.end()
    assert home.left() == []
