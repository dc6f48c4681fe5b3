"""DNS messages, read with distrust and written: just what a responder that also forwards has to know.

A name is a tuple of its labels, lower case; a label may hold any byte, also a dot, so a name is never compared as text.
Source: RFC 1035 section 4 (messages), RFC 6891 (EDNS), RFC 8914 (extended errors), RFC 3596 (AAAA).
"""

from __future__ import annotations

import struct
from socket import AF_INET6, inet_ntop, inet_pton

Name = tuple[bytes, ...]

A, CNAME, SOA, PTR, AAAA, OPT, ANY = 1, 5, 6, 12, 28, 41, 255
IN = 1
NOERROR, FORMERR, SERVFAIL, NXDOMAIN, NOTIMP, REFUSED, BADVERS = 0, 1, 2, 3, 4, 5, 16
# Extended errors, RFC 8914 section 4.
EDE_FILTERED = 17

_HEADER = struct.Struct("!6H")
_QUESTION = struct.Struct("!2H")
_RECORD = struct.Struct("!2HIH")
_QR, _AA, _TC, _RD, _RA = 0x8000, 0x0400, 0x0200, 0x0100, 0x0080
_OPCODE = 0x7800
# Without EDNS a datagram holds so much; what is promised with it must pass a path with the smallest MTU of IPv6.
_PLAIN_SIZE = 512
UDP_SIZE = 1232
_LABEL_MAX, _NAME_MAX = 63, 255


class MalformedError(ValueError):
    """Bytes that are no message, or none that can be served; ``rcode`` is what they are answered with, None for nothing."""

    def __init__(self, text: str, rcode: int | None = FORMERR) -> None:
        super().__init__(text)
        self.rcode = rcode


class Query:
    """One question of a client. ``question`` is its section as it came, so that an answer has the client's own upper and lower case."""

    __slots__ = ("bad_version", "edns", "flags", "id", "kind", "klass", "name", "question", "udp_size")

    def __init__(self, id: int, flags: int, name: Name, kind: int, klass: int, question: bytes) -> None:
        self.id = id
        self.flags = flags
        self.name = name
        self.kind = kind
        self.klass = klass
        self.question = question
        self.edns = False
        self.bad_version = False
        self.udp_size = _PLAIN_SIZE


class Answer:
    """What an upstream said. ``addresses`` are those that its chain of CNAMEs leads to, with the lowest TTL on the way."""

    __slots__ = ("addresses", "rcode", "truncated")

    def __init__(self, rcode: int, truncated: bool, addresses: list[tuple[str, int]]) -> None:
        self.rcode = rcode
        self.truncated = truncated
        self.addresses = addresses


def labels(text: str) -> Name:
    """The name that ``text`` (``web.example.org``, with or without a final dot) writes. Raises ValueError where it is none."""
    name = tuple(part.encode("ascii").lower() for part in text.removesuffix(".").split(".")) if text != "." else ()
    if any(not 0 < len(label) <= _LABEL_MAX for label in name) or sum(map(len, name)) + len(name) + 1 > _NAME_MAX:
        raise ValueError(f"{text!r} is no name")
    return name


def text_of(name: Name) -> str:
    """``name`` for people, in master-file form: odd bytes as ``\\ddd``. Source: RFC 1035 section 5.1."""
    return ".".join(
        "".join(chr(byte) if 33 <= byte < 127 and byte not in b'."\\;@$()' else f"\\{byte:03d}" for byte in label)
        for label in name
    )


def encode(name: Name) -> bytes:
    return b"".join(bytes((len(label),)) + label for label in name) + b"\0"


