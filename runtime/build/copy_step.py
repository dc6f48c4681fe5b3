"""COPY, ADD, and the directory of a WORKDIR: what they take, what that depends on, and the layer made of it.

Source: Dockerfile reference, "COPY", "ADD", "WORKDIR".
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType

from ..errors import BuildError, Cancelled
from ..frozen import asdict, field, frozen, slotted
from ..images.image import Image
from ..short_hash import hex_of
from ..storage.jobs import run_job
from .cache import write_kept
from .instructions import Add, Copy, Instruction
from .selection import Item, Request, SelectionFault, digest, literal, select
from .stages import SCRATCH, find_stage
from .values import source_kind

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, Self

    from .archives import Archive
    from .cache import Inputs
    from .downloads import Download
    from .stage import Stage

_HEREDOC_MODE = 0o644


@slotted
class Part:
    """One tree that is copied from: ``described`` and ``fds`` are what the worker gets, see jobs.py."""

    selection: Request
    described: dict[str, Any]
    keep_owners: bool = False
    as_is: bool = False
    fds: dict[str, int] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        return {
            "tree": self.described,
            "selection": asdict(self.selection),
            "keep_owners": self.keep_owners,
            "as_is": self.as_is,
        }


@frozen
class Placing:
    """Where the worker puts what it copies, and how, see jobs.py. ``files`` are (name, content in Base64, mode).

    ``only_missing``: nothing, where the destination is a directory already.
    """

    destination: str
    chown: str = ""
    chmod: str = ""
    link: bool = False
    parents: bool = False
    files: tuple[tuple[str, str, int], ...] = ()
    only_missing: bool = False


@contextmanager
def faults_of(instruction: Instruction, what: str, *, at: str | None = None) -> Iterator[None]:
    """What selecting and copying raise leaves the block with the instruction's place: at the faulty source, or at ``at``.

    Raises DockerfileError, whose message begins with ``what``, and Cancelled where it was stopped.
    """
    try:
        yield
    except SelectionFault as fault:
        raise instruction.source.fault(f"{what}: {fault}", fault.source if at is None else at) from None
    except InterruptedError:
        raise Cancelled("the build was stopped") from None


class CopyStep:
    """One COPY or ADD, expanded, between ``with`` and its end."""

    def __init__(self, stage: Stage, instruction: Copy | Add) -> None:
        self._stage = stage
        self._build = stage.build_
        self._instruction = instruction
        self._destination = stage.config.absolute(instruction.destination)
        self._parts: list[Part] = []
        self._archives: list[Archive] = []
        self._downloads: list[Download] = []
        self._digests: list[str] = []
        self._files: dict[str, str] = {}
        self._checked: list[str] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for archive in self._archives:
            archive.close()
        for download in self._downloads:
            download.close()

    # -- what it depends on

    def inputs(self) -> Inputs:
        """Find the sources and read them. Raises DockerfileError (one is missing), BuildError, Cancelled."""
        instruction = self._instruction
        try:
            with faults_of(instruction, instruction.name):
                if isinstance(instruction, Add):
                    self._find_added(instruction)
                elif instruction.sources:
                    self._find_copied(instruction)
        except OSError as error:  # an archive that may not be read, or went just now
            why = os.strerror(error.errno or 0).lower()
            raise instruction.source.fault(
                f"{instruction.name}: {error.filename or 'a source'} can't be read: {why}"
            ) from error
        facts: dict[str, Any] = {
            "content": self._digests,
            "destination": self._destination,
            "chown": instruction.chown,
            "chmod": instruction.chmod,
            "link": instruction.link,
            "parents": self._parents,
            "heredocs": [[file.name, hex_of(_bytes(file.content))] for file in instruction.files],
            "unpacked": [archive.name for archive in self._archives],
        }
        return self._stage.inputs("copy", instruction, facts, self._files)

    @property
    def _parents(self) -> bool:
        return isinstance(self._instruction, Copy) and self._instruction.parents

    def _changed(self) -> BuildError:
        instruction = self._instruction
        return BuildError(
            instruction.source.first_line, f"{instruction.name}: the context changed while it was copied: build again"
        )

    def _find_copied(self, instruction: Copy) -> None:
        if not instruction.stage:
            selection = self._selection(instruction.sources)
            self._add_context(selection, select(self._build.context.tree, selection))
            return
        lowers, chain = layers_of(self._stage, instruction, instruction.stage)
        selection = Request(instruction.sources, (), instruction.excludes, instruction.parents, owners=True)
        self._parts.append(Part(selection, {"lowers": lowers}, keep_owners=True))
        found = self._stage_digest(chain, self._parts[-1])
        self._digests.append(found[0])
        self._files |= found[1]

    def _selection(self, sources: tuple[str, ...]) -> Request:
        return Request(sources, self._build.context.ignore, self._instruction.excludes, self._parents)

    def _add_context(self, selection: Request, items: list[Item]) -> None:
        tree = self._build.context.tree
        whole, files = digest(tree, items, selection, self._build.stopped.is_set)
        self._digests.append(whole)
        self._checked.append(whole)
        self._files |= files
        self._parts.append(Part(selection, {"folder": "context_fd"}, fds={"context_fd": self._build.context.fd}))

    def _find_added(self, instruction: Add) -> None:
        from .archives import Archive, is_archive

        plain: list[str] = []
        for source in instruction.sources:
            kind = source_kind(source)
            if kind == "path":
                plain.append(source)
                continue
            if kind == "git":
                raise instruction.source.fault(
                    f"ADD: {source} is a git repository, which isn't fetched here: clone it and COPY it, or ADD its archive's URL",
                    source,
                )
            self._add_download(instruction, source)
        if not plain:
            return
        selection = self._selection(tuple(plain))
        tree = self._build.context.tree
        items = select(tree, selection)
        archives = [item for item in items if instruction.unpack is not False and is_archive(tree, item)]
        if not archives:
            self._add_context(selection, items)
            return
        for item in archives:
            archive = Archive(os.fsdecode(item.path), tree.open(item.path))
            self._archives.append(archive)
            # Of an archive that is unpacked nothing but its content counts, as it is read through this descriptor.
            self._digests.append(archive.digest(self._build.stopped.is_set))
            self._files[archive.name] = self._digests[-1][:16]
        rest = [literal(os.fsdecode(item.written)) for item in items if item not in archives]
        if rest:
            selection = self._selection(tuple(rest))
            self._parts.append(Part(selection, {"folder": "context_fd"}, fds={"context_fd": self._build.context.fd}))
            whole, files = digest(tree, select(tree, selection), selection, self._build.stopped.is_set)
            self._digests.append(whole)
            self._checked.append(whole)
            self._files |= files

    def _add_download(self, instruction: Add, url: str) -> None:
        from .downloads import Download

        folder = (
            self._build.scratch / f"download-{self._stage.planned.index}-{self._stage.number}-{len(self._downloads)}"
        )
        download = Download(url, instruction.checksum, folder, self._build.stopped.is_set)
        self._downloads.append(download)
        try:
            # A checksum that is written down saves asking: what it names is in the cache or not.
            self._digests.append(instruction.checksum or download.fetch())
        except BuildError as error:
            raise instruction.source.fault(f"ADD: {error}", url) from None
        self._files[url] = self._digests[-1]

    def _stage_digest(self, chain: str, part: Part) -> tuple[str, dict[str, str]]:
        """What selecting from a stage or image gives; it can't change, so it is worked out once and kept."""
        key = hex_of(json.dumps([chain, asdict(part.selection)], sort_keys=True).encode("utf-8", "surrogateescape"))
        path = self._build.engine.paths.build_cache / "digests" / key
        try:
            whole, files = json.loads(path.read_bytes())
            return whole, files
        except (FileNotFoundError, ValueError):
            pass
        answer = copy_job(self._stage, "build-digests", [part], None, {}, self._build.stopped.is_set)
        whole, files = answer["digests"][0]
        write_kept(path, json.dumps([whole, files]).encode())
        return whole, files

    # -- the layer

    def make(self) -> Image:
        """Make the layer. Raises DockerfileError, LayerError, BuildError (a file changed meanwhile), Cancelled."""
        from .archives import Archive, unpack

        instruction = self._instruction
        parts = list(self._parts)
        for download in self._downloads:
            try:
                download.fetch()
            except BuildError as error:
                raise instruction.source.fault(f"ADD: {error}", download.url) from None
            if isinstance(instruction, Add) and instruction.unpack and download.is_archive():
                self._archives.append(Archive(download.name, download.open()))
                continue
            folder_fd = download.folder_fd()
            selection = Request((literal(download.name),))
            name = f"download{len(parts)}_fd"
            parts.append(Part(selection, {"folder": name}, fds={name: folder_fd}))
        for number, archive in enumerate(self._archives):
            folder = self._build.scratch / f"archive-{self._stage.planned.index}-{self._stage.number}-{number}"
            name = f"archive{number}_fd"
            try:
                fd = unpack(self._build, archive, folder)
            except BuildError as error:
                raise instruction.source.fault(f"ADD: {error}", archive.name) from error
            if archive.changed(self._build.stopped.is_set):
                raise self._changed()
            parts.append(
                Part(
                    Request((".",), (), instruction.excludes, owners=True), {"folder": name}, as_is=True, fds={name: fd}
                )
            )
        into = bool(self._archives) and not self._destination.endswith("/")
        placing = Placing(
            self._destination + ("/" if into else ""),
            instruction.chown,
            instruction.chmod,
            instruction.link,
            self._parents,
            tuple((file.name, _base64(file.content), _HEREDOC_MODE) for file in instruction.files),
        )

        def write(fd: int, stop: Callable[[], bool]) -> None:
            with faults_of(instruction, instruction.name):
                answer = copy_job(self._stage, "build-copy", parts, placing, {"out_fd": fd}, stop)
            found = [
                whole for (whole, _), part in zip(answer["digests"], parts, strict=True) if "context_fd" in part.fds
            ]
            if found != self._checked:
                raise self._changed()

        return self._build.derive(self._stage.image, write)


