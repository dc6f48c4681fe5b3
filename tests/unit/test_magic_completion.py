"""What completion offers on a line, by itself: names come from the sources given here, not from an engine."""

from __future__ import annotations

import pytest

from cellwall.magics.completion import Sources, cell_words, command_words


class Known(Sources):
    """Sources with fixed names."""

    def __init__(self) -> None:
        super().__init__({"text": "x", "data": b"x", "number": 1, "_hidden": "x"})

    def images(self) -> list[str]:
        return ["debian:latest", "host", "localhost:5000/lab:2"]

    def containers(self) -> list[str]:
        return ["db", "lab"]


@pytest.mark.parametrize(
    ("line", "fragment", "words"),
    [
        ("", "", ["debian:latest", "host", "localhost:5000/lab:2"]),
        ("d", "d", ["debian:latest"]),
        ("localhost:5000/l", "localhost:5000/l", ["localhost:5000/lab:2"]),
        ("-m 64m h", "h", ["host"]),
        ("--bg h", "h", ["host"]),
        ("host --memory-r", "--memory-r", ["--memory-reservation"]),
        ("host --no-r", "--no-r", ["--no-raise-error"]),
        ("host --name ", "", ["db", "lab"]),
        ("host --name=l", "l", ["lab"]),
        ("host --network h", "h", ["host"]),
        ("host --pull ", "", ["missing", "always", "never"]),
        ("host --in ", "", ["data", "text"]),
        ("host --lang r", "r", ["ruby"]),
        ("host --out ", "", []),
        ("host -v /e", "/e", []),
        ("host something", "something", []),
        ("host -tm ", "", []),
        ("host --rm=t", "t", ["true"]),
    ],
)
def test_cell_line(line: str, fragment: str, words: list[str]) -> None:
    assert cell_words(line, Known()) == (fragment, words)


def test_options_that_were_said_are_not_offered_again_unless_they_repeat() -> None:
    _, words = cell_words("host -m 1g -e A=1 -", Known())
    assert "--memory" not in words
    assert "-m" not in words
    assert "--env" in words
    assert "--gpus" not in words
    assert "-i" not in words


def test_an_empty_word_behind_the_image_offers_long_options() -> None:
    _, words = cell_words("host ", Known())
    assert "--memory" in words
    assert "--result" in words
    assert all(word.startswith("--") for word in words)


@pytest.mark.parametrize(
    ("group", "line", "fragment", "words"),
    [
        ("container", "rm l", "l", ["lab"]),
        ("container", "rm -f ", "", ["db", "lab"]),
        ("container", "exec l", "l", ["lab"]),
        ("container", "exec lab l", "l", []),
        ("container", "run h", "h", ["host"]),
        ("container", "run --network n", "n", ["none"]),
        ("container", "inspect ", "", ["db", "lab"]),
        ("image", "inspect h", "h", ["host"]),
        ("image", "rm d", "d", ["debian:latest"]),
        ("image", "pu", "pu", ["pull", "push"]),
        ("container", "pause ", "", ["db", "lab"]),
        ("container", "pause db l", "l", ["lab"]),
        ("container", "rename db l", "l", []),
        ("container", "update -m 64m d", "d", ["db"]),
        ("container", "update -m ", "", []),
        ("container", "update --memory-r", "--memory-r", ["--memory-reservation"]),
        ("container", "logs --fol", "--fol", ["--follow"]),
        ("container", "stats --no-s", "--no-s", ["--no-stream"]),
        ("container", "top l", "l", ["lab"]),
        ("container", "port lab ", "", []),
        ("container", "events --fi", "--fi", ["--filter"]),
        ("container", "nosuch ", "", []),
        ("image", "history d", "d", ["debian:latest"]),
        ("image", "rm debian:latest h", "h", ["host"]),
    ],
)
def test_command_line(group: str, line: str, fragment: str, words: list[str]) -> None:
    assert command_words(group, line, Known()) == (fragment, words)


def test_commands_of_both_kinds() -> None:
    _, words = command_words("container", "", Known())
    assert {"ls", "rm", "logs", "images", "doctor"} <= set(words)
    assert len(words) == len(set(words))
