"""Image references: ``[domain/]path[:tag][@digest]``, and the other things that ``IMAGE`` may name.

Follows the grammar that docker, podman and the registries share, with docker's short names: ``ubuntu`` is
``docker.io/library/ubuntu:latest``. Source: the reference grammar of the distribution project; image-spec
annotations.md (``org.opencontainers.image.ref.name``); containers-transports(5) for ``oci:`` and the archives.
"""

from __future__ import annotations

import re
from pathlib import Path

from ..errors import InvalidReference
from ..frozen import frozen, replace
from .digest import Digest

DEFAULT_DOMAIN = "docker.io"
DEFAULT_TAG = "latest"
# Registries store names in 255 bytes; docker refuses longer ones before asking.
_PATH_LIMIT = 255

_LABEL = r"(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9])"
_DOMAIN = rf"(?a)(?:{_LABEL}(?:\.{_LABEL})*|\[[0-9a-fA-F:]+\])(?::[0-9]{{1,5}})?"
_PATH = r"(?a)[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*)*"
_TAG = r"(?a)[\w][\w.-]{0,127}"
_IMAGE_ID = r"[a-f0-9]{64}"


@frozen
class Reference:
    """A full image name. ``tag`` is None only where there is a digest; with both, the digest decides."""

    domain: str
    path: str
    tag: str | None = None
    digest: Digest | None = None

    @classmethod
    def parse(cls, text: str) -> Reference:
        """``text`` with docker's defaults filled in. Raises InvalidReference, which says what is wrong with it."""
        if not text:
            raise InvalidReference("an image name is needed, as in ubuntu:24.04")
        if re.fullmatch(_IMAGE_ID, text):
            raise InvalidReference(f"{text!r} is an image id, not a name")
        name, at, digest_text = text.partition("@")
        digest = Digest(digest_text) if at else None
        # A colon after the last slash begins the tag; one before it is a registry's port.
        head, slash, tail = name.rpartition("/")
        tail, colon, tag = tail.partition(":")
        if colon and not re.fullmatch(_TAG, tag):
            raise InvalidReference(f"image {text!r}: {tag!r} isn't a tag (letters, digits, _ . -, at most 128)")
        domain, path = _split_domain(head + slash + tail)
        port = domain.rpartition(":")[2]
        if not re.fullmatch(_DOMAIN, domain) or (port.isdecimal() and not 0 < int(port) < 65536):
            raise InvalidReference(f"image {text!r}: {domain!r} isn't a registry's host name, with or without a port")
        if not re.fullmatch(_PATH, path):
            if re.fullmatch(_PATH, path.lower()):
                raise InvalidReference(f"image {text!r}: the name must be lower case, as in {path.lower()!r}")
            raise InvalidReference(f"image {text!r}: {path!r} isn't a repository name, as in library/ubuntu")
        if len(path) > _PATH_LIMIT:
            raise InvalidReference(f"image {text[:40]!r}…: the name is longer than {_PATH_LIMIT} characters")
        if not colon and digest is None:
            tag = DEFAULT_TAG
        return cls(domain, path, tag or None, digest)

    @property
    def repository(self) -> str:
        """``docker.io/library/ubuntu``: the name without tag and digest."""
        return f"{self.domain}/{self.path}"

    @property
    def familiar_repository(self) -> str:
        """``ubuntu``: the repository as docker shows it."""
        if self.domain != DEFAULT_DOMAIN:
            return self.repository
        rest = self.path.removeprefix("library/")
        # Only ``library/x`` itself is short: ``library/x/y`` without its start would be another repository.
        short = self.path if "/" in rest else rest
        # A first part with a dot (``docker.io/my.org/x``) would be read as a registry's host.
        return short if _split_domain(short) == (self.domain, self.path) else self.repository

    def familiar(self) -> str:
        """The name as docker shows it, ``ubuntu:latest``; parses to an equal reference."""
        return self.familiar_repository + self._suffix()

    def pinned(self, digest: Digest) -> Reference:
        """The same repository by ``digest``, without a tag."""
        return replace(self, tag=None, digest=digest)

    def _suffix(self) -> str:
        return (f":{self.tag}" if self.tag else "") + (f"@{self.digest}" if self.digest else "")

    def __str__(self) -> str:
        return self.repository + self._suffix()


def _split_domain(name: str) -> tuple[str, str]:
    first, slash, rest = name.partition("/")
    # docker's rule: the first part is a host where it can't be a path component of Docker Hub.
    if slash and ("." in first or ":" in first or first == "localhost" or first.lower() != first):
        domain, path = first, rest
    else:
        domain, path = DEFAULT_DOMAIN, name
    if domain == "index.docker.io":
        domain = DEFAULT_DOMAIN
    if domain == DEFAULT_DOMAIN and "/" not in path:
        path = f"library/{path}"
    return domain, path


@frozen
class LocalSource:
    """An image that comes from this machine: ``kind`` is oci, oci-archive, docker-archive or host.

    ``path`` is absolute (None for host), ``name`` the image in it where there are several.
    """

    kind: str
    path: Path | None = None
    name: str | None = None

    def __str__(self) -> str:
        if self.path is None:
            return self.kind
        return f"{self.kind}:{self.path}" + (f":{self.name}" if self.name else "")


HOST = LocalSource("host")
_PATH_KINDS = ("oci", "oci-archive", "docker-archive")


def parse_image(text: str, aliases: dict[str, str] | None = None) -> Reference | LocalSource:
    """What ``IMAGE`` names: ``host``, ``oci:DIR[:NAME]``, ``oci-archive:FILE[:NAME]``, ``docker-archive:FILE[:NAME]``, else a
    reference. The path ends at its first colon, as skopeo reads it.

    ``aliases`` maps a short name without tag to a repository; the tag that was typed stays. Raises InvalidReference.
    """
    if text == "host":
        return HOST
    kind, colon, rest = text.partition(":")
    if colon and kind in _PATH_KINDS:
        path, _, name = rest.partition(":")
        if not path:
            raise InvalidReference(f"image {text!r}: a path is needed after {kind}:")
        try:
            return LocalSource(kind, Path(path).expanduser().absolute(), name or None)
        except RuntimeError:
            raise InvalidReference(f"image {text!r}: {path.partition('/')[0]} is nobody's home folder here") from None
    if colon and kind == "docker" and rest.startswith("//"):
        text = rest[2:]
    return Reference.parse(_unalias(text, aliases or {}))


def _unalias(text: str, aliases: dict[str, str]) -> str:
    name, at, digest = text.partition("@")
    head, slash, tail = name.rpartition("/")
    tail, colon, tag = tail.partition(":")
    target = aliases.get(head + slash + tail)
    if target is None:
        return text
    # A target that names its own tag is used where none was typed.
    target_has_tag = ":" in target.rpartition("/")[2]
    if colon and target_has_tag:
        target = target.rpartition(":")[0]
    return target + colon + tag + at + digest
