from __future__ import annotations

import re
import shutil
import subprocess

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cellwall.runtime.build.shell_pattern import ShellPattern
from cellwall.runtime.build.substitution import SubstitutionError, substitute

VALUES = {
    "x": "value",
    "empty": "",
    "path": "/a/b/c.tar.gz",
    "s": "one two",
    "foo_1": "f",
    "é": "accent",
    "star": "a*b*c",
}


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("$x", "value"),
        ("${x}", "value"),
        ("a$x/b", "avalue/b"),
        ("${x}_1$foo_1", "value_1f"),
        ("$unset.", "."),
        ("$", "$"),
        ("$ x", "$ x"),
        ("a$/b", "a$/b"),
        ("$é", "accent"),
        # Digits and special parameters are names of their own, never set here.
        ("$1x$@", "x"),
        (r"\$x", "$x"),
        (r"\${x}", "${x}"),
        (r"a\bc", "abc"),
        (r"\\$x", "\\value"),
        ("a\\", "a"),
        ("'$x'", "$x"),
        ("'a\\'", "a\\"),
        ('"$x"', "value"),
        (r'"\$x \" \\ \a"', '$x " \\ \\a'),
        ('"it\'s"', "it's"),
        ("'a'\"b\"c", "abc"),
        ("${x:-d}", "value"),
        ("${empty:-d}", "d"),
        ("${empty-d}", ""),
        ("${unset-d}", "d"),
        ("${unset:-d}", "d"),
        ("${x:+a}", "a"),
        ("${empty:+a}", ""),
        ("${empty+a}", "a"),
        ("${unset+a}", ""),
        ("${x:?no}", "value"),
        ("${empty?no}", ""),
        ("${unset:-${x}}", "value"),
        ("${unset:-a${unset-b$x}c}", "abvaluec"),
        ("${unset:-'}'}", "}"),
        (r"${unset:-\}}", "}"),
        ('${unset:-"a b"}', "a b"),
        ("${path#*/}", "a/b/c.tar.gz"),
        ("${path##*/}", "c.tar.gz"),
        ("${path%.*}", "/a/b/c.tar"),
        ("${path%%.*}", "/a/b/c"),
        ("${path#nothing}", "/a/b/c.tar.gz"),
        ("${path#/?}", "/b/c.tar.gz"),
        (r"${star#a\*}", "b*c"),
        ("${x%$unset}", "value"),
        ("${x#${x}}", ""),
        ("${unset#a}", ""),
        ("${path/b/X}", "/a/X/c.tar.gz"),
        ("${path/a/X}", "/X/b/c.tar.gz"),
        ("${path//a/X}", "/X/b/c.tXr.gz"),
        (r"${path//\//-}", "-a-b-c.tar.gz"),
        ("${path/.*/}", "/a/b/c"),
        ("${path/c/$x}", "/a/b/value.tar.gz"),
        ("${path//[ab]/X}", "/a/b/c.tar.gz"),
        (r"${x/v/\\1}", r"\1alue"),
    ],
)
def test_forms_of_the_reference(word: str, expected: str) -> None:
    assert substitute(word, VALUES.get).text == expected


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("${x", "isn't closed"),
        ("${", "isn't closed"),
        ("${}", "a variable's name is needed"),
        ("${:-x}", "a variable's name is needed"),
        ("${{x}}", "a variable's name is needed"),
        ("${x:-a", "isn't closed"),
        ("${x/a}", "isn't closed"),
        ("${x/a/b", "isn't closed"),
        ("${x^}", "unsupported modifier"),
        ("${x:1}", "unsupported modifier ':1'"),
        ("${unset:?}", "unset: is not set"),
        ("${empty:?}", "empty: is empty"),
        ("${unset?say $x}", "unset: say value"),
        ("'a", "single quote"),
        ('"a', "double quote"),
        ('"a\\', "double quote"),
        (r"${x#\a}", "invalid escape"),
        ("${a:-" * 100 + "}" * 100, "nested more than"),
    ],
)
def test_words_that_cannot_be_substituted(word: str, said: str) -> None:
    with pytest.raises(SubstitutionError, match=said):
        substitute(word, VALUES.get)


def test_another_escape() -> None:
    assert substitute("`$x C:\\dir\\$x", VALUES.get, escape="`").text == "$x C:\\dir\\value"


def test_quotes_mean_nothing_in_a_heredoc() -> None:
    found = substitute("\"$x\" '$x' it's \\$x \\\\ \\n\n", VALUES.get, quotes=False)
    assert found.text == "\"value\" 'value' it's $x \\ n\n"


def test_words_part_at_unquoted_whitespace_only() -> None:
    assert substitute("$s \"$s\" a\\ b 'c d' $unset ''", VALUES.get).words == ["one", "two", "one two", "a b", "c d"]


