"""Image references beside the distribution project's grammar, read here once more, part by part."""

from __future__ import annotations

import re
import string

from hypothesis import example, given, settings
from hypothesis import strategies as st

from cellwall.runtime.errors import InvalidReference
from cellwall.runtime.images.reference import Reference, parse_image

from ..reference_samples import pieces

ALPHANUMERIC = set(string.ascii_lowercase + string.digits)
LETTERS = set(string.ascii_letters + string.digits)


def is_component(text: str) -> bool:
    """``alpha-numeric [separator alpha-numeric]*``, where a separator is ``_``, ``.``, ``__`` or dashes."""
    if not text or text[0] not in ALPHANUMERIC or text[-1] not in ALPHANUMERIC:
        return False
    if not set(text) <= ALPHANUMERIC | set("._-"):
        return False
    separators = "".join(character if character not in ALPHANUMERIC else " " for character in text).split()
    return all(found in (".", "_", "__") or set(found) == {"-"} for found in separators)


def is_label(text: str) -> bool:
    return bool(text) and set(text) <= LETTERS | {"-"} and text[0] != "-" and text[-1] != "-"


def is_domain(text: str) -> bool:
    if text.startswith("["):
        address, bracket, port = text[1:].partition("]")
        if not bracket or not address or not set(address) <= set(string.hexdigits + ":"):
            return False
        return not port or (port[0] == ":" and is_port(port[1:]))
    host, colon, port = text.partition(":")
    return all(map(is_label, host.split("."))) and (not colon or is_port(port))


def is_port(text: str) -> bool:
    return text.isascii() and text.isdecimal() and len(text) <= 5 and 0 < int(text) < 65536


def expected(text: str) -> tuple[str, str, str | None, str | None] | None:
    """Domain, path, tag and digest with docker's defaults, or None where ``text`` is no reference."""
    if re.fullmatch("[a-f0-9]{64}", text):
        return None
    name, at, digest = text.partition("@")
    if at and not re.fullmatch("sha256:[a-f0-9]{64}|sha512:[a-f0-9]{128}", digest):
        return None
    slash = name.rfind("/")
    colon = name.find(":", slash + 1)
    tag = None
    if colon >= 0:
        name, tag = name[:colon], name[colon + 1 :]
        if not 1 <= len(tag) <= 128 or not set(tag) <= LETTERS | set("_.-") or tag[0] in ".-":
            return None
    first, slash_sign, rest = name.partition("/")
    if slash_sign and (set(first) & set(".:") or first == "localhost" or first != first.lower()):
        domain, path = first, rest
    else:
        domain, path = "docker.io", name
    if domain == "index.docker.io":
        domain = "docker.io"
    if domain == "docker.io" and "/" not in path:
        path = f"library/{path}"
    if not is_domain(domain) or not all(map(is_component, path.split("/"))) or len(path) > 255:
        return None
    return domain, path, tag if tag or at else "latest", digest or None


@settings(max_examples=500, deadline=None)
@given(st.lists(st.sampled_from(pieces), max_size=7).map("".join) | st.text(max_size=12))
@example("a" * 247)
@example("a" * 248)
@example("x:" + "t" * 129)
@example("\u0663.io/x")
@example("h:\u0663/x")
@example("a\n")
@example("x:t\n")
def test_a_reference_is_what_the_grammar_says(text: str) -> None:
    try:
        found = Reference.parse(text)
    except InvalidReference as error:
        assert expected(text) is None, f"{text!r}: {error}"
        assert str(error).isprintable() and len(str(error)) < 3 * len(text) + 500
        return
    assert (found.domain, found.path, found.tag, found.digest) == expected(text)
    for again in (str(found), found.familiar()):
        assert Reference.parse(again) == found


@given(
    st.lists(
        st.sampled_from([*pieces, "oci:", "oci-archive:", "docker-archive:", "docker://", "host", "~", "~x/"]),
        max_size=5,
    ).map("".join)
)
def test_any_image_is_read_or_refused(text: str) -> None:
    try:
        found = parse_image(text, {"a": "quay.io/a:1", "ab": "x"})
    except InvalidReference as error:
        assert str(error).isprintable()
        return
    assert str(found)


def test_long_names_take_no_longer_than_they_are() -> None:
    """A pattern with two ways through would take hours for these."""
    for text in (
        "a" * 300_000,
        "a-" * 150_000,
        "a." * 100_000 + "/x",
        "-" * 200_000,
        "a_" * 90_000 + "!",
        "A" * 99_999 + "/x:!",
    ):
        for end in ("", "!", "/", "@", ":"):
            try:
                Reference.parse(text + end)
            except InvalidReference:
                continue
