"""The container shell kernel on bash, dash and busybox's ash: what lives from cell to cell, streams, input, interrupts, what an editor asks."""

from __future__ import annotations

import base64
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from uuid import uuid4

import pytest

from cellwall.kernel.shell.output import SHOWN

from ..leaks import Leaks
from .driver import Notebook
from .shell_kernel import SHELLS, command_lines, failed, fine, image_of, started

pytestmark = pytest.mark.needs("root")

# Behind ``… & job=$!``: a shell's copy that has yet to become the command isn't named as that, and ignores what would end it, as its
# shell does.
HAS_BEGUN = "until [ $(cat /proc/$job/comm) = sleep ]; do :; done"


@pytest.fixture(scope="module", params=SHELLS)
def kernel(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Notebook]:
    """One kernel for each shell, in a folder of its own; what it leaves behind is looked at when it has ended."""
    check = Leaks()
    root = Path(tempfile.mkdtemp(prefix="cw-", dir="/tmp"))
    check.own(root)
    folder = tmp_path_factory.mktemp("notebook")
    (folder / "a file.txt").write_text("of the notebook's folder\n")
    (folder / "sub").mkdir()
    image = image_of(request.param, tmp_path_factory.mktemp("image"))
    with started(image, root=root, language=request.param, cwd=folder) as made:
        fine(made.run("true"))  # its container starts with it, and counts as there from the first test on
        yield made
    check.close(root)
    shutil.rmtree(root)
    assert check.left() == []


@pytest.fixture
def shell(kernel: Notebook) -> Notebook:
    """The kernel, at rest: a cell that a failed test has left running ends here."""
    for _ in range(3):
        if not kernel.at_rest:
            kernel.interrupt()
    return kernel


def test_the_shell_lives_from_cell_to_cell(shell: Notebook) -> None:
    fine(shell.run("kept='a b'; double() { echo $(($1 * 2)); }; mkdir -p /tmp/deep; cd /tmp/deep"))
    fine(shell.run(f"sleep 600 & job=$!; {HAS_BEGUN}"))
    assert fine(shell.run('echo "$kept"; double 21; pwd; kill -0 $job && echo alive')) == "a b\n42\n/tmp/deep\nalive\n"
    fine(shell.run("kill $job; wait $job; cd - >/dev/null"))
    assert failed(shell.run("(exit 42)")) == "exit status 42"
    # $? is the last cell's, also when an editor has asked something between.
    shell.complete("ec")
    assert fine(shell.run("echo $?")) == "42\n"
    shown = shell.run("false").kinds("display_data")
    assert [one["data"]["text/plain"] for one in shown] == ["exit status 1"]


def test_jobs_may_end_while_the_shell_is_idle(shell: Notebook) -> None:
    cell = shell.run("mark=here; (sleep 0.1; echo over) &")
    # What a job writes later goes to the cell that ran last.
    cell.until(lambda: "over" in cell.text(), "the job's output")
    assert fine(shell.run("wait; echo $mark")) == "here\n"


def test_streams_are_told_apart_and_live(shell: Notebook) -> None:
    cell = shell.start("echo out; echo err >&2; printf 'f\\303\\274r'; sleep 600; echo never")
    cell.wait_for("für").wait_for("err", "stderr")
    assert not cell.idle
    shell.interrupt()
    assert failed(cell.wait()) == "interrupted"
    assert cell.text() == "out\nfür"
    assert cell.text("stderr") == "err\n"


def test_an_interrupt_ends_the_foreground_alone(shell: Notebook) -> None:
    fine(shell.run(f"before=set; sleep 601 & job=$!; {HAS_BEGUN}"))
    # Each says itself that it runs: an interrupt between a shell's fork and exec may leave a stopped process, as at any terminal.
    for busy in (
        "while :; do echo begun; sleep 0.01; done",
        "echo begun; while :; do :; done",
        "yes begun | cat",
        "sh -c 'echo begun; sleep 602; sleep 602'",
    ):
        cell = shell.start(f"{busy}; echo never")
        cell.wait_for("begun")
        shell.interrupt()
        assert failed(cell.wait()) == "interrupted", busy
        assert "never" not in cell.text()
    assert fine(shell.run("echo $before; kill $job && echo was there")) == "set\nwas there\n"


def test_an_interrupt_may_come_at_any_moment(shell: Notebook) -> None:
    # Right behind the first output: often between the shell's fork and the program's exec, where shells lose it.
    for _ in range(25):
        cell = shell.start("echo begun; sleep 611")
        cell.wait_for("begun")
        shell.interrupt()
        assert failed(cell.wait()) == "interrupted"
        assert failed(shell.run("(exit 9)")) == "exit status 9"


