"""aufs's branch syntax: every way to write a union, and every mistake with its line and column."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cellwall.runtime.errors import SpecError
from cellwall.runtime.union.syntax import ATTRIBUTES, Branch, UnionSpec, parse, parse_words, split_cell

FOUNDING = "mount -t aufs -o br=/tmp=rw:/var=ro:/opt=ro none /aufs"
THREE = (Branch("/tmp", "rw"), Branch("/var", "ro"), Branch("/opt", "ro"))


@pytest.mark.parametrize(
    "text",
    [
        FOUNDING,
        f"sudo {FOUNDING}",
        "mount -t aufs -o br:/tmp=rw:/var=ro:/opt=ro none /aufs",
        "mount -t aufs -o dirs=/tmp=rw:/var=ro:/opt=ro none /aufs",
        "mount -taufs -obr=/tmp:/var:/opt none /aufs",
        "mount --types aufs --options=br=/tmp:/var:/opt none /aufs",
        "mount -t aufs none -o br=/tmp:/var:/opt /aufs",
        "mount -t aufs \\\n  -o br=/tmp=rw:\\\n/var=ro:/opt=ro \\\n  none /aufs",
        "mount -t aufs -o 'br=/tmp:/var:/opt' none \"/aufs\"",
        "mount -t aufs -o relatime,br=/tmp:/var,rw,br=/opt none /aufs",
        "br=/tmp=rw:/var=ro:/opt=ro",
        "br:/tmp:/var:/opt",
        "dirs=/tmp:/var:/opt",
        "/tmp=rw:/var=ro:/opt=ro",
        "/tmp=rw\n/var=ro\n/opt=ro",
        "# what is seen first\n/tmp\n\n  /var/  # logs\n/opt/.",
        "br=/tmp\r\n/var\r\n/opt\r\n",
    ],
)
def test_ways_to_write_one_union(text: str) -> None:
    assert parse(text) == UnionSpec(THREE, "/aufs")


def test_the_first_branch_is_rw_and_the_others_ro_unless_they_say_else() -> None:
    spec = parse("br=/a=ro:/b:/c=rr+wh:/d=rw+nolwh")
    assert [str(branch) for branch in spec.branches] == ["/a=ro", "/b=ro", "/c=rr+wh", "/d=rw+nolwh"]
    assert spec.writable == 3


@pytest.mark.parametrize(
    ("text", "place", "words"),
    [
        ("", "", "needs branches"),
        ("# nothing\n", "", "needs branches"),
        ("br=", "line 1, column 4", "br needs branches"),
        ("br=/a=rx", "line 1, column 7", "rw, ro and rr"),
        ("br=/a=", "line 1, column 7", "rw, ro and rr"),
        ("br=/a=rw=ro", "line 1, column 7", "rw, ro and rr"),
        ("br=/a=rw+wh", "line 1, column 10", "wh goes with ro and rr"),
        ("br=/a=ro+nolwh", "line 1, column 10", "nolwh goes with rw"),
        ("br=/a=rw+nolhw", "line 1, column 10", "did you mean nolwh"),
        ("br=/a=rw+", "line 1, column 10", "isn't known"),
        ("br=/a::/b", "line 1, column 7", "a branch is missing"),
        ("br=/a:", "line 1, column 7", "a branch is missing"),
        ("br=/a:b=ro", "line 1, column 7", "isn't absolute"),
        ("br=/a:/b/../c", "line 1, column 10", ".."),
        ("br=/a,/b", "line 1, column 7", "colons, not commas"),
        ("/a\n/b,c", "line 2, column 3", "no comma"),
        ("br=/a:/b:/a/", "line 1, column 10", "twice (first at line 1, column 4)"),
        ("/a\n/b\n/b/c", "line 3, column 1", "/b/c and /b overlap"),
        ("/b/c\n/b", "line 2, column 1", "overlap"),
        ("/\n/b", "line 2, column 1", "overlap"),
        ("/a\nls /aufs", "line 2, column 1", "behind a line ---"),
        ("br=/a,nosiud", "line 1, column 7", "did you mean nosuid"),
        ("br=/a,append:/b", "line 1, column 7", "write all branches in br="),
        ("mount -t aufs -o br=/a none", "line 1, column 28", "mount point"),
        ("mount -t aufs -o br=/a none aufs", "line 1, column 29", "absolute path"),
        ("mount -t aufs -o br=/a none /", "line 1, column 29", "container needs that itself"),
        ("mount -t aufs -o br=/a none /proc/x", "line 1, column 29", "container needs that itself"),
        ("mount -t overlay -o lowerdir=/a none /aufs", "line 1, column 10", "aufs is the type"),
        ("mount -o br=/a none /aufs", "line 1, column 1", "mount -t aufs"),
        ("mount -t aufs none /aufs", "line 1, column 1", "no branches"),
        ("mount -t aufs -o br=/a none /aufs ls", "line 1, column 35", "isn't expected"),
        ("mount -t aufs -o 'br=/a none /aufs", "line 1, column 18", "isn't closed"),
        ("mount -t aufs --bind -o br=/a none /aufs", "line 1, column 15", "--bind"),
        ("mount -t", "line 1, column 9", "-t needs a value"),
        ("sudo rm /a", "line 1, column 6", "only mount"),
        ("/a\nmount -t aufs -o br=/b none /aufs", "line 2, column 1", "stands alone"),
        (f"{FOUNDING}\n/x", "line 2, column 1", "nothing follows"),
        ("mount -t aufs \\\n  -o br=/a=rw:\\\n/b=rx none /aufs", "line 3, column 4", "rw, ro and rr"),
    ],
)
def test_mistakes_are_told_with_their_place(text: str, place: str, words: str) -> None:
    with pytest.raises(SpecError) as caught:
        parse(text)
    assert str(caught.value).startswith(f"union: {place}")
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("br=/a:/b=rw", "overlayfs has one writable layer and /a is the leftmost rw branch"),
        ("br=/a=ro:/b=rw", "/b isn't the leftmost branch"),
        ("br=/a:/b=ro+wh", "/b: whiteouts are overlayfs's here"),
        ("br=/a=rw+nolwh", "/a+nolwh"),
        ("br=/a,xino=/x,udba=none", "xino=/x, udba=none: aufs's own bookkeeping"),
    ],
)
def test_what_has_no_counterpart_on_overlayfs_is_said(text: str, word: str) -> None:
    warning = "\n".join(parse(text).warnings)
    assert word in warning
    assert parse("br=/a:/b").warnings == ()


def test_options_of_the_mount() -> None:
    spec = parse("mount -r -t aufs -o nodev,br=/a=rw,noexec none /u")
    assert (spec.options, spec.mount_point, spec.writable) == (("ro", "nodev", "noexec"), "/u", None)


def test_words_of_a_command_line() -> None:
    assert parse_words([*FOUNDING.split(), "ls", "-t", "/aufs"]) == (UnionSpec(THREE), ["ls", "-t", "/aufs"])
    assert parse_words(["br=/tmp:/var:/opt", "mount"]) == (UnionSpec(THREE), ["mount"])
    assert parse_words([FOUNDING, "ls"]) == (UnionSpec(THREE), ["ls"])
    with pytest.raises(SpecError, match="line 1, column 29: permission 'rx'"):
        parse_words("mount -t aufs -o br=/tmp:/a=rx none /aufs".split())
    with pytest.raises(SpecError, match="needs branches"):
        parse_words([])


def test_a_cell_and_its_script() -> None:
    assert split_cell("/a\n/b\n---\necho ---\n---\n") == ("/a\n/b", "echo ---\n---\n")
    assert split_cell("br=/a\n --- \n") == ("br=/a", "")
    assert split_cell("br=/a\n----\n") == ("br=/a\n----\n", None)


NAMES = st.text(
    st.characters(exclude_characters="/:=,\0\n\r\\#'\" ", exclude_categories=("Cs", "Zs", "Zl", "Zp", "Cc")),
    min_size=1,
    max_size=8,
)
PATHS = st.lists(NAMES.filter(lambda name: name not in (".", "..")), min_size=1, max_size=3).map(
    lambda parts: "/" + "/".join(parts)
)
BRANCHES = st.builds(
    Branch,
    PATHS,
    st.sampled_from(("rw", "ro", "rr")),
    st.lists(st.sampled_from([word for word in ATTRIBUTES if word not in ("wh", "nolwh", "moo")]), unique=True).map(
        tuple
    ),
)


def apart(branches: list[Branch]) -> bool:
    paths = [branch.path + "/" for branch in branches]
    return all(not a.startswith(b) for i, a in enumerate(paths) for j, b in enumerate(paths) if i != j)


@given(st.lists(BRANCHES, min_size=1, max_size=5).filter(apart), PATHS.map(lambda path: "/m" + path))
def test_what_is_written_is_read_back(branches: list[Branch], mount_point: str) -> None:
    spec = UnionSpec(tuple(branches), mount_point)
    assert parse(str(spec)) == spec
    assert parse("\n".join(map(str, branches))).branches == spec.branches
    assert parse("br=" + ":".join(map(str, branches))).branches == spec.branches


@given(st.text(st.sampled_from("/ab=:,+ \n\\'\"#.-rwomutnsfi"), max_size=60) | st.text(max_size=30))
def test_any_text_is_read_or_refused_with_its_place(text: str) -> None:
    """No other exception, and the place lies in the text or right behind it."""
    try:
        parse(text)
    except SpecError as error:
        if "needs branches" in str(error) and "line" not in str(error).partition(",")[0]:
            return
        line, column = (int(word.strip(",:")) for word in str(error).split()[2:5:2])
        lines = text.split("\n")
        assert 1 <= line <= len(lines)
        assert 1 <= column <= len(lines[line - 1]) + 1
