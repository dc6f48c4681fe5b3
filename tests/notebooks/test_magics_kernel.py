"""The magics in a real ipykernel, on the image ``host``: output, errors, variables, interrupts, restarts, completion."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from cellwall.magics.streams import SHOWN, TAIL

from ..leaks import Leaks
from ..waiting import PATIENCE_S, until
from .driver import Execution, Notebook

pytestmark = pytest.mark.needs("root")

HOST = "%%container host"


@pytest.fixture(scope="module")
def shared() -> Iterator[Notebook]:
    """One kernel for the tests that leave it as it was; what it leaves behind itself is looked at when it has ended."""
    check = Leaks()
    root = Path(tempfile.mkdtemp(prefix="cw-", dir="/tmp"))
    check.own(root)
    with Notebook({"CELLWALL_ROOT": str(root)}) as started:
        ok(started.run("%load_ext cellwall"))
        ok(started.run(f"{HOST}\ntrue"))
        yield started
    check.close(root)
    shutil.rmtree(root)
    assert check.left() == []


@pytest.fixture
def notebook(shared: Notebook) -> Notebook:
    """The shared kernel, at rest: a cell that a failed test has left running ends here."""
    if not shared.at_rest:
        shared.interrupt()
    ok(shared.run("1"))
    return shared


@pytest.fixture
def lab(notebook: Notebook) -> Iterator[str]:
    """A name for a container that stays, which is removed at the end."""
    name = f"lab-{uuid.uuid4().hex[:8]}"
    yield name
    notebook.run(f"%container rm -f {name}")


@pytest.fixture
def fresh(cellwall_root: Path) -> Iterator[Notebook]:
    """A kernel of the test's own in which the extension is loaded."""
    with Notebook() as started:
        ok(started.run("%load_ext cellwall"))
        yield started


def ok(execution: Execution) -> Execution:
    assert execution.error is None, execution.shown_error
    return execution


def alive(word: str) -> list[int]:
    """Pids of processes, in whichever namespace, that have ``word`` among their arguments."""
    found = []
    for name in os.listdir("/proc"):
        if name.isdigit() and int(name) != os.getpid():
            try:
                arguments = Path(f"/proc/{name}/cmdline").read_bytes().split(b"\0")
            except OSError:  # it ended in between
                continue
            if word.encode() in arguments:
                found.append(int(name))
    return found


def gone(word: str) -> None:
    """Wait until no process with ``word`` among its arguments is left; the patience is far beyond the promise."""
    until(lambda: not alive(word), lambda: f"the end of {word}: {alive(word)}")


# A tree that doesn't die by a signal to its first process: its own sessions, deaf to what can be ignored, children of children.
TREE = """
trap '' INT TERM HUP
for number in 1 2 3; do
    setsid sh -c 'trap "" INT TERM HUP; (setsid sleep 987{word} & ) ; sleep 987{word}' &
done
echo started
sleep 987{word}
"""


def test_output_is_live(notebook: Notebook, tmp_path: Path) -> None:
    """The second line is written only once the first has been seen: no clock decides."""
    gate = tmp_path / "gate"
    gate.mkdir()
    gate.chmod(0o777)
    cell = notebook.start(
        f"{HOST} -v {gate}:/gate\necho first\nwhile [ ! -e /gate/open ]; do sleep 0.01; done\necho second"
    )
    cell.wait_for("first\n")
    assert "second" not in cell.text()
    (gate / "open").touch()
    ok(cell.wait())
    assert cell.text() == "first\nsecond\n"


def test_error_stream_is_live_and_apart(notebook: Notebook) -> None:
    cell = ok(notebook.run(f"{HOST}\necho out\necho err >&2\necho more"))
    assert cell.text("stdout") == "out\nmore\n"
    assert cell.text("stderr") == "err\n"


def test_escapes_carriage_returns_and_split_characters(notebook: Notebook) -> None:
    """Each byte is written by itself, with time to be read by itself."""
    text = "\x1b[31mröt\x1b[0m\r10 %\r100 %\n日本語 🙂\n"
    octal = " ".join(f"'\\{byte:03o}'" for byte in text.encode())
    cell = ok(notebook.run(f"{HOST}\nfor byte in {octal}; do printf $byte; sleep 0.005; done"))
    assert cell.text() == text


