"""Which stages a target needs, and in which order they can be built.

Source: Dockerfile reference, "FROM", "COPY --from", "RUN --mount"; Docker docs, "Multi-stage builds".
"""

from __future__ import annotations

from collections.abc import Iterator

from ..errors import InvalidReference, SpecError
from ..frozen import frozen
from ..images.platforms import Platform
from ..images.reference import parse_image
from .dockerfile import Dockerfile, Stage
from .instructions import Copy, Instruction, Run
from .mount_flag import mount_stage
from .scope import GlobalScope
from .source import DockerfileError, did_you_mean
from .substitution import SubstitutionError, substitute

SCRATCH = "scratch"


@frozen
class PlannedStage:
    """A stage and what must be there before it: ``base`` is a stage's index, or ``image`` a reference (empty: scratch).

    ``needs`` holds the indexes of every stage that it takes something from, its base among them; ``images`` what its COPY and mounts
    take from images. ``platform`` is empty where FROM names none.
    """

    stage: Stage
    base: int | None
    image: str
    platform: str
    needs: frozenset[int]
    images: tuple[str, ...]

    @property
    def index(self) -> int:
        """Its place in the file, from 0."""
        return self.stage.index


@frozen
class Plan:
    """The stages that ``target`` (an index) needs and no others, each after all that it needs."""

    stages: tuple[PlannedStage, ...]
    target: int

    def ready(self, done: frozenset[int] | set[int]) -> list[PlannedStage]:
        """Those not in ``done`` whose needs are: they can be built at the same time."""
        return [planned for planned in self.stages if planned.index not in done and planned.needs <= done]


def plan(dockerfile: Dockerfile, scope: GlobalScope, target: str = "") -> Plan:
    """What to build for ``target``: a stage's name or index, by default the last. Raises DockerfileError.

    Every FROM is read, also of stages that aren't needed: a name that is empty there is a mistake all the same.
    """
    planned = [_planned(dockerfile, stage, scope) for stage in dockerfile.stages]
    wanted = len(planned) - 1
    if target:
        found = find_stage(dockerfile, target)
        if found is None:
            names = [stage.name for stage in dockerfile.stages]
            message = f"no stage is named {target!r}{did_you_mean(target.lower(), names)}"
            raise DockerfileError(0, 0, message, allowed=names)
        wanted = found
    return Plan(tuple(_in_order(planned, wanted)), wanted)


def find_stage(dockerfile: Dockerfile, name: str, before: int | None = None) -> int | None:
    """The index of the stage called ``name`` (in any case) or numbered so; of several, the nearest above ``before``.

    With ``before``, a stage below it is found only where none above has the name.
    """
    wanted = name.lower()
    named = [stage.index for stage in dockerfile.stages if stage.base.stage == wanted] if wanted else []
    if named:
        above = [index for index in named if before is None or index < before]
        return above[-1] if above else named[0]
    if name.isascii() and name.isdigit() and len(name) < 10 and int(name) < len(dockerfile.stages):
        return int(name)
    return None


def taken_from(instruction: Instruction) -> Iterator[str]:
    """The stages or images that an instruction copies from or mounts."""
    if isinstance(instruction, Copy) and instruction.stage:
        yield instruction.stage
    elif isinstance(instruction, Run):
        for text in instruction.mount_texts:
            if name := mount_stage(text):
                yield name


def _planned(dockerfile: Dockerfile, stage: Stage, scope: GlobalScope) -> PlannedStage:
    source = stage.base.source
    word = stage.base.platform
    try:
        platform = substitute(word, scope.lookup, escape=scope.escape).text
        word = stage.base.image
        image = substitute(word, scope.lookup, escape=scope.escape)
    except SubstitutionError as err:
        raise source.fault(f"FROM: {err}", word, err.offset) from None
    if not image.text.strip():
        unset = ", ".join(sorted(image.unset)) or stage.base.image
        message = f"FROM names no image: {unset} holds nothing here (only ARGs from before the first FROM count)"
        raise source.fault(message, stage.base.image)
    base = None
    if image.text != SCRATCH:
        found = find_stage(dockerfile, image.text, stage.index)
        # FROM takes names only (an image may be called 0), and only of stages above it.
        if found is not None and found < stage.index and dockerfile.stages[found].base.stage == image.text.lower():
            base = found
    needs, images = set() if base is None else {base}, []
    for instruction in stage.instructions:
        for name in taken_from(instruction):
            index = find_stage(dockerfile, name, stage.index)
            if index is not None:
                needs.add(index)
            elif name.isdigit():
                names = [other.name for other in dockerfile.stages if other.index != stage.index]
                raise instruction.source.fault(f"there is no stage {name}", name, allowed=names)
            elif name != SCRATCH:
                _check_image(name, instruction)
                images.append(name)
    if platform:
        try:
            Platform.parse(platform)
        except SpecError as err:
            raise source.fault(str(err), stage.base.platform) from None
    if base is None and image.text != SCRATCH:
        _check_image(image.text, stage.base)
    own = "" if base is not None or image.text == SCRATCH else image.text
    return PlannedStage(stage, base, own, platform, frozenset(needs), tuple(dict.fromkeys(images)))


def _check_image(name: str, instruction: Instruction) -> None:
    try:
        parse_image(name)
    except InvalidReference as err:
        raise instruction.source.fault(str(err), name) from None


def _in_order(planned: list[PlannedStage], wanted: int) -> list[PlannedStage]:
    """Depth first without recursion: a file may have thousands of stages."""
    order: list[PlannedStage] = []
    done: set[int] = set()
    path: list[int] = []
    stack: list[tuple[int, Iterator[int]]] = [(wanted, iter(sorted(planned[wanted].needs)))]
    path.append(wanted)
    on_path = {wanted}
    while stack:
        index, needs = stack[-1]
        need = next((need for need in needs if need not in done), None)
        if need is None:
            stack.pop()
            on_path.discard(path.pop())
            done.add(index)
            order.append(planned[index])
            continue
        if need in on_path:
            circle = [*path[path.index(need) :], need]
            names = " needs ".join(planned[member].stage.name for member in circle)
            at = planned[index].stage
            raise _user_of(planned, index, need).source.fault(f"stages go round in a circle: {names}", at.base.stage)
        path.append(need)
        on_path.add(need)
        stack.append((need, iter(sorted(planned[need].needs))))
    return order


def _user_of(planned: list[PlannedStage], index: int, need: int) -> Instruction:
    """The instruction of stage ``index`` that takes something from stage ``need``, for the error's place."""
    stage = planned[index].stage
    names = {planned[need].stage.base.stage, str(need)}
    for instruction in stage.instructions:
        if any(name.lower() in names for name in taken_from(instruction)):
            return instruction
    return stage.base
