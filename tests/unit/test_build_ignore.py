from __future__ import annotations

import fnmatch

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cellwall.runtime.build.dockerignore import ignore_names, ignore_patterns, parse_dockerignore
from cellwall.runtime.build.patterns import Matcher, PatternFault, clean, compiled_glob, has_glob
from cellwall.runtime.build.source import DockerfileError


@pytest.mark.parametrize(
    ("patterns", "path", "expected"),
    [
        ("a", "a", True),
        ("a", "a/b/c", True),
        ("a", "b/a", False),
        ("a", "ab", False),
        ("/a", "a", True),
        ("a/", "a/b", True),
        ("./a//b/../c", "a/c", True),
        ("*", "a", True),
        ("*.md", "README.md", True),
        ("*.md", "docs/README.md", False),
        ("*/temp*", "a/temporary", True),
        ("*/temp*", "temporary", False),
        ("*/*/temp*", "a/b/temp", True),
        ("temp?", "tempa", True),
        ("temp?", "temp", False),
        ("temp?", "temp/x", False),
        ("**", "a/b", True),
        ("**/*.go", "x.go", True),
        ("**/*.go", "a/b/x.go", True),
        ("**/x", "x", True),
        ("**/x", "a/b/x", True),
        ("**/x", "ax", False),
        ("**x", "ax", True),
        ("a/**", "a/b/c", True),
        ("a/**", "a", False),
        ("a**", "ab/c", True),
        ("a/**/b", "a/b", True),
        ("a/**/b", "a/x/y/b", True),
        ("a/**/b", "ab", False),
        ("**/a/**/b", "x/a/y/b", True),
        ("a**/b", "ax/b", True),
        ("[ab]", "b", True),
        ("[a-c]x", "bx", True),
        ("[^a-c]x", "dx", True),
        ("[^a-c]x", "bx", False),
        ("[!a]", "!", True),
        ("a[^x]b", "a/b", False),
        ("[]]", "x", "fault"),
        ("[a", "a", "fault"),
        ("[a-]", "a", "fault"),
        ("a\\", "a", "fault"),
        ("!", "a", "fault"),
        (r"\*", "*", True),
        (r"\*", "a", False),
        (r"[\]]", "]", True),
        ("a.b", "axb", False),
        ("a+(b)|{c}$^", "a+(b)|{c}$^", True),
        ("# a", "# a", False),
        (" # a", "# a", True),
        ("  a b  ", "a b", True),
        ("é?", "éü", True),
        (".", "a", False),
        ("/", "a", False),
        ("..", "a", False),
        # The last pattern that matches decides, also by a folder above.
        ("*.md\n!README.md", "README.md", False),
        ("*.md\n!README*.md\nREADME-secret.md", "README-secret.md", True),
        ("*.md\nREADME-secret.md\n!README*.md", "README-secret.md", False),
        ("!README.md\n*.md", "README.md", True),
        ("a\n!a/b", "a/b", False),
        ("a\n!a/b", "a/b/c", False),
        ("a\n!a/b", "a/c", True),
        ("*\n!a\na/x", "a/x/y", True),
        ("*\n! /a", "a", False),
        ("**\n!**/*.py", "a/b.py", False),
        ("a/**\n!a/*/", "a/b/c", False),
    ],
)
def test_dockerignore(patterns: str, path: str, expected: bool | str) -> None:
    if expected == "fault":
        with pytest.raises(DockerfileError, match=".dockerignore: the pattern"):
            parse_dockerignore(patterns)
    else:
        assert parse_dockerignore(patterns).matches(path) is expected


def test_a_bad_pattern_is_pointed_at() -> None:
    with pytest.raises(DockerfileError) as caught:
        parse_dockerignore("a\n# [\n  [b\n")
    assert (caught.value.line, caught.value.column, caught.value.text) == (3, 3, "  [b")


def test_lines_of_the_file() -> None:
    assert ignore_patterns("\ufeffa\r\n\r\n#c\r\n /b/ \n!/c/\n! d\n!\n/") == ["a", "b", "!c", "!d", "!", "/"]
    assert parse_dockerignore(b"\xff\n").matches("\udcff")


def test_a_walk_enters_a_folder_only_where_something_may_come_back() -> None:
    assert Matcher(["a"]).prunes("a")
    assert not Matcher(["a"]).prunes("b")
    assert not Matcher(["a", "!a/b"]).prunes("a")


def test_the_file_beside_a_dockerfile_comes_first() -> None:
    assert ignore_names("x/Dockerfile.dev") == ("x/Dockerfile.dev.dockerignore", ".dockerignore")


@pytest.mark.parametrize(
    ("pattern", "name", "expected"),
    [
        ("*", "a", True),
        ("*", "a/b", False),
        ("**", "a/b", False),
        ("a*/b", "ax/b", True),
        ("a?c", "abc", True),
        ("a[b-d]", "ac", True),
        (r"arr\[\]*", "arr[]x", True),
        ("arr[[]0].txt", "arr[0].txt", True),
        ("*a*a*a*b", "a" * 40, False),
        ("*a" * 40 + "b/c", "a" * 250 + "/c", False),
        ("*a*?[a-c]*d", "xaxxbcd", True),
        ("a*b*/*c*d", "axbyb/cxcd", True),
    ],
)
def test_globs_of_copy(pattern: str, name: str, expected: bool) -> None:
    assert (compiled_glob(pattern).fullmatch(name) is not None) is expected
    assert has_glob(pattern)


@given(st.text("ab/*?.", max_size=8), st.text("ab/.", max_size=8))
def test_without_doubles_patterns_mean_what_globs_mean(pattern: str, name: str) -> None:
    if "**" in pattern:
        return
    ours = compiled_glob(pattern).fullmatch(name) is not None
    parts, names = pattern.split("/"), name.split("/")
    assert ours == (len(parts) == len(names) and all(map(fnmatch.fnmatchcase, names, parts)))


@given(st.lists(st.text("ab/*?[]^-!\\. \n#é", max_size=10), max_size=5), st.text("ab/.é", max_size=10))
def test_any_patterns_match_or_are_refused(patterns: list[str], path: str) -> None:
    try:
        matcher = Matcher(patterns)
    except PatternFault:
        return
    assert matcher.matches(path) in (True, False)


@given(st.lists(st.text("ab/*?", min_size=1, max_size=5), max_size=4), st.text("ab/", min_size=1, max_size=6))
def test_what_is_in_an_ignored_folder_is_ignored(patterns: list[str], folder: str) -> None:
    matcher = Matcher(patterns)
    # A context's paths are relative.
    if not folder.startswith("/") and matcher.matches(folder):
        assert matcher.matches(f"{folder}/x/y")


@given(st.text("ab/.", max_size=12))
def test_clean_is_stable(path: str) -> None:
    assert clean(clean(path)) == clean(path)
    assert "//" not in clean(path)
