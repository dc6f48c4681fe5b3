"""The same notebooks as an ordinary user: with a home, a Python and a copy of cellwall that this user can read.

A checkout, and the Python of its ``.venv``, often lie where only their owner may look.
"""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

TOP = Path(__file__).absolute().parent.parent
PACKAGE = ("__init__.py", "__main__.py", "py.typed", "kernel", "magics", "runtime")


class Unusable(Exception):
    """Why nothing can be run as an ordinary user here, in one line."""


def account_of(name: str | None) -> pwd.struct_passwd:
    """The account ``name``; without one, the first of this machine that has subordinate ids. Raises Unusable."""
    listed = Path("/etc/subuid")
    with_ids = [line.split(":")[0] for line in listed.read_text().splitlines()] if listed.exists() else []
    for candidate in [name] if name else with_ids:
        try:
            account = pwd.getpwnam(candidate)
        except KeyError:
            continue
        if account.pw_uid:
            return account
    if name:
        raise Unusable(f"there is no ordinary user {name}")
    raise Unusable("nobody here has subordinate ids: `sudo useradd --create-home NAME` makes a user who has")


def run_as(account: pwd.struct_passwd, notebooks: list[Path], base: Path) -> int:
    """check.py of ``notebooks`` as ``account``, whose images begin with the archive ``base``; returns 0, or 1 where it failed.

    Raises Unusable where the user has no Python of this one's version.
    """
    python = _python_for(account)
    home = Path(tempfile.mkdtemp(prefix="cw-user-", dir="/tmp"))
    try:
        copies = _furnish(home, python, notebooks)
        for folder, folders, files in os.walk(home):
            for name in (".", *folders, *files):
                os.chown(Path(folder, name), account.pw_uid, account.pw_gid, follow_symlinks=False)
        done = subprocess.run(
            [home / "venv/bin/python", home / "notebooks/check.py", "--base", base, *copies],
            user=account.pw_uid,
            group=account.pw_gid,
            extra_groups=[],
            env=_environment(home, account),
            cwd=home,
            stdin=subprocess.DEVNULL,
        )
    finally:
        shutil.rmtree(home, ignore_errors=True)
    return 1 if done.returncode else 0


def _python_for(account: pwd.struct_passwd) -> str:
    """A Python that this user may run and that can load the modules compiled for this one. Raises Unusable."""
    version = f"{sys.version_info[0]}.{sys.version_info[1]}"
    for candidate in (sys.executable, f"/usr/bin/python{version}"):
        try:
            subprocess.run(
                [candidate, "-c", "import venv"],
                user=account.pw_uid,
                group=account.pw_gid,
                extra_groups=[],
                cwd="/",
                check=True,
                capture_output=True,
            )
        except (OSError, subprocess.CalledProcessError):
            continue
        return candidate
    raise Unusable(f"{account.pw_name} can't run {sys.executable}, and there is no /usr/bin/python{version}")


def _furnish(home: Path, python: str, notebooks: list[Path]) -> list[Path]:
    """cellwall, the notebooks and a virtual environment in ``home``; returns where the notebooks are there."""
    package = home / "cellwall"
    package.mkdir()
    for name in PACKAGE:
        if (TOP / name).is_dir():
            shutil.copytree(TOP / name, package / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(TOP / name, package)
    (home / "notebooks").mkdir()
    (home / "run").mkdir(mode=0o700)
    for script in (TOP / "notebooks").glob("*.py"):
        shutil.copy(script, home / "notebooks")
    copies = [Path(shutil.copy(path, home / "notebooks")) for path in notebooks]
    subprocess.run([python, "-m", "venv", "--without-pip", home / "venv"], check=True)
    (site,) = (home / "venv").glob("lib/python*/site-packages")
    packages = [path for path in sys.path if path.endswith("site-packages")]
    (site / "cellwall.pth").write_text("\n".join([str(home), *packages]) + "\n")
    return copies


def _environment(home: Path, account: pwd.struct_passwd) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if name in ("PATH", "LANG", "LC_ALL", "TZ")}
    runtime = Path(f"/run/user/{account.pw_uid}")
    # A session's own folder has its bus, over which systemd gives control groups.
    return kept | {
        "HOME": str(home),
        "USER": account.pw_name,
        "XDG_RUNTIME_DIR": str(runtime if runtime.is_dir() else home / "run"),
        "JUPYTER_PLATFORM_DIRS": "1",
    }