def read_query(data: bytes) -> Query:
    """The one question of ``data``. Raises MalformedError for everything that isn't exactly one question."""
    if len(data) < _HEADER.size:
        raise MalformedError("shorter than a header", None)
    id, flags, questions, answers, authorities, additional = _HEADER.unpack_from(data)
    if flags & _QR:
        # An answer to an answer would go round for ever.
        raise MalformedError("an answer, not a question", None)
    if flags & _OPCODE:
        raise MalformedError("not a standard query", NOTIMP)
    if questions != 1 or answers or authorities:
        raise MalformedError("not one question alone")
    name, end = _read_name(data, _HEADER.size, compressed=False)
    if end + _QUESTION.size > len(data):
        raise MalformedError("cut short in its question")
    kind, klass = _QUESTION.unpack_from(data, end)
    end += _QUESTION.size
    query = Query(id, flags, name, kind, klass, data[_HEADER.size : end])
    for _ in range(additional):
        owner, at = _read_name(data, end, compressed=False)
        if at + _RECORD.size > len(data):
            raise MalformedError("cut short in a record")
        record, size, ttl, length = _RECORD.unpack_from(data, at)
        end = at + _RECORD.size + length
        if end > len(data):
            raise MalformedError("cut short in a record's data")
        if record == OPT:
            if owner or query.edns:
                raise MalformedError("a second OPT, or one with a name")
            query.edns = True
            query.udp_size = max(size, _PLAIN_SIZE)
            query.bad_version = bool(ttl >> 16 & 0xFF)
    if end != len(data):
        raise MalformedError("bytes behind its end")
    return query


def write_answer(
    query: Query,
    rcode: int,
    records: list[tuple[int, int, bytes]] | tuple[()] = (),
    *,
    tcp: bool = False,
    extended: tuple[int, str] | None = None,
) -> bytes:
    """The answer to ``query``: ``records`` are ``(kind, ttl, data)`` of the name that was asked for.

    What is too large for the client's datagrams comes without records, and with the word that TCP has them.
    """
    flags = _QR | _RA | (query.flags & _RD) | (_AA if rcode in (NOERROR, NXDOMAIN) else 0)
    body = b"".join(b"\xc0\x0c" + _RECORD.pack(kind, IN, ttl, len(data)) + data for kind, ttl, data in records)
    tail = b""
    if query.edns:
        options = b""
        if extended is not None:
            said = extended[1].encode()
            options = struct.pack("!3H", 15, 2 + len(said), extended[0]) + said
        tail = b"\0" + _RECORD.pack(OPT, UDP_SIZE, rcode >> 4 << 24, len(options)) + options
    count = len(records)
    if not tcp and _HEADER.size + len(query.question) + len(body) + len(tail) > min(query.udp_size, 4096):
        flags, body, count = flags | _TC, b"", 0
    header = _HEADER.pack(query.id, flags | rcode & 0xF, 1, count, 0, 1 if tail else 0)
    return header + query.question + body + tail


def refusal(data: bytes, rcode: int) -> bytes:
    """The answer to ``data`` that couldn't be read as a query: its id, and why."""
    id, flags = struct.unpack_from("!2H", data)
    return _HEADER.pack(id, _QR | (flags & (_OPCODE | _RD)) | rcode, 0, 0, 0, 0)


def address_record(address: str, ttl: int) -> tuple[int, int, bytes]:
    """A record of an IPv4 or IPv6 address."""
    if ":" in address:
        return AAAA, ttl, inet_pton(AF_INET6, address)
    return A, ttl, bytes(map(int, address.split(".")))


def write_query(id: int, name: Name, kind: int) -> bytes:
    """A question with nothing in it but what must be: no options, no upper case."""
    return _HEADER.pack(id, _RD, 1, 0, 0, 0) + encode(name) + _QUESTION.pack(kind, IN)


def with_id(data: bytes, id: int) -> bytes:
    """The same message under another id."""
    return id.to_bytes(2, "big") + data[2:]


def is_answer_to(data: bytes, id: int, question: bytes) -> bool:
    """Whether ``data`` begins as an answer to that question under that id does. Source: RFC 5452 section 9.1."""
    if len(data) < _HEADER.size:
        return False
    found, flags, questions = struct.unpack_from("!3H", data)
    if found != id or not flags & _QR:
        return False
    if questions == 0:
        # Some servers leave the question away where they refuse it.
        return len(data) == _HEADER.size and flags & 0xF != NOERROR
    end = _HEADER.size + len(question)
    return bool(questions == 1 and data[_HEADER.size : end].lower() == question.lower())


