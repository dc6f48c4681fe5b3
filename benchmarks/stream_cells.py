"""Cells that write, in a real kernel: ``%%container`` beside ``%%bash``, the same busybox and the same script in both."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from peers import RunFailed

_PATIENCE_S = 120.0
BASH, CONTAINER, NAMED, CALL = "%%bash", "%%container", "%%container --name", "cellwall.run in a cell"
NOTHING = "true"
# Each: what the cell runs, and the words of the magics that keep the output, where it is kept. ``{box}`` is busybox.
# Few bytes: %%bash reads a hundred at a time, and takes ten seconds for 4 MiB on a busy machine.
CELLS = {
    NOTHING: ("true", ""),
    "1 MiB of lines shown": ("{box} head -c 1048576 {data}/lines", ""),
    "20,000 small writes shown": (
        "i=0; while [ $i -lt 20000 ]; do echo line $i; i=$((i+1)); done",
        "",
    ),
    "1 MiB of lines into a variable": ("{box} head -c 1048576 {data}/lines", "out"),
}


class Cells:
    """One ipykernel of this environment with cellwall loaded, and its client."""

    def __init__(self, scratch: Path, image: str, data: Path) -> None:
        from jupyter_client.manager import KernelManager

        self._image = image
        self._data = data
        self._box = scratch / "rootfs/bin/busybox"
        self._manager: Any = KernelManager()
        argv = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
        self._manager.kernel_spec.argv[:] = argv
        self._environment = {**os.environ, "IPYTHONDIR": str(scratch / "ipython")}

    def __enter__(self) -> Cells:
        self._manager.start_kernel(env=self._environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self._client: Any = self._manager.client()
        self._client.start_channels()
        self._client.wait_for_ready(timeout=_PATIENCE_S)
        self.run("%load_ext cellwall\nimport cellwall")
        return self

    def __exit__(self, *_: object) -> None:
        self._client.stop_channels()
        self._manager.shutdown_kernel()

    def run(self, code: str) -> tuple[float, int]:
        """Seconds until the client has the last message of the cell, and how many characters it was shown."""
        shown = 0
        said = ""
        begin = time.perf_counter()
        request = self._client.execute(code)
        while True:
            message = self._client.get_iopub_msg(timeout=_PATIENCE_S)
            if message["parent_header"].get("msg_id") != request:
                continue
            content = message["content"]
            if message["msg_type"] == "stream":
                shown += len(content["text"])
            elif message["msg_type"] == "error":
                said = f"{content['ename']}: {content['evalue']}"
            elif message["msg_type"] == "status" and content["execution_state"] == "idle":
                break
        seconds = time.perf_counter() - begin
        self._client.get_shell_msg(timeout=_PATIENCE_S)
        if said:
            raise RunFailed(said)
        return seconds, shown

    def _cells(self, script: str, variable: str) -> dict[str, str]:
        box, data = str(self._box), str(self._data)
        here = script.format(box=box, data=data)
        inside = script.format(box="/bin/busybox", data="/data")
        keep = f" --out {variable}" if variable else ""
        magic = f"%%container {self._image} -v {data}:/data --lang sh"
        # busybox's shell in all of them: bash itself would run a loop at another pace.
        call = f"cellwall.run({self._image!r}, script='true', lang='sh', volume=['{data}:/data']).check()"
        return {
            **({CALL: f"_ = {call}"} if script == NOTHING else {}),
            BASH: f"%%bash{keep}\n{box} sh -c '{here}'",
            CONTAINER: f"{magic}{keep}\n{inside}",
            NAMED: f"{magic} --name streams{keep}\n{inside}",
        }

    def measure(self, rounds: int) -> dict[str, dict[str, list[float]]]:
        """Milliseconds by cell and by magic. Raises RunFailed where a cell shows or keeps something else than ``%%bash``'s."""
        order = random.Random(1)
        times: dict[str, dict[str, list[float]]] = {}
        for name, (script, variable) in CELLS.items():
            cells = self._cells(script, variable)
            found = times[name] = {magic: [] for magic in cells}
            sizes: dict[str, int] = {}
            for number in range(-1, rounds):
                for magic in order.sample(list(cells), len(cells)):
                    seconds, shown = self.run(cells[magic])
                    if number >= 0:
                        found[magic].append(seconds * 1e3)
                    elif variable:
                        _, shown = self.run(f"print('x' * (len({variable}) >> 10))")
                    sizes.setdefault(magic, shown)
            # A line below a container's cell tells how it ended: that is a display, and none of these characters.
            if len(set(sizes.values())) > 1:
                raise RunFailed(f"{name}: not the same output: {sizes}")
        return times
