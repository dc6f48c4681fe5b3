"""What every test shares: the marker ``needs``, the count of such tests that ran, and the check that nothing is left behind.

``@pytest.mark.needs("root", "overlay")`` asks the probes behind ``cellwall doctor``: it skips with their reason, and
fails on a word that they don't know. ``--needs-minimum`` (CI) fails the run where fewer of these ran than
``tool.cellwall.tests.needs_minimum`` in pyproject.toml. The check itself is in ``leaks.py``.
"""

from __future__ import annotations

import shutil
import signal
import tempfile
import tomllib
from collections import Counter
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from .leaks import WORKER, Leaks, SessionGroups

TOP = Path(__file__).resolve().parent.parent
CHECKED = ("integration", "notebooks", "soak", "browser")

# A time is never what makes a test pass.
settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("untimed")

# A shell ignores SIGINT for what it starts with "&", nohup ignores SIGHUP, and programs hand that on. What has a handler is the default again
# in each program that the tests start. Source: signal(7), execve(2), POSIX shell, section 2.11.
for number, handler in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, lambda *_: None)):
    if signal.getsignal(number) is signal.SIG_IGN:
        signal.signal(number, handler)

ran: Counter[str] = Counter()
skipped: Counter[str] = Counter()
session_groups = None if WORKER else SessionGroups()
left_behind: list[str] = []


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--needs-minimum",
        action="store_true",
        help="fail when fewer tests marked `needs` ran than tool.cellwall.tests.needs_minimum says",
    )


def needs_minimum() -> int:
    project = tomllib.loads((TOP / "pyproject.toml").read_text())
    return int(project["tool"]["cellwall"]["tests"]["needs_minimum"])


def words(item: pytest.Item) -> list[str]:
    return [word for mark in item.iter_markers("needs") for word in mark.args]


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    for mark in item.iter_markers("needs"):
        if not mark.args or mark.kwargs or not all(isinstance(word, str) for word in mark.args):
            pytest.fail('needs takes words: @pytest.mark.needs("root", "overlay")', pytrace=False)
    if not words(item):
        return
    # Imported where it is needed: most of the unit tests can do without it.
    from cellwall.runtime.probes import answer

    for word in words(item):
        try:
            reason = answer(word)
        except LookupError:
            pytest.fail(f"needs({word!r}): `cellwall doctor` has no such line", pytrace=False)
        if reason is not None:
            skipped[word] += 1
            pytest.skip(f"needs {word}: {reason}")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Generator[None, Any, Any]:
    report = yield
    asked = words(item)
    if asked and report.when == "call" and not report.skipped:
        ran.update(set(asked))
        ran[""] += 1
    return report


def missing(config: pytest.Config) -> int:
    """How many tests marked ``needs`` fell short of the minimum that was asked for."""
    return max(0, needs_minimum() - ran[""]) if config.getoption("needs_minimum") else 0


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    for line in left_behind:
        terminalreporter.write_line(f"left behind by the whole run: {line}", red=True)
    if ran or skipped:
        by_word = ", ".join(f"{word} {count}" for word, count in sorted(ran.items()) if word)
        terminalreporter.write_line(f"needs: {ran['']} tests ran ({by_word or 'none'})")
    if skipped:
        by_word = ", ".join(f"{word} {count}" for word, count in sorted(skipped.items()))
        terminalreporter.write_line(f"needs: {skipped.total()} tests were skipped for want of {by_word}")
    if missing(config):
        terminalreporter.write_line(
            f"needs: at least {needs_minimum()} were to run (tool.cellwall.tests.needs_minimum): "
            "install what `cellwall doctor` misses",
            red=True,
        )


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any, error: object) -> None:
    """A worker of a run on several processors has ended: its counts join ours."""
    for ours, theirs in zip((ran, skipped), getattr(node, "workeroutput", {}).get("needs", ()), strict=False):
        ours.update(theirs)


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    if session_groups is None:
        session.config.workeroutput["needs"] = [dict(ran), dict(skipped)]  # type: ignore[attr-defined]
        return
    left_behind.extend(session_groups.left())
    if exitstatus == pytest.ExitCode.OK and (left_behind or missing(session.config)):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


@pytest.fixture(autouse=True)
def leaks(request: pytest.FixtureRequest) -> Iterator[Leaks | None]:
    """Compares mounts, cgroups, links, namespaces, processes and state folders before and after a test of real parts."""
    folder = request.path.relative_to(TOP / "tests").parts[0]
    if folder not in CHECKED:
        yield None
        return
    check = Leaks()
    yield check
    left = check.left()
    if left:
        pytest.fail("left behind:\n" + "\n".join(f"  {line}" for line in left), pytrace=False)


@pytest.fixture
def cellwall_root(leaks: Leaks | None, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A new folder that CELLWALL_ROOT names during the test, with a path short enough for sockets below it."""
    root = Path(tempfile.mkdtemp(prefix="cw-", dir="/tmp"))
    monkeypatch.setenv("CELLWALL_ROOT", str(root))
    if leaks is not None:
        leaks.own(root)
    yield root
    if leaks is not None:
        leaks.close(root)
    shutil.rmtree(root)
