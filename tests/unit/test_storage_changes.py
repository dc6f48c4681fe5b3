"""Reading changes from an upper directory: what needs no mount. Whiteouts may be made by anybody since Linux 5.8."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from cellwall.runtime.storage.changes import scan_upper
from cellwall.runtime.storage.lowers import Lowers


def whiteout(path: Path) -> None:
    try:
        os.mknod(path, stat.S_IFCHR, 0)
    except PermissionError:
        pytest.skip("needs a kernel that lets anybody make whiteouts")


def opaque(path: Path) -> None:
    try:
        os.setxattr(path, "user.overlay.opaque", b"y")
    except OSError:
        pytest.skip("needs a filesystem with user attributes")


def test_a_stack_and_what_lies_on_it(tmp_path: Path) -> None:
    top, bottom, upper = (tmp_path / name for name in ("top", "bottom", "upper"))
    for folder in (
        top / "both",
        bottom / "both",
        bottom / "hidden",
        bottom / "cut",
        top / "cut",
        upper / "both",
        upper / "new",
        upper / "cut",
    ):
        folder.mkdir(parents=True)
    for file in (
        top / "both/a",
        bottom / "both/b",
        bottom / "both/c",
        bottom / "hidden/x",
        bottom / "cut/old",
        top / "cut/new",
        bottom / "file",
    ):
        file.write_bytes(b"")
    (bottom / "link").symlink_to("both")
    whiteout(top / "hidden")
    whiteout(top / "both/c")
    opaque(top / "cut")
    descriptors = [os.open(path, os.O_RDONLY) for path in (top, bottom, upper)]
    try:
        lowers = Lowers(descriptors[:2])
        assert [
            path
            for path in (
                b"both",
                b"both/a",
                b"both/b",
                b"both/c",
                b"hidden",
                b"hidden/x",
                b"cut/old",
                b"cut/new",
                b"link",
                b"link/a",
                b"",
            )
            if lowers.exists(path)
        ] == [
            b"both",
            b"both/a",
            b"both/b",
            b"cut/new",
            b"link",
            b"",
        ]
        assert lowers.names(b"both") == {b"a", b"b"}
        assert lowers.names(b"cut") == {b"new"}
        assert lowers.names(b"") == {b"both", b"cut", b"file", b"link"}
        assert (
            lowers.names(b"hidden")
            == lowers.names(b"file")
            == lowers.names(b"link")
            == lowers.names(b"nothing")
            == set()
        )
        assert not Lowers(descriptors[:2], [0]).exists(b"file")
        assert not Lowers([])

        (upper / "both/a").write_bytes(b"changed")
        (upper / "both/d").write_bytes(b"")
        whiteout(upper / "both/b")
        whiteout(upper / "never-there")
        whiteout(upper / "file")
        (upper / "new/file").write_bytes(b"")
        opaque(upper / "cut")
        (upper / "link").mkdir()
        (upper / "link/a").write_bytes(b"")
        (upper / "odd\n\udcff").write_bytes(b"")
        assert scan_upper(descriptors[2], lowers.exists, lowers.names) == [
            ("C", b"/both"),
            ("C", b"/both/a"),
            ("D", b"/both/b"),
            ("A", b"/both/d"),
            ("C", b"/cut"),
            ("D", b"/cut/new"),
            ("D", b"/file"),
            ("C", b"/link"),
            ("A", b"/link/a"),
            ("A", b"/new"),
            ("A", b"/new/file"),
            ("A", b"/odd\n\xff"),
        ]
        assert ("D", b"/cut/new") not in scan_upper(descriptors[2], lowers.exists)
    finally:
        for fd in descriptors:
            os.close(fd)
