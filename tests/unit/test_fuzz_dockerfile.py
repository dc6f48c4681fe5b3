"""What could make the Dockerfile parser or `.dockerignore` slow, and the latter's patterns beside moby's own translation of them."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from types import FrameType
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from cellwall.runtime.build.dockerignore import parse_dockerignore
from cellwall.runtime.build.patterns import Matcher, Pattern, PatternFault
from cellwall.runtime.build.source import DockerfileError

from .test_build_fuzz import through

BEGIN = "FROM a\n"
# Text that grows with n, each in the part of the reader that its name says.
GROWING: dict[str, Callable[[int], str]] = {
    "one long word": lambda n: BEGIN + "RUN " + "a" * n,
    "blanks": lambda n: BEGIN + "RUN " + " " * n + "x",
    "blanks after a backslash": lambda n: BEGIN + "RUN x \\" + " " * n + "y",
    "backslashes": lambda n: BEGIN + "RUN " + "\\" * n + "\n",
    "escaped blanks": lambda n: BEGIN + "RUN x" + "\\ " * n + "y",
    "continued lines": lambda n: BEGIN + "RUN a" + " \\\n b" * n,
    "empty continued lines": lambda n: BEGIN + "RUN a \\\n" + "\n" * n + "b",
    "comments inside": lambda n: BEGIN + "RUN a \\\n" + "# x\n" * n + "b",
    "quotes": lambda n: BEGIN + "ENV a=" + "\"'" * n,
    "variables in a word": lambda n: BEGIN + "ENV a=" + "$x" * n,
    "variables set": lambda n: BEGIN + "ENV " + " ".join(f"a{at}=b" for at in range(n)),
    "labels": lambda n: BEGIN + "LABEL " + '"a"=b ' * n,
    "nested defaults": lambda n: BEGIN + "ENV a=" + "${x:-" * n + "}" * n,
    "an open heredoc": lambda n: BEGIN + "RUN <<E\n" + "x\n" * n,
    "a heredoc of variables": lambda n: BEGIN + "COPY <<E /x\n" + "$x\n" * n + "E\n",
    "strings": lambda n: BEGIN + "CMD [" + ",".join(['"a"'] * n) + "]",
    "arrays in arrays": lambda n: BEGIN + "CMD " + "[" * n,
    "flags": lambda n: BEGIN + "COPY " + "--exclude=a " * n + "x y",
    "a directive of blanks": lambda n: "# syntax = a" + " " * n + "b\n" + BEGIN,
    "durations": lambda n: BEGIN + "HEALTHCHECK --interval=" + "1h" * n + " CMD x",
    "triggers": lambda n: BEGIN + "ONBUILD " * n + "RUN x",
    "a pattern of stars": lambda n: BEGIN + "ENV a=" + "x" * n + "\nENV b=${a##*x?y}",
    "replacements": lambda n: BEGIN + "ENV a=" + "xy" * n + "\nENV b=${a//x?/z}",
    "the last line is wrong": lambda n: BEGIN + "ENV a=1\n" * n + "ENV a",
    "an unknown instruction": lambda n: BEGIN + "R" * n + " x",
}


def steps(text: str) -> int:
    """How many lines of Python it takes to read ``text``, whatever comes of it."""
    count = 0

    def trace(frame: FrameType, event: str, argument: Any) -> Any:
        nonlocal count
        count += 1
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        through(text)
    except DockerfileError:
        pass
    finally:
        sys.settrace(before)
    return count


@pytest.mark.parametrize("what", GROWING)
def test_twice_the_text_takes_twice_the_steps(what: str) -> None:
    small, large = (steps(GROWING[what](n)) for n in (300, 600))
    assert large < 2.2 * small + 500


@pytest.mark.parametrize("what", GROWING)
def test_a_hundred_thousand_of_anything_is_read(what: str) -> None:
    """Also within a regular expression, whose steps don't count: a quadratic one would take hours."""
    try:
        through(GROWING[what](100_000 if what not in ("variables set", "labels", "flags") else 10_000))
    except DockerfileError as error:
        assert len(str(error)) < 110_000


