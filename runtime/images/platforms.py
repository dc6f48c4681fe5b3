"""Platforms: ``os/architecture[/variant]`` in Go's words, and which entry of an index fits this machine.

Source: image-spec image-index.md#platform-variants, containerd's rules for falling back between variants.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable

from ..errors import SpecError
from ..frozen import frozen

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

# uname(2)'s machine names, and what people type, in Go's words.
_ARCHITECTURES = {
    "x86_64": ("amd64", ""),
    "x86-64": ("amd64", ""),
    "aarch64": ("arm64", ""),
    "armv8l": ("arm", "v8"),
    "armhf": ("arm", "v7"),
    "armel": ("arm", "v6"),
    "armv7l": ("arm", "v7"),
    "armv6l": ("arm", "v6"),
    "i386": ("386", ""),
    "i486": ("386", ""),
    "i586": ("386", ""),
    "i686": ("386", ""),
    "loongarch64": ("loong64", ""),
}


# What a registry says ends up on a terminal: letters, digits and what stands between them in every real name.
_WORD = r"[A-Za-z0-9._+-]{1,64}"
# No architecture has more variants above one another.
_LEVELS = 20


@frozen
class Platform:
    """``variant`` is empty where the architecture has none, or where it is the default one (arm64's v8)."""

    os: str
    architecture: str
    variant: str = ""

    @classmethod
    def make(cls, os_name: str, architecture: str, variant: str = "") -> Platform:
        """A platform in normal form: ``x86_64`` is ``amd64``, ``arm64/v8`` is ``arm64``."""
        architecture, implied = _ARCHITECTURES.get(architecture.lower(), (architecture.lower(), ""))
        variant = variant.lower() or implied
        if variant and variant.isdigit():
            variant = f"v{variant}"
        if (architecture, variant) in (("arm64", "v8"), ("amd64", "v1")):
            variant = ""
        if architecture == "arm" and not variant:
            variant = "v7"
        return cls(os_name.lower(), architecture, variant)

    @classmethod
    def parse(cls, text: str) -> Platform:
        """``linux/arm64/v8``, ``linux/amd64``, or an architecture by itself. Raises SpecError."""
        parts = text.split("/")
        if not all(parts) or len(parts) > 3 or not text.isascii():
            raise SpecError("--platform", f"{text!r} isn't a platform, as in linux/arm64")
        if len(parts) == 1:
            return cls.make("linux", parts[0])
        return cls.make(*parts)

    @classmethod
    def here(cls) -> Platform:
        """This machine's."""
        return cls.make("linux", os.uname().machine)

    @classmethod
    def of(cls, described: dict[str, Any]) -> Platform | None:
        """The platform of a descriptor's ``platform`` or of an image config; None where it names none."""
        os_name, architecture = described.get("os"), described.get("architecture")
        variant = described.get("variant")
        words = [os_name, architecture, variant if isinstance(variant, str) and variant else "-"]
        if not all(isinstance(word, str) and re.fullmatch(_WORD, word) for word in words):
            return None
        return cls.make(str(os_name), str(architecture), variant if isinstance(variant, str) else "")

    def executes(self, other: Platform) -> bool:
        """Whether programs of ``other`` run here: those of an older generation too, as amd64 runs 386 and arm64 mostly arm."""
        also = {"amd64": "386", "arm64": "arm"}.get(self.architecture)
        return other.os == self.os and other.architecture in (self.architecture, also)

    def accepts(self) -> list[Platform]:
        """The platforms that run on this one, best first: an ARMv7 also runs v6 and v5, an amd64/v3 also v2 and plain."""
        if not self.variant[1:].isdigit():
            return [self]
        level = int(self.variant[1:])
        if level > _LEVELS:
            return [self]
        if self.architecture == "arm":
            found = [Platform(self.os, "arm", f"v{n}") for n in range(level, 4, -1)]
        elif self.architecture == "amd64":
            found = [Platform(self.os, "amd64", f"v{n}") for n in range(level, 1, -1)] + [Platform(self.os, "amd64")]
        elif self.architecture == "arm64":
            found = [self, Platform(self.os, "arm64")]
        else:
            found = [self]
        return found or [self]

    def best_of(self, offered: Iterable[Platform | None]) -> int | None:
        """The index of the entry that fits best, or None."""
        candidates = list(offered)
        for wanted in self.accepts():
            if wanted in candidates:
                return candidates.index(wanted)
        return None

    def runs(self, other: Platform | None) -> bool:
        """Whether an image for ``other`` fits where this platform was asked for."""
        return other is not None and other in self.accepts()

    def __str__(self) -> str:
        return "/".join(filter(None, (self.os, self.architecture, self.variant)))
