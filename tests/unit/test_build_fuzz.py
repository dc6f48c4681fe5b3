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
lines = st.tuples(st.sampled_from(INSTRUCTIONS), st.lists(words, max_size=7)).map(
    lambda pair: " ".join([pair[0], *pair[1]])
)
dockerfiles = st.lists(lines, max_size=5).map("\n".join) | st.lists(words, max_size=12).map("".join)


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


def read_or_refused(text: str) -> None:
    try:
        through(text)
    except DockerfileError as err:
        assert str(err).isprintable()
        written = text.removeprefix("\ufeff").split("\n")
        assert 0 <= err.line <= len(written)
        if err.line:
            assert written[err.line - 1].rstrip("\r") == err.text.rstrip("\r")
            assert 1 <= err.column <= len(written[err.line - 1]) + 1


@given(st.sampled_from(["", "FROM a\n"]), dockerfiles)
@settings(max_examples=400, deadline=None)
def test_any_text_is_read_or_refused_with_its_place(begin: str, text: str) -> None:
    read_or_refused(begin + text)


@given(st.binary(max_size=80))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    for begin in (b"", b"FROM a\nRUN ", b"FROM a\nENV "):
        try:
            through(begin + data)
        except DockerfileError as err:
            assert str(err)


VALID = [
    "RUN --mount=type=cache,target=/c,id=$x --mount=type=secret,id=s --network=none make && \\\n  # why\n  make install",
    "RUN <<EOF\necho $x\nEOF",
    "RUN cat <<-'A' <<\"B\" >/x\n\t1 \\\n\tA\n2\nB",
    'RUN ["a", "b"]',
    "COPY --from=s0 --chown=$x:1 --chmod=u=rwX,g+r --link --exclude=*.o a ${y:-b}/ 'c' d/",
    "COPY <<a <<'b' /d/\n${x:-$x} \\$\na\n$x\nb",
    'COPY ["a b", "$x", "c/"]',
    "ADD --keep-git-dir=true https://x/y.git#v1 /z",
    "ENV A=1 B=\"$x y\" C='d' \\\n  D=${A%1}${x/g*n/o}${x##*/}",
    "ENV old ${x:+is} here",
    "ARG x y=$x",
    'LABEL "a b"=c',
    "WORKDIR /a/$x",
    "USER $x",
    'VOLUME ["/a"]',
    "EXPOSE 80 81-83/udp",
    "STOPSIGNAL SIGKILL",
    'HEALTHCHECK --interval=1m3s --retries=2 CMD ["x"]',
    'SHELL ["/bin/sh", "-c"]',
    "ONBUILD COPY <<E /x\n1\nE",
    "CMD a $b",
    "ENTRYPOINT []",
    "MAINTAINER me",
    "FROM s0\nARG x",
    "FROM --platform=$BUILDPLATFORM debian:${x:-1} AS s0\nARG x",
    "# comment",
    "",
]
good = st.lists(st.sampled_from(VALID), max_size=8).map(
    lambda found: "\n".join(["ARG x=g", "FROM a AS s0", "FROM b\nARG x", *found, ""])
)


@given(good)
@settings(deadline=None)
def test_the_texts_of_the_instructions_are_the_same_dockerfile(text: str) -> None:
    first = through(text)
    written = [arg.source.text for arg in first.global_args]
    for stage in first.stages:
        written += [stage.base.source.text, *(item.source.text for item in stage.instructions)]
    second = through("\n".join(written))
    assert (second.global_args, second.stages) == (first.global_args, first.stages)


@given(
    good,
    st.lists(st.tuples(st.integers(0, 400), st.integers(0, 3), words | st.text(max_size=1)), min_size=1, max_size=3),
)
@settings(max_examples=400, deadline=None)
def test_a_damaged_dockerfile_is_read_or_refused_with_its_place(text: str, damage: list[tuple[int, int, str]]) -> None:
    for place, lost, put in damage:
        place %= len(text) + 1
        text = text[:place] + put + text[place + lost :]
    read_or_refused(text)


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
