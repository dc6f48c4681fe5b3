"""A Python process that runs a container for each line it reads: for what has to be measured as somebody else, or in other namespaces.

The first run is the launcher's start; each answer is how long ``cellwall.run`` took there.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from peers import RunFailed

_CODE = """
import json, sys, time
import cellwall
image, options = sys.argv[1], json.loads(sys.argv[2])
for _ in sys.stdin:
    begin = time.perf_counter()
    try:
        result = cellwall.run(image, ["/bin/true"], **options)
        print(json.dumps([time.perf_counter() - begin, result.exit_status, result.reason]), flush=True)
    except Exception as error:
        print(json.dumps([0.0, 125, f"{type(error).__name__}: {error}"]), flush=True)
"""
_TOP = Path(__file__).resolve().parent.parent
# Of an ordinary user whom nobody has made: one id, and no rights anywhere.
_NOBODYS_ID = 64123


class Resident:
    """One such process. ``prefix`` are words that start it elsewhere, ``options`` those of ``cellwall.run``, ``user`` its uid and gid."""

    def __init__(
        self,
        image: str,
        environment: dict[str, str],
        *,
        python: str = sys.executable,
        prefix: Sequence[str] = (),
        options: dict[str, Any] | None = None,
        user: int | None = None,
    ) -> None:
        who: dict[str, Any] = {} if user is None else {"user": user, "group": user, "extra_groups": []}
        self._process = subprocess.Popen(
            [*prefix, python, "-c", _CODE, image, json.dumps(options or {})],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment,
            cwd="/",
            start_new_session=True,
            text=True,
            **who,
        )

    def run(self) -> float:
        """Seconds of one container. Raises RunFailed."""
        assert self._process.stdin is not None and self._process.stdout is not None
        try:
            self._process.stdin.write("\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise RunFailed("the process that runs it has ended") from None
        line = self._process.stdout.readline()
        if not line:
            raise RunFailed(f"the process that runs it ended with status {self._process.wait()}")
        seconds, status, reason = json.loads(line)
        if status:
            raise RunFailed(reason)
        return float(seconds)

    def close(self) -> None:
        assert self._process.stdin is not None and self._process.stdout is not None
        try:
            self._process.stdin.close()
        except BrokenPipeError:  # it has ended before its last line was read
            pass
        self._process.wait()
        self._process.stdout.close()


class OrdinaryUser:
    """A home of its own for an ordinary user of this machine, with a copy of the package and the image. Closing it removes both."""

    def __init__(self, layout: Path) -> None:
        self.home = Path(tempfile.mkdtemp(prefix="cw-bench-", dir="/tmp"))
        ignored = shutil.ignore_patterns("__pycache__", "tests", ".*", "build", "docs")
        package = self.home / "cellwall"
        package.mkdir()
        shutil.copytree(_TOP / "runtime", package / "runtime", ignore=ignored)
        shutil.copy(_TOP / "__init__.py", package)
        shutil.copytree(layout, self.home / "image")
        (self.home / "run").mkdir()
        self.environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(self.home),
            "XDG_RUNTIME_DIR": str(self.home / "run"),
            "PYTHONPATH": os.pathsep.join(
                [str(self.home), *(path for path in sys.path if path.endswith("site-packages"))]
            ),
        }
        # It is compiled by the interpreter that will run it, as an installer would have done.
        self.python = shutil.which("python3", path="/usr/bin:/bin") or sys.executable
        subprocess.run([self.python, "-m", "compileall", "-q", str(package)], check=True)
        for folder, _, files in os.walk(self.home):
            os.chown(folder, _NOBODYS_ID, _NOBODYS_ID)
            for name in files:
                os.chown(os.path.join(folder, name), _NOBODYS_ID, _NOBODYS_ID)
        self.image = f"oci:{self.home}/image:latest"

    def resident(self) -> Resident:
        return Resident(self.image, self.environment, python=self.python, user=_NOBODYS_ID)

    def close(self) -> None:
        shutil.rmtree(self.home)
