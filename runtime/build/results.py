"""What a build is asked, what it tells while it goes on, and what comes of it.

Source: docker-build(1), docker-buildx-build(1).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from ..frozen import field, fields, frozen
from ..options import RunOptions

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Literal

    from ..images.image import Image, PullEvent

    Status = Literal["hit", "miss"]


@frozen
class Secret:
    """``--secret``: from a file, or from a variable of the environment; its content is read when a RUN asks for it."""

    id: str
    path: Path | None = None
    variable: str = ""


@frozen(kw_only=True)
class BuildRequest:
    """A build. ``context`` None: there is none, so COPY takes from stages and images alone. ``ignore_file`` counts before its own.

    ``name`` is the Dockerfile's, for messages; ``run`` holds the limits and the network of RUN steps; ``cache_from`` names images
    whose steps count as the cache's own; ``pull`` looks for a newer base image each time.
    """

    dockerfile: str | bytes
    context: Path | None = None
    ignore_file: Path | None = None
    name: str = "Dockerfile"
    tags: tuple[str, ...] = ()
    target: str = ""
    build_args: dict[str, str] = field(default_factory=dict)
    labels: dict[str, str] = field(default_factory=dict)
    platform: str | None = None
    pull: bool = False
    no_cache: bool = False
    cache_from: tuple[str, ...] = ()
    secrets: dict[str, Secret] = field(default_factory=dict)
    run: RunOptions = field(default_factory=lambda: RunOptions(image=""))
    storage_driver: str | None = None


@frozen
class Step:
    """One instruction, done. ``number`` counts from 1 within its stage of ``count`` steps, FROM included.

    ``reason`` says why it was a miss (empty for a hit), ``changed`` names what changed. ``image_id`` is the image of the layers so far,
    empty where the step made none. ``seconds`` is wall time, ``size_bytes`` what its layer takes as a blob.
    """

    stage: str
    number: int
    count: int
    instruction: str
    line: int
    status: Status
    reason: str = ""
    changed: tuple[str, ...] = ()
    image_id: str = ""
    seconds: float = 0.0
    size_bytes: int = 0

    @property
    def hit(self) -> bool:
        return self.status == "hit"

    def to_dict(self) -> dict[str, Any]:
        """The step as JSON values."""
        return {name: getattr(self, name) for name in (one.name for one in fields(self))} | {
            "changed": list(self.changed)
        }


@frozen
class StepStarted:
    """A step begins: for display only. ``stage`` is its stage's name, empty where the file has one stage."""

    stage: str
    number: int
    count: int
    instruction: str


@frozen
class Output:
    """Bytes that a RUN step wrote. ``stream`` is stdout or stderr."""

    stage: str
    number: int
    stream: Literal["stdout", "stderr"]
    data: bytes


@frozen
class Pulling:
    """The progress of a base image's pull."""

    stage: str
    event: PullEvent


@frozen
class Remarked:
    """Something that works and is likely a mistake."""

    text: str


Event = StepStarted | Step | Output | Pulling | Remarked
OnEvent = Callable[[Event], object]


@frozen
class BuildResult:
    """The image with its names, and every step in the order in which it ended."""

    image: Image
    steps: tuple[Step, ...]
    tags: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()

    @property
    def hits(self) -> int:
        return sum(step.hit for step in self.steps)

    @property
    def misses(self) -> tuple[Step, ...]:
        """The steps that were done anew."""
        return tuple(step for step in self.steps if not step.hit)

    def to_dict(self) -> dict[str, Any]:
        """The result as JSON values."""
        return {
            "image_id": str(self.image.id),
            "digest": str(self.image.digest),
            "tags": list(self.tags),
            "steps": [step.to_dict() for step in self.steps],
            "remarks": list(self.remarks),
        }

    def __str__(self) -> str:
        names = ", ".join(self.tags) or self.image.id.short
        return f"{names}: {len(self.steps)} steps, {self.hits} from the cache"


def shown_tail(output: Sequence[bytes], limit: int = 4096) -> bytes:
    """The last ``limit`` bytes of what was written in pieces."""
    joined = b"".join(output)
    return joined[-limit:]
