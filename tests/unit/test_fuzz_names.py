"""DNS messages: read back what is written, and bytes of every wrong shape end in a refusal, never in anything else."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cellwall.runtime.names import message
from cellwall.runtime.names.message import MalformedError

label = st.binary(min_size=1, max_size=63)
names = st.lists(label, max_size=6).map(tuple).filter(lambda name: sum(map(len, name)) + len(name) < 255)
ids = st.integers(0, 0xFFFF)


def question(id: int, name: tuple[bytes, ...], kind: int, edns: int | None = None) -> bytes:
    """A question as a client's resolver sends it, with EDNS of that size where one is given."""
    data = struct.pack("!6H", id, 0x0100, 1, 0, 0, 0 if edns is None else 1)
    data += message.encode(name) + struct.pack("!2H", kind, 1)
    return data if edns is None else data + b"\0" + struct.pack("!2HIH", 41, edns, 0, 0)


def addresses(count: int) -> list[tuple[int, int, bytes]]:
    return [message.address_record(f"10.0.{number >> 8}.{number & 255}", 60) for number in range(count)]


@given(ids, names, st.integers(1, 255), st.none() | st.integers(0, 0xFFFF))
def test_a_question_is_read_as_it_was_asked(id: int, name: tuple[bytes, ...], kind: int, edns: int | None) -> None:
    query = message.read_query(question(id, name, kind, edns))
    assert (query.id, query.kind, query.klass, query.edns) == (id, kind, 1, edns is not None)
    assert query.name == tuple(part.lower() for part in name)
    assert query.udp_size == max(512, edns or 0)


@given(ids, names, st.none() | st.integers(512, 0xFFFF), st.integers(0, 400), st.booleans())
def test_answers_fit_and_are_read_back(
    id: int, name: tuple[bytes, ...], edns: int | None, count: int, tcp: bool
) -> None:
    asked = question(id, name, message.A, edns)
    query = message.read_query(asked)
    data = message.write_answer(query, message.NOERROR, addresses(count), tcp=tcp)
    assert message.is_answer_to(data, id, query.question)
    answer = message.read_answer(data, query.name)
    if not tcp:
        assert len(data) <= (edns or 512)
    assert answer.truncated or [address for address, _ in answer.addresses] == [
        ".".join(map(str, record)) for _, _, record in addresses(count)
    ]
    assert not (tcp and answer.truncated)


@settings(max_examples=500)
@given(st.binary(max_size=300))
def test_any_bytes_as_a_question(data: bytes) -> None:
    try:
        query = message.read_query(data)
    except MalformedError as error:
        if error.rcode is not None:
            assert message.refusal(data, error.rcode)[:2] == data[:2]
    else:
        assert data[12:].startswith(query.question)


@settings(max_examples=500)
@given(names, st.lists(st.tuples(st.integers(0, 40), st.integers(0, 255)), max_size=6), st.integers(0, 3))
def test_a_damaged_question_is_refused_or_another_question(
    name: tuple[bytes, ...], changes: list[tuple[int, int]], cut: int
) -> None:
    data = bytearray(question(7, name, message.A, 1232))
    for place, value in changes:
        data[place % len(data)] = value
    damaged = bytes(data[: len(data) - cut])
    try:
        message.read_query(damaged)
    except MalformedError:
        return
    assert cut == 0


@settings(max_examples=500)
@given(st.binary(min_size=12, max_size=300), names)
def test_any_bytes_as_an_answer(data: bytes, name: tuple[bytes, ...]) -> None:
    try:
        answer = message.read_answer(data, name)
    except MalformedError:
        return
    assert all(address.count(".") == 3 for address, _ in answer.addresses)


def test_pointers_have_an_end() -> None:
    header = struct.pack("!6H", 1, 0x8000, 0, 1, 0, 0)
    for pointer in (b"\xc0\x0c", b"\xc0\xff", b"\x01a\xc0\x0c", b"\xc0"):
        with pytest.raises(MalformedError):
            message.read_answer(header + pointer + bytes(10), ())


def record(name: str, kind: int, data: bytes, ttl: int = 100) -> bytes:
    return message.encode(message.labels(name)) + struct.pack("!2HIH", kind, 1, ttl, len(data)) + data


def alias(name: str, target: str, ttl: int = 100) -> bytes:
    return record(name, message.CNAME, message.encode(message.labels(target)), ttl)


@pytest.mark.parametrize(
    ("records", "expected"),
    [
        ([record("a.x", 1, b"\1\1\1\1", 9)], [("1.1.1.1", 9)]),
        ([record("b.x", 1, b"\1\1\1\1")], []),
        ([record("a.x", 1, b"\1\1\1")], []),
        ([record("a.x", 28, bytes(16))], []),
        ([alias("a.x", "b.x", 5), record("b.x", 1, b"\2\2\2\2", 9)], [("2.2.2.2", 5)]),
        ([record("b.x", 1, b"\2\2\2\2", 9), alias("a.x", "b.x", 50)], [("2.2.2.2", 9)]),
        ([alias("a.x", "b.x"), record("c.x", 1, b"\2\2\2\2")], []),
        ([alias("a.x", "b.x"), alias("b.x", "a.x")], []),
        ([record("a.x", 1, b"\1\1\1\1", 0xFFFFFFFF)], [("1.1.1.1", 0)]),
    ],
)
def test_addresses_follow_the_chain_of_aliases(records: list[bytes], expected: list[tuple[str, int]]) -> None:
    data = struct.pack("!6H", 1, 0x8180, 0, len(records), 0, 0) + b"".join(records)
    assert message.read_answer(data, message.labels("a.x")).addresses == expected


@pytest.mark.parametrize(
    ("name", "address"),
    [
        ("4.3.2.1.in-addr.arpa", "1.2.3.4"),
        ("4.3.2.in-addr.arpa", None),
        ("4.3.2.300.in-addr.arpa", None),
        ("x.3.2.1.in-addr.arpa", None),
        ("1." + "0." * 27 + "0.0.d.f.ip6.arpa", "fd00::1"),
        ("x." + "0." * 27 + "0.0.d.f.ip6.arpa", None),
        ("example.org", None),
    ],
)
def test_pointers_name_addresses(name: str, address: str | None) -> None:
    assert message.address_of_pointer(message.labels(name)) == address


def test_a_dot_in_a_label_is_no_border() -> None:
    query = message.read_query(question(1, (b"index.example.net",), 1))
    assert query.name != message.labels("index.example.net")
    assert message.text_of(query.name) == "index\\046example\\046net"
