"""Who builds: each tool that makes an image of a Dockerfile, with a store of its own, and how many steps it says it took from its cache.

What the tools count as a step from the cache differs: BuildKit has none for ENV, LABEL and CMD, which make no layer.
"""

from __future__ import annotations

import os
import re
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from docker_daemon import with_rootfs
from peers import Lineup, RunFailed, Skipped
from spawner import Spawner

if TYPE_CHECKING:
    from cellwall.runtime.engine import Engine

COMMAND = "cellwall build"
PROCESS = "cellwall, Engine.build in a process"
PODMAN = "podman build"
BASE = "localhost/base"
STEPS = 10
_FILES = 200


def write_context(folder: Path) -> None:
    """Three files and a directory of 200 in ten folders, all of them small."""
    for name in ("one", "two", "three"):
        folder.mkdir(exist_ok=True)
        (folder / f"{name}.txt").write_text(f"{name}\n" * 100)
    for number in range(_FILES):
        below = folder / "src" / f"part-{number % 10}"
        below.mkdir(parents=True, exist_ok=True)
        (below / f"file-{number}.py").write_text(f"value = {number}\n" * (1 + number % 50))


def write_dockerfile(folder: Path, round_number: int) -> None:
    """Ten steps, of which the second differs in each round, so that the eight behind it stand on other layers."""
    (folder / "Dockerfile").write_text(
        f"FROM {BASE}\n"
        f"WORKDIR /srv/round-{round_number}\n"
        "ENV MODE=release LEVEL=3\n"
        "COPY one.txt two.txt three.txt ./\n"
        "RUN echo first > first\n"
        "COPY src src/\n"
        "RUN echo second > second\n"
        "RUN echo third > third\n"
        'LABEL org.example.kind="benchmark"\n'
        'CMD ["/bin/true"]\n'
    )


@dataclass
class Builder:
    """``build`` does it once: seconds, and how many steps came from the cache. ``all_hits`` is how many an unchanged build has."""

    name: str
    command: str
    note: str
    build: Callable[[], tuple[float, int]]
    all_hits: int
    new_hits: int = 0

    def run(self, *, changed: bool) -> float:
        """Seconds of a build. Raises RunFailed where it fails, or where not just the steps came from the cache that must."""
        seconds, hits = self.build()
        wanted = self.new_hits if changed else self.all_hits
        if hits != wanted:
            raise RunFailed(
                f"{hits} steps from the cache, not {wanted}, of {'a new' if changed else 'an unchanged'} build"
            )
        return seconds


