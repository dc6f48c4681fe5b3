"""Two hundred kernels started and ended, ten at once, some of them and their clients killed at seeded moments: nothing is left."""

from __future__ import annotations

import os
import random
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from ..notebooks.kernel_home import Client, Home, home, image

__all__ = ["home", "image"]

pytestmark = [pytest.mark.soak, pytest.mark.needs("root", "overlay"), pytest.mark.timeout(3600)]

STARTS = int(os.environ.get("CELLWALL_SOAK_KERNELS", "200"))
AT_ONCE = 10


def test_starts_and_ends(home: Home) -> None:
    chance = random.Random(5)
    plans = [(number, chance.choice(("box", "argv")), chance.random(), chance.random()) for number in range(STARTS)]
    with ThreadPoolExecutor(AT_ONCE) as pool:
        failed = [text for text in pool.map(lambda plan: _one(home, *plan), plans) if text]
    assert failed == []
    assert home.left() == []


def _one(home: Home, number: int, kind: str, choice: float, moment: float) -> str:
    """One kernel; returns what went wrong with it."""
    client = Client(home)
    if choice < 0.3:
        # Its client is killed somewhere in the kernel's start or life.
        timer = threading.Timer(moment * 4, client.process.kill)
        timer.start()
        try:
            client.tell("start", kind, str(home.notebooks), {})
            client.text("print(1)")
        except (AssertionError, BrokenPipeError, ValueError):  # killed meanwhile, as it was to be
            pass
        timer.join()
        client.kill()
        return ""
    try:
        client.tell("start", kind, str(home.notebooks), {})
        if choice < 0.5:
            done = client.run("import os, signal; os.kill(os.getpid(), signal.SIGKILL)")
            assert done["status"] == "dead", done
            client.tell("restart")
        elif choice < 0.7:
            done = client.run("print('.', flush=True)\nimport time\nwhile True: time.sleep(60)", "interrupt")
            assert done["errors"] == ["KeyboardInterrupt"], done
        assert client.text(f"print({number})") == f"{number}\n"
        client.tell("shutdown")
        client.end()
    except AssertionError as error:
        client.kill()
        return f"{number} {kind}: {error}"
    return ""
