from __future__ import annotations

import json

from hypothesis import given, settings
from hypothesis import strategies as st

from cellwall.runtime.build.dockerfile import Dockerfile, parse
from cellwall.runtime.build.expansion import expand
from cellwall.runtime.build.parser import INSTRUCTIONS
from cellwall.runtime.build.scope import GlobalScope, platform_args, undeclared
from cellwall.runtime.build.source import DockerfileError
from cellwall.runtime.build.stages import plan
from cellwall.runtime.images.platforms import Platform

PLATFORMS = platform_args(Platform.parse("linux/amd64"), Platform.parse("linux/arm64"))

words = st.sampled_from(
    [
        *INSTRUCTIONS,
        *'a b/ . $x ${x ${x:-y} \\ ` \' " [ ] ["a"] ["a", [1]] {} <<E <<-\'E\' E = x=1 # -- --from=0 --from=b --chown=$x'.split(
            " "
        ),
        *"--mount=type=bind --mount=target=/x,from=a --link --network=none --platform=$x --interval=1s AS as CMD NONE".split(),
        *[
            "\n",
            "\n",
            "\\\n",
            "\t",
            "\r\n",
            "\n#",
            "# escape=`\n",
            "\nE\n",
            "\x0b",
            "\u2028",
            "\x1c",
            "\udcff",
            "é",
            "9" * 30,
            "[" * 3000,
        ],
    ]
)
dockerfiles = st.lists(words, max_size=30).map(" ".join) | st.lists(words, max_size=12).map("".join)


def through(text: str | bytes) -> Dockerfile:
    """Everything that a build does to a Dockerfile before it runs something."""
    dockerfile = parse(text)
    scope = GlobalScope(dockerfile, {"x": "given"}, PLATFORMS)
    for planned in plan(dockerfile, scope).stages:
        inside = scope.stage({"PATH": "/bin"})
        for instruction in planned.stage.instructions:
            found = expand(instruction, inside)
            json.dumps(found.instruction.arguments())
    undeclared(dockerfile, {"x": "1"})
    return dockerfile


@given(st.sampled_from(["", "FROM a\n"]), dockerfiles)
@settings(max_examples=400, deadline=None)
def test_any_text_is_read_or_refused_with_its_place(begin: str, text: str) -> None:
    try:
        through(begin + text)
    except DockerfileError as err:
        assert "\n" not in str(err)
        lines = (begin + text).removeprefix("\ufeff").split("\n")
        assert 0 <= err.line <= len(lines)
        if err.line:
            assert lines[err.line - 1].rstrip("\r") == err.text.rstrip("\r")
            assert 1 <= err.column <= len(lines[err.line - 1]) + 1


@given(st.binary(max_size=80))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    for begin in (b"", b"FROM a\nRUN ", b"FROM a\nENV "):
        try:
            through(begin + data)
        except DockerfileError as err:
            assert str(err)


@given(dockerfiles)
@settings(max_examples=200, deadline=None)
def test_the_texts_of_the_instructions_are_the_same_dockerfile(text: str) -> None:
    try:
        first = parse("FROM a\n" + text)
    except DockerfileError:
        return
    written = [stage.base.source.text for stage in first.stages[:1]]
    for stage in first.stages:
        written += [stage.base.source.text] * (stage.index > 0) + [item.source.text for item in stage.instructions]
    assert parse("\n".join(written)).stages == first.stages


# Instructions in pieces that may be parted by a continuation, or by blanks.
known = st.sampled_from(
    [
        ["RUN", "echo", "a"],
        ["RUN", "--network=none", "ls"],
        ["COPY", "--from=base", "a", "b"],
        ["ENV", "A=1", 'B="x"'],
        ["LABEL", "a=b", "c=d"],
        ["EXPOSE", "80", "81"],
        ["ARG", "x=1", "y"],
        ["CMD", '["a",', '"b"]'],
        ["ONBUILD", "RUN", "ls"],
        ["HEALTHCHECK", "--retries=1", "CMD", "ls"],
        ["VOLUME", "/a", "/b"],
    ]
)
gaps = st.sampled_from([" ", " \\\n", " \\\n# a comment\n", "\\\n \t", " \\\r\n", " \\ \n\n"])


@given(
    st.lists(
        st.tuples(known, st.lists(gaps, min_size=4, max_size=4), st.sampled_from(["\n", "\r\n", "\n\n# x\n", "\n\t"])),
        max_size=6,
    )
)
def test_continuations_comments_and_blanks_change_nothing(parts: list[tuple[list[str], list[str], str]]) -> None:
    plain = "FROM a AS base\n" + "".join(" ".join(pieces) + "\n" for pieces, _, _ in parts)
    noisy = "FROM a AS base\n"
    for pieces, between, end in parts:
        noisy += (
            "".join(piece + gap for piece, gap in zip(pieces, between, strict=False))[: -len(between[len(pieces) - 1])]
            + end
        )

    def arguments(text: str) -> str:
        # The shell forms keep the blanks of the lines that were joined.
        found = [item.arguments() for item in parse(text).stages[0].instructions]
        return " ".join(json.dumps(found).replace("\\t", " ").split())

    assert arguments(noisy) == arguments(plain)
