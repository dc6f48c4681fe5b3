"""cellwall's starts that another process has to make and to time: the first of an interpreter, on a bridge, as an ordinary user; and what loading it costs."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator

from peers import BRIDGE, FIRST, FIRST_RUN, LOADING, ORDINARY, Lineup, Peer, RunFailed, Skipped
from resident import OrdinaryUser, Resident

_CODE = """
import json, sys, time
begin = time.perf_counter()
import cellwall
run = cellwall.run
imported = time.perf_counter()
result = run(sys.argv[1], ["/bin/true"])
ended = time.perf_counter()
print(json.dumps([result.exit_status, imported - begin, ended - imported]))
sys.exit(result.exit_status)
"""


_LOADING = """
import time
from IPython.core.interactiveshell import InteractiveShell
shell = InteractiveShell.instance()
begin = time.perf_counter()
import cellwall
shell.run_line_magic("load_ext", "cellwall")
print(time.perf_counter() - begin)
"""


def elsewhere(lineup: Lineup) -> Iterator[Peer]:
    """The same where it has to be another process that runs it: on a bridge, and as an ordinary user."""
    if not lineup.root:
        lineup.skipped += [Skipped(name, "needs root") for name in (BRIDGE, ORDINARY)]
        return
    environment = {**os.environ, "CELLWALL_ROOT": str(lineup.scratch / "cellwall-bridge")}
    there = ["nsenter", "--target", str(lineup.apart.pid), "--mount", "--net"]
    bridged = Resident(lineup.image, environment, prefix=there, options={"network": "bridge"})
    lineup.stack.callback(bridged.close)
    note = "a veth pair, an address, names, NAT rules; no sandbox made beforehand"
    yield Peer(BRIDGE, 'cellwall.run(…, network="bridge")', note, bridged.run)
    user = OrdinaryUser(lineup.scratch / "layout")
    lineup.stack.callback(user.close)
    ordinary = user.resident()
    lineup.stack.callback(ordinary.close)
    note = "the machine's own Python; one id, and no control group where none is delegated"
    yield Peer(ORDINARY, "cellwall.run(…) as uid 64123", note, ordinary.run)


def loading(lineup: Lineup) -> Peer:
    peer = lineup.command(
        LOADING,
        [sys.executable, "-c", _LOADING],
        "timed inside: IPython is there already",
        lineup.here,
        {**os.environ, "IPYTHONDIR": str(lineup.scratch / "ipython")},
    )
    load = peer.run

    def run() -> float:
        load()
        return float(lineup.here.output().split()[-1])

    peer.run = run
    peer.command = 'python -c \'import cellwall; shell.run_line_magic("load_ext", "cellwall")\''
    return peer


def first(lineup: Lineup) -> Peer:
    imports: list[float] = []
    runs: list[float] = []

    def start() -> float:
        seconds, status = lineup.here.run([sys.executable, "-c", _CODE, lineup.image])
        if status:
            raise RunFailed(f"status {status}: {lineup.here.error()}")
        _, import_s, run_s = json.loads(lineup.here.output())
        imports.append(import_s * 1e3)
        runs.append(run_s * 1e3)
        return seconds

    return Peer(
        f"{FIRST}: the whole process",
        "python -c 'import cellwall; cellwall.run(...)'",
        "from before the interpreter starts to after it ended, launcher's start and end included",
        start,
        {f"{FIRST}: its import": imports, FIRST_RUN: runs},
    )
