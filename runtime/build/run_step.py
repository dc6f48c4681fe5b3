"""RUN: what it depends on, its mounts, and the layer that its command leaves.

Source: Dockerfile reference, "RUN", "RUN --mount", "RUN --network", "RUN --security".
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack

from ..errors import BuildError, LayerError
from ..frozen import replace
from ..images.image import Image
from ..options import Mount as RunMount
from ..options import RunOptions, Script
from .cache_mounts import cache_mount
from .copy_step import Part, Placing, copy_job, faults_of, layers_of
from .instructions import Mount, Run
from .results import Output, shown_tail
from .selection import Request, digest, select
from .source import one_line

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Literal

    from .cache import Inputs
    from .results import Secret
    from .stage import Stage

# What docker takes as well. Source: buildkit, secrets
_SECRET_BYTES = 500 << 10
_SECRET_MODE = 0o400
_HOSTNAME = "build"
_TAIL_BYTES = 16 << 10


class RunStep:
    """One RUN, expanded."""

    def __init__(self, stage: Stage, instruction: Run) -> None:
        self._stage = stage
        self._build = stage.build_
        self._instruction = instruction
        self._secret_env: dict[str, str] = {}
        self._secret_files: dict[str, dict[str, Any]] = {}
        if instruction.security != "sandbox":
            raise self._fault(
                f"--security={instruction.security} isn't to be had: every step runs isolated", "--security"
            )
        if instruction.network not in ("default", "none", "host"):
            raise self._fault(f"--network={instruction.network} isn't known", instruction.network)

    def _fault(self, message: str, fragment: str = "") -> BuildError:
        return self._instruction.source.fault(f"RUN: {message}", fragment)

    # -- what it depends on

    def inputs(self) -> Inputs:
        """What the result depends on: not the network's content, not secrets, not what a cache mount holds."""
        instruction, config = self._instruction, self._stage.config
        script, is_file = instruction.script() if instruction.command.shell else ("", False)
        files: dict[str, str] = {}
        facts: dict[str, Any] = {
            "command": list(instruction.command.argv) if not instruction.command.shell else [],
            "script": script,
            "shell": [] if is_file or not instruction.command.shell else config.shell,
            "args": self._stage.scope.run_args(),
            "env": config.env,
            "user": config.inner.get("User") or "",
            "workdir": config.workdir,
            "network": self._network(),
            "mounts": {mount.target or mount.id: self._mount_facts(mount, files) for mount in instruction.mounts},
        }
        return self._stage.inputs("run", instruction, facts, files)

    def _network(self) -> str:
        asked = self._instruction.network
        return asked if asked != "default" else self._build.request.run.network or "none"

    def _mount_facts(self, mount: Mount, files: dict[str, str]) -> list[Any]:
        described = [
            mount.type,
            mount.source,
            mount.read_only,
            mount.stage,
            mount.id,
            mount.size_bytes,
            mount.environment,
        ]
        if mount.type != "bind":
            return described
        if mount.stage:
            return [*described, layers_of(self._stage, self._instruction, mount.stage)[1]]
        selection = self._context_selection()
        with self._faults(mount):
            tree = self._build.context.tree
            source = mount.source.strip("/") or "."
            items = select(tree, replace(selection, sources=(source,)))
            whole, parts = digest(tree, items, selection, self._build.stopped.is_set)
        files |= parts
        return [*described, whole]

    def _faults(self, mount: Mount) -> AbstractContextManager[None]:
        return faults_of(self._instruction, "RUN: --mount", at=mount.source)

    def _context_selection(self) -> Request:
        return Request((".",), self._build.context.ignore)

    # -- the layer

    def make(self) -> Image:
        """Run the command and keep what it changed. Raises StepFailed, BuildError, Cancelled."""
        # A build that finds every step in the cache doesn't need what starts containers.
        from .sandbox import Sandbox

        stage, instruction = self._stage, self._instruction
        if stage.image is None or not stage.image.layers:
            raise self._fault(
                "there is nothing to run here yet: the stage is FROM scratch and empty, COPY a program first"
            )
        with ExitStack() as stack:
            mounts, binds = self._mounts(stack)
            options, script = self._options(binds)
            sandbox = stack.enter_context(
                Sandbox(self._build.engine, stage.image, options, script, mounts, self._secret_files)
            )
            tail: list[bytes] = []
            ended = sandbox.run(self._sink("stdout", tail), self._sink("stderr", tail), self._build.running(stack))
            self._build.check()
            if ended.status != 0:
                so_far = stage.image_so_far()
                from .step_failed import StepFailed

                raise StepFailed(
                    instruction.source.first_line,
                    one_line(instruction.source.text),
                    ended.reason or f"exit status {ended.status}",
                    ended.status,
                    shown_tail(tail),
                    str(so_far.id) if so_far is not None else "",
                )
            try:
                return self._build.derive(
                    stage.image, lambda fd, stop: sandbox.write_layer(fd, stop, self._build.epoch)
                )
            except LayerError as error:
                raise self._fault(f"what it left can't become a layer: {error}") from error

    def _sink(self, stream: Literal["stdout", "stderr"], tail: list[bytes]) -> Callable[[bytes], object]:
        def sink(data: bytes) -> None:
            tail.append(data)
            while len(tail) > 1 and sum(map(len, tail[1:])) > _TAIL_BYTES:
                del tail[0]
            self._build.tell(Output(self._stage.name, self._stage.number, stream, data))

        return sink

    def _options(self, binds: list[RunMount]) -> tuple[RunOptions, Script | None]:
        instruction, config = self._instruction, self._stage.config
        script = None
        argv = list(instruction.command.argv)
        if instruction.command.shell:
            text, is_file = instruction.script()
            if is_file:
                argv, script = [], Script(text.encode("utf-8", "surrogateescape"))
            else:
                argv = [*config.shell, text]
        assert self._stage.image is not None
        options = replace(
            self._build.request.run,
            image=str(self._stage.image.id),
            command=tuple(argv),
            entrypoint=(),
            # With a name it is kept until it is removed; nobody sees it.
            name=f"build-{os.getpid()}-{os.urandom(6).hex()}",
            hostname=_HOSTNAME,
            env=self._stage.scope.run_environment() | self._secret_env,
            workdir=config.workdir,
            user=config.inner.get("User") or "",
            network=self._network(),
            mounts=(*self._build.request.run.mounts, *binds),
            storage_driver=self._build.request.storage_driver,
            rm=False,
        )
        return options, script

    def _mounts(self, stack: ExitStack) -> tuple[list[dict[str, Any]], list[RunMount]]:
        """Entries of the mount plan, and mounts as ``run`` has them."""
        plan: list[dict[str, Any]] = []
        binds: list[RunMount] = []
        for mount in self._instruction.mounts:
            target = self._stage.config.absolute(mount.target).rstrip("/") if mount.target else ""
            if mount.target and not target:
                raise self._fault(
                    f"--mount: nothing can be mounted on the root, which target={mount.target} is", mount.target
                )
            match mount.type:
                case "bind":
                    plan.append(self._bind(mount, target))
                case "tmpfs":
                    options = (f"size={mount.size_bytes}",) if mount.size_bytes else ()
                    binds.append(RunMount("tmpfs", target, options=(*options, "exec")))
                case "cache":
                    folder = stack.enter_context(cache_mount(self._stage, mount, target))
                    binds.append(RunMount("bind", target, str(folder), mount.read_only))
                case "secret":
                    self._secret(mount, target)
                case _:
                    raise self._fault(
                        f"--mount=type={mount.type} isn't to be had: copy what it would bring", mount.type
                    )
        return plan, binds

    def _bind(self, mount: Mount, target: str) -> dict[str, Any]:
        if mount.stage:
            lowers, _ = layers_of(self._stage, self._instruction, mount.stage)
            of = mount.stage
        else:
            with self._faults(mount):
                image = context_image(self._stage, self._context_selection())
            lowers = self._build.driver.stack(image.chain_ids) if image.layers else []
            of = "the build context"
        if not lowers:
            raise self._fault(f"--mount: {of} holds nothing", mount.stage or mount.source)
        return {
            "at": target,
            "type": "overlay",
            "lowers": lowers,
            "upper": None,
            "work": None,
            "part": mount.source.strip("/") or ".",
            "of": of,
            "readonly": mount.read_only,
        }

    def _secret(self, mount: Mount, target: str) -> None:
        name = mount.id or mount.source or target.rpartition("/")[2]
        secret = self._build.request.secrets.get(name)
        if secret is None:
            if mount.required:
                raise self._fault(f"the secret {name!r} is needed: give it with --secret id={name},src=FILE", name)
            return
        data = read_secret(secret)
        if mount.environment:
            try:
                self._secret_env[mount.environment] = data.decode()
            except UnicodeDecodeError:
                raise self._fault(f"the secret {name!r} isn't text, so it can't be a variable", name) from None
        if target or not mount.environment:
            mode = _SECRET_MODE if mount.mode is None else mount.mode
            self._secret_files[target or f"/run/secrets/{name}"] = {
                "data": data.decode("latin-1"),
                "mode": mode,
                "uid": mount.uid or 0,
                "gid": mount.gid or 0,
            }


