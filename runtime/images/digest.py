"""Content digests: ``algorithm:hex``, verified, never a bare string.

Source: image-spec descriptor.md#digests, config.md#layer-chainid.
"""

from __future__ import annotations

from collections.abc import Iterable

from ..errors import InvalidReference
from ..short_hash import hex_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from hashlib import _Hash

# The registered algorithms and the length of their hexadecimal part.
_LENGTHS = {"sha256": 64, "sha512": 128}
_HEX = frozenset("0123456789abcdef")


class Digest(str):
    """``sha256:…`` as a value that is known to be well-formed; it is a ``str``, so it goes into JSON as it is.

    Raises InvalidReference for anything that isn't ``sha256:<64 hex>`` or ``sha512:<128 hex>``.
    """

    __slots__ = ()

    def __new__(cls, text: str) -> Digest:
        algorithm, colon, encoded = text.partition(":")
        length = _LENGTHS.get(algorithm)
        if not colon or (length is None and not encoded):
            raise InvalidReference(f"{text[:100]!r} isn't a digest: a digest reads sha256:<64 hexadecimal digits>")
        if length is None:
            raise InvalidReference(f"digest {text[:100]!r}: the algorithm {algorithm!r} is neither sha256 nor sha512")
        if len(encoded) != length or not _HEX.issuperset(encoded):
            raise InvalidReference(f"digest {text[:150]!r}: {algorithm} needs {length} lower-case hexadecimal digits")
        return super().__new__(cls, text)

    @classmethod
    def parse(cls, text: object) -> Digest:
        """``text`` as a digest. Raises InvalidReference, also where it isn't a string."""
        if not isinstance(text, str):
            raise InvalidReference(f"{text!r:.100} isn't a digest: a digest is a string")
        return cls(text)

    @classmethod
    def of(cls, content: bytes, algorithm: str = "sha256") -> Digest:
        """The digest of ``content``."""
        if algorithm == "sha256":
            return cls(f"{algorithm}:{hex_of(content)}")
        import hashlib

        return cls(f"{algorithm}:{hashlib.new(algorithm, content).hexdigest()}")

    @property
    def algorithm(self) -> str:
        return self.partition(":")[0]

    @property
    def encoded(self) -> str:
        """The hexadecimal part."""
        return self.partition(":")[2]

    @property
    def short(self) -> str:
        """The first twelve hexadecimal digits, as docker shows them."""
        return self.encoded[:12]

    def hasher(self) -> _Hash:
        """A fresh hash object of this digest's algorithm."""
        import hashlib

        return hashlib.new(self.algorithm)

    def __repr__(self) -> str:
        return f"Digest({str(self)!r})"


def chain_ids(diff_ids: Iterable[str]) -> list[Digest]:
    """The chain ids of a stack of layers, base first: the id of each layer *together with* all below it.

    ``diff_ids`` are base layer first. Source: image-spec config.md#layer-chainid.
    """
    chain: list[Digest] = []
    for diff_id in diff_ids:
        below = chain[-1] if chain else None
        diff = Digest.parse(diff_id)
        chain.append(diff if below is None else Digest.of(f"{below} {diff}".encode()))
    return chain
