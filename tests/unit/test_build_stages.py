from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cellwall.runtime.build.dockerfile import parse
from cellwall.runtime.build.scope import GlobalScope, platform_args
from cellwall.runtime.build.source import DockerfileError
from cellwall.runtime.build.stages import Plan, find_stage, plan
from cellwall.runtime.images.platforms import Platform

HERE = Platform.parse("linux/amd64")


def planned(text: str, target: str = "", build_args: dict[str, str] | None = None) -> Plan:
    dockerfile = parse(text)
    return plan(dockerfile, GlobalScope(dockerfile, build_args or {}, platform_args(HERE, HERE)), target)


def order(text: str, target: str = "") -> list[int]:
    return [stage.index for stage in planned(text, target).stages]


THREE = "FROM a AS one\nFROM b AS two\nCOPY --from=one x y\nFROM c AS three\nRUN x\nFROM two AS last\n"


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        ("", [0, 1, 3]),
        ("last", [0, 1, 3]),
        ("LAST", [0, 1, 3]),
        ("two", [0, 1]),
        ("three", [2]),
        ("0", [0]),
        ("2", [2]),
    ],
)
def test_a_target_takes_what_it_needs(target: str, expected: list[int]) -> None:
    assert order(THREE, target) == expected


def test_what_can_be_built_at_once() -> None:
    found = planned("FROM a AS x\nFROM b AS y\nFROM c\nCOPY --from=x 1 1\nRUN --mount=from=y,target=/y ls\n")
    assert [stage.index for stage in found.ready(set())] == [0, 1]
    assert [stage.index for stage in found.ready({0})] == [1]
    assert [stage.index for stage in found.ready({0, 1})] == [2]
    assert found.ready({0, 1, 2}) == []


@pytest.mark.parametrize(
    ("line", "needs", "images"),
    [
        ("COPY --from=x a b", {0}, ()),
        ("COPY --from=X a b", {0}, ()),
        ("COPY --from=0 a b", {0}, ()),
        ("COPY --from=busybox:1 a b", set(), ("busybox:1",)),
        ("RUN --mount=type=bind,from=x,target=/$v ls", {0}, ()),
        ("RUN --mount=type=cache,from=busybox,target=/v ls", set(), ("busybox",)),
        ("COPY --from=scratch a b", set(), ()),
        ("ONBUILD COPY --from=x a b", set(), ()),
        ("ADD x y", set(), ()),
    ],
)
def test_what_a_stage_takes_from(line: str, needs: set[int], images: tuple[str, ...]) -> None:
    last = planned(f"FROM a AS x\nFROM scratch\n{line}\n").stages[-1]
    assert (set(last.needs), last.images, last.base, last.image) == (needs, images, None, "")


def test_from_takes_stages_above_and_images() -> None:
    found = planned("ARG v=9\nFROM debian:$v AS debian\nFROM --platform=$BUILDPLATFORM Debian AS up\nFROM up")
    bases = [(stage.base, stage.image, stage.platform) for stage in found.stages]
    assert bases == [(None, "debian:9", ""), (0, "", "linux/amd64"), (1, "", "")]
    # Of its own name, a stage means the image; a number is no stage here.
    assert [stage.image for stage in planned("FROM debian AS debian").stages] == ["debian"]
    assert [stage.image for stage in planned("FROM a\nFROM 0").stages] == ["0"]


def test_of_two_stages_of_a_name_the_nearest_above_counts() -> None:
    dockerfile = parse("FROM a AS x\nFROM b AS y\nFROM c AS x\nFROM d")
    assert find_stage(dockerfile, "x", 1) == 0
    assert find_stage(dockerfile, "x", 3) == 2
    assert find_stage(dockerfile, "x") == 2
    assert find_stage(dockerfile, "x", 0) == 0


@pytest.mark.parametrize(
    ("text", "line", "column", "said"),
    [
        ("FROM a AS x\nCOPY --from=y 1 1\nFROM b AS y\nCOPY --from=x 1 1\n", 2, 1, "circle: y needs x needs y"),
        ("FROM a AS x\nCOPY --from=x 1 1\n", 2, 1, "circle: x needs x"),
        ("FROM a\nRUN --mount=from=0,target=/x ls\n", 2, 1, "circle: 0 needs 0"),
        ("FROM a\nCOPY --from=3 1 1\n", 2, 13, "there is no stage 3"),
        ("FROM $x\n", 1, 6, "x holds nothing here"),
        ("FROM a\nARG x=1\nFROM b:${x\n", 3, 8, "isn't closed"),
        ("FROM a\nFROM UPPER\n", 2, 6, "lower case"),
        ("FROM a\nCOPY --from=A//b 1 1\n", 2, 13, "repository name"),
        ("FROM --platform=a/b/c/d x\n", 1, 17, "isn't a platform"),
    ],
)
def test_mistakes_between_stages(text: str, line: int, column: int, said: str) -> None:
    with pytest.raises(DockerfileError, match=said) as caught:
        planned(text)
    assert caught.value.line == line
    if "circle" not in said:
        assert caught.value.column == column


def test_a_target_that_is_not_there() -> None:
    with pytest.raises(
        DockerfileError, match=r"no stage is named 'twoo', did you mean two\? \(allowed: one, two, three, last\)"
    ):
        planned(THREE, "twoo")


def test_a_circle_off_the_way_does_not_matter() -> None:
    assert order("FROM a AS x\nCOPY --from=x 1 1\nFROM b AS y") == [1]


def test_thousands_of_stages() -> None:
    text = "FROM a AS s0\n" + "".join(f"FROM s{index} AS s{index + 1}\n" for index in range(3000))
    assert order(text) == list(range(3001))


@given(st.lists(st.lists(st.integers(0, 7), max_size=3), min_size=1, max_size=8), st.data())
def test_every_plan_is_in_order_and_whole(graph: list[list[int]], data: st.DataObject) -> None:
    copies = ["".join(f"COPY --from={need % len(graph)} x y\n" for need in needs) for needs in graph]
    target = data.draw(st.integers(0, len(graph) - 1))
    try:
        found = planned("".join(f"FROM a\n{text}" for text in copies), str(target))
    except DockerfileError as err:
        assert "circle" in str(err)
        return
    done: set[int] = set()
    for stage in found.stages:
        assert stage.needs <= done
        done.add(stage.index)
    # Nothing but the target is there for nobody's need.
    assert done - set().union(*(stage.needs for stage in found.stages)) == {target}
