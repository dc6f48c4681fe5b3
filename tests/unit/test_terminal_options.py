"""Detach keys as they are written and typed, and the values of --log-opt, --log-driver and --restart."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cellwall.runtime.cli.detach_keys import DEFAULT, DetachKeys, keys
from cellwall.runtime.cli.run_options import parse_run
from cellwall.runtime.errors import SpecError, UnsupportedError


@pytest.mark.parametrize(
    ("text", "found"),
    [("ctrl-p,ctrl-q", DEFAULT), ("a", b"a"), ("ctrl-@,ctrl-[", b"\0\x1b"), ("ctrl-X,x", b"\x18x"), ("", b"")],
)
def test_keys_are_read(text: str, found: bytes) -> None:
    assert keys("--detach-keys", text) == found


@pytest.mark.parametrize("text", ["ctrl-", "ctrl-1", "ab", "a,", "ü", "ctrl-ab"])
def test_keys_that_are_none(text: str) -> None:
    with pytest.raises(SpecError, match="--detach-keys"):
        keys("--detach-keys", text)


@pytest.mark.parametrize(
    ("typed", "passed", "detached"),
    [
        ([b"ab\x10\x11cd"], b"ab", True),
        ([b"a\x10", b"\x11"], b"a", True),
        ([b"a\x10", b"b\x11"], b"a\x10b\x11", False),
        ([b"\x10\x10\x11"], b"\x10", True),
        ([b"a\x10"], b"a", False),
    ],
)
def test_keys_are_found_in_what_is_typed(typed: list[bytes], passed: bytes, detached: bool) -> None:
    looking = DetachKeys(DEFAULT)
    results = [looking.feed(piece) for piece in typed]
    assert b"".join(found for found, _ in results) == passed
    assert results[-1][1] == detached


@given(st.lists(st.binary(max_size=4), max_size=6), st.binary(max_size=3))
def test_nothing_is_lost_or_made_up(typed: list[bytes], sequence: bytes) -> None:
    looking = DetachKeys(sequence)
    passed, detached = b"", False
    for piece in typed:
        if not detached:
            found, detached = looking.feed(piece)
            passed += found
    whole = b"".join(typed)
    assert detached == (bool(sequence) and sequence in whole)
    assert whole.startswith(passed)
    if detached:
        assert passed == whole[: whole.index(sequence)]
    else:
        assert len(whole) - len(passed) < max(1, len(sequence))


@pytest.mark.parametrize(
    ("line", "part"),
    [
        ("--restart sometimes x", "'sometimes' isn't known; it is one of no, on-failure[:N], always, unless-stopped"),
        ("--restart always:3 x", "always takes no number of retries; on-failure:3 does"),
        ("--restart on-failure:-1 x", "-1"),
        ("--rm --restart always x", "starts a container again that --rm would have removed"),
        ("--log-opt max-size=0 x", "--log-opt"),
        ("--log-opt max-file=0 x", "--log-opt"),
        ("--log-opt tag=x x", "'tag' isn't known; it is one of max-size, max-file, labels, env"),
        ("--log-driver none --log-opt max-size=1m x", "--log-driver none keeps none"),
        ("--log-driver tape x", "'tape' isn't known; it is one of json-file, local, none"),
        ("--no-healthcheck --health-cmd true x", "goes with none of the --health options"),
        ("--health-interval 0 x", "--health-interval"),
        ("--health-retries 0 x", "--health-retries"),
    ],
)
def test_mistakes_name_the_flag_and_what_mends_them(line: str, part: str) -> None:
    with pytest.raises(SpecError) as caught:
        parse_run(line.split())
    assert part in str(caught.value)


def test_what_is_right_is_kept() -> None:
    options = parse_run(
        "--restart on-failure:3 --log-driver local --log-opt max-size=10k --log-opt max-file=2 x".split()
    )
    assert (options.restart, options.log_driver) == ("on-failure:3", "local")
    assert options.log_opts == {"max-size": "10240", "max-file": "2"}
    assert parse_run("--rm --restart no x".split()).rm
    with pytest.raises(UnsupportedError, match="syslog"):
        parse_run("--log-driver syslog x".split())
