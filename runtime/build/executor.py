"""Builds an image: stages side by side where they can be, each a walk through its instructions with the cache beside it.

Each layer made stands in the store at once, in an image without a name or a config that only the cache knows of; the target's own
image comes last, and its names with it. So a build that is cut short leaves nothing half-made, and the next one goes on from there.

Source: Dockerfile reference; Docker docs, "Multi-stage builds", "Build cache invalidation".
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from ..errors import Cancelled, CellwallError
from ..images.image import Image
from ..images.platforms import Platform
from ..source_date import rfc3339, source_date_epoch
from ..storage.scratch import Scratch
from .cache import Cache, Inputs, Record
from .context import Context
from .dockerfile import Dockerfile, parse
from .results import BuildRequest, BuildResult, Event, OnEvent, Remarked, Step
from .scope import GlobalScope, platform_args, undeclared
from .stage import Stage, StageResult
from .stages import Plan, PlannedStage, plan

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ..engine import Engine
    from ..images.derive import WriteLayer
    from ..images.store import ImageStore
    from ..launcher.client import Process

_POLL_S = 0.05
_STAGES_AT_ONCE = 4


class Build:
    """One build. ``run`` does it; every callback comes in the thread that called it."""

    def __init__(self, engine: Engine, request: BuildRequest) -> None:
        self.engine = engine
        self.request = request
        self.store: ImageStore
        self.driver, self.store = engine.of_driver(request.storage_driver)
        self.cache = Cache(engine.paths.build_cache / "steps")
        self.epoch = source_date_epoch({**engine.config.environment, **_epoch_of(request)})
        self.platform = Platform.parse(request.platform) if request.platform else Platform.here()
        self.dockerfile: Dockerfile = parse(request.dockerfile)
        platforms = platform_args(Platform.here(), self.platform, request.target)
        self.scope = GlobalScope(self.dockerfile, request.build_args, platforms)
        self.plan: Plan = plan(self.dockerfile, self.scope, request.target)
        self.stopped = threading.Event()
        self.imported: dict[str, str] = {}
        self.context = Context(request.context, request.ignore_file)
        self._scratch: Path | None = None
        self._stack = ExitStack()
        self.steps: list[Step] = []
        # The keys of the steps that are done.
        self.keys: set[str] = set()
        self._remarks: list[str] = []
        self._events: queue.SimpleQueue[Event | None] = queue.SimpleQueue()
        self._results: dict[int, StageResult] = {}
        self._lock = threading.Lock()
        self._scratch_lock = threading.Lock()
        self._error: list[BaseException] = []
        self._images: dict[tuple[str, str], Image] = {}
        self._running: list[Process] = []

    def created(self, moment: float | None) -> str:
        """``moment`` (seconds since 1970, None: now) as image configs have it; with SOURCE_DATE_EPOCH, always that."""
        return rfc3339(moment if self.epoch is None else self.epoch)

    def run(self, on_event: OnEvent | None, cancelled: Callable[[], bool] | None) -> BuildResult:
        """Build. Raises DockerfileError, StepFailed, BuildError, and what pulls and containers raise; then no name has changed."""
        for tag in self.request.tags:
            self.store.new_name(tag)
        with self._stack as stack:
            # While this lasts no process removes a layer that a step builds on.
            stack.enter_context(self.store.held())
            self._scratch_folders().sweep()
            stack.enter_context(self.context)
            self._remark_all()
            self._import_cache()
            worker = threading.Thread(target=self._in_thread, name="cellwall-build", daemon=True)
            error = self._error
            worker.start()
            try:
                self._listen(on_event, cancelled)
            except BaseException:
                self.stop()
                raise
            finally:
                worker.join()
            if error:
                raise error[0]
            image = self._finish()
        return BuildResult(image, tuple(self.steps), self.request.tags, tuple(self._remarks))

    def _scratch_folders(self) -> Scratch:
        return Scratch(self.engine.paths.build_cache, self.engine.identity)

    @property
    def scratch(self) -> Path:
        """A folder of this build's own, made when the first step asks for it: its removal costs a process. Any thread may ask."""
        with self._scratch_lock:
            if self._scratch is None:
                self.check()
                self._scratch, _ = self._stack.enter_context(self._scratch_folders().folder())
            return self._scratch

    def tell(self, event: Event) -> None:
        """Pass an event on, from any thread."""
        if isinstance(event, Step):
            self.steps.append(event)
        self._events.put(event)

    def check(self) -> None:
        """Raises Cancelled where the build is to stop."""
        if self.stopped.is_set():
            raise Cancelled("the build was stopped: what it had made is in the cache")

    def running(self, stack: ExitStack) -> Callable[[Process], object]:
        """What a RUN calls with its process: while ``stack`` lasts, a build that stops kills it."""

        def started(process: Process) -> None:
            with self._lock:
                self._running.append(process)
            stack.callback(self._running.remove, process)
            if self.stopped.is_set():
                process.kill()

        return started

    def stop(self) -> None:
        """Let every step end now."""
        self.stopped.set()
        with self._lock:
            for process in self._running:
                process.kill()

    def _listen(self, on_event: OnEvent | None, cancelled: Callable[[], bool] | None) -> None:
        while True:
            try:
                event = self._events.get(timeout=_POLL_S)
            except queue.Empty:
                if cancelled is not None and cancelled():
                    self.stop()
                continue
            if event is None:
                return
            if on_event is not None:
                on_event(event)

    def _in_thread(self) -> None:
        try:
            self._build_stages()
        except BaseException as error:
            self._error.append(error)
        finally:
            self._events.put(None)

    def _remark_all(self) -> None:
        for remark in self.dockerfile.remarks:
            self.remark(str(remark))
        for name in undeclared(self.dockerfile, self.request.build_args):
            self.remark(f"--build-arg {name}: no ARG of the Dockerfile takes it")

    def remark(self, text: str) -> None:
        with self._lock:
            if text in self._remarks:
                return
            self._remarks.append(text)
        self.tell(Remarked(text))

    # -- stages

    def _build_stages(self) -> None:
        """Build what the plan says, several stages at once; the first error stops the others and is raised."""
        running: dict[int, threading.Thread] = {}
        failed: list[BaseException] = []
        ended: queue.SimpleQueue[int] = queue.SimpleQueue()

        def work(planned: PlannedStage) -> None:
            try:
                result = Stage(self, planned).build()
                with self._lock:
                    self._results[planned.index] = result
            except BaseException as error:
                # Of several, the one that made the others stop.
                failed.append(error)
                self.stop()
            finally:
                ended.put(planned.index)

        while True:
            if not failed:
                for planned in self.plan.ready(set(self._results)):
                    if planned.index not in running and len(running) < _STAGES_AT_ONCE:
                        running[planned.index] = threading.Thread(target=work, args=(planned,), daemon=True)
                        running[planned.index].start()
            if not running:
                break
            running.pop(ended.get()).join()
        if failed:
            raise failed[0]

    def stage_result(self, index: int) -> StageResult:
        """What came of a stage that is done."""
        with self._lock:
            return self._results[index]

    def shown_name(self, planned: PlannedStage) -> str:
        """A stage's name for display: empty where there is only one."""
        return planned.stage.name if len(self.plan.stages) > 1 else ""

    # -- images

    def image(self, reference: str, platform: str, stage: str) -> Image:
        """The image that FROM, COPY --from or a mount names; each is looked for once in a build. Raises NotFound and its kind."""
        from .results import Pulling

        key = (reference, platform)
        with self._lock:
            known = self._images.get(key)
        if known is not None:
            return known
        image = self.engine.image(
            reference,
            pull="always" if self.request.pull else "missing",
            platform=platform or self.request.platform,
            storage_driver=self.request.storage_driver,
            locked=self.request.run.locked,
            progress=lambda event: self.tell(Pulling(stage, event)),
            cancelled=self.stopped.is_set,
        )
        with self._lock:
            return self._images.setdefault(key, image)

    def cached_image(self, inputs: Inputs, record: Record | None) -> Image | None:
        """The image of the layers that a step with these inputs has made, as its ``record`` says, where it is still here."""
        image_id = record.image_id if record is not None else self.imported.get(inputs.key, "")
        if not image_id:
            return None
        try:
            return self.engine.image(image_id, pull="never", storage_driver=self.request.storage_driver)
        except CellwallError:
            # Removed, or damaged: it is built again.
            self.cache.forget(inputs)
            return None

    def derive(self, base: Image | None, write: WriteLayer | None, *, layers: int | None = None) -> Image:
        """An image of the first ``layers`` layers of ``base`` and one more, for the cache; see ``ImageStore.derive``.

        Its config says nothing, so that it depends on its layers alone.
        """
        from ..images.catalog import BUILD_STEP

        def complete(empty: bool) -> dict[str, Any]:
            return {"architecture": self.platform.architecture, "os": self.platform.os}

        return self.store.derive(
            *(base, None, complete, write),
            layers=layers,
            annotations={BUILD_STEP: "yes"},
            reproducible=self.epoch is not None,
            cancelled=self.stopped.is_set,
        )

    def _import_cache(self) -> None:
        """Read the steps of ``--cache-from`` images: each made layer of theirs counts as one of the cache's."""
        for reference in self.request.cache_from:
            try:
                image = self.engine.image(
                    reference,
                    platform=self.request.platform,
                    storage_driver=self.request.storage_driver,
                    locked=self.request.run.locked,
                )
            except CellwallError as error:
                self.remark(f"--cache-from {reference}: {error}")
                continue
            self._import_steps(image)

    def _import_steps(self, image: Image) -> None:
        from ..images.history import CACHE_COMMENT, steps

        count = 0
        for step in steps(image):
            count += step.layer is not None
            if step.comment.startswith(CACHE_COMMENT):
                key = step.comment.removeprefix(CACHE_COMMENT)
                self.imported[key] = str(self.derive(image, None, layers=count).id)

    # -- the end

    def _finish(self) -> Image:
        """Give the target its image and its names, once everything is there."""
        result = self.stage_result(self.plan.target)
        tags = self.request.tags
        inner = result.config.inner
        if self.request.labels:
            inner["Labels"] = {**(inner.get("Labels") or {}), **self.request.labels}
        image = self.store.derive(result.image, tags[0] if tags else None, lambda empty: result.to_config(), None)
        for tag in tags[1:]:
            self.store.tag(str(image.id), tag)
        return image


def _epoch_of(request: BuildRequest) -> dict[str, str]:
    given = request.build_args.get("SOURCE_DATE_EPOCH")
    return {"SOURCE_DATE_EPOCH": given} if given else {}


def chain_of(image: Image | None) -> str:
    """The chain id of an image's layers, empty where there are none."""
    return str(image.chain_ids[-1]) if image is not None and image.layers else ""