def test_a_cut_character_is_shown_as_such(notebook: Notebook) -> None:
    cell = ok(notebook.run(HOST + "\nprintf 'a\\377b'; printf '\\360\\237\\231'"))
    assert cell.text() == "a�b�"


def test_captured_text_is_exact(notebook: Notebook) -> None:
    cell = ok(notebook.run(HOST + " --out out --err err\nprintf 'a\\r\\n\\377ü'; printf '\\033[1mx' >&2"))
    assert cell.text("stdout") + cell.text("stderr") == ""
    assert notebook.value("out.encode('utf-8', 'surrogateescape')") == b"a\r\n\xff\xc3\xbc"
    assert notebook.value("err") == "\x1b[1mx"


def test_much_output_comes_whole(notebook: Notebook) -> None:
    """4 MiB, as they are; of 64 MiB the beginning and the end, with how much is missing; and a variable has all of it."""
    notebook.run("import resource")
    before = notebook.value("resource.getrusage(resource.RUSAGE_SELF).ru_maxrss")
    assert ok(notebook.run(HOST + "\nyes 0123456789abcde | head -c 4194304; echo end")).text() == (
        "0123456789abcde\n" * (4194304 // 16) + "end\n"
    )
    much = "\nyes 0123456789abcde | head -c 67108864; echo end"
    cell = ok(notebook.run(HOST + much))
    assert cell.text() == ("0123456789abcde\n" * 67108864)[:SHOWN] + ("0123456789abcde\n" * 5000 + "end\n")[-TAIL:]
    left_out = 67108864 + 4 - SHOWN - TAIL
    assert cell.text("stderr").splitlines()[-1] == f"cellwall: {left_out:,} characters left out here"
    after = notebook.value("resource.getrusage(resource.RUSAGE_SELF).ru_maxrss")
    assert after - before < 100 * 1024, f"{(after - before) // 1024} MiB more"
    ok(notebook.run(HOST + " --out text" + much))
    assert notebook.value("len(text), text[-8:]") == (67108864 + 4, "bcde\nend\n"[-8:])


def test_a_failing_cell_raises_one_line(notebook: Notebook) -> None:
    cell = notebook.run(f"{HOST}\necho before\nexit 3")
    assert cell.text() == "before\n"
    assert cell.shown_error == ["CellError: exit status 3"]
    assert cell.error is not None
    assert cell.error["ename"] == "CellError"
    caught = """
import subprocess
try:
    get_ipython().run_cell_magic("container", "host", "exit 3")
except subprocess.CalledProcessError as error:
    status = error.returncode
"""
    ok(notebook.run(caught))
    assert notebook.value("status") == 3


def test_verbose_shows_the_traceback(fresh: Notebook) -> None:
    ok(fresh.run("%xmode Verbose"))
    assert len(fresh.run(f"{HOST}\nexit 3").shown_error) > 5


def test_no_raise_error_and_result(notebook: Notebook) -> None:
    ok(notebook.run(f"{HOST} --no-raise-error --result result\necho out\necho err >&2\nexit 7"))
    assert notebook.value("result.exit_status, result.stdout, result.stderr, result.reason") == (
        7,
        "out\n",
        "err\n",
        "exit status 7",
    )
    assert notebook.value("result.usage.wall_s > 0")


def test_killed_by_a_signal(notebook: Notebook) -> None:
    """A fault: a signal that is sent doesn't reach a first process that has no handler for it; pid_namespaces(7)."""
    fault = "import ctypes\nctypes.string_at(0)"
    assert notebook.run(f"{HOST} --lang python3\n{fault}").shown_error == ["CellError: killed by signal 11 (SIGSEGV)"]


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("", "needs an image"),
        ("host --nope", "--nope"),
        ("host -m 12x", "12x"),
        ("host extra", "'extra'"),
        ("host 'open", "no closing quotation"),
        ("host --in nothing_like_it", "nothing_like_it"),
        ("host --out 1x", "1x"),
        ("host --proc p", "--bg"),
        ("host --out a --err a", "a can't take two things"),
        ("host -d", "--bg"),
        ("no/Such:IMAGE", "no/Such:IMAGE"),
    ],
)
def test_a_mistake_in_the_line_is_one_line(notebook: Notebook, line: str, says: str) -> None:
    shown = notebook.run(f"%%container {line}\ntrue").shown_error
    assert len(shown) == 1
    assert says in shown[0]
    ok(notebook.run("1 + 1"))