class Builders(Lineup):
    """All builders on one scratch folder, see Lineup; the context is ``scratch/context``."""

    def __init__(self, scratch: Path) -> None:
        super().__init__(scratch)
        self.context = scratch / "context"
        write_context(self.context)
        self.builders: list[Builder] = []

    def assemble(self) -> None:
        """Prepare every builder and let each build once and once again: one that can't is skipped. Raises RunFailed for cellwall."""
        write_dockerfile(self.context, -1)
        for maker in (self._in_process, self._cellwall, self._podman_and_buildah, self._docker):
            for builder in maker():
                try:
                    builder.build()  # unchecked: it has no record of its base yet
                    builder.run(changed=False)
                except RunFailed as error:
                    if builder.name in (COMMAND, PROCESS):
                        raise
                    self.skipped.append(Skipped(builder.name, str(error)))
                else:
                    self.builders.append(builder)

    def _builder(
        self,
        name: str,
        argv: list[str],
        note: str,
        where: Spawner,
        hit: str,
        hits: tuple[int, int],
        environment: dict[str, str] | None = None,
    ) -> Builder:
        """A command whose output has a line that matches ``hit`` for each step from its cache: so many when new, when unchanged."""
        pattern = re.compile(hit, re.MULTILINE)

        def build() -> tuple[float, int]:
            seconds, status = where.run(argv, environment)
            if status:
                raise RunFailed(f"status {status}: {where.error()}")
            said = where.output() + Path(where.error_path).read_text(errors="replace")
            return seconds, len(pattern.findall(said))

        return Builder(name, self._shown(argv), note, build, hits[1], hits[0])

    # -- cellwall

    def _in_process(self) -> Iterator[Builder]:
        from cellwall.runtime.build.results import BuildRequest

        engine = self._engine("process")

        def build() -> tuple[float, int]:
            text = (self.context / "Dockerfile").read_bytes()
            begin = time.perf_counter()
            result = engine.build(BuildRequest(dockerfile=text, context=self.context, tags=("mine",)))
            seconds = time.perf_counter() - begin
            assert len(result.steps) == STEPS
            return seconds, result.hits

        note = "what a %%dockerfile cell costs: Python has started, and so has the launcher once a RUN was run"
        yield Builder(PROCESS, "Engine.build(BuildRequest(dockerfile, context, tags))", note, build, STEPS, 1)

    def _engine(self, name: str) -> Engine:
        """An engine on a store of its own that holds the base image."""
        from cellwall.runtime.config import Config
        from cellwall.runtime.engine import Engine

        engine = Engine(Config.load(flags={"root": str(self.scratch / f"cellwall-{name}")}))
        self.stack.callback(engine.close)
        engine.images.tag(str(engine.image(self.image).id), BASE)
        return engine

    def _cellwall(self) -> Iterator[Builder]:
        self._engine("command")
        script = Path(sys.executable).with_name("cellwall")
        start = [str(script)] if script.exists() else [sys.executable, "-m", "cellwall"]
        argv = [*start, "--root", str(self.scratch / "cellwall-command"), "build", "-t", "mine", str(self.context)]
        yield self._builder(
            COMMAND,
            argv,
            "a new Python process each time, and a launcher where a RUN is run",
            self.here,
            r"\] hit ",
            (1, STEPS),
        )

    # -- podman, buildah

    def _podman_and_buildah(self) -> Iterator[Builder]:
        limits = ["--ulimit", "nofile=4096:4096", "--ulimit", "nproc=4096:4096", "--cgroup-parent", f"/{self.group}"]
        if not self.missing(PODMAN, "podman"):
            home = self.scratch / "podman"
            start = ["podman", "--root", f"{home}/root", "--runroot", f"{home}/runroot", "--tmpdir", f"{home}/tmp"]
            start += ["--cgroup-manager", "cgroupfs", "--events-backend", "file"]
            yield from self._like_podman(PODMAN, start, "build", limits)
        if not self.missing("buildah bud", "buildah"):
            home = self.scratch / "buildah"
            start = ["buildah", "--root", f"{home}/root", "--runroot", f"{home}/runroot"]
            yield from self._like_podman("buildah bud", start, "bud", limits)

    def _like_podman(self, name: str, start: list[str], word: str, limits: list[str]) -> Iterator[Builder]:
        try:
            self.apart.check(*start, "pull", "--quiet", self.image)
            image = self.apart.output().strip().splitlines()[-1]
            self.apart.check(*start, "tag", image, BASE)
        except RuntimeError as error:
            self.skipped.append(Skipped(name, str(error)))
            return
        argv = [*start, word, "--layers", "--pull-never", "--network", "none", *limits, "-t", "mine", str(self.context)]
        note = "no network in RUN, as is cellwall's default; it doesn't count FROM"
        yield self._builder(name, argv, note, self.apart, r"^--> Using cache", (0, STEPS - 1))

    # -- docker

    def _docker(self) -> Iterator[Builder]:
        name = "docker build"
        start = with_rootfs(self, name, BASE)
        if start is None:
            return
        environment = {**os.environ, "DOCKER_CONFIG": str(self.scratch / "docker-config"), "DOCKER_BUILDKIT": "0"}
        argv = [*start, "build", "--network", "none", "-t", "mine", str(self.context)]
        yield self._builder(
            f"{name}, classic",
            argv,
            "a daemon does the work; the client sends it the context; it doesn't count FROM",
            self.here,
            r"^ ---> Using cache",
            (0, STEPS - 1),
            environment,
        )
        yield self._builder(
            f"{name}, BuildKit",
            [*argv[:4], "--progress", "plain", *argv[4:]],
            "a daemon does the work, with the context that it has kept; six steps make layers, and those are counted",
            self.here,
            r"^#\d+ CACHED",
            (1, 6),
            {**environment, "DOCKER_BUILDKIT": "1"},
        )
