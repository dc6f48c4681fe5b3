"""One stage of a build: its base, then one instruction after another, each looked for in the cache first.

Source: Dockerfile reference.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from ..errors import ImageError, InvalidReference, NotFound
from ..frozen import frozen
from ..images.history import CACHE_COMMENT, entries
from ..images.image import Image
from ..images.platforms import Platform
from ..launcher import DEFAULT_PATH
from .cache import Inputs, Record
from .config_steps import Config
from .dockerfile import parse_trigger
from .expansion import expand
from .instructions import Add, Arg, Copy, Env, From, Instruction, Label, Run, Workdir
from .results import Step, StepStarted
from .scope import Scope
from .source import DockerfileError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from .executor import Build
    from .results import Status
    from .stages import PlannedStage

_HOST = "host"
_NO_CACHE = "--no-cache"


@frozen
class StageResult:
    """A stage that is done. ``image`` holds its layers (None: it has none); its config doesn't say what ``config`` does."""

    image: Image | None
    config: Config
    history: list[dict[str, Any]]
    scope: Scope
    platform: Platform
    created: str

    def to_config(self) -> dict[str, Any]:
        """The image config, but for ``rootfs``."""
        full: dict[str, Any] = {
            "created": self.created,
            "architecture": self.platform.architecture,
            "os": self.platform.os,
            "config": self.config.inner,
            "history": self.history,
        }
        if self.platform.variant:
            full["variant"] = self.platform.variant
        if self.config.author:
            full["author"] = self.config.author
        return full


