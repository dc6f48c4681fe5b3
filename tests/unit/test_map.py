"""docs/map.md has one sentence for every tracked file, and none for a file that isn't there."""

from __future__ import annotations

import re

import pytest

from ..tree import TOP, tracked

ENTRY = re.compile(r"^- `(?P<path>[^`]+)`: (?P<sentence>.+)$")


def entries() -> list[tuple[str, str]]:
    lines = (TOP / "docs/map.md").read_text().splitlines()
    return [(match["path"], match["sentence"]) for line in lines if (match := ENTRY.match(line))]


def described(path: str) -> bool:
    """Whether ``path`` has a sentence, or a folder that it is in has one for all that is in it (``folder/``)."""
    paths = {entry for entry, _ in entries()}
    return path in paths or any(path.startswith(entry) for entry in paths if entry.endswith("/"))


def test_every_file_has_a_sentence() -> None:
    missing = [path for path in tracked() if not described(path)]
    assert not missing, f"docs/map.md lacks a sentence for {missing}"


def test_no_sentence_is_stale() -> None:
    files = tracked()
    folders = {f"{path.rpartition('/')[0]}/" for path in files}
    within = {entry for entry, _ in entries() if any(folder.startswith(entry) for folder in folders)}
    stale = {path for path, _ in entries()} - set(files) - within
    assert not stale, f"docs/map.md describes files that aren't tracked: {sorted(stale)}"


def test_each_file_stands_once_in_order() -> None:
    paths = [path for path, _ in entries()]
    assert len(paths) == len(set(paths))
    by_folder: dict[str, list[str]] = {}
    for path in paths:
        by_folder.setdefault(path.rpartition("/")[0], []).append(path)
    for folder, names in by_folder.items():
        assert names == sorted(names), f"docs/map.md: {folder or 'the top'} is out of order"


def test_every_line_of_a_list_is_an_entry() -> None:
    lines = (TOP / "docs/map.md").read_text().splitlines()
    odd = [line for line in lines if line.startswith("- ") and not ENTRY.match(line)]
    assert not odd


@pytest.mark.parametrize(("path", "sentence"), entries())
def test_a_sentence_is_one(path: str, sentence: str) -> None:
    assert sentence.endswith("."), f"{path}: a sentence ends with a full stop"
    assert len(sentence) < 200
    assert not re.search(r"[.!?] [A-Z]", sentence), f"{path}: one sentence"