def read_secret(secret: Secret) -> bytes:
    """A secret's content. Raises BuildError where it can't be read or is too large."""
    if secret.path is None:
        value = os.environ.get(secret.variable)
        if value is None:
            raise BuildError(0, f"--secret id={secret.id}: the variable {secret.variable} isn't set here")
        return os.fsencode(value)
    try:
        with open(secret.path, "rb") as file:
            data = file.read(_SECRET_BYTES + 1)
    except OSError as error:
        raise BuildError(0, f"--secret id={secret.id}: {secret.path}: {(error.strerror or '').lower()}") from error
    if len(data) > _SECRET_BYTES:
        raise BuildError(0, f"--secret id={secret.id}: {secret.path} holds more than {_SECRET_BYTES >> 10} KiB")
    return data


def context_image(stage: Stage, selection: Request) -> Image:
    """The context, less what is ignored, as layers to be mounted: made once for each content of it."""
    from .cache import Inputs

    build = stage.build_
    tree = build.context.tree
    whole, files = digest(tree, select(tree, selection), selection, build.stopped.is_set)
    inputs = Inputs("context", "", "", {"content": whole}, files)
    found = build.cached_image(inputs, build.cache.find(inputs))
    if found is not None:
        return found
    part = Part(selection, {"folder": "context_fd"}, fds={"context_fd": build.context.fd})

    def write(fd: int, stop: Callable[[], bool]) -> None:
        copy_job(stage, "build-copy", [part], Placing("/", link=True), {"out_fd": fd}, stop)

    image = build.derive(None, write)
    build.cache.put(inputs, str(image.id))
    return image