class Stage:
    """A stage while it is built."""

    def __init__(self, build: Build, planned: PlannedStage) -> None:
        self.build_ = build
        self.planned = planned
        self.name = build.shown_name(planned)
        self.image: Image | None = None
        self.config = Config()
        self.history: list[dict[str, Any]] = []
        self.scope: Scope
        self.platform = Platform.parse(planned.platform) if planned.platform else build.platform
        # When the last step was done: of a step from the cache, when it was; so the same build gives the same image.
        self.created = build.created(None)
        self._number = 0
        self._count = 0

    def build(self) -> StageResult:
        """Do all of it. Raises what ``Build.run`` does."""
        instructions = list(self.planned.stage.instructions)
        self._count = 1 + len(instructions)
        triggers = self._begin()
        for instruction in [*triggers, *instructions]:
            self.build_.check()
            self._do(instruction)
        return self._result()

    def _result(self) -> StageResult:
        return StageResult(self.image, self.config, self.history, self.scope, self.platform, self.created)

    # -- FROM

    def _begin(self) -> list[Instruction]:
        """Start from the base; the base's ONBUILD triggers, which come first."""
        base = self.planned.stage.base
        started = self._start(base)
        status: Status = "hit"
        reason = ""
        changed: tuple[str, ...] = ()
        if self.planned.base is not None:
            result = self.build_.stage_result(self.planned.base)
            self.image, self.config = result.image, result.config.copy()
            self.history, self.platform, self.created = list(result.history), result.platform, result.created
            self.scope = result.scope.child()
        elif not self.planned.image:
            self.config.inner["Env"] = [f"PATH={DEFAULT_PATH}"]
            self.scope = self.build_.scope.stage(self.config.env)
        else:
            if self.planned.image == _HOST:
                raise base.source.fault(
                    "the image host is this machine's own folders, which no layer can hold: build on a real image, "
                    "as `cellwall bootstrap` makes one",
                    base.image,
                )
            self.image = self.image_of(base, self.planned.image, self.planned.platform)
            self._take_config(self.image)
            # Whichever stage begins with it: its name is nothing that could have changed.
            inputs = Inputs("from", f"FROM {self.planned.image}", "", {"image": str(self.image.id)})
            if self.build_.cache.find(inputs) is None:
                status = "miss"
                reason, changed = self.build_.cache.why(inputs, self.build_.keys)
                self.build_.cache.put(inputs, "")
        triggers = self._triggers(base)
        self._count += len(triggers)
        self._end(base, started, status, reason, changed, None)
        return triggers

    def image_of(self, instruction: Instruction, reference: str, platform: str = "") -> Image:
        """The image that ``instruction`` names. Raises DockerfileError where it can't be had, Cancelled."""
        try:
            return self.build_.image(reference, platform, self.name)
        except (ImageError, InvalidReference, NotFound) as error:
            raise instruction.source.fault(f"{instruction.name}: {error}", reference) from error

    def _take_config(self, image: Image) -> None:
        self.config.inner = dict(image.config.get("config") or {})
        author = image.config.get("author")
        self.config.author = author if isinstance(author, str) else ""
        if not any(item.startswith("PATH=") for item in self.config.inner.get("Env") or []):
            self.config.inner["Env"] = [f"PATH={DEFAULT_PATH}", *(self.config.inner.get("Env") or [])]
        self.history = entries(image)
        self.created = image.created or self.created
        self.platform = Platform.of(image.config) or self.platform
        self.scope = self.build_.scope.stage(self.config.env)

    def _triggers(self, base: From) -> list[Instruction]:
        texts = self.config.inner.pop("OnBuild", None) or []
        found = []
        for text in texts:
            try:
                found.append(parse_trigger(text))
            except DockerfileError as error:
                raise base.source.fault(
                    f"an ONBUILD of {base.image} can't be read: {error.reason}", base.image
                ) from None
        return found

    # -- instructions

    def _do(self, written: Instruction) -> None:
        instruction = expand(written, self.scope).instruction
        match instruction:
            case Run():
                from .run_step import RunStep

                run = RunStep(self, instruction)
                self.layer(instruction, run.inputs(), run.make)
            case Copy() | Add():
                from .copy_step import CopyStep

                with CopyStep(self, instruction) as copy:
                    self.layer(instruction, copy.inputs(), copy.make)
            case Workdir():
                from .copy_step import make_directory

                self.config.apply(instruction)
                path = self.config.workdir
                inputs = self.inputs(
                    "workdir", instruction, {"directory": path, "user": self.config.inner.get("User") or ""}
                )
                self.layer(instruction, inputs, lambda: make_directory(self, instruction, path))
            case _:
                self._config_step(instruction)

    def _config_step(self, instruction: Instruction) -> None:
        started = self._start(instruction)
        self.config.apply(instruction)
        match instruction:
            case Arg(defaults=pairs):
                facts: dict[str, Any] = {"args": dict(pairs)}
                words = " ".join(name if value is None else f"{name}={value}" for name, value in pairs)
                text = f"ARG {words}"
            case Env(pairs=pairs):
                facts = {"env": dict(pairs)}
                text = instruction.source.text
            case Label(pairs=pairs):
                facts = {"labels": dict(pairs)}
                text = instruction.source.text
            case _:
                facts = {"value": instruction.arguments()}
                text = instruction.source.text
        inputs = self.inputs(instruction.name.lower(), instruction, facts)
        cache = self.build_.cache
        no_cache = self.build_.request.no_cache
        record = None if no_cache else cache.find(inputs)
        status: Status = "hit"
        reason = ""
        changed: tuple[str, ...] = ()
        if record is None:
            status = "miss"
            reason, changed = (_NO_CACHE, ()) if no_cache else cache.why(inputs, self.build_.keys)
            record = cache.put(inputs, "")
        self._history(text, record, None)
        self._end(instruction, started, status, reason, changed, None)

    def inputs(
        self, kind: str, instruction: Instruction, facts: dict[str, Any], files: dict[str, str] | None = None
    ) -> Inputs:
        """What a step of this stage depends on, with the layers below it."""
        from .executor import chain_of

        text = instruction.source.text.strip()
        given: dict[str, Any] = {"platform": str(self.platform)}
        if self.build_.epoch is not None:
            given["epoch"] = self.build_.epoch
        return Inputs(kind, text, chain_of(self.image), facts | given, files or {})

    def layer(self, instruction: Instruction, inputs: Inputs, make: Callable[[], Image]) -> None:
        """A step that makes a layer: from the cache, or by ``make``, which gives the image of the layers with the new one."""
        build = self.build_
        started = self._start(instruction)
        before = self.image
        record = build.cache.find(inputs)
        found = None if build.request.no_cache else build.cached_image(inputs, record)
        status: Status = "hit"
        reason = ""
        changed: tuple[str, ...] = ()
        if found is not None:
            self.image = found
            record = record or build.cache.put(inputs, str(found.id))
        else:
            status = "miss"
            if build.request.no_cache:
                reason = _NO_CACHE
            elif record is not None:
                reason = "its result was removed"
            else:
                reason, changed = build.cache.why(inputs, build.keys)
            self.image = make()
            record = build.cache.put(inputs, str(self.image.id))
        grown = len(self.image.layers) > (len(before.layers) if before is not None else 0)
        self._history(instruction.source.text, record, inputs.key, empty=not grown)
        self._end(instruction, started, status, reason, changed, self.image if grown else None)

    # -- what is told and noted

    def _history(self, text: str, record: Record, key: str | None, *, empty: bool = True) -> None:
        self.created = self.build_.created(record.created)
        self.build_.keys.add(record.inputs.key)
        entry: dict[str, Any] = {"created": self.created, "created_by": text.strip()}
        if key is not None:
            entry["comment"] = f"{CACHE_COMMENT}{key}"
        if empty:
            entry["empty_layer"] = True
        self.history.append(entry)

    def _start(self, instruction: Instruction) -> float:
        self._number += 1
        self.build_.tell(StepStarted(self.name, self._number, self._count, instruction.source.text.strip()))
        return time.monotonic()

    @property
    def number(self) -> int:
        """The step that goes on, from 1."""
        return self._number

    def _end(
        self,
        instruction: Instruction,
        started: float,
        status: Status,
        reason: str,
        changed: tuple[str, ...],
        image: Image | None,
    ) -> None:
        self.build_.tell(
            Step(
                self.name,
                self._number,
                self._count,
                instruction.source.text.strip(),
                instruction.source.first_line,
                status,
                reason,
                changed,
                str(image.id) if image is not None else "",
                time.monotonic() - started,
                image.layers[-1].size_bytes if image is not None and image.layers else 0,
            )
        )

    def image_so_far(self) -> Image | None:
        """The layers so far with the config so far, as an image without a name; None where there is no layer to look into."""
        if self.image is None:
            return None
        return self.build_.store.derive(self.image, None, lambda empty: self._result().to_config(), None)
