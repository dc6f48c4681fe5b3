"""Every error that cellwall raises, drawn as one tree.

    CellwallError
      SpecError               a bad value in options or in a bundle's config; carries the field
      InvalidReference        an image reference that can't be read
      NotFound                no such image, container, file, command
      AlreadyExists           the name is taken
      StatusError             the container is in another status than the operation needs
      UnsupportedError        this machine lacks a feature; says what mends it
      SyscallError            also OSError: a kernel call failed, on which value
      InitError               the container's init failed in one of its steps
      ImageError
        DigestMismatch        content isn't what its digest says
        LayerError            a layer's archive can't be unpacked
        RegistryError         a registry refused, or answered nonsense
      BuildError  VolumeError  CgroupError  NetworkError  HookError
      LockError               what a notebook's lock doesn't allow, or a lock that can't be read or written
      LauncherError           the launcher process went away or answered nonsense
      Cancelled               the caller asked to stop (also while pulling)
      CellError               also subprocess.CalledProcessError: the cell's command failed, and why

Messages are lower case, without a full stop, and name the value that was tried. Where the user can mend it, the
message says how. This module imports nothing but the standard library's ``os``, so that the launcher can use it.
"""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    pass


class CellwallError(Exception):
    """The root of the tree. ``str(error)`` is one sentence, made to be shown to a person."""


class SpecError(CellwallError):
    """A value in options or in a bundle's config is out of range or can't be read.

    ``field`` is the flag (``--memory``) or the config's dotted path (``linux.resources.memory.limit``).
    """

    def __init__(self, field: str, message: str) -> None:
        super().__init__(f"{field}: {message}")
        self.field = field


class InvalidReference(CellwallError, ValueError):
    """An image reference doesn't follow the grammar of the distribution specification."""


class NotFound(CellwallError, LookupError):
    """There is no image, container, file or command of that name."""


class AlreadyExists(CellwallError):
    """The name is in use by another image, container or file."""


class StatusError(CellwallError):
    """The container's status doesn't allow the operation: it has ``has``, and ``needs`` is needed."""

    def __init__(self, what: str, has: str, needs: str) -> None:
        super().__init__(f"{what} is {has}, and this needs it {needs}")
        self.has = has
        self.needs = needs


class UnsupportedError(CellwallError):
    """This machine lacks ``feature``; ``mend`` is what a person can do about it (empty: nothing)."""

    def __init__(self, feature: str, mend: str = "") -> None:
        super().__init__(f"{feature}: {mend}" if mend else feature)
        self.feature = feature
        self.mend = mend


class SyscallError(CellwallError, OSError):
    """A kernel call failed: ``mount overlay on /x: EINVAL (invalid argument)``.

    ``errno`` and ``strerror`` are those of OSError; ``call`` is what was tried on which value.
    """

    def __init__(self, errno: int, call: str) -> None:
        OSError.__init__(self, errno, os.strerror(errno))
        self.call = call

    def __str__(self) -> str:
        from errno import errorcode

        name = errorcode.get(self.errno or 0, str(self.errno))
        return f"{self.call}: {name} ({(self.strerror or '').lower()})"


class InitError(CellwallError):
    """The container's init failed before the command ran. ``step`` says in what, ``status`` is docker's exit status.

    ``status`` is 127 where the command wasn't found, 126 where it can't be executed, 125 otherwise.
    """

    def __init__(self, step: str, message: str, errno: int = 0, status: int = 125) -> None:
        super().__init__(message)
        self.step = step
        self.errno = errno
        self.status = status


class ImageError(CellwallError):
    """An image can't be used as it is."""


class DigestMismatch(ImageError):
    """Content has another digest than the one it was asked for by."""

    def __init__(self, expected: object, actual: object, what: str = "content") -> None:
        super().__init__(f"{what}: expected {expected}, got {actual}; nothing of it was kept")
        self.expected = expected
        self.actual = actual


class LayerError(ImageError):
    """A layer's archive can't be unpacked safely, or at all. ``digest`` names the layer."""

    def __init__(self, digest: object, message: str) -> None:
        super().__init__(f"layer {digest}: {message}")
        self.digest = digest


class RegistryError(ImageError):
    """A registry refused or answered nonsense. ``url`` is what was asked, ``status`` the HTTP status (0: none came)."""

    def __init__(self, url: str, status: int, message: str) -> None:
        super().__init__(message)
        self.url = url
        self.status = status


class BuildError(CellwallError):
    """A build failed at ``line`` of its Dockerfile (0: before the first)."""

    def __init__(self, line: int, message: str) -> None:
        super().__init__(f"line {line}: {message}" if line else message)
        self.line = line


class VolumeError(CellwallError):
    """A volume or bind mount can't be used."""


class CgroupError(CellwallError):
    """A control group can't be made, changed or removed."""


class NetworkError(CellwallError):
    """A network can't be made or joined."""


class HookError(CellwallError):
    """A hook of the bundle failed."""


class LockError(CellwallError):
    """What a notebook's lock doesn't allow, or a lock that isn't there, can't be read or can't be written."""


class LauncherError(CellwallError):
    """The launcher process ended, or its answer can't be read."""


class Cancelled(CellwallError):
    """The caller asked the operation to stop; everything that it had begun was undone."""


def __getattr__(name: str) -> object:
    # CellError needs subprocess, which the launcher must never pay for.
    if name == "CellError":
        from .cell_error import CellError

        return CellError
    raise AttributeError(name)
