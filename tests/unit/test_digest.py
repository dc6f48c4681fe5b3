from __future__ import annotations

import hashlib
import json
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cellwall.runtime.errors import InvalidReference
from cellwall.runtime.images.digest import Digest, chain_ids

EMPTY = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"


def test_a_digest_is_its_text() -> None:
    digest = Digest.of(b"")
    assert digest == EMPTY
    assert (digest.algorithm, digest.encoded, digest.short) == ("sha256", EMPTY[7:], EMPTY[7:19])
    assert json.dumps({digest: digest}) == json.dumps({EMPTY: EMPTY})
    assert pickle.loads(pickle.dumps(digest)) == digest


def test_sha512() -> None:
    digest = Digest.of(b"x", "sha512")
    assert digest.encoded == hashlib.sha512(b"x").hexdigest()
    assert Digest.parse(str(digest)) == digest


@pytest.mark.parametrize(
    "text",
    [
        "",
        "sha256",
        "sha256:",
        "sha256:abc",
        EMPTY.upper(),
        EMPTY + "0",
        EMPTY + "\n",
        EMPTY[:-1] + "g",
        "md5:" + "0" * 32,
        None,
        5,
    ],
)
def test_what_isn_t_a_digest(text: object) -> None:
    with pytest.raises(InvalidReference):
        Digest.parse(text)


def test_a_path_can_t_hide_in_a_digest() -> None:
    with pytest.raises(InvalidReference):
        Digest("../../etc:" + "0" * 64)


def test_chain_ids_as_the_specification_defines_them() -> None:
    a, b, c = (Digest.of(name) for name in (b"a", b"b", b"c"))
    ab = "sha256:" + hashlib.sha256(f"{a} {b}".encode()).hexdigest()
    abc = "sha256:" + hashlib.sha256(f"{ab} {c}".encode()).hexdigest()
    assert chain_ids([a, b, c]) == [a, ab, abc]
    assert chain_ids([]) == []


@given(st.lists(st.binary(max_size=4), max_size=6))
def test_a_chain_s_beginning_is_the_chain_of_its_beginning(contents: list[bytes]) -> None:
    diff_ids = [Digest.of(content) for content in contents]
    whole = chain_ids(diff_ids)
    assert len(whole) == len(diff_ids)
    for count in range(len(diff_ids)):
        assert chain_ids(diff_ids[:count]) == whole[:count]