def copy_job(
    stage: Stage,
    job: str,
    parts: list[Part],
    placing: Placing | None,
    fds: dict[str, int],
    stop: Callable[[], bool],
) -> Any:
    """Have the worker do ``job`` (see jobs.py) on ``parts`` and the stage's layers. Raises SelectionFault and what ``run_job`` does."""
    build = stage.build_
    image = stage.image
    target = build.driver.stack(image.chain_ids) if image is not None and image.layers else []
    answer = run_job(
        job,
        {
            "root": str(build.scratch),
            "parts": [part.to_dict() for part in parts],
            "target": {"lowers": target},
            "epoch": build.epoch,
            "now": int(time.time()),
            **(asdict(placing) if placing is not None else {}),
        },
        fds=fds | {name: fd for part in parts for name, fd in part.fds.items()},
        userns_fd=build.engine.identity.userns_fd(),
        digest="of the copy",
        cancelled=stop,
    )
    if "fault" in answer:
        raise SelectionFault(*answer["fault"])
    return answer


def make_directory(stage: Stage, instruction: Instruction, path: str) -> Image:
    """The stage's layers with the directory ``path``, where they haven't it yet: the user's in force."""
    owner = stage.config.inner.get("User") or ""
    placing = Placing(path.rstrip("/") + "/", chown=owner, only_missing=True)

    def write(fd: int, stop: Callable[[], bool]) -> None:
        with faults_of(instruction, instruction.name, at=path):
            copy_job(stage, "build-copy", [], placing, {"out_fd": fd}, stop)

    return stage.build_.derive(stage.image, write)


def layers_of(stage: Stage, instruction: Instruction, name: str) -> tuple[list[str | dict[str, str]], str]:
    """The lowers (top first) and the chain id of what ``--from`` names: a stage, ``scratch``, or an image."""
    from .executor import chain_of

    build = stage.build_
    index = find_stage(build.dockerfile, name, stage.planned.index)
    if index is not None:
        image = build.stage_result(index).image
    elif name == SCRATCH:
        image = None
    else:
        image = stage.image_of(instruction, name)
    if image is None or not image.layers:
        return [], ""
    return list(build.driver.stack(image.chain_ids)), chain_of(image)


def _base64(text: str) -> str:
    import base64

    return base64.b64encode(_bytes(text)).decode()


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")
