"""`--chown` by the image's files, and `--chmod` beside chmod(1)."""

from __future__ import annotations

import os
import re
import stat
import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cellwall.runtime.build.ownership import OwnerFault, changed_mode, owner_of
from cellwall.runtime.build.values import ValueFault, check_mode

from .test_build_tree import Trees, trees

trees = trees

PASSWD = "root:x:0:0::/:\nweb:x:33:34:a web:/srv:\nbroken:x\nodd:x:many:1:::\n# comment\nhuge:x:4294967295:1::\nweb:x:1:1::\n"
GROUP = "root:x:0:\nstaff:x:50:web\n\n33:x:99:\n"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("root", (0, 0)),
        ("web", (33, 34)),
        ("web:staff", (33, 50)),
        ("web:7", (33, 7)),
        # A number is a number, also where a group has it for a name; without a group it is both.
        ("33", (33, 33)),
        ("33:33", (33, 33)),
        ("5:staff", (5, 50)),
        ("0:0", (0, 0)),
        ("70000:4294967294", (70000, 4294967294)),
        ("4294967295", "isn't an id"),
        ("1:4294967295", "isn't an id"),
        ("nobody", "no user 'nobody'"),
        ("web:nogroup", "no group 'nogroup'"),
        ("broken", "no user 'broken'"),
        ("odd", "'many' isn't an id"),
        ("huge", "isn't an id"),
        ("# comment", "no user"),
        ("²", "no user"),
        ("-1", "no user"),
        ("web\n", "no user"),
    ],
)
def test_owners(trees: Trees, tmp_path: Path, text: str, expected: tuple[int, int] | str) -> None:
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/passwd").write_text(PASSWD)
    (tmp_path / "etc/group").write_text(GROUP)
    tree = trees(tmp_path)
    if isinstance(expected, tuple):
        assert owner_of(text, tree) == expected
        return
    with pytest.raises(OwnerFault, match=expected):
        owner_of(text, tree)


def test_names_without_files(trees: Trees, tmp_path: Path) -> None:
    tree = trees(tmp_path)
    assert owner_of("1:2", tree) == (1, 2)
    with pytest.raises(OwnerFault, match="use its number"):
        owner_of("root", tree)


def test_files_of_names_stay_inside(trees: Trees, tmp_path: Path) -> None:
    """A link at /etc/passwd leads to the image's own file, or to none."""
    (tmp_path / "image/etc").mkdir(parents=True)
    (tmp_path / "passwd").write_text("me:x:1:1::/:\n")
    (tmp_path / "image/etc/passwd").symlink_to("../../passwd")
    tree = trees(tmp_path / "image")
    with pytest.raises(OwnerFault):
        owner_of("me", tree)
    (tmp_path / "image/passwd").write_text("me:x:2:2::/:\n")
    assert owner_of("me", tree) == (2, 2)
    (tmp_path / "image/etc/passwd").unlink()
    os.mkfifo(tmp_path / "image/etc/passwd")
    with pytest.raises(OwnerFault):
        owner_of("me", tree)


CLAUSES = st.lists(
    st.tuples(
        st.text("ugoa", max_size=3),
        st.lists(st.tuples(st.sampled_from("+-="), st.text("rwxXst", max_size=4)), min_size=1, max_size=2),
    ),
    min_size=1,
    max_size=3,
)


@settings(max_examples=60, deadline=None)
@given(CLAUSES, st.integers(0, 0o7777), st.booleans())
def test_as_chmod_does(
    tmp_path_factory: pytest.TempPathFactory,
    clauses: list[tuple[str, list[tuple[str, str]]]],
    mode: int,
    directory: bool,
) -> None:
    text = ",".join(who + "".join(sign + letters for sign, letters in changes) for who, changes in clauses)
    check_mode(text)
    if directory:
        # GNU's chmod keeps a directory's setuid and setgid bits unless they are named; builders don't.
        mode &= 0o1777
        text = re.sub("s", "", text)
    path = tmp_path_factory.getbasetemp() / ("chmod-dir" if directory else "chmod-file")
    if not path.exists():
        path.mkdir() if directory else path.touch()
    os.chmod(path, mode)
    assert stat.S_IMODE(path.stat().st_mode) == mode
    # Without a letter for whom, chmod(1) leaves out what the umask has.
    subprocess.run(["chmod", "--", text, str(path)], check=True, umask=0)
    assert oct(changed_mode(text, mode, directory=directory)) == oct(stat.S_IMODE(path.stat().st_mode)), text


@pytest.mark.parametrize("text", ["0", "644", "0755", "4755", "07777", "u+x", "a=", "go-w,u=rwX"])
def test_modes_that_are_taken(text: str) -> None:
    check_mode(text)


@pytest.mark.parametrize("text", ["", "8", "77777", "u", "+q", "u+x,", ",", "u=g", "rwx", "0o644", "²", "u+x\n", "-1"])
def test_modes_that_are_not(text: str) -> None:
    with pytest.raises(ValueFault):
        check_mode(text)


def test_octal() -> None:
    assert changed_mode("4711", 0o644, directory=False) == 0o4711
    assert changed_mode("0", 0o7777, directory=True) == 0