def test_a_missing_interpreter_is_one_line(notebook: Notebook) -> None:
    cell = notebook.run(f"{HOST} --lang nosuchthing\ntrue")
    assert len(cell.shown_error) == 1
    assert "nosuchthing" in cell.shown_error[0]


def test_languages(notebook: Notebook) -> None:
    assert ok(notebook.run(f"{HOST} --lang python3\nimport sys\nprint(sys.argv[0] != '', 6 * 7)")).text() == "True 42\n"
    assert (
        ok(notebook.run(f"{HOST}\n#!/usr/bin/env python3\nprint('by its first line')")).text() == "by its first line\n"
    )
    assert ok(notebook.run(f"{HOST} --lang sh\necho $0 | grep -c bash || true")).text() == "0\n"


def test_input_from_variables(notebook: Notebook) -> None:
    ok(notebook.run("text = 'ä\\nb\\n'; data = bytes(range(256)) * 4096"))
    assert ok(notebook.run(f"{HOST} --in text\nwc -l; cat /dev/null")).text().strip() == "2"
    ok(notebook.run(f"{HOST} --in data --out digest\nsha256sum"))
    assert notebook.value("digest.split()[0] == __import__('hashlib').sha256(data).hexdigest()")
    assert ok(notebook.run(f"{HOST}\ncat")).text() == ""


def test_input_that_nobody_reads(notebook: Notebook) -> None:
    ok(notebook.run("data = bytes(10_000_000)"))
    assert ok(notebook.run(f"{HOST} --in data\necho done")).text() == "done\n"


def test_expansion_in_the_line_and_not_in_the_cell(notebook: Notebook) -> None:
    ok(notebook.run("image = 'host'; name = 'X'; value = 'from python'"))
    cell = ok(notebook.run('%%container $image -e {name}="{value}" -e image=inside\necho "$X, $image, {name}"'))
    assert cell.text() == "from python, inside, {name}\n"


def test_working_folder(notebook: Notebook) -> None:
    assert ok(notebook.run(f"{HOST} -w /tmp/made/for/it\npwd")).text() == "/tmp/made/for/it\n"


def test_interrupt_ends_the_whole_cell(notebook: Notebook) -> None:
    word = "01"
    cell = notebook.start(f"{HOST}\n{TREE.replace('{word}', word)}")
    cell.wait_for("started")
    while len(alive(f"987{word}")) < 7:  # three in sessions of their own with a child each, and the cell's own
        assert not cell.idle
        time.sleep(0.01)
    began = time.monotonic()
    notebook.interrupt()
    cell.wait()
    print(f"interrupted after {time.monotonic() - began:.3f} s")
    assert cell.shown_error == ["KeyboardInterrupt: the cell was interrupted, and nothing of it runs on"]
    gone(f"987{word}")
    print(f"gone after {time.monotonic() - began:.3f} s")
    assert ok(notebook.run(f"{HOST}\necho usable")).text() == "usable\n"


def test_interrupt_at_any_moment(notebook: Notebook) -> None:
    """From before the container is there to after it ran; the notebook stays usable, and what ran is gone."""
    for moment in range(16):
        cell = notebook.start(f"{HOST}\nsleep 98702")
        cell.until(lambda: cell.kinds("execute_input"), "the cell's beginning")  # noqa: B023  it is called at once
        time.sleep(moment * 0.004)
        # ipykernel may lose one, so it is repeated as a person would; and one that hits it before the cell's code makes it
        # drop the request without a reply. What counts is that nothing of the cell runs, and that the next one does.
        began = time.monotonic()
        while not (cell.idle and cell.reply) and (time.monotonic() < began + 5 or alive("98702")):
            assert time.monotonic() < began + PATIENCE_S
            notebook.interrupt()
            time.sleep(0.5)
        assert cell.error is None or cell.error["ename"] == "KeyboardInterrupt"
        gone("98702")
    assert ok(notebook.run(f"{HOST}\necho usable")).text() == "usable\n"


def test_timeout(notebook: Notebook) -> None:
    cell = notebook.run(f"{HOST} --timeout 1 --result result\n{TREE.replace('{word}', '03')}")
    assert cell.shown_error == ["CellError: timed out after 1 s, raise it with --timeout"]
    gone("98703")
    assert notebook.value("result.timed_out")


