"""A union's way through one container: its folders, its entry in the mount plan, and what is read before and after.

Writes go to a layer of the union's own above all branches, which goes with it: the folders of the machine stay as they are.
With ``write`` the leftmost rw branch is overlayfs's upper directory, and gets the writes as aufs would put them there.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import CellwallError, NotFound, SpecError, SyscallError
from ..frozen import frozen
from ..storage.jobs import run_job
from ..storage.scratch import TMP, Scratch, remove_folders
from .branches import check_writes, folders
from .syntax import UnionSpec, refuse
from .view import Effect, Entry, UnionView

if TYPE_CHECKING:
    from ..engine import Engine
    from ..options import RunOptions

HOST = "host"
DEPTH = 3
LIMIT = 60
# In the scratch folder: the path of the work folder beside a branch that is written to.
_NOTE = "work-folder"
_WORK = f"{TMP}union-"


@frozen
class Asked:
    """What is to be done with a union: ``write`` into its branch, and what to show: ``path`` and below, ``depth`` levels, ``limit`` rows."""

    write: bool = False
    path: str = ""
    depth: int = DEPTH
    limit: int = LIMIT


class Union:
    """A union that can be mounted, between ``opened`` and its end. ``mount`` is its entry of a mount plan."""

    def __init__(
        self,
        engine: Engine,
        spec: UnionSpec,
        asked: Asked,
        image: str,
        branches: list[dict[str, Any]],
        mount: dict[str, Any],
        warnings: list[str],
    ) -> None:
        self.spec = spec
        self.mount = mount
        self.warnings = warnings
        self._engine = engine
        self._asked = asked
        self._image = image
        self._branches = branches
        self._before: object = None
        if image != HOST:  # told with its place, before anything is started
            self._scan("", 0)
        if asked.write:
            self._before = self._job("union-before", {"path": mount["upper"]})

    def view(self, *, ran: bool) -> UnionView:
        """The union as it is now; with ``ran`` also what has been written since it was opened. Raises NotFound."""
        effects, more_effects = self._effects() if ran else (None, 0)
        start = self._start()
        found = self._scan(start, self._asked.depth)
        if "absent" in found:
            raise NotFound(f"{self.spec.mount_point}/{start}: no branch has it")
        return UnionView(
            spec=self.spec,
            image=self._image,
            write=self._asked.write,
            entries=tuple(Entry.of(row) for row in found["rows"]),
            more=found["more"],
            cut=found["cut"],
            given=tuple(found["given"]),
            effects=effects,
            more_effects=more_effects,
            warnings=(*self.spec.warnings, *self.warnings),
        )

    def _scan(self, start: str, depth: int) -> dict[str, Any]:
        request = {
            "branches": self._branches,
            # A branch that is written to holds what was written itself.
            "upper": None if self._asked.write else self.mount["upper"],
            "writable": self.spec.writable,
            "start": os.fsencode(start).hex(),
            "depth": depth,
            "limit": self._asked.limit,
        }
        found: dict[str, Any] = self._job("union-scan", request)
        if "missing" in found:
            branch = self.spec.branches[found["missing"]]
            refuse(branch, f"{branch.path}: no such folder in the image {self._image}")
        return found

    def _effects(self) -> tuple[tuple[Effect, ...] | None, int]:
        write = self._asked.write
        if write and self._before is None:
            name = self.spec.branches[self.spec.writable or 0].path
            self.warnings.append(f"{name} has so many files that what was written to it isn't listed")
            return None, 0
        writable = self.spec.writable
        found = self._job(
            "union-effects",
            {
                "top": self.mount["upper"],
                "branches": self._branches[1:] if write else self._branches,
                "own": None if write else writable,
                "before": self._before,
            },
        )
        # Under ``write`` the branch that was written to isn't among those below it.
        return tuple(Effect.of(told, int(write)) for told in found["effects"]), found["more"]

    def _start(self) -> str:
        point, path = self.spec.mount_point, self._asked.path
        if path.startswith("/"):
            if path.rstrip("/") != point and not path.startswith(point + "/"):
                raise SpecError(
                    "--path", f"{path} isn't in the union, which is at {point}: {point}{path} or {path.lstrip('/')} is"
                )
            path = path[len(point) :]
        parts = [part for part in path.split("/") if part not in ("", ".")]
        if ".." in parts:
            raise SpecError("--path", f"{self._asked.path!r} has .. in it: write the path that it leads to")
        return "/".join(parts)

    def _job(self, job: str, request: dict[str, Any]) -> Any:
        return run_job(job, request, userns_fd=self._engine.identity.userns_fd())


@contextlib.contextmanager
def opened(engine: Engine, spec: UnionSpec, asked: Asked, options: RunOptions) -> Iterator[Union]:
    """The union ``spec`` for one container with ``options``; whatever happens, nothing of it is left behind.

    Raises SpecError (a branch that is no folder, or two that overlap), UnsupportedError, NotFound (the image).
    """
    engine.known  # noqa: B018  the folders must be there
    rootless = engine.identity.rootless
    if options.image == HOST:
        paths, warnings = folders(spec, rootless=rootless)
        branches: list[dict[str, Any]] = [{"path": path} for path in paths]
        lowers: list[Any] = list(paths)
    else:
        if asked.write:
            raise SpecError(
                "--write", "writes to folders of this machine, and an image is never written to: leave out --image"
            )
        branches, lowers, warnings = _in_image(engine, spec, options)
        paths = []
    scratch = _Scratch(engine.paths.data / "unions", engine.identity)
    scratch.sweep()
    with contextlib.ExitStack() as stack:
        target = check_writes(spec, paths) if asked.write else ""
        folder, lock_fd = stack.enter_context(scratch.folder())
        if target:
            upper, work = target, stack.enter_context(_beside(folder, target))
            lowers = lowers[1:]
        else:
            upper, work = str(folder / "upper"), str(folder / "work")
            # The merged root shows the upper folder's mode and owner, which are to be the first branch's.
            like = paths[0] if paths else str(folder)
            run_job(
                "make-upper", {"upper": upper, "like": like}, userns_fd=engine.identity.userns_fd(), held_fds=(lock_fd,)
            )
            os.mkdir(work, 0o700)
        if not lowers:  # overlayfs wants one
            lowers = [str(folder / "empty")]
            os.mkdir(lowers[0], 0o755)
        mount = {
            "at": spec.mount_point,
            "type": "union",
            "lowers": lowers,
            "upper": upper,
            "work": work,
            "options": [*spec.options, *(["ro"] if spec.writable is None and "ro" not in spec.options else [])],
        }
        yield Union(engine, spec, asked, options.image, branches, mount, warnings)


def _in_image(
    engine: Engine, spec: UnionSpec, options: RunOptions
) -> tuple[list[dict[str, Any]], list[Any], list[str]]:
    """Branches in the container of an image: folders of the image, or of a bind mount that ``-v`` makes."""
    image = engine.image(
        options.image,
        pull=options.pull,
        platform=options.platform,
        storage_driver=options.storage_driver,
        locked=options.locked,
    )
    driver, _ = engine.of_driver(options.storage_driver)
    layers = driver.stack(image.chain_ids)
    branches: list[dict[str, Any]] = []
    lowers: list[Any] = []
    for branch in spec.branches:
        bind = next(
            (
                m
                for m in options.mounts
                if m.type == "bind" and (branch.path + "/").startswith(m.target.rstrip("/") + "/")
            ),
            None,
        )
        if bind is None:
            branches.append({"layers": layers, "inside": branch.path})
            lowers.append({"root": branch.path})
            continue
        path = os.path.realpath(bind.source + branch.path[len(bind.target.rstrip("/")) :])
        if not os.path.isdir(path):
            refuse(branch, f"{branch.path}: no such folder in {bind.source}, which -v brings in there")
        branches.append({"path": path})
        lowers.append(path)
    return branches, lowers, []


@contextlib.contextmanager
def _beside(folder: Path, target: str) -> Iterator[str]:
    """overlayfs's work folder beside ``target``, which no other union writes to meanwhile; removed with ``folder``, see _Scratch."""
    target_fd = os.open(target, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        try:
            fcntl.flock(target_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise CellwallError(f"--write into {target}: another union writes to it now, wait for its end") from None
        work = os.path.join(os.path.dirname(target), f"{_WORK}{secrets.token_hex(8)}")
        # First, so that a later start finds the folder of a process that was killed in between.
        (folder / _NOTE).write_bytes(os.fsencode(work))
        try:
            os.mkdir(work, 0o700)
        except OSError as error:
            raise SyscallError(error.errno or 0, f"mkdir {work}, which overlayfs works in") from error
        yield work
    finally:
        os.close(target_fd)


class _Scratch(Scratch):
    """Scratch folders that may have noted a work folder elsewhere, which goes before they do: at the end, or with a later start."""

    def _remove_locked(self, name: str, held_fds: tuple[int, ...]) -> None:
        try:
            work = Path(os.fsdecode((self.directory / name / _NOTE).read_bytes()))
        except FileNotFoundError:
            work = Path()
        if work.name.startswith(_WORK) and work.is_dir():
            remove_folders(work.parent, [work.name], self._identity, held_fds=held_fds)
        super()._remove_locked(name, held_fds)
