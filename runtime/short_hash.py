"""SHA-256 by the interpreter's own code, as long as all that a process has to hash is short.

``hashlib`` loads OpenSSL's libraries, which takes two milliseconds of each process; it is several times as fast for what is long. As
the standard library's ``random``, which takes the same way for the same reason. Imports the standard library only.
"""

from __future__ import annotations

try:
    from _sha2 import sha256  # type: ignore[import-not-found, unused-ignore]  # from Python 3.12 on
except ImportError:
    try:
        from _sha256 import sha256  # type: ignore[import-not-found, unused-ignore]
    except ImportError:  # an interpreter that was built without
        from hashlib import sha256

TYPE_CHECKING = False
if TYPE_CHECKING:
    from hashlib import _Hash

# So much a process hashes by itself: about as long takes loading OpenSSL.
_left_bytes = 1 << 19


def hasher(length_bytes: int, begin: bytes = b"") -> _Hash:
    """A SHA-256 object for about so many bytes, which has had ``begin`` already."""
    global _left_bytes
    _left_bytes -= length_bytes
    if _left_bytes > 0:
        short: _Hash = sha256(begin)
        return short
    import hashlib

    return hashlib.sha256(begin)


def hex_of(content: bytes) -> str:
    """The SHA-256 of ``content``, in hexadecimal digits."""
    return hasher(len(content), content).hexdigest()
