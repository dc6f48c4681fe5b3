"""The corpus of Dockerfiles, built by cellwall and by buildah: the same root filesystem, entry by entry, and the same config.

buildah's layers are seen mounted, cellwall's unpacked by umoci. Where the installed buildah is older than an instruction it reads
the same in words that it knows (``Dockerfile.buildah``); where the two differ by right, the case says in what and why.
"""

from __future__ import annotations

import re
import shutil
import tempfile
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from ..dockerfile_contexts import served_files
from ..dockerfile_corpus import BASE, CONFIGS, Case, cases, make_context, write_archive
from ..image_roots import Buildah, BuildFailed, Cellwall, differences

pytestmark = [
    pytest.mark.needs("root", "overlay"),
    pytest.mark.skipif(
        any(shutil.which(program) is None for program in ("buildah", "umoci", "busybox")),
        reason="needs buildah, umoci and busybox-static",
    ),
]


class Quiet(SimpleHTTPRequestHandler):
    """Serves files and says nothing of it."""

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The base images, as an archive."""
    return write_archive(tmp_path_factory.mktemp("base") / "base.tar")


@pytest.fixture(scope="module")
def buildah(archive: Path, tmp_path_factory: pytest.TempPathFactory) -> Buildah:
    """buildah with the base images in its store."""
    made = Buildah(tmp_path_factory.mktemp("buildah") / "store")
    made.load(archive, list(CONFIGS))
    return made


@pytest.fixture(scope="module")
def cellwall(archive: Path) -> Iterator[Cellwall]:
    """cellwall with the base images in its store."""
    # Short, for the launcher's sockets lie below it.
    with tempfile.TemporaryDirectory(prefix="cw-", dir="/tmp") as root:
        made = Cellwall(Path(root))
        made("load", "--quiet", "--input", str(archive))
        yield made


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a web server on loopback with what ADD downloads."""
    folder = tmp_path_factory.mktemp("served")
    served_files(folder)
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder))) as running:
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{running.server_port}"
        running.shutdown()
        thread.join()


@pytest.mark.parametrize("case", cases(), ids=lambda case: case.name)
def test_the_same_image(case: Case, buildah: Buildah, cellwall: Cellwall, server: str, tmp_path: Path) -> None:
    context = make_context(case, tmp_path / "context")
    options = [option.format(secrets=tmp_path / "secrets", server=server) for option in case.options]
    name = f"localhost/made/{case.name}:1"
    with ThreadPoolExecutor(1) as other:
        theirs = other.submit(
            lambda: buildah.facts(buildah.build(case.buildah_dockerfile, context, options, layers=case.layers))
        )
        cellwall.build(case.dockerfile, context, options, name)
        found = differences(theirs.result(), cellwall.facts(name, tmp_path))
    undeclared = {what: how for what, how in found.items() if what not in case.differs}
    assert not undeclared, "buildah's and cellwall's images differ:\n" + "\n".join(
        f"  {what}: {how}" for what, how in undeclared.items()
    )
    gone = set(case.differs) - set(found)
    assert not gone, f"case.toml declares differences that aren't there: {sorted(gone)}"


