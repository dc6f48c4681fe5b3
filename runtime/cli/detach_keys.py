"""The keys that let go of a container's terminal and leave it running: ``--detach-keys``, ctrl-p ctrl-q unless said otherwise.

Source: docs.docker.com/reference/cli/docker/container/attach, "Override the detach sequence".
"""

from __future__ import annotations

from ..errors import SpecError

DEFAULT = b"\x10\x11"


def keys(flag: str, text: str) -> bytes:
    """The bytes of ``ctrl-p,ctrl-q``: single characters, or ``ctrl-`` and one of a-z @ [ \\ ] ^ _; empty for none."""
    found = bytearray()
    for key in text.split(",") if text else []:
        letter = key.removeprefix("ctrl-")
        if len(letter) == 1 and letter != key and ((letter.isascii() and letter.isalpha()) or letter in "@[\\]^_"):
            found.append(ord(letter.upper()) & 0x1F)
        elif len(key) == 1 and key.isascii():
            found.append(ord(key))
        else:
            raise SpecError(
                flag, f"{key!r} is no key; write single characters or ctrl-a to ctrl-z, separated by commas"
            )
    return bytes(found)


class DetachKeys:
    """Looks for the keys in what is typed, and holds back what may be their beginning."""

    def __init__(self, sequence: bytes) -> None:
        self._sequence = sequence
        self._held = b""

    def feed(self, data: bytes) -> tuple[bytes, bool]:
        """``(what is to be passed on, whether the keys were typed)``; nothing behind the keys counts."""
        if not self._sequence:
            return data, False
        passed = bytearray()
        for byte in data:
            self._held += bytes((byte,))
            while not self._sequence.startswith(self._held):
                passed.append(self._held[0])
                self._held = self._held[1:]
            if self._held == self._sequence:
                self._held = b""
                return bytes(passed), True
        return bytes(passed), False
