"""`%%dockerfile` and `%%layer` in a real kernel: live output, errors of one line, chains of layers, interrupts, results."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from ..leaks import Leaks
from ..registries import busybox_image, write_layout
from .driver import Execution, Notebook
from .test_magics_kernel import gone

pytestmark = pytest.mark.needs("root", "overlay")


@pytest.fixture(scope="module")
def notebook() -> Iterator[Notebook]:
    """One kernel in a folder with an image layout ``bb`` and a build context; looked through when it has ended."""
    check = Leaks()
    root = Path(tempfile.mkdtemp(prefix="cw-", dir="/tmp"))
    work = Path(tempfile.mkdtemp(prefix="cw-work-", dir="/tmp"))
    check.own(root)
    write_layout(work / "bb", {"latest": busybox_image()})
    (work / "context").mkdir()
    (work / "context/file").write_text("of the context\n")
    with Notebook({"CELLWALL_ROOT": str(root)}, cwd=work) as started:
        ok(started.run("%load_ext cellwall"))
        # The launcher stays as long as the kernel.
        ok(started.run(f"%%container {BASE}\ntrue"))
        yield started
    check.close(root)
    for folder in (root, work):
        shutil.rmtree(folder)
    assert check.left() == []


def ok(execution: Execution) -> Execution:
    assert execution.error is None, execution.shown_error
    return execution


BASE = "oci:bb:latest"


def test_a_dockerfile_cell(notebook: Notebook) -> None:
    cell = f"%%dockerfile -t made:1 --result built context\nFROM {BASE}\nCOPY file /file\nRUN echo seen; cat /file\nCMD cat /file\n"
    shown = ok(notebook.run(cell)).text().splitlines()
    assert shown[0] == f"[1/4] miss FROM {BASE}"
    assert shown[1].strip().startswith("because not built before")
    assert "3 | seen" in shown
    assert "3 | of the context" in shown
    assert shown[-1] == "made:1: 4 steps, 0 from the cache"
    assert notebook.value("[step.status for step in built.steps]") == ["miss"] * 4
    assert ok(notebook.run("%%container made:1\ncat /file")).text() == "of the context\n"
    again = ok(notebook.run(cell)).text().splitlines()
    assert again[-1] == "made:1: 4 steps, 4 from the cache"
    assert [line.split()[1] for line in again[:-1]] == ["hit"] * 4
    assert notebook.value("built.hits, len(built.misses), built.tags") == (4, 0, ("made:1",))
    quiet = ok(notebook.run(cell.replace("-t made:1", "-t made:1 -q")))
    assert quiet.kinds("stream", "display_data", "execute_result") == []


def test_the_layers_of_a_result(notebook: Notebook) -> None:
    """``%layers VAR`` takes what ``--result VAR`` kept; the view is a value, shown as HTML and as text."""
    ok(notebook.run(f"%%dockerfile -q --result of_view context\nFROM {BASE}\nCOPY file /file\nRUN rm /bin/sh\n"))
    shown = ok(notebook.run("%layers of_view"))
    (data,) = [content["data"] for content in shown.kinds("execute_result")]
    for form in ("text/html", "text/plain"):
        assert "COPY file /file" in data[form] and "RUN rm /bin/sh" in data[form] and "1 deleted" in data[form]
    ok(notebook.run("view = %layers of_view --path /bin/sh"))
    assert notebook.value("view.id == of_view.image.id, view.path.exists, view.path.layers[0].role") == (
        True,
        False,
        "whiteout",
    )
    assert notebook.value("len(view.layers), view.layers[1].contents.added") == (4, 1)
    wrong = notebook.run("%layers of_view more")
    assert wrong.shown_error == ["SpecError: layers: needs one container or image: layers NAME"]


def test_output_is_live(notebook: Notebook) -> None:
    """What a RUN writes is shown while it waits for an answer, which only comes then."""
    running = notebook.start(
        f"%%dockerfile -t live:1\nFROM {BASE}\nRUN --mount=type=cache,target=/m echo waits; n=0; "
        "while [ ! -e /m/go ]; do n=$((n+1)); [ $n -lt 6000 ] || exit 9; sleep 0.01; done\n"
    )
    running.wait_for("2 | waits")
    notebook_root = Path(str(notebook._environment["CELLWALL_ROOT"]))
    (mount,) = (path for path in (notebook_root / "build-cache/mounts").iterdir() if path.is_dir())
    (mount / "go").touch()
    ok(running.wait())


def test_layers_chain_to_a_dockerfile(notebook: Notebook, tmp_path: Path) -> None:
    ok(notebook.run(f"%%layer {BASE} -t one:1 --result first\nmkdir /data\necho one > /data/one"))
    ok(
        notebook.run(
            "%%layer one:1 -t two:1 --result second\ncp /data/one /data/two; echo '$HOME' \"quoted\" \\\\ > /data/odd"
        )
    )
    shown = ok(
        notebook.run(
            "%%layer two:1 -t three:1 --lang sh --result third\nrm /data/one\nCELL=1\ncat <<CELL > /data/doc\nin\nCELL\n"
        )
    )
    assert shown.text().splitlines()[-1].endswith("2 steps, 0 from the cache")
    found = ok(notebook.run("%%container three:1\ncd /data; head *")).text()
    assert found == "==> doc <==\nin\n\n==> odd <==\n$HOME quoted \\\n\n==> two <==\none\n"
    # Each is one layer on the one before.
    layers = "[str(layer.diff_id) for layer in {}.image.layers]"
    first, second, third = (notebook.value(layers.format(name)) for name in ("first", "second", "third"))
    assert (second[:-1], third[:-1]) == (first, second)
    # The same cells again are hits.
    assert (
        ok(notebook.run(f"%%layer {BASE} -t one:1\nmkdir /data\necho one > /data/one"))
        .text()
        .endswith("2 from the cache\n")
    )
    # The history is a Dockerfile, which is the same build.
    text = ok(notebook.run("%image history --dockerfile three:1")).text()
    assert text.count("RUN <<") == 3, text
    runs = text[text.index("RUN") :]
    cell = f"%%dockerfile -t again:1 --result again\nFROM {BASE}\n{runs}"
    ok(notebook.run(cell))
    assert notebook.value("[step.status for step in again.steps]") == ["hit"] * 4, text
    assert notebook.value(layers.format("again")) == third


@pytest.mark.parametrize(
    ("cell", "line"),
    [
        (f"%%dockerfile -t bad:1\nFROM {BASE}\nRUN echo out; exit 3", "line 2: RUN echo out; exit 3: exit status 3"),
        (f"%%dockerfile -t bad:1\nFROM {BASE}\nRUN nonesuch", "exit status 127"),
        (f"%%dockerfile -t bad:1\nFROM {BASE}\nCOPPY a b", "line 2, column 1"),
        (f"%%dockerfile -t bad:1\nFROM {BASE}\nCOPY none /", "none isn't in the build context"),
        ("%%dockerfile -t bad:1 nowhere\nFROM x", "nowhere is no folder"),
        ("%%dockerfile -t Bad:1\nFROM oci:bb:latest", "Bad"),
        ("%%dockerfile -t bad:1 --squash\nFROM x", "layers stay apart"),
        ("%%layer oci:bb:latest\ntrue", "needs a name"),
        ("%%layer -t bad:1\ntrue", "needs one image"),
        (f"%%layer {BASE} -t bad:1\nexit 4", f"the layer on {BASE}: exit status 4"),
        (f"%%layer {BASE} -t bad:1 --lang nonesuch\ntrue", "/usr/bin/env: not found in the image"),
        ("%%layer host -t bad:1\ntrue", "the image host is this machine's own folders"),
    ],
)
def test_errors_are_one_line(notebook: Notebook, cell: str, line: str) -> None:
    failed = notebook.run(cell)
    assert failed.error is not None
    shown = [text for text in failed.shown_error if text.strip()]
    assert len(shown) == 1, shown
    assert line in shown[0]
    assert "bad:1" not in ok(notebook.run("%image images")).shown


def test_a_failed_run_is_a_called_process_error(notebook: Notebook) -> None:
    assert notebook.run(f"%%dockerfile\nFROM {BASE}\nRUN echo so far >&2; exit 3").error is not None
    found = notebook.value(
        "(lambda e: (isinstance(e, __import__('subprocess').CalledProcessError), e.returncode, e.output, e.image_id[:7]))"
        "(__import__('sys').last_value)"
    )
    assert found == (True, 3, b"so far\n", "sha256:")


def test_an_interrupt_during_a_run(notebook: Notebook) -> None:
    running = notebook.start(
        f"%%dockerfile -t cut:1\nFROM {BASE}\nRUN echo done > /done\nRUN echo begun; sleep 98765\n"
    )
    running.wait_for("3 | begun")
    notebook.interrupt()
    running.wait()
    assert running.error is not None
    assert running.error["ename"] == "KeyboardInterrupt"
    assert "cut:1" not in ok(notebook.run("%image images")).shown
    assert ok(notebook.run("%container ps -a -q")).shown == ""
    gone("98765")
    # What was done is in the cache.
    again = ok(notebook.run(f"%%dockerfile -t cut:1\nFROM {BASE}\nRUN echo done > /done\nRUN true\n"))
    assert "[2/3] hit  RUN echo done > /done" in again.text()


def test_completion(notebook: Notebook) -> None:
    found, replaced = notebook.complete("%%dockerfile --build-")
    assert (found, replaced) == (["--build-arg"], "--build-")
    assert "--target" in notebook.complete("%%dockerfile --t")[0]
    assert "--volume" not in notebook.complete("%%dockerfile --")[0]
    ok(notebook.run(f"%%layer {BASE} -t names:1\ntrue"))
    assert "names:1" in notebook.complete("%%layer na")[0]
    assert "--mount" in notebook.complete("%%layer names:1 --m")[0]
    assert "--target" not in notebook.complete("%%layer names:1 --")[0]