def test_restart_leaves_nothing(fresh: Notebook) -> None:
    fresh.start(f"{HOST}\n{TREE.replace('{word}', '04')}").wait_for("started")
    fresh.restart()
    gone("98704")
    ok(fresh.run("%load_ext cellwall"))
    assert ok(fresh.run(f"{HOST}\necho again")).text() == "again\n"


def test_kill_leaves_nothing(cellwall_root: Path) -> None:
    with Notebook() as notebook:
        ok(notebook.run("%load_ext cellwall"))
        notebook.start(f"{HOST}\n{TREE.replace('{word}', '05')}").wait_for("started")
        notebook.kill()
        gone("98705")


def test_named_container_answers_the_next_cell(notebook: Notebook, lab: str) -> None:
    name = f"--name {lab}"
    ok(notebook.run(f"{HOST} {name}\necho kept > /root/note\nsleep 98706 & echo"))
    cell = ok(notebook.run(f"{HOST} {name} -e WHO=me -w /root\ncat note\necho $WHO $PWD"))
    assert cell.text() == "kept\nme /root\n"
    assert notebook.run(f"{HOST} {name}\nexit 4").shown_error == ["CellError: exit status 4"]
    assert "--memory" in ok(notebook.run(f"{HOST} {name} -m 64m\ntrue")).text("stderr")
    assert ok(notebook.run("%container ps")).shown.count(lab) == 1
    ok(notebook.run(f"%container rm -f {lab}"))
    gone("98706")
    missing = notebook.run(f"%container rm {lab}").shown_error
    assert len(missing) == 1
    assert lab in missing[0]


def test_interrupt_in_a_named_container_keeps_it(notebook: Notebook, lab: str) -> None:
    name = f"--name {lab}"
    ok(notebook.run(f"{HOST} {name}\necho kept > /root/note"))
    cell = notebook.start(f"{HOST} {name}\n{TREE.replace('{word}', '07')}")
    cell.wait_for("started")
    notebook.interrupt()
    assert cell.wait().shown_error[0].startswith("KeyboardInterrupt")
    gone("98707")
    assert ok(notebook.run(f"{HOST} {name}\ncat /root/note")).text() == "kept\n"
    assert "timed out" in notebook.run(f"{HOST} {name} --timeout 1\n{TREE.replace('{word}', '08')}").shown_error[0]
    gone("98708")
    assert ok(notebook.run(f"{HOST} {name}\ncat /root/note")).text() == "kept\n"


