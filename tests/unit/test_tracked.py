"""Tracked files name no package registry's host and no folder of the machine they were written on."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from ..tree import TOP, tracked

# Joined here so that this file doesn't name them either.
HOSTS = [
    ".".join(parts)
    for parts in (
        ("pypi", "org"),
        ("pythonhosted", "org"),
        ("deb", "debian", "org"),
        ("security", "debian", "org"),
        ("archive", "ubuntu", "com"),
        ("ports", "ubuntu", "com"),
        ("registry", "npmjs", "org"),
        ("proxy", "golang", "org"),
        ("crates", "io"),
    )
]
# Users who are nobody: the founding text's own example, those of other examples, and the virtual machine's.
NOBODY = {"dock", "someone", "tester", "user"}
HOME = re.compile(r"/(?:home|Users)/([A-Za-z][\w.-]*)/")


def text(name: str) -> str:
    path = TOP / name
    return "" if path.is_symlink() else path.read_bytes().decode(errors="replace")


@pytest.mark.parametrize("host", HOSTS)
def test_no_registry_host(host: str) -> None:
    assert [name for name in tracked() if host in text(name)] == []


def test_no_home_folder() -> None:
    found = {(name, user) for name in tracked() for user in HOME.findall(text(name)) if user not in NOBODY}
    assert found == set()


def test_no_checkout_folder() -> None:
    """Neither this checkout's own path nor, where that tells something, the home of whoever runs this."""
    homes = {str(TOP), str(Path.home())} - {"/root", "/"}
    assert [(name, home) for name in tracked() for home in homes if home in text(name)] == []


def test_no_executable_but_scripts() -> None:
    """A file that can be executed begins with ``#!``."""
    odd = [
        name
        for name in tracked()
        if not (TOP / name).is_symlink() and (TOP / name).stat().st_mode & 0o111 and not text(name).startswith("#!")
    ]
    assert odd == []