def test_doubling_is_bounded() -> None:
    with pytest.raises(DockerfileError, match="longer than 16 MiB"):
        through(BEGIN + "ENV a=xxxxxxxx\n" + "ENV a=$a$a\n" * 40)


# -- .dockerignore


def moby(pattern: str) -> Callable[[str], bool]:
    """A pattern (clean, without sets and escapes) as moby's patternmatcher translates it, character by character."""
    if pattern.startswith("**") and not set("*?") & set(pattern[2:]):
        rest = pattern[2:]
        return lambda path: path.endswith(rest) or (rest[:1] == "/" and path == rest[1:])
    if pattern.endswith("**") and not set("*?") & set(pattern[:-2]):
        return lambda path: path.startswith(pattern[:-2])
    regex, at = "", 0
    while at < len(pattern):
        character = pattern[at]
        at += 1
        if character == "*" and pattern[at : at + 1] == "*":
            at += 1
            at += pattern[at : at + 1] == "/"
            regex += ".*" if at == len(pattern) else "(.*/)?"
        elif character == "*":
            regex += "[^/]*"
        elif character == "?":
            regex += "[^/]"
        else:
            regex += re.escape(character)
    return lambda path: re.fullmatch(regex, path) is not None


def reference(patterns: list[str], path: str) -> bool:
    """moby's MatchesOrParentMatches."""
    matched = False
    parts = path.split("/")
    for pattern in patterns:
        excepts = pattern.startswith("!")
        if excepts != matched:
            continue
        matches = moby(pattern.removeprefix("!"))
        if any(matches("/".join(parts[:count])) for count in range(1, len(parts) + 1)):
            matched = not excepts
    return matched


components = st.sampled_from(["a", "b", "ab", "*", "**", "a*", "*b", "?", "**a", "a**", "a**b", "*a*b*"])
patterns = st.lists(components, min_size=1, max_size=5).map("/".join).filter(lambda text: "***" not in text)
contexts = st.lists(st.sampled_from(["a", "b", "ab", "aab", "ba", "c"]), min_size=1, max_size=6).map("/".join)


@settings(max_examples=1500, deadline=None)
@given(patterns, contexts)
@example("**/a/**/b/**/c", "x/a/y/a/b/z/c")
@example("**a**/b", "aab/b")
@example("**/a**b/**", "aab/b")
def test_a_pattern_matches_what_it_does_in_moby(pattern: str, path: str) -> None:
    try:
        found = Pattern.parse(pattern)
    except PatternFault as fault:
        assert "too often" in str(fault) and pattern.count("**") > 3
        return
    assert found.matches(path) is moby(pattern)(path)


@settings(max_examples=400, deadline=None)
@given(st.lists(st.builds(str.__add__, st.sampled_from(["", "!"]), patterns), max_size=5), contexts)
def test_a_list_of_patterns_decides_as_in_moby(listed: list[str], path: str) -> None:
    try:
        matcher = Matcher(listed)
    except PatternFault:
        return
    assert matcher.matches(path) is reference(listed, path)


@pytest.mark.parametrize(
    ("pattern", "path"),
    [
        ("**/a/" * 30 + "b", "a/" * 60 + "c"),
        ("**/*a/" * 20 + "b", "xa/" * 60 + "c"),
        ("**/" + "*a" * 30 + "b/c", "a" * 200 + "/c"),
        ("**/a/**/" * 20 + "*b", "a/" * 60 + "c"),
        ("a**b**c**d", "ab/b/c/" * 30),
        ("[^a]*" * 30 + "x", "b" * 200),
        ("?" * 100 + "**/x", "y" * 200),
    ],
)
def test_no_pattern_takes_for_ever(pattern: str, path: str) -> None:
    assert parse_dockerignore(pattern).matches(path) is False


def test_what_would_take_for_ever_is_refused() -> None:
    with pytest.raises(DockerfileError, match="too often"):
        parse_dockerignore("a**" * 9 + "b")