def test_what_was_asked_for_is_told() -> None:
    found = substitute("$x ${unset:-$empty} '$s'", VALUES.get)
    assert (found.used, found.unset) == ({"x", "empty"}, {"unset"})


def test_a_result_that_explodes_is_refused() -> None:
    with pytest.raises(SubstitutionError, match="longer than"):
        substitute("$big" * 64, {"big": "x" * (1 << 20)}.get)


@given(st.text("ab*?", max_size=6), st.text("abc", max_size=8), st.booleans())
def test_patterns_match_as_regular_expressions_do(pattern: str, text: str, longest: bool) -> None:
    found = ShellPattern(pattern)
    regex = re.compile(pattern.replace("?", ".").replace("*", ".*"), re.DOTALL)
    sizes = [size for size in range(len(text) + 1) if regex.fullmatch(text, 0, size)]
    pick = max if longest else min
    assert found.trim_start(text, longest=longest) == (text[pick(sizes) :] if sizes else text)
    sizes = [size for size in range(len(text) + 1) if regex.fullmatch(text, len(text) - size)]
    assert found.trim_end(text, longest=longest) == (text[: len(text) - pick(sizes)] if sizes else text)
    assert found.replace(text, "X", every=False) == regex.sub("X", text, count=1)


@given(st.text("ab?", min_size=1, max_size=3), st.text("abc", max_size=8), st.booleans())
def test_every_match_is_replaced(pattern: str, text: str, star: bool) -> None:
    pattern = f"{pattern[:1]}*{pattern[1:]}" if star else pattern
    regex = re.compile(pattern.replace("?", ".").replace("*", ".*"), re.DOTALL)
    assert ShellPattern(pattern).replace(text, "X", every=True) == regex.sub("X", text)


@pytest.mark.parametrize("form", ["${x#*P}", "${x##*P}", "${x%P*}", "${x%%P*}", "${x/P/y}", "${x//P/y}"])
def test_hostile_patterns_end(form: str) -> None:
    value = "a" * 3000
    assert substitute(form.replace("P", "a*" * 30 + "b"), {"x": value}.get).text == value


pieces = st.lists(
    st.sampled_from(
        ["$", "{", "}", ":", "-", "+", "?", "#", "%", "/", "\\", "'", '"', "x", "empty", "unset", "*", " ", "a", "\n"]
    ),
    max_size=14,
).map("".join)


@given(pieces, st.booleans(), st.sampled_from("\\`"))
def test_any_word_is_substituted_or_refused(word: str, quotes: bool, escape: str) -> None:
    try:
        substitute(word, VALUES.get, escape=escape, quotes=quotes)
    except SubstitutionError as err:
        assert str(err)


@given(st.text(max_size=30))
def test_quoted_text_stays_as_it_is(text: str) -> None:
    escaped = "".join("\\" + character if character in '"$\\' else character for character in text)
    assert substitute(f'"{escaped}"', VALUES.get).text == text
    assert substitute("".join("\\" + character for character in text), VALUES.get).text == text
    if "'" not in text:
        assert substitute(f"'{text}'", VALUES.get).text == text


# Where a shell and the reference mean the same: variables, defaults, alternatives, trimming, and quotes around them.
_names = st.sampled_from(["x", "empty", "unset", "path"])
_plain = st.text("ab/.", max_size=3)
_patterns = st.text("a/.*?", max_size=4)
_forms = st.one_of(
    _plain,
    _names.map(lambda name: f"${{{name}}}"),
    st.tuples(_names, st.sampled_from([":-", "-", ":+", "+"]), _plain).map(lambda t: f"${{{t[0]}{t[1]}{t[2]}}}"),
    st.tuples(_names, st.sampled_from(["#", "##", "%", "%%"]), _patterns).map(lambda t: f"${{{t[0]}{t[1]}{t[2]}}}"),
    _plain.map(lambda text: f"'{text}'"),
    _plain.map(lambda text: f"\\${text}"),
)


@pytest.mark.skipif(shutil.which("sh") is None, reason="no sh to compare with")
@given(st.lists(st.lists(_forms, max_size=5).map("".join), min_size=20, max_size=20))
@settings(max_examples=20, deadline=None)
def test_a_shell_agrees(words: list[str]) -> None:
    # In double quotes for the shell, so that it parts no words; single quotes there would be text, so they stay outside.
    script = "x=value empty= path=/a/b/c.tar.gz\nunset unset\nset -f\nIFS=\n" + "".join(
        f"printf '%s\\n' {word}''\n" for word in words
    )
    said = subprocess.run(["sh", "-c", script], check=True, capture_output=True, text=True, env={}).stdout
    assert [substitute(word, VALUES.get).text for word in words] == said.split("\n")[:-1]