def test_an_interrupt_that_came_before_a_program_is_repeated_whenever_that_begins(shell: Notebook) -> None:
    # A shell's copy takes the interrupt, and becomes a program later: as between fork and exec, on a machine that is slow.
    begins = "until [ $seen ]; do sleep 0.01; done; sleep 1.5; exec sleep 614"
    cell = shell.start(f"(trap 'seen=1' INT; echo begun; {begins}); echo never")
    cell.wait_for("begun")
    shell.interrupt()
    assert failed(cell.wait()) == "interrupted"
    assert cell.text() == "begun\n"
    # A program that begins to end by its interrupt, and takes its time, has had it.
    ends = 'trap "trap - INT; echo ending; sleep 1.5; echo ended; exit 3" INT'
    cell = shell.start(f"sh -c '{ends}; echo begun; while :; do :; done'")
    cell.wait_for("begun")
    shell.interrupt()
    assert failed(cell.wait()) == "exit status 3"
    assert cell.text() == "begun\nending\nended\n"


def test_a_command_that_ignores_interrupts_is_killed_by_the_third(shell: Notebook) -> None:
    cell = shell.start("sh -c \"trap '' INT; echo deaf; sleep 603\"; echo then $?")
    cell.wait_for("deaf")
    told = "one more kills it"
    shell.interrupt()
    while told not in cell.text("stderr"):
        # Two of one signal may become one, so the second waits for a moment. Only where it did is there need of another.
        time.sleep(0.5)
        shell.interrupt()
        with suppress(AssertionError):
            cell.until(lambda: told in cell.text("stderr"), told, patience_s=20)
    shell.interrupt()
    assert fine(cell.wait()) == "deaf\nthen 137\n"


def test_a_read_asks_the_person(shell: Notebook) -> None:
    cell = shell.start("printf 'name? '; read name; read rest; echo got $name, $rest", typing=True)
    shell.type("Ada")
    shell.type("and Bob")
    # What was typed isn't repeated: the front end shows it already.
    assert fine(cell.wait()) == "name? got Ada, and Bob\n"
    without = shell.run("read name || echo none")
    assert fine(without) == "none\n"
    assert "gives no input" in without.text("stderr")
    # An answer that nobody has taken isn't a command for the shell.
    cell = shell.start("head -c 1 >/dev/null; echo over", typing=True)
    shell.type("xecho mischief")
    assert fine(cell.wait()) == "over\n"
    assert fine(shell.run("echo next")) == "next\n"


def test_a_hidden_read_asks_for_a_password(shell: Notebook) -> None:
    cell = shell.start("stty -echo; read secret; stty echo; echo ${#secret}", typing=True)
    message = shell.asked()
    assert message["password"] is True
    shell.answer("hush")
    assert fine(cell.wait()) == "4\n"


def test_text_of_any_form(shell: Notebook) -> None:
    assert fine(shell.run("cat <<END\n$((6 * 7))\nEND\n")) == "42\n"
    assert fine(shell.run("for one in a b; do\n\techo $one\ndone | tail -n 1; echo 'two\nlines'; echo joi\\\nned")) == (
        "b\ntwo\nlines\njoined\n"
    )
    wrong = shell.run("echo )")
    assert "syntax error" in wrong.text("stderr").lower()
    assert failed(wrong) == "exit status 2"
    assert "In[" in wrong.text("stderr")
    assert "not found" in shell.run("no-such-command").text("stderr")
    assert fine(shell.run("   \n")) == ""


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("for i in 1 2; do", "incomplete"),
        ("if true\nthen", "incomplete"),
        ("echo 'a", "incomplete"),
        ("cat <<END\nfoo", "incomplete"),
        ("echo a \\", "incomplete"),
        ("cat <<END\nfoo\nEND", "complete"),
        ("echo $((1 << 2))", "complete"),
        ("echo hi; touch never", "complete"),
        ("echo )", "invalid"),
    ],
)
def test_unfinished_text_is_known(shell: Notebook, text: str, expected: str) -> None:
    assert shell.ask("is_complete", code=text)["status"] == expected
    assert "never" not in fine(shell.run("ls"))


def test_completion_of_commands_files_and_variables(shell: Notebook) -> None:
    name = f"v{uuid4().hex[:8]}"
    before = fine(shell.run(f"{name}_one=1; {name}_two=2; f{name}() {{ :; }}; set +e; echo $-"))
    assert "head" in shell.complete("ls | hea")[0]
    assert shell.complete(f"f{name[:-1]}") == ([f"f{name}"], f"f{name[:-1]}")
    assert shell.complete(f'echo "${{{name}') == ([f"{name}_one", f"{name}_two"], name)
    assert shell.complete("cat a") == (["a\\ file.txt"], "a")
    assert shell.complete("cat 'a") == (["'a file.txt"], "'a")
    assert shell.complete("cd su") == (["sub/"], "su")
    assert shell.complete("echo $(cat a\\ f")[0] == ["a\\ file.txt"]
    assert "/etc/" in shell.complete("ls /et")[0]
    assert shell.complete("# a comm")[0] == []
    # Nothing of the shell has changed.
    assert fine(shell.run("echo $-; set | grep -c __cellwall_ || :")) == f"{before}0\n"


