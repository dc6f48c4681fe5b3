"""A real Debian or Ubuntu base image from the distribution's own package archive, where no registry can be reached.

mmdebstrap makes the tree where it is installed, else debootstrap; the machine's own package sources and trusted keys are
used, so that what apt can reach this can. Source: mmdebstrap(1), debootstrap(8), sources.list(5).
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import Cancelled, ImageError, SpecError, UnsupportedError
from ..frozen import frozen
from ..launcher import DEFAULT_PATH
from .driver import RootIdentity
from .scratch import Scratch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_DEFAULT_SUITES = {"debian": "stable", "ubuntu": "noble"}
_KEYRINGS = {
    "debian": "/usr/share/keyrings/debian-archive-keyring.gpg",
    "ubuntu": "/usr/share/keyrings/ubuntu-archive-keyring.gpg",
}
_SUITE = re.compile(r"[a-z][a-z0-9-]{0,30}")
# How long an interrupted tool may take to unmount what it has mounted.
_PATIENCE_S = 10.0
_TOOLS = ("mmdebstrap", "debootstrap")
# What apt keeps to be quick on the next run, and a container doesn't need.
_DROPPED = (
    "./var/lib/apt/lists/*",
    "./var/cache/apt/*.bin",
    "./var/cache/apt/archives/*.deb",
    "./var/log/*",
    "./dev/*",
)


@frozen
class Base:
    """What is to be made: ``distribution`` (debian or ubuntu), ``suite`` (bookworm, stable, noble …), its package ``mirror``.

    Without a mirror the tool takes the distribution's own.
    """

    distribution: str
    suite: str
    mirror: str | None = None

    @classmethod
    def parse(cls, text: str, *, mirror: str | None = None) -> Base:
        """``debian``, ``debian:bookworm``, ``ubuntu:noble``. Raises SpecError.

        Without ``mirror`` and without a suite, a machine of the same distribution gives both from its own package sources.
        """
        distribution, _, suite = text.partition(":")
        if distribution not in _DEFAULT_SUITES:
            raise SpecError("bootstrap", f"{distribution!r} is neither debian nor ubuntu")
        if suite and not _SUITE.fullmatch(suite):
            raise SpecError(
                "bootstrap", f"{suite!r} is no suite of {distribution}: a suite is bookworm, trixie, noble …"
            )
        own = own_sources() if own_distribution() == distribution else None
        if not suite:
            suite = own[1] if own else _DEFAULT_SUITES[distribution]
        return cls(distribution, suite, mirror or (own[0] if own else None))

    @property
    def reference(self) -> str:
        """The name that the image gets."""
        return f"{self.distribution}:{self.suite}"

    @property
    def config(self) -> dict[str, Any]:
        """The ``config`` part of the image's OCI configuration."""
        return {"Env": [f"PATH={DEFAULT_PATH}"], "Cmd": ["bash"]}


def own_distribution(os_release: Path = Path("/etc/os-release")) -> str:
    """The ID of this machine's distribution, empty where it has none. Source: os-release(5)."""
    try:
        lines = os_release.read_text().splitlines()
    except FileNotFoundError:
        return ""
    return next((line[3:].strip("\"'") for line in lines if line.startswith("ID=")), "")


def own_sources(directory: Path = Path("/etc/apt")) -> tuple[str, str] | None:
    """Mirror and suite of this machine's first package source over http(s), or None. Source: sources.list(5)."""
    files = [directory / "sources.list", *sorted((directory / "sources.list.d").glob("*"))]
    for file in files:
        if not file.is_file():
            continue
        found = _deb822(file.read_text()) if file.suffix == ".sources" else _one_line(file.read_text())
        if found:
            return found
    return None


def _one_line(text: str) -> tuple[str, str] | None:
    for line in text.splitlines():
        match = re.match(r"\s*deb\s+(?:\[[^\]]*\]\s+)?(https?://\S+)\s+(\S+)", line)
        if match and _SUITE.fullmatch(match[2]):
            return match[1], match[2]
    return None


def _deb822(text: str) -> tuple[str, str] | None:
    for paragraph in re.split(r"\n\s*\n", text):
        fields = dict(re.findall(r"(?mi)^(types|uris|suites|enabled):\s*(.+)$", paragraph))
        fields = {key.lower(): value.split() for key, value in fields.items()}
        if "deb" not in fields.get("types", []) or fields.get("enabled") == ["no"]:
            continue
        for uri in fields.get("uris", []):
            for suite in fields.get("suites", []):
                if uri.startswith("http") and _SUITE.fullmatch(suite):
                    return uri, suite
    return None


def tool() -> str | None:
    """The program that will make the tree, or None where none is installed."""
    return next((name for name in _TOOLS if shutil.which(name)), None)


def install(agree: Callable[[str], bool]) -> str:
    """Make sure that there is a tool, through apt, if ``agree`` (called with the question) says so; returns its name.

    Raises UnsupportedError where it doesn't, or where apt can't.
    """
    if found := tool():
        return found
    mend = "install it: apt-get install mmdebstrap"
    if shutil.which("apt-get") is None:
        raise UnsupportedError(
            "bootstrap needs mmdebstrap or debootstrap", "this machine has no apt-get to install them"
        )
    if os.geteuid() != 0:
        raise UnsupportedError("bootstrap needs mmdebstrap or debootstrap", f"an administrator can {mend}")
    if not agree("install the package mmdebstrap by apt-get?"):
        raise UnsupportedError("bootstrap needs mmdebstrap or debootstrap", mend)
    environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    for command in (["apt-get", "update"], ["apt-get", "install", "-y", "--no-install-recommends", "mmdebstrap"]):
        done = subprocess.run(command, env=environment, capture_output=True, stdin=subprocess.DEVNULL, check=False)
        if done.returncode and command[1] == "install":
            raise UnsupportedError("apt-get could not install mmdebstrap", _last_line(done.stderr))
    return tool() or "mmdebstrap"