def test_background(notebook: Notebook, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    gate.mkdir()
    gate.chmod(0o777)
    wait = "while [ ! -e /gate/open ]; do sleep 0.01; done"
    first = ok(
        notebook.run(f"{HOST} --bg --proc proc -v {gate}:/gate\necho begun; {wait}\necho in its own cell; exit 5")
    )
    second = ok(notebook.run(f"{HOST} --bg --proc other --out text -v {gate}:/gate\n{wait}\necho captured"))
    assert notebook.value("proc.poll(), other.poll()") == (None, None)
    third = ok(notebook.run("print('meanwhile')"))
    first.wait_for("begun")
    (gate / "open").touch()
    ok(notebook.run("ended = proc.wait(60), other.wait(60)"))
    assert notebook.value("[one.status for one in ended]") == [5, 0]
    assert notebook.value("text") == "captured\n"
    first.wait_for("in its own cell\n").wait_for("CellError: exit status 5", "stderr")
    assert second.text() == ""
    assert third.text() == "meanwhile\n"


def test_background_is_killed(notebook: Notebook) -> None:
    cell = ok(notebook.run(f"{HOST} --bg --proc proc\n{TREE.replace('{word}', '09')}"))
    cell.wait_for("started")
    # An interrupt ends the wait alone.
    waiting = notebook.start("print('waits', flush=True); proc.wait()")
    waiting.wait_for("waits")
    notebook.interrupt()
    assert waiting.wait().shown_error[-1].startswith("KeyboardInterrupt")
    assert notebook.value("proc.poll() is None")
    ok(notebook.run("proc.kill(); ended = proc.wait(60)"))
    gone("98709")
    assert notebook.value("ended.status") == 137


def test_background_ends_with_the_kernel(fresh: Notebook) -> None:
    ok(fresh.run(f"{HOST} --bg\n{TREE.replace('{word}', '10')}")).wait_for("started")
    fresh.restart()
    gone("98710")


def test_changes(notebook: Notebook, lab: str) -> None:
    cell = ok(notebook.run(f"{HOST} --diff --result result\necho > /root/added"))
    assert "A /root/added" in cell.kinds("display_data")[-1]["data"]["text/plain"]
    assert "A /root/added" in notebook.value("[str(change) for change in result.diff()]")
    cell = ok(notebook.run(f"{HOST} --diff --name {lab}\necho > /root/added"))
    assert "A /root/added" in cell.kinds("display_data")[-1]["data"]["text/plain"]


def test_a_line_below_each_cell(notebook: Notebook, fresh: Notebook) -> None:
    """How it ended, folded; what the cell wrote isn't touched by it. A switch turns it off."""
    (line,) = ok(notebook.run(f"{HOST} -m 96m\nprintf exact")).kinds("display_data")
    assert re.match(r"✓ exit 0 · \d+\.\d\d s · peak [\d.]+ \w+ · host [0-9a-f]{12}$", line["data"]["text/plain"])
    assert " of 96 MiB" in line["data"]["text/html"]
    assert "<details" in line["data"]["text/html"]
    failed = notebook.run(f"{HOST}\nprintf exact; exit 3")
    assert failed.text() == "exact"
    assert failed.kinds("display_data")[0]["data"]["text/plain"].startswith("✕ exit 3 · ")
    behind = ok(notebook.run(f"{HOST} --bg --proc proc\necho behind"))
    ok(notebook.run("proc.wait(60)"))
    behind.until(lambda: behind.kinds("display_data"), "the line of a cell in the background")
    ok(fresh.run("import os; os.environ['CELLWALL_CELL_LINE'] = 'false'"))
    shown = ok(fresh.run(f"{HOST}\ntrue")).kinds("display_data")
    assert not [one for one in shown if "exit 0" in one["data"]["text/plain"]], "the progress of the pull alone"


def test_two_kernels_at_once(notebook: Notebook) -> None:
    with Notebook() as other:
        ok(other.run("%load_ext cellwall"))
        cells = [
            one.start(f"{HOST}\nfor n in 1 2 3 4 5; do echo {word} $n; done")
            for one, word in ((notebook, "a"), (other, "b"))
        ]
        for cell, word in zip(cells, "ab", strict=True):
            assert ok(cell.wait()).text() == "".join(f"{word} {number}\n" for number in range(1, 6))


def test_a_busy_cell_answers_control_messages(notebook: Notebook) -> None:
    """While a cell writes as fast as it can the kernel still hears an interrupt."""
    cell = notebook.start(f"{HOST}\nyes")
    cell.wait_for("y\n")
    notebook.interrupt()
    assert cell.wait().shown_error[0].startswith("KeyboardInterrupt")
    assert set(cell.text()) <= {"y", "\n"}


def test_completion(notebook: Notebook, lab: str) -> None:
    ok(notebook.run("words = 'x'; number = 1"))
    ok(notebook.run(f"{HOST} --name {lab}\ntrue"))
    assert notebook.complete("%%container ho") == (["host"], "ho")
    assert notebook.complete("%%container host --memory-r")[0] == ["--memory-reservation"]
    assert notebook.complete("%%container host --no-r") == (["--no-raise-error"], "--no-r")
    assert set(notebook.complete("%%container host --network ")[0]) == {"none", "host", "bridge"}
    assert notebook.complete("%%container host --network=n") == (["none"], "n")
    assert set(notebook.complete("%%container host --lang py")[0]) == {"python", "python3"}
    assert notebook.complete("%%container host --in wor") == (["words"], "wor")
    assert notebook.complete(f"%%container host --name {lab[:7]}") == ([lab], lab[:7])
    line = f"%%container host --name {lab[:7]}"
    assert notebook.complete(f"{line}\necho", len(line)) == ([lab], lab[:7])
    assert {"rm", "run"} <= set(notebook.complete("%container r")[0])
    assert notebook.complete(f"%container rm {lab[:7]}") == ([lab], lab[:7])
    assert notebook.complete("number.bit_l")[0] == ["number.bit_length"] or notebook.complete("number.bit_l")[0] == [
        "bit_length"
    ]
    assert "--memory" not in notebook.complete("%%container host\n--mem")[0]


def test_line_magics(notebook: Notebook) -> None:
    assert "usage: cellwall" in ok(notebook.run("%container --help")).text()
    assert ok(notebook.run("%container run --rm host echo by a command")).text() == "by a command\n"
    shown = notebook.run("%container run --rm host sh -c 'echo err >&2; exit 9'")
    assert shown.text("stderr") == "err\n"
    assert shown.shown_error == ["CellError: exit status 9"]
    assert "REPOSITORY" in ok(notebook.run("%image ls")).shown
    unknown = notebook.run("%image nosuch").shown_error
    assert len(unknown) == 1
    assert "nosuch" in unknown[0]


def test_interrupt_of_a_line_magic(notebook: Notebook) -> None:
    cell = notebook.start("%container run --rm host sh -c 'echo started; exec sleep 98711'")
    cell.wait_for("started")
    notebook.interrupt()
    assert cell.wait().shown_error[0].startswith("KeyboardInterrupt")
    gone("98711")


def test_names_of_other_extensions_stay(fresh: Notebook) -> None:
    other = """
def theirs(line, cell=None):
    print("theirs")
get_ipython().register_magic_function(theirs, "line_cell", "docker")
"""
    ok(fresh.run(other))
    said = ok(fresh.run("%cellwall_alias docker")).text()
    assert "%%docker and %docker stay" in said or "%%docker and %docker stays" in said
    assert ok(fresh.run("%%docker\nx")).text() == "theirs\n"
    ok(fresh.run("get_ipython().magics_manager.magics['cell'].pop('docker')"))
    ok(fresh.run("%cellwall_alias docker"))
    assert ok(fresh.run("%%docker host\necho ours")).text() == "ours\n"
    ok(fresh.run("%cellwall_alias --remove docker"))
    assert "not found" in str(fresh.run("%%docker host\necho ours").messages)


def test_reload_and_unload(fresh: Notebook) -> None:
    assert ok(fresh.run("%reload_ext cellwall")).text() == ""
    assert ok(fresh.run(f"{HOST}\necho ok")).text() == "ok\n"
    ok(fresh.run("%unload_ext cellwall"))
    assert "not found" in str(fresh.run(f"{HOST}\necho ok").messages)


def test_warnings_are_said_once(fresh: Notebook) -> None:
    first = ok(fresh.run(f"{HOST}\ntrue")).text("stderr")
    assert ok(fresh.run(f"{HOST}\ntrue")).text("stderr") == ""
    warnings = fresh.value("__import__('cellwall.runtime.engine').runtime.engine.Engine.default().warnings")
    assert all(warning in first for warning in warnings)


def test_no_signal_handler_and_no_thread_is_left(notebook: Notebook) -> None:
    ok(notebook.run("import signal, threading, os"))
    state = (
        "[str(signal.getsignal(n)) for n in range(1, 32)], threading.active_count(), os.getcwd(), os.umask(0o22), "
        "sorted(name for name in os.environ)"
    )
    before = notebook.value(state)
    ok(notebook.run(f"{HOST}\ntrue"))
    notebook.run(f"{HOST}\nfalse")
    assert notebook.value(state) == before


def test_descriptors_stay_the_same(notebook: Notebook) -> None:
    ok(notebook.run("import os"))
    ok(notebook.run(f"{HOST}\ntrue"))
    # ZeroMQ makes an eventfd for each thread that prints, and ipykernel closes it by and by; IPython writes its history.
    ok(
        notebook.run(
            "def descriptors():\n"
            "    links = [f'/proc/self/fd/{name}' for name in os.listdir('/proc/self/fd')]\n"
            "    return [os.readlink(link) for link in links if os.path.lexists(link)]\n"
            "def count():\n    return sum('eventfd' not in target and 'sqlite' not in target for target in descriptors())\n"
        )
    )
    before = notebook.value("count()")
    for _ in range(5):
        ok(notebook.run(f"{HOST} --out x\ntrue"))
        notebook.run(f"{HOST}\nfalse")
    until(lambda: notebook.value("count()") <= before, lambda: notebook.value("descriptors()"))
