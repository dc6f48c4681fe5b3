"""Shell kernels as `cellwall kernel install --shell` makes them: Jupyter's own suite, as root and as an ordinary user; nbconvert and the like."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from ..leaks import Leaks
from ..registries import busybox_layer, make_image, tar_of, write_layout
from ..tree import TOP
from .shell_kernel import SHELLS

pytestmark = pytest.mark.needs("root")

# A program of the distribution's may take a while to start on a machine that is busy.
PATIENCE_S = 150


class Installed:
    """A state folder, and a Jupyter that knows a kernel named after each shell of ``images``; ``account`` is whose both are."""

    def __init__(self, root: Path, images: dict[str, str], account: pwd.struct_passwd | None = None) -> None:
        self.root = root
        self._account = account
        source = TOP / "src" if account is None else self._copy()
        packages = [path for path in sys.path if path.endswith("site-packages")] if account else []
        self._environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(root / "home"),
            "PYTHONPATH": os.pathsep.join([str(source), *packages]),
            "PYTHONDONTWRITEBYTECODE": "1",
            "CELLWALL_ROOT": str(root / "s"),
            "JUPYTER_DATA_DIR": str(root / "jupyter"),
            "JUPYTER_RUNTIME_DIR": str(root / "r"),
            "JUPYTER_CONFIG_DIR": str(root / "config"),
            "JUPYTER_PLATFORM_DIRS": "1",
            "IPYTHONDIR": str(root / "ipython"),
            "KERNELS_UNDER_TEST": " ".join(images),
        }
        for name in ("home", "notebooks", "s"):
            (root / name).mkdir()
        if account is not None:
            for folder, _, _ in os.walk(root):
                os.chown(folder, account.pw_uid, account.pw_gid)
        for shell, image in images.items():
            self.run(*"-m cellwall kernel install --shell --name".split(), shell, "--language", shell, "--image", image)

    def _copy(self) -> Path:
        # The checkout may lie where that user can't read.
        source = self.root / "source"
        for name in ("runtime", "kernel"):
            shutil.copytree(TOP / name, source / "cellwall" / name, ignore=shutil.ignore_patterns("__pycache__"))
        for name in ("__init__.py", "__main__.py"):
            shutil.copy(TOP / name, source / "cellwall")
        for name in ("shell_suite.py", "patient_suite.py"):
            shutil.copy(Path(__file__).parent / name, source)
        return source

    def run(self, *words: str) -> str:
        """What a Python program printed on both streams; it ended with status 0."""
        account = self._account
        python = (
            sys.executable if account is None else (shutil.which("python3", path="/usr/bin:/bin") or sys.executable)
        )
        done = subprocess.run(
            [python, *words],
            env=self._environment,
            cwd=self.root / "notebooks",
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=PATIENCE_S,
            user=None if account is None else account.pw_uid,
            group=None if account is None else account.pw_gid,
            extra_groups=None if account is None else [],
        )
        assert done.returncode == 0, done.stdout
        return done.stdout

    def suite(self) -> str:
        place = Path(__file__).parent if self._account is None else self.root / "source"
        return self.run(str(place / "shell_suite.py"), "-v")


def image_of(shell: str, folder: Path) -> str:
    if shell != "ash":
        return "host"
    layers = [busybox_layer(), tar_of({"etc/passwd": b"root:x:0:0::/:/bin/sh\n"})]
    return f"oci:{write_layout(folder, {'latest': make_image(layers)})}:latest"


@pytest.fixture
def root() -> Iterator[Path]:
    made = Path(tempfile.mkdtemp(prefix="cw-", dir="/tmp"))
    made.chmod(0o755)
    yield made
    shutil.rmtree(made)


@pytest.mark.soak
@pytest.mark.parametrize("shell", SHELLS)
def test_jupyters_own_suite(root: Path, shell: str) -> None:
    passed(Installed(root, {shell: image_of(shell, root / "image")}).suite())


@pytest.mark.soak
def test_other_clients(root: Path) -> None:
    made = Installed(root, {"bash": image_of("bash", root / "image")})
    notebook = root / "notebooks" / "one.ipynb"
    made.run("-c", _NOTEBOOK, str(notebook))
    done = made.run("-m", "jupyter", "nbconvert", "--to", "markdown", "--execute", "--stdout", str(notebook))
    assert "42" in done
    made.run("-m", "papermill", str(notebook), str(root / "notebooks" / "two.ipynb"))
    assert "42" in (root / "notebooks" / "two.ipynb").read_text()


def passed(said: str) -> None:
    """Every test of the suite has passed; those skipped have no meaning in a shell."""
    # Results of expressions, their history, and clearing the output.
    assert "OK (skipped=3)" in said, said


def ordinary_user() -> pwd.struct_passwd:
    for line in Path("/etc/subuid").read_text().splitlines() if Path("/etc/subuid").exists() else ():
        try:
            found = pwd.getpwnam(line.split(":")[0])
        except KeyError:
            continue
        if found.pw_uid:
            return found
    pytest.skip("no user of this machine has subordinate ids: sudo useradd --create-home NAME gives one")


@pytest.mark.soak
@pytest.mark.needs("user-namespaces", "overlay-userns")
def test_jupyters_own_suite_as_an_ordinary_user(root: Path, leaks: Leaks | None) -> None:
    if leaks is not None:
        leaks.own(root)
    made = Installed(root, {"ash": image_of("ash", root / "image")}, ordinary_user())
    passed(made.suite())
    made.run("-c", _INPUT_AND_INTERRUPT)


# As the suite's author leaves out: input and interrupts, which depend on what the user may see of the container's processes.
_INPUT_AND_INTERRUPT = """
from jupyter_client.manager import start_new_kernel
manager, client = start_new_kernel(kernel_name="ash")
try:
    def run(code, then):
        client.execute(code, allow_stdin=True)
        text = ""
        while True:
            message = client.get_iopub_msg(timeout=60)
            kind, content = message["msg_type"], message["content"]
            if kind == "stream" and content["name"] == "stdout":
                text += content["text"]
                if then and "begun" in text:
                    then()
                    then = None
            if kind == "status" and content["execution_state"] == "idle" and message["parent_header"]["msg_type"] == "execute_request":
                return text
    def answer():
        client.get_stdin_msg(timeout=60)
        client.input("Ada")
    told = [run("echo begun; read name; echo hello $name", answer), run("echo begun; sleep 610; echo never", manager.interrupt_kernel)]
    assert told == ["begun\\nhello Ada\\n", "begun\\n"], told
finally:
    client.stop_channels()
    manager.shutdown_kernel()
"""


_NOTEBOOK = """
import sys, nbformat
from nbformat.v4 import new_code_cell, new_notebook
cells = [new_code_cell("x=6"), new_code_cell("echo $((x * 7))"), new_code_cell("read y || echo no input")]
kernelspec = {"name": "bash", "display_name": "Shell", "language": "bash"}
nbformat.write(new_notebook(cells=cells, metadata={"kernelspec": kernelspec}), sys.argv[1])
"""
