"""Who is measured: each way to run /bin/true of one root filesystem in a fresh container, and the floor below them all.

What each does differs, and the table's reader has to know: ``Peer.note`` says what one leaves out or has done beforehand.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import rootfs
from spawner import Spawner

WARM = "cellwall, from Python"
UNPREPARED = "cellwall, from Python, no pool"
NAMED = "cellwall, next in a named container"
CRUN_EXEC = "crun exec"
PODMAN = "podman run --rm"
BWRAP = "bwrap --unshare-all"
FLOOR = "C floor of the same kernel work"
BRIDGE = "cellwall, from Python, on a bridge"
ORDINARY = "cellwall, from Python, as an ordinary user"
LOADING = "import cellwall and %load_ext, in IPython"
FIRST = "cellwall, first in a process"
FIRST_RUN = f"{FIRST}: its run()"


class RunFailed(Exception):
    """A run didn't end with status 0; the text says what it said."""


@dataclass
class Peer:
    """``run`` does it once and returns seconds, or raises RunFailed. ``parts_ms`` are times that a run has measured inside."""

    name: str
    command: str
    note: str
    run: Callable[[], float]
    parts_ms: dict[str, list[float]] = field(default_factory=dict)


@dataclass
class Skipped:
    name: str
    reason: str


class Lineup:
    """All peers on one scratch folder. Closing it takes down whatever they needed: processes, mounts, control groups, files."""

    def __init__(self, scratch: Path) -> None:
        self.scratch = scratch
        self.root = os.geteuid() == 0
        self.group = f"cellwall-bench-{os.getpid()}"
        self.stack = ExitStack()
        self.rootfs = rootfs.make_rootfs(scratch / "rootfs")
        self.image = rootfs.make_layout(self.rootfs, scratch / "layout")
        # Mounts of the set-up must not be seen outside, nor outlive this.
        own_mounts = ("--mount", "--propagation", "private") if self.root else ()
        self.here = self._spawner("here", own_mounts)
        self._apart: Spawner | None = None
        self.peers: list[Peer] = []
        self.skipped: list[Skipped] = []
        self.groups: list[Path] = []

    def _spawner(self, name: str, unshare: tuple[str, ...]) -> Spawner:
        made = Spawner(str(self.scratch), name, unshare=unshare)
        self.stack.callback(made.close)
        return made

    @property
    def apart(self) -> Spawner:
        """Where podman and crun are started: what they keep for the whole machine is put in namespaces that end with this.

        That is /run/libpod, /run/containers, the locks in /dev/shm, the bridge and its firewall rules. crun 1.8 refuses to run
        where a version 2 tree with controllers is mounted beside version 1, so that tree is unmounted here.
        """
        if self._apart is None:
            if not self.root:
                self._apart = self.here
                return self._apart
            self._apart = self._spawner("apart", ("--mount", "--net", "--propagation", "private"))
            if os.path.ismount("/sys/fs/cgroup/unified"):
                self._apart.check("umount", "/sys/fs/cgroup/unified")
            for folder in ("/run", "/dev/shm"):
                self._apart.check("mount", "-t", "tmpfs", "tmpfs", folder)
        return self._apart

    def assemble(self) -> None:
        """Prepare every peer and let each run once: one that can't is skipped, with what it said. Raises RunFailed for cellwall."""
        for maker in (self._cellwall, self._podman, self._runtimes, self._sandboxes, self._floor):
            for peer in maker():
                try:
                    peer.run()
                except RunFailed as error:
                    if peer.name == WARM:
                        raise
                    self.skipped.append(Skipped(peer.name, str(error)))
                else:
                    self.peers.append(peer)
        for peer in self.peers:
            for times in peer.parts_ms.values():
                times.clear()

    def close(self) -> None:
        self.stack.close()
        remove_groups(
            [*Path("/sys/fs/cgroup").glob(self.group), *Path("/sys/fs/cgroup").glob(f"*/{self.group}"), *self.groups]
        )

    def missing(self, name: str, program: str, *, root: bool = False) -> bool:
        if shutil.which(program) is None:
            self.skipped.append(Skipped(name, f"{program} is not installed"))
        elif root and not self.root:
            self.skipped.append(Skipped(name, "needs root"))
        else:
            return False
        return True

    def command(
        self, name: str, argv: list[str], note: str, where: Spawner, environment: dict[str, str] | None = None
    ) -> Peer:
        def run() -> float:
            seconds, status = where.run(argv, environment)
            if status:
                raise RunFailed(f"status {status}: {where.error()}")
            return seconds

        return Peer(name, self._shown(argv), note, run)

    def _shown(self, argv: list[str]) -> str:
        text = shlex.join(argv).replace(str(self.scratch), "$SCRATCH")
        return text.replace(os.path.dirname(sys.executable) + "/", "")

    # -- cellwall

    def _cellwall(self) -> Iterator[Peer]:
        import cellwall
        from cellwall.runtime.engine import Engine

        engine = Engine.default()
        engine.pool = 2
        self.stack.callback(engine.close)

        unprepared = Engine()
        unprepared.pool = 0
        self.stack.callback(unprepared.close)

        def timed(run: Callable[[], cellwall.Result]) -> Callable[[], float]:
            def once() -> float:
                begin = time.perf_counter()
                result = run()
                seconds = time.perf_counter() - begin
                if result.exit_status:
                    raise RunFailed(result.exit.reason)
                return seconds

            return once

        call = 'cellwall.run("oci:$SCRATCH/layout:latest", ["/bin/true"])'
        note = "launcher already running; user namespace, seccomp, limits, list of changes"
        yield Peer(
            WARM,
            call,
            f"{note}; begun in a sandbox that was made during the rest",
            timed(lambda: cellwall.run(self.image, ["/bin/true"], engine=engine)),
        )
        yield Peer(
            UNPREPARED,
            f"{call}, with CELLWALL_POOL=0",
            f"{note}; nothing made beforehand",
            timed(lambda: cellwall.run(self.image, ["/bin/true"], engine=unprepared)),
        )
        box = cellwall.container(self.image, name="bench", engine=unprepared)
        yield Peer(
            NAMED,
            'box.run(["/bin/true"])',
            "a further command in a named container that runs",
            timed(lambda: box.run(["/bin/true"], check=False)),
        )
        from starts import elsewhere, first, loading

        yield from elsewhere(self)
        yield first(self)
        yield loading(self)
        script = Path(sys.executable).with_name("cellwall")
        start = [str(script)] if script.exists() else [sys.executable, "-m", "cellwall"]
        yield self.command(
            "cellwall run --rm",
            [*start, "run", "--rm", self.image, "/bin/true"],
            "a new Python process and a new launcher each time",
            self.here,
        )
        yield self.command(
            "python -c pass",
            [sys.executable, "-c", "pass"],
            "the interpreter alone: what the two above can't go below",
            self.here,
        )

    # -- engines and runtimes

    def podman_words(self, name: str) -> tuple[list[str], str] | None:
        """``podman run`` with what it needs here, to be run ``apart``, and the image's name; None where it can't be had, which is noted."""
        if self.missing(name, "podman"):
            return None
        home = self.scratch / "podman"
        start = ["podman", "--root", f"{home}/root", "--runroot", f"{home}/runroot", "--tmpdir", f"{home}/tmp"]
        start += ["--cgroup-manager", "cgroupfs", "--events-backend", "file"]
        try:
            self.apart.check(*start, "pull", "--quiet", self.image)
        except RuntimeError as error:
            self.skipped.append(Skipped(name, str(error)))
            return None
        image = self.apart.output().strip().splitlines()[-1]
        limits = ["--ulimit", "nofile=4096:4096", "--ulimit", "nproc=4096:4096", "--cgroup-parent", f"/{self.group}"]
        return [*start, "run", "--rm", "--log-driver", "k8s-file", *limits], image

    def _podman(self) -> Iterator[Peer]:
        name = PODMAN
        words = self.podman_words(name)
        if words is None:
            return
        run, image = words
        runtime = "crun" if shutil.which("crun") else "runc"
        yield self.command(
            name,
            [*run, image, "/bin/true"],
            f"its default network (a bridge, a veth pair, NAT rules), {runtime} and conmon; overlay on the scratch folder's disk",
            self.apart,
        )
        yield self.command(
            f"{name} --network none",
            [*run, "--network", "none", image, "/bin/true"],
            "the like of cellwall's default: no network but lo",
            self.apart,
        )

    def _runtimes(self) -> Iterator[Peer]:
        for runtime in ("crun", "runc"):
            name = f"{runtime} run"
            if self.missing(name, runtime, root=True):
                continue
            where = self.apart if runtime == "crun" else self.here
            start = [runtime, "--root", str(self.scratch / f"state-{runtime}")]
            bundle = self._bundle(runtime, where, "run", ("/bin/true",))
            yield self.command(
                name,
                [*start, "run", "--bundle", str(bundle), f"{self.group}-{runtime}"],
                "no image, no user namespace, no seccomp filter; overlay mounted beforehand, memory and pids limits",
                where,
            )
            stays = f"{self.group}-{runtime}-stays"
            name = CRUN_EXEC if runtime == "crun" else f"{runtime} exec"
            bundle = self._bundle(runtime, where, "stays", ("/bin/busybox", "sleep", "100000"))
            self.stack.callback(where.run, [*start, "delete", "--force", stays])
            try:
                where.check(*start, "run", "--detach", "--bundle", str(bundle), stays)
            except RuntimeError as error:
                self.skipped.append(Skipped(name, str(error)))
                continue
            yield self.command(
                name, [*start, "exec", stays, "/bin/true"], "a further command in a container that runs", where
            )

    def _bundle(self, runtime: str, where: Spawner, name: str, command: tuple[str, ...]) -> Path:
        """A bundle of ``runtime`` whose root is an overlay that is mounted where ``where`` runs things."""
        bundle = rootfs.make_bundle(runtime, self.scratch / f"bundle-{runtime}-{name}", command)
        layers = self.scratch / f"layers-{runtime}-{name}"
        layers.mkdir()
        for words in rootfs.mount_overlay(self.rootfs, str(layers), bundle / "rootfs"):
            where.check(*words)
        return bundle

    # -- sandboxes

    def _sandboxes(self) -> Iterator[Peer]:
        tree = str(self.rootfs)
        name = BWRAP
        if not self.missing(name, "bwrap"):
            yield self.command(
                name,
                ["bwrap", "--unshare-all", "--bind", tree, "/", "--proc", "/proc", "--dev", "/dev", "/bin/true"],
                "no image, no overlay, no control group, no seccomp filter",
                self.here,
            )
        name = "unshare + chroot"
        if not self.missing(name, "unshare"):
            flags = "-fpmuinC" if self.root else "-rfpmuinC"
            yield self.command(
                name,
                ["unshare", flags, f"--mount-proc={tree}/proc", "chroot", tree, "/bin/true"],
                "namespaces only",
                self.here,
            )

    # -- floors

    def _floor(self) -> Iterator[Peer]:
        name = FLOOR
        if not self.missing(name, "cc", root=True):
            program = self.scratch / "floor"
            source = Path(__file__).with_name("floor.c")
            built = subprocess.run(["cc", "-O2", "-o", program, source], capture_output=True, text=True)
            if built.returncode:
                said = [line for line in built.stderr.splitlines() if "error" in line] or ["cc failed"]
                self.skipped.append(Skipped(name, said[0]))
            else:
                yield self._timed_inside(name, [str(program), str(self.rootfs), *self._group_words()])
        yield self.command(
            "posix_spawn of true", [f"{self.rootfs}/bin/true"], "no container at all: the floor", self.here
        )

    def _timed_inside(self, name: str, argv: list[str]) -> Peer:
        peer = self.command(
            name,
            argv,
            "floor.c; timed inside, from the first control group to the end of true, as it has no launcher",
            self.here,
        )
        spawn = peer.run

        def run() -> float:
            spawn()
            return int(self.here.output().split()[0]) / 1e9

        peer.run = run
        return peer

    def _group_words(self) -> list[str]:
        """The control groups for floor.c: beside those that cellwall makes on this machine, in the same trees."""
        from cellwall.runtime.cgroups import Group

        resources = {
            "memory": {"limit": rootfs.MEMORY_BYTES},
            "pids": {"limit": rootfs.PIDS},
            "devices": [{"allow": False, "access": "rwm"}],
        }
        like = Group.create(f"{self.group}-like", resources)
        paths = like.paths
        like.remove()
        words = []
        for key, path in paths.items():
            # Not in cellwall's own folder, which comes and goes with its containers.
            folder = Path(path).parent.parent / f"{self.group}-floor"
            self.groups.append(folder)
            limits = _LIMITS_V2 if len(paths) == 1 and key == "unified" else _LIMITS_V1.get(key, [])
            words.append(":".join([f"{'+' if key == 'unified' else ''}{folder}", *limits]))
        return words


_LIMITS_V1 = {
    "memory": [f"memory.limit_in_bytes={rootfs.MEMORY_BYTES}"],
    "pids": [f"pids.max={rootfs.PIDS}"],
    "devices": ["devices.deny=a"],
}
_LIMITS_V2 = [f"memory.max={rootfs.MEMORY_BYTES}", f"pids.max={rootfs.PIDS}"]


def remove_groups(groups: Iterable[Path]) -> None:
    """Remove control groups that peers were given and left behind, with those below them."""
    for group in groups:
        for folder, _, _ in sorted(os.walk(group), reverse=True):
            for delay_s in (0.01, 0.1, 1.0, None):
                try:
                    os.rmdir(folder)
                    break
                except OSError:
                    # A process that was just waited for may still be counted.
                    if delay_s is None:
                        raise
                    time.sleep(delay_s)
