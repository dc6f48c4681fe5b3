"""Kill a command that changes the image store at some instant, start again, and look at what the store is then."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from cellwall.runtime.engine import Engine

from .crashes import session_members
from .layer_trees import entry, folder, layer
from .registries import MadeImage, Registry, busybox_layer, make_image, write_layout
from .store_check import StoreCheck, names
from .waiting import until

_SOURCE = Path(__file__).resolve().parents[1] / "src"
# The calls between which a process's death makes a difference on disk.
CALLS = "rename,renameat,renameat2,unlink,unlinkat,mkdir,mkdirat,rmdir,fsync,fdatasync,flock"
FULL = "docker.io/library/"


def images() -> dict[str, MadeImage]:
    """Two images that share their base, and one by itself."""
    noise = random.Random(1)
    base = busybox_layer()
    many = layer(folder("d"), *(entry(f"d/{number}", data=noise.randbytes(3000)) for number in range(300)))
    return {
        "one": make_image([base, many]),
        "two": make_image([base, layer(entry("two", data=noise.randbytes(200_000)))], compression="zstd"),
        "alone": make_image([layer(entry("alone", data=b"alone")), many, layer(entry("d/.wh.7"))]),
    }


class Rig:
    """A store at ``root``, a registry with images for it, and commands that change it. Layers lie with ``driver``."""

    def __init__(self, root: Path, registry: Registry, scratch: Path, driver: str) -> None:
        self.root = root
        self.driver = driver
        self.check = StoreCheck(root, driver)
        self.environment = {
            **os.environ,
            "PYTHONPATH": str(_SOURCE),
            "CELLWALL_ROOT": str(root),
            "CELLWALL_STORAGE_DRIVER": driver,
        }
        made = images()
        layout = write_layout(scratch / "layout", made)
        self.pulled = {name: registry.push(f"oci:{layout}:{name}", f"kills/{name}:1") for name in made}
        self.archive = scratch / "archive.tar"
        target = f"oci-archive:{self.archive}:loaded:1"
        subprocess.run(["skopeo", "copy", "--quiet", f"oci:{layout}:alone", target], check=True)
        self.run("pull", self.pulled["one"])
        self.run("run", "--name", "keep", self.pulled["one"], "sh", "-c", "echo more > /d/1; rm /d/2; mkdir /new")
        self._durations: dict[str, float] = {}

    def run(self, *words: str) -> None:
        command = [sys.executable, "-m", "cellwall", *words]
        done = subprocess.run(command, env=self.environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{words}: {done.stderr}"

    def commands(self) -> dict[str, tuple[list[str], set[str]]]:
        """Each command by its kind, and the names that it may give or take away."""
        here = names(self.root)
        loose = sorted(here - {self.pulled["one"]})
        kinds = {
            "pull": (["pull", self.pulled["two"]], {self.pulled["two"]}),
            "pull more": (["pull", self.pulled["alone"]], {self.pulled["alone"]}),
            "load": (["load", "-i", str(self.archive)], {f"{FULL}loaded:1"}),
            "commit": (["commit", "keep", "committed:1"], {f"{FULL}committed:1"}),
            "tag": (["tag", self.pulled["one"], "tagged:1"], {f"{FULL}tagged:1"}),
            "push": (["push", self.pulled["one"]], set()),
            "prune": (["image", "prune", "-a", "-f"], here),
        }
        if loose:
            kinds["rmi"] = (["rmi", *loose], set(loose))
        return kinds

    def trial(self, seed: int) -> list[str]:
        """Kill a command of random kind after a random part of the time that it takes; what is wrong after the next start."""
        chance = random.Random(seed)
        kind = chance.choice(sorted(self.commands()))
        words, touched = self.commands()[kind]
        before = names(self.root)
        began, ended = self._killed(words, chance.uniform(0, 1.1 * self._durations.get(kind, 0.5)))
        if ended:
            self._durations[kind] = began
        return [f"{kind}: {fault}" for fault in self._next_start(before, touched)]

    def _killed(self, words: Sequence[str], after_s: float) -> tuple[float, bool]:
        """Start the command, kill it after a time; how long it ran, and whether it had ended by itself."""
        victim = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("store_victim.py")), *words],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=self.environment,
            start_new_session=True,
        )
        assert victim.stdin is not None and victim.stdout is not None and victim.stderr is not None
        try:
            assert victim.stdout.readline() == b"ready\n"
            begun = time.monotonic()
            victim.stdin.close()
            try:
                victim.wait(after_s)
            except subprocess.TimeoutExpired:
                victim.kill()
            victim.wait()
            took = time.monotonic() - begun
            said = victim.stderr.read().decode()
            assert victim.returncode in (0, -9), said
            assert "Traceback" not in said, said
        finally:
            victim.kill()
            victim.wait()
            victim.stdout.close()
            victim.stderr.close()
        self._wait_for(victim.pid)
        return took, victim.returncode == 0

    def killed_at_call(self, kind: str, number: int) -> tuple[list[str], bool]:
        """Kill a command just before the ``number``-th of CALLS in one of its threads; faults, and whether it had ended."""
        words, touched = self.commands()[kind]
        before = names(self.root)
        command = [sys.executable, str(Path(__file__).with_name("store_victim.py")), *words]
        inject = f"inject={CALLS}:signal=KILL:when={number}"
        done = subprocess.Popen(
            ["strace", "-f", "-o", "/dev/null", "-e", f"trace={CALLS}", "-e", inject, *command],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=self.environment,
            start_new_session=True,
        )
        done.wait()
        self._wait_for(done.pid)
        return [f"{kind} at {number}: {fault}" for fault in self._next_start(before, touched)], done.returncode == 0

    @staticmethod
    def _wait_for(session: int) -> None:
        """Wait until the workers of a killed process have seen its end."""
        until(lambda: session_members(session) == [], "the end of the workers")

    def _next_start(self, before: set[str], touched: set[str]) -> list[str]:
        os.environ["CELLWALL_ROOT"], os.environ["CELLWALL_STORAGE_DRIVER"] = str(self.root), self.driver
        engine = Engine()
        try:
            listed = {image.reference for image in engine.images.list()}
        finally:
            engine.close()
        found = self.check.faults()
        now = names(self.root)
        if not before - touched <= now <= before | touched:
            found.append(f"names: {sorted(before)} became {sorted(now)}")
        if len(listed - {"<none>:<none>"}) < len(now):
            found.append(f"listed are only {sorted(listed)} of {sorted(now)}")
        if self.pulled["one"] not in now:
            found.append("the image of a kept container is gone")
        for name in sorted(now) if shutil.which("skopeo") else ():
            command = ["skopeo", "inspect", f"oci:{self.root}/images:{name}"]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                found.append(f"skopeo can't read {name}: {done.stderr.strip()}")
        return found
