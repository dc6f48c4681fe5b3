"""A client that runs containers one after another until it is killed; the tests of crashes kill it, or parts of it.

Usage: victim.py IMAGE SEED. Prints ``launcher PID`` once, and ``error …`` where a container failed to run.
"""

from __future__ import annotations

import os
import random
import sys

from cellwall.runtime import api
from cellwall.runtime.engine import Engine
from cellwall.runtime.errors import CellwallError

SCRIPT = "setsid sleep 1000 & (sleep 1000 &) ; echo made > /tmp/file; sleep 0.0{}"


def main(image: str, seed: int) -> None:
    engine = Engine.default()
    chance = random.Random(seed)
    engine.identity._ask()
    print("launcher", engine.launcher.pid, flush=True)
    mark = {"TRIAL": os.environ["CELLWALL_ROOT"]}
    box = None
    while True:
        script = SCRIPT.format(chance.randrange(10))
        try:
            if chance.random() < 0.5:
                api.run(image, script=script, env=mark, engine=engine)
            else:
                if box is None:
                    box = api.container(image, name="lab", engine=engine)
                box.run(script, env=mark, check=False)
        except (CellwallError, OSError) as error:
            print("error", type(error).__name__, error, flush=True)
            box = None


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
