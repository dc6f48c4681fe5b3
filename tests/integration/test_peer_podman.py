"""Command lines in cellwall and in podman, each line of the table in both: status, output and `inspect` agree, or the table says why not."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest

from ..peer import hands
from ..peer.cases import Case, Differs, Group
from ..peer.hands import Hand, Said
from ..peer.table import GROUPS, IMAGES
from ..registries import write_layout

pytestmark = pytest.mark.needs("root", "overlay", "podman", "busybox-static")

Pair = tuple[Hand, Hand]


@pytest.fixture(scope="module")
def pair() -> Iterator[Pair]:
    """cellwall and podman, with the images of the table."""
    # podman makes a name of an image's folder, so not any name will do for that.
    home = Path(f"/tmp/cwp-{os.urandom(4).hex()}")
    home.mkdir(mode=0o700)
    try:
        layouts = {}
        for number, (name, image) in enumerate(IMAGES.items()):
            layouts[name] = f"oci:{write_layout(home / f'layout{number}', {'latest': image()})}:latest"
        with ExitStack() as stack:
            makers = (hands.cellwall(home / "c", layouts), hands.podman(home / "p", layouts))
            ours, theirs = (stack.enter_context(maker) for maker in makers)
            for hand in (ours, theirs):
                (hand.folder / "env").write_text("# not this\nA=1\nB=two words\nC\n")
                (hand.folder / "shared").mkdir()
                (hand.folder / "shared/file").write_text("from the host\n")
            yield ours, theirs
    finally:
        shutil.rmtree(home)


def play(hand: Hand, group: Group) -> list[Said]:
    try:
        return [hand.play(case) for case in group.cases]
    finally:
        hand.tidy(group)


def parts(said: Said) -> dict[str, object]:
    """What is compared: of standard error only whether there is something."""
    return {"status": said.status, "stdout": said.stdout, "stderr": bool(said.stderr.strip()), **said.looked}


def mistakes(case: Case, ours: Said, theirs: Said) -> list[str]:
    """One line for each part that differs and isn't in the table, or is in the table and isn't so."""
    found = []
    known = {one.part: one for one in case.differs}
    mine, other = parts(ours), parts(theirs)
    for part in mine:
        said = known.pop(part, None) or Differs(part, None, None, "")
        wanted = (said.ours, said.theirs) if said.why else (mine[part], mine[part])
        if (mine[part], other[part]) != wanted:
            found.append(
                f"{case.line}\n    {part}: ours {mine[part]!r}, podman's {other[part]!r}"
                + (f", in the table {said.ours!r} and {said.theirs!r}" if said.why else "")
                + f"\n    ours said: {ours.stderr.strip()}\n    podman said: {theirs.stderr.strip()}"
            )
    return found + [f"{case.line}: nothing is compared as {part}" for part in known]


@pytest.mark.parametrize("group", GROUPS, ids=lambda group: group.name)
def test_they_do_the_same(pair: Pair, group: Group) -> None:
    with ThreadPoolExecutor() as both:
        ours, theirs = both.map(play, pair, (group, group))
    found = []
    for case, mine, other in zip(group.cases, ours, theirs, strict=True):
        told = mistakes(case, mine, other)
        if told and case.line.startswith("run --rm"):
            # On a busy machine podman loses what a very short command has written: it gets a second try, and we don't.
            told = mistakes(case, mine, pair[1].play(case))
        found += told
    if found:
        pytest.fail("\n".join(found), pytrace=False)


def test_the_table_is_large_and_each_difference_has_its_reason() -> None:
    cases = [case for group in GROUPS for case in group.cases]
    assert len(cases) >= 80
    assert len({group.name for group in GROUPS}) == len(GROUPS)
    for case in cases:
        for one in case.differs:
            assert len(one.why) > 20, case.line
            assert one.ours != one.theirs, case.line