def test_inspection_shows_what_a_name_is(shell: Notebook) -> None:
    fine(shell.run("looked='at me'; greet() { echo hello; }"))

    def look(code: str) -> str:
        return str(shell.ask("inspect", code=code, cursor_pos=len(code), detail_level=0)["data"].get("text/plain", ""))

    assert "at me" in look("echo $looked")
    assert "function" in look("greet")
    assert "usage" in look("head").lower()
    assert look("no-such-command") == ""
    cell = shell.run("head?")
    assert cell.reply is not None
    assert "usage" in cell.reply["payload"][0]["data"]["text/plain"].lower()


def test_pictures_are_shown_and_nothing_that_could_run(shell: Notebook) -> None:
    png = base64.b64decode(
        "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR4nGNgYGD4DwABBAEAX+XDSwAAAABJRU5ErkJggg=="
    )
    coded = base64.b64encode(png).decode()
    cell = shell.run(f"echo {coded} | base64 -d >/tmp/dot; echo one; cellwall-display /tmp/dot; echo two")
    assert fine(cell) == "one\ntwo\n"
    assert [kind for _, kind, _ in cell.messages if kind != "execute_input"] == ["stream", "display_data", "stream"]
    assert cell.kinds("display_data")[0]["data"]["image/png"] == coded
    typed = shell.run(f"printf '\\033]7717;image/png;{coded}\\007'; echo '<svg onload=\"x()\"/>' | cellwall-display -")
    pictures = [one["data"] for one in typed.kinds("display_data")]
    assert pictures[0]["image/png"] == coded
    assert "onload" not in pictures[1]["text/html"]
    script = shell.run("echo '<script>x()</script>' | cellwall-display --type text/html -")
    assert script.kinds("display_data") == []
    assert "text/html isn't shown" in script.text("stderr")
    assert "no file that can be read" in shell.run("cellwall-display /nowhere").text("stderr")


def test_the_terminal_can_be_garbled(shell: Notebook) -> None:
    fine(shell.run("stty raw -echo -isig; printf '\\033]0;a title\\007'; printf '\\033]unended'"))
    binary = shell.run("head -c 4096 /dev/urandom; echo; echo over")
    assert fine(binary).endswith("\nover\n")
    fine(shell.run("PS1='$ '; PS2='> '; set -x"))
    traced = shell.run("echo a")
    assert fine(traced) == "a\n"
    assert "status" not in traced.text("stderr")
    fine(shell.run("set +x; exec 3>&- 9>&-"))
    cell = shell.start("stty -isig; echo begun; sleep 604")
    cell.wait_for("begun")
    shell.interrupt()
    assert failed(cell.wait()) == "interrupted"


def test_the_control_channel_takes_no_forged_status(shell: Notebook) -> None:
    lies = "printf 'deadbeefdeadbeef e 0\\nnonsense\\n\\377\\000' >/run/cellwall/status"
    assert failed(shell.run(f"{lies}; (exit 9)")) == "exit status 9"
    noise = "{ : >/tmp/noisy; while :; do echo lie >/run/cellwall/status; done; } & noise=$!"
    fine(shell.run(f"{noise}; until [ -e /tmp/noisy ]; do :; done; rm /tmp/noisy"))
    assert failed(shell.run("(exit 8)")) == "exit status 8"
    fine(shell.run("kill $noise; wait $noise; true"))
    assert "ead-only" in shell.run("rm /run/cellwall/status; : >/run/cellwall/new").text("stderr")


def test_too_much_output_is_cut_and_said(shell: Notebook) -> None:
    cell = shell.run(f"yes | head -c {SHOWN + (4 << 20)}; echo the end")
    assert fine(cell).endswith("y\nthe end\n")
    assert SHOWN < len(cell.text()) < SHOWN + (1 << 20)
    assert "characters left out here" in cell.text("stderr")


def test_magics_are_about_the_own_container(shell: Notebook) -> None:
    mark = f"605.{int(uuid4().hex[:4], 16)}"
    fine(shell.run(f"sleep {mark} & job=$!; {HAS_BEGUN}"))
    assert mark in fine(shell.run("%container top"))
    assert '"org.cellwall.kernel": "shell"' in fine(shell.run("%container inspect"))
    assert "takes one of" in failed(shell.run("%container rm"))
    assert "takes one of" in failed(shell.run("%container inspect host"))
    for name in ("layers", "namespaces", "cgroups", "mounts"):
        shown = shell.run(f"%{name}").kinds("display_data")
        assert "kernel-" in shown[0]["data"]["text/plain"], name
        assert "<script" not in shown[0]["data"]["text/html"]
        assert "own container" in failed(shell.run(f"%{name} another"))
    # Any other word behind % is the shell's.
    assert fine(shell.run("kill %1; wait %1; echo ended")) == "ended\n"
    assert command_lines(mark) == []