def rcode_of(data: bytes) -> int:
    return data[3] & 0xF


def is_truncated(data: bytes) -> bool:
    return bool(data[2] & _TC >> 8)


def truncated(data: bytes, question: bytes) -> bytes:
    """A large answer as a datagram without its records, which TCP has. Source: RFC 2181 section 9."""
    id, flags = struct.unpack_from("!2H", data)
    return _HEADER.pack(id, flags | _TC, 1, 0, 0, 0) + question


def read_answer(data: bytes, name: Name) -> Answer:
    """The IPv4 addresses of ``name`` in an upstream's answer to a question for them. Raises MalformedError.

    Only what the chain of CNAMEs from ``name`` leads to: a record of another name says nothing about this one.
    """
    _, flags, questions, answers, _, _ = _HEADER.unpack_from(data)
    end = _HEADER.size
    for _ in range(questions):
        _, end = _read_name(data, end)
        end += _QUESTION.size
    aliases: dict[Name, tuple[Name, int]] = {}
    found: dict[Name, list[tuple[str, int]]] = {}
    for _ in range(answers):
        owner, end = _read_name(data, end)
        if end + _RECORD.size > len(data):
            raise MalformedError("cut short in a record")
        kind, klass, ttl, length = _RECORD.unpack_from(data, end)
        start, end = end + _RECORD.size, end + _RECORD.size + length
        if end > len(data):
            raise MalformedError("cut short in a record's data")
        # The highest bit makes it zero. Source: RFC 2181 section 8.
        ttl = 0 if ttl >> 31 else ttl
        if klass != IN:
            continue
        if kind == CNAME:
            aliases.setdefault(owner, (_read_name(data, start)[0], ttl))
        elif kind == A and length == 4:
            found.setdefault(owner, []).append((".".join(map(str, data[start:end])), ttl))
    lowest, at = 0x7FFFFFFF, name
    for _ in range(len(aliases)):
        if at in found or at not in aliases:
            break
        at, ttl = aliases[at]
        lowest = min(lowest, ttl)
    addresses = [(address, min(ttl, lowest)) for address, ttl in found.get(at, ())]
    return Answer(flags & 0xF, bool(flags & _TC), addresses)


def address_of_pointer(name: Name) -> str | None:
    """The address that a name below in-addr.arpa or ip6.arpa stands for, else None. Source: RFC 1035 3.5, RFC 3596 2.5."""
    if len(name) == 6 and name[4:] == (b"in-addr", b"arpa"):
        parts = [label.decode("latin-1") for label in reversed(name[:4])]
        if all(part.isascii() and part.isdigit() and len(part) <= 3 and int(part) < 256 for part in parts):
            return ".".join(str(int(part)) for part in parts)
    if len(name) == 34 and name[32:] == (b"ip6", b"arpa"):
        digits = b"".join(reversed(name[:32]))
        if len(digits) == 32 and all(byte in b"0123456789abcdef" for byte in digits):
            return inet_ntop(AF_INET6, bytes.fromhex(digits.decode()))
    return None


def _read_name(data: bytes, at: int, *, compressed: bool = True) -> tuple[Name, int]:
    """The name at ``at``, and where it ends. Pointers lead backwards only, so that no chain of them has no end."""
    found: list[bytes] = []
    end = -1
    size = 1
    limit = at
    while True:
        if at >= len(data):
            raise MalformedError("cut short in a name")
        length = data[at]
        if length >= 0xC0:
            if not compressed or at + 1 >= len(data):
                raise MalformedError("a pointer where none may be")
            if end < 0:
                end = at + 2
            at = (length & 0x3F) << 8 | data[at + 1]
            if at >= limit:
                raise MalformedError("a pointer that leads forward")
            limit = at
            continue
        if length > _LABEL_MAX:
            raise MalformedError("a label of an unknown type")
        at += 1
        if length == 0:
            return tuple(found), at if end < 0 else end
        size += 1 + length
        if size > _NAME_MAX or at + length > len(data):
            raise MalformedError("a name that is too long")
        found.append(data[at : at + length].lower())
        at += length