# What is wrong, where, and what the message says of it: the mistake, and what would be right.
MISTAKES = {
    "unknown instruction": ("FROM {base}\nRUNN ls\n", 2, 1, ("RUNN", "did you mean RUN", "allowed")),
    "unknown flag": ("FROM {base}\nCOPY --owner=1 tree /x\n", 2, 6, ("--owner", "--chown", "--chmod")),
    "bad flag value": ("FROM {base}\nCOPY --chmod=rw8 tree /x\n", 2, 14, ("rw8", "0644")),
    "unknown mount type": (
        "FROM {base}\nRUN --mount=type=bnid,target=/x ls\n",
        2,
        5,
        ("bnid", "bind", "cache", "tmpfs"),
    ),
    "unclosed heredoc": ("FROM {base}\nRUN <<EOF\nls\n", 2, 5, ("EOF", "isn't closed")),
    "unclosed quote": ('FROM {base}\nENV A="x\n', 2, 7, ("quote",)),
    "unclosed brace": ("FROM {base}\nENV A=${{x\n", 2, 7, ("${x", "isn't closed")),
    "bad substitution": ("FROM {base}\nLABEL a=${{b!c}}\n", 2, 9, ("${b!c}",)),
    "stage circle": (
        "FROM {base} AS a\nCOPY --from=b /x /\nFROM {base} AS b\nCOPY --from=a /x /\n",
        2,
        1,
        ("b needs a needs b",),
    ),
    "missing file": ("FROM {base}\nCOPY tree/none.txt /x\n", 2, 6, ("tree/none.txt", "context")),
    "missing by pattern": ("FROM {base}\nCOPY *.none /x/\n", 2, 6, ("no file matches *.none",)),
    "missing in stage": (
        "FROM {base} AS a\nRUN touch /one\nFROM {base}\nCOPY --from=a /none /x\n",
        4,
        15,
        ("/none", "did you mean one"),
    ),
    "ignored file": ("FROM {base}\nCOPY hidden.txt /x\n", 2, 6, ("hidden.txt", ".dockerignore")),
    "outside the context": ("FROM {base}\nCOPY ../../etc/passwd /x\n", 2, 6, ("../../etc/passwd", "context")),
    "several to a name": ("FROM {base}\nCOPY tree/one.txt tree/run.sh /x\n", 2, 31, ("/x", "end with /")),
    "unknown user": (
        "FROM {base}\nCOPY --chown=nobody-of-that-name tree/one.txt /x\n",
        2,
        14,
        ("nobody-of-that-name", "number"),
    ),
    "instruction before FROM": ("ENV A=1\nFROM {base}\n", 1, 1, ("ENV", "FROM")),
    "no such image": ("FROM localhost/corpus/nobody-has-it:1\n", 1, 6, ("localhost/corpus/nobody-has-it",)),
    "wrong checksum": (
        "FROM {base}\nARG SERVER\nADD --checksum=sha256:" + "0" * 64 + " $SERVER/file.txt /x\n",
        3,
        0,
        ("0" * 64, "c5acc4ae"),
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_and_its_place(mistake: str, cellwall: Cellwall, server: str, tmp_path: Path) -> None:
    text, line, column, said = MISTAKES[mistake]
    case = Case("mistake", tmp_path, "", pieces=("tree",))
    context = make_context(case, tmp_path / "context")
    (context / ".dockerignore").write_text("hidden.txt\n")
    (context / "hidden.txt").write_text("hidden\n")
    (context / "Dockerfile").write_text(text.format(base=BASE))
    with pytest.raises(BuildFailed) as failed:
        cellwall.build(context / "Dockerfile", context, ["--build-arg", f"SERVER={server}"], "localhost/made/mistake:1")
    message = failed.value.output.rstrip("\n").splitlines()[-1]
    assert failed.value.status == 1
    assert f"line {line}" in message
    assert not column or f"column {column}" in message
    assert [word for word in said if word not in message] == []
    assert "Traceback" not in failed.value.output
    assert "localhost/made/mistake" not in cellwall("images")


def test_a_run_that_fails_leaves_the_image_so_far(
    cellwall: Cellwall, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    context = make_context(Case("failing", tmp_path, "", pieces=("tree",)), tmp_path / "context")
    (context / "Dockerfile").write_text(
        f"FROM {BASE}\nCOPY tree/one.txt /so-far\nLABEL so=far\nRUN echo out; echo err >&2; exit 7\nRUN echo never\n"
    )
    with pytest.raises(BuildFailed) as failed:
        cellwall.build(context / "Dockerfile", context, [], "localhost/made/failing:1")
    output = failed.value.output
    assert "| out" in output and "| err" in output
    message = output.rstrip("\n").splitlines()[-1]
    assert "line 4" in message and "exit status 7" in message
    image = re.search(r"\b[0-9a-f]{12}\b", message)
    assert image is not None, message
    assert cellwall("run", "--rm", image[0], "cat", "/so-far") == ""
    assert capfd.readouterr().out == "one\n"
    assert "localhost/made/failing" not in cellwall("images")
