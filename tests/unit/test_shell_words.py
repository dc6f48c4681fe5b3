"""The word at a cursor in shell text, quoting, and unfinished here-documents."""

from __future__ import annotations

import shlex
import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cellwall.kernel.shell.completeness import _open_here_document
from cellwall.kernel.shell.words import Word, name_at, quoted, word_at


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("ec", Word("command", 0, "ec")),
        ("ls | gr", Word("command", 5, "gr")),
        ("if tr", Word("command", 3, "tr")),
        ("A=1 en", Word("command", 4, "en")),
        ("true && fa", Word("command", 8, "fa")),
        ("cat fi", Word("file", 4, "fi")),
        ("cat <fi", Word("file", 5, "fi")),
        ("make 2>&1 >lo", Word("file", 11, "lo")),
        (">out ca", Word("command", 5, "ca")),
        ("./conf", Word("file", 0, "./conf")),
        ("cat a\\ b", Word("file", 4, "a b")),
        ("cat 'a b", Word("file", 4, "a b", "'")),
        ('cat "a b', Word("file", 4, "a b", '"')),
        ("A=/et", Word("file", 2, "/et")),
        ("echo $HO", Word("variable", 6, "HO")),
        ('echo "${HO', Word("variable", 8, "HO")),
        ("echo '$HO", Word("file", 5, "$HO", "'")),
        ("echo $(ca", Word("command", 7, "ca")),
        ('echo "$(cat fi', Word("file", 12, "fi")),
        ("2>err ca", Word("command", 6, "ca")),
        ('echo "$(date)/x', Word("none", 15, "")),
        ("echo $(date) fi", Word("file", 13, "fi")),
        ("cat ", Word("file", 4, "")),
        ("echo a # com", Word("none", 12, "")),
        ("# one\nec", Word("command", 6, "ec")),
    ],
)
def test_the_word_at_the_cursor(code: str, expected: Word) -> None:
    assert word_at(code, len(code)) == expected


@given(st.text(st.characters(codec="utf-8", exclude_categories=["C"]), min_size=1))
def test_what_is_quoted_is_one_word_again(text: str) -> None:
    assert shlex.split(quoted(text, "")) == [text]
    assert shlex.split(quoted(text, "'") + "'") == [text]


def test_what_is_quoted_is_one_word_to_a_shell() -> None:
    samples = ["a b", "$HOME", "`id`", "a'b\"c", "\\", "!x", "*?[a]", "~", "#a", "é", "{a,b}", "-n", "a;b&c|d<e>f(g)"]
    words = [quoted(text, quote) + quote for text in samples for quote in ("", "'", '"')]
    command = f"printf '%s\\n' {' '.join(words)}"
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == [text for text in samples for _ in range(3)]


@given(st.text(alphabet="ab $(){}'\"\\#;|&<>`\n=~", max_size=40), st.integers(0, 40))
def test_any_text_has_a_word_within_it(code: str, cursor: int) -> None:
    cursor = min(cursor, len(code))
    assert 0 <= word_at(code, cursor).start <= cursor


def test_the_name_around_the_cursor() -> None:
    assert name_at("ls -l | grep x", 10) == ("grep", False)
    assert name_at("echo ${HOME}", 9) == ("HOME", True)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("cat <<E\na", True),
        ("cat <<E\na\nE", False),
        ("cat <<-'E O'\na\n\tE O", False),
        ("cat <<A <<B\n1\nA\n2", True),
        ("cat <<A <<B\n1\nA\n2\nB", False),
        ("cat <<<word", False),
        ("echo $((1 << 2))", False),
        ("# cat <<E", False),
    ],
)
def test_here_documents(text: str, expected: bool) -> None:
    assert _open_here_document(text) is expected
