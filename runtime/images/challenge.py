"""What a registry asks for when it answers 401: the WWW-Authenticate header, read.

Source: RFC 9110 section 11.6.1; distribution's token authentication specification.
"""

from __future__ import annotations

import re
from urllib.parse import urlsplit

from ..frozen import frozen

_SCHEME = re.compile(r"\s*(?:,\s*)?([A-Za-z][A-Za-z0-9._~+-]*)(?=\s|,|$)(?!\s*=)")
_PARAMETER = re.compile(r'\s*(?:,\s*)?([A-Za-z0-9_.-]+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s,"]+))')


@frozen
class Challenge:
    """``scheme`` is lower case (basic, bearer); ``parameters`` have lower-case names."""

    scheme: str
    parameters: dict[str, str]


def read_challenges(headers: list[str]) -> list[Challenge]:
    """The challenges in the values of all WWW-Authenticate headers; what can't be read is left out."""
    found = []
    for header in headers:
        at = 0
        while match := _SCHEME.match(header, at):
            at = match.end()
            parameters = {}
            while parameter := _PARAMETER.match(header, at):
                at = parameter.end()
                name, quoted, plain = parameter.groups()
                value = plain if quoted is None else re.sub(r"\\(.)", r"\1", quoted)
                parameters[name.lower()] = value
            found.append(Challenge(match.group(1).lower(), parameters))
    return found


def token_url(realm: str, *, plain_allowed: bool) -> str:
    """``realm`` where credentials may go to it, else an empty string: plain HTTP only where the registry itself is so."""
    try:
        parts = urlsplit(realm)
    except ValueError:  # a bracket that isn't closed, and the like
        return ""
    if parts.scheme == "https" or (parts.scheme == "http" and plain_allowed):
        return realm if parts.hostname else ""
    return ""