# What the tool mounts is seen by nobody else and goes with it, and it goes with this process, whatever ends that.
# Source: setpriv(1), unshare(1); both are in every Debian.
_CONFINED = [
    shutil.which("setpriv", path=os.defpath) or "setpriv",
    "--pdeathsig",
    "KILL",
    shutil.which("unshare", path=os.defpath) or "unshare",
    *("--mount", "--pid", "--fork", "--kill-child", "--mount-proc"),
]


@contextlib.contextmanager
def tree_archive(
    base: Base,
    directory: Path,
    *,
    progress: Callable[[str], None] | None = None,
    cancelled: Callable[[], bool] | None = None,
) -> Iterator[Path]:
    """The path of a tar archive (not compressed) of ``base``; it lies in a new folder in ``directory`` and goes at the end.

    ``progress`` gets lines of the tool's output. Raises UnsupportedError (no tool; see ``install``), ImageError (it
    failed), Cancelled.
    """
    name = tool()
    if name is None:
        raise UnsupportedError("bootstrap needs mmdebstrap or debootstrap", "install it: apt-get install mmdebstrap")
    making = Scratch(directory, RootIdentity())
    making.sweep()
    with making.folder() as (scratch, _):
        archive = scratch / "base.tar"
        if name == "mmdebstrap":
            _run(_mmdebstrap(base, archive), scratch, progress, cancelled)
        else:
            if os.geteuid() != 0:
                raise UnsupportedError("debootstrap needs root", "install mmdebstrap, which doesn't")
            tree = scratch / "tree"
            _run(_debootstrap(base, tree), scratch, progress, cancelled)
            excluded = [f"--exclude={pattern}" for pattern in _DROPPED]
            command = [
                "tar",
                "--numeric-owner",
                "--xattrs",
                "--sort=name",
                *excluded,
                "-C",
                str(tree),
                "-cf",
                str(archive),
                ".",
            ]
            _run(command, scratch, progress, cancelled)
        yield archive


def _mmdebstrap(base: Base, archive: Path) -> list[str]:
    keyring = _KEYRINGS[base.distribution]
    signed = [f"--keyring={keyring}"] if os.path.exists(keyring) else []
    mode = [] if os.geteuid() == 0 else ["--mode=unshare"]
    return [
        "mmdebstrap",
        "--variant=minbase",
        *mode,
        *signed,
        "--format=tar",
        '--aptopt=Acquire::Languages "none"',
        base.suite,
        str(archive),
        *([base.mirror] if base.mirror else []),
    ]


def _debootstrap(base: Base, tree: Path) -> list[str]:
    keyring = _KEYRINGS[base.distribution]
    signed = [f"--keyring={keyring}"] if os.path.exists(keyring) else []
    mirror = [base.mirror] if base.mirror else []
    return ["debootstrap", "--variant=minbase", *signed, base.suite, str(tree), *mirror]


def _run(
    command: list[str], scratch: Path, progress: Callable[[str], None] | None, cancelled: Callable[[], bool] | None
) -> None:
    """Run the tool to its end, in a group of its own that dies whole when this is cancelled or interrupted."""
    log = scratch / "log"
    environment = {key: value for key, value in os.environ.items() if key.lower().endswith("_proxy") or key == "PATH"}
    environment |= {"LC_ALL": "C.UTF-8", "DEBIAN_FRONTEND": "noninteractive"}
    if os.geteuid() == 0:
        environment["TMPDIR"] = str(scratch)
        command = [*_CONFINED, *command]
    else:
        # The tool works as root of a user namespace, which needn't be let into the user's home.
        environment["TMPDIR"] = tempfile.gettempdir()
    with log.open("wb") as output, log.open("rb") as lines:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=environment,
            cwd=scratch,
            start_new_session=True,
        )
        try:
            while process.poll() is None:
                _report(lines, progress)
                if cancelled is not None and cancelled():
                    raise Cancelled("cancelled")
                try:
                    process.wait(0.1)
                except subprocess.TimeoutExpired:
                    continue
            _report(lines, progress)
        finally:
            _end_session(process)
    if process.returncode:
        said = _last_line(log.read_bytes())
        raise ImageError(
            f"{command[len(_CONFINED) if os.geteuid() == 0 else 0]} failed with status {process.returncode}: {said}; look at the mirror and the suite"
        )


def _report(lines: Any, progress: Callable[[str], None] | None) -> None:
    text = lines.read().decode("utf-8", "replace")
    for line in text.splitlines() if progress else ():
        if progress and line.strip():
            progress(line.strip())


def _end_session(process: subprocess.Popen[bytes]) -> None:
    """End the tool with all that it started: first so that it can unmount, then whatever is left of its group."""
    if process.returncode is not None:
        return
    with contextlib.suppress(ProcessLookupError):  # it ended in between
        os.killpg(process.pid, signal.SIGINT)
    deadline = time.monotonic() + _PATIENCE_S
    # It isn't reaped before the group is killed: until then its id can be nobody else's.
    while (
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT | os.WNOHANG) is None and time.monotonic() < deadline
    ):
        time.sleep(0.02)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _last_line(output: bytes) -> str:
    lines = output.decode("utf-8", "replace").strip().splitlines()
    errors = [line for line in lines if line.startswith(("E:", "error"))]
    return (errors or lines or ["it said nothing"])[-1].strip()
