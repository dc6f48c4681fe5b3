"""Instructions that change an image's config and nothing else.

Source: Dockerfile reference, the section of each instruction; image-spec config.md#properties; docker's extension of it (Healthcheck,
OnBuild, Shell).
"""

from __future__ import annotations

import posixpath

from ..frozen import field, slotted
from ..images.config_changes import set_env
from .instructions import (
    Cmd,
    CommandLine,
    Entrypoint,
    Env,
    Expose,
    Healthcheck,
    Instruction,
    Label,
    Maintainer,
    Onbuild,
    Shell,
    Stopsignal,
    User,
    Volume,
    Workdir,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

DEFAULT_SHELL = ("/bin/sh", "-c")


@slotted
class Config:
    """A stage's image config so far: ``inner`` is its ``config`` object. ``command_set``: this stage has a CMD of its own."""

    inner: dict[str, Any] = field(default_factory=dict)
    author: str = ""
    command_set: bool = False

    @property
    def env(self) -> dict[str, str]:
        """The environment, as NAME to value."""
        pairs = (item.partition("=") for item in self.inner.get("Env") or [])
        return {name: value for name, _, value in pairs}

    @property
    def shell(self) -> list[str]:
        """What runs shell forms."""
        return list(self.inner.get("Shell") or DEFAULT_SHELL)

    @property
    def workdir(self) -> str:
        return self.inner.get("WorkingDir") or "/"

    def copy(self) -> Config:
        return Config(dict(self.inner), self.author)

    def argv(self, command: CommandLine) -> list[str]:
        """The argument vector of a command in shell or exec form."""
        return [*self.shell, *command.argv] if command.shell else list(command.argv)

    def absolute(self, path: str) -> str:
        """``path`` from the working directory on; a slash at its end stays."""
        whole = posixpath.join(self.workdir, path)
        clean = "/" + posixpath.normpath(whole).lstrip("/")
        last = path.rpartition("/")[2]
        return clean.rstrip("/") + "/" if last in ("", ".", "..") else clean

    def apply(self, instruction: Instruction) -> None:
        """Do what ``instruction`` (expanded) does to the config; nothing where it does nothing to it."""
        inner = self.inner
        match instruction:
            case Env(pairs=pairs):
                set_env(inner, list(pairs))
            case Label(pairs=pairs):
                inner["Labels"] = {**(inner.get("Labels") or {}), **dict(pairs)}
            case Expose(ports=ports):
                inner["ExposedPorts"] = {**(inner.get("ExposedPorts") or {}), **{port: {} for port in ports}}
            case Volume(paths=paths):
                inner["Volumes"] = {**(inner.get("Volumes") or {}), **{path: {} for path in paths}}
            case User(user=user):
                inner["User"] = user
            case Workdir(path=path):
                inner["WorkingDir"] = self.absolute(path).rstrip("/") or "/"
            case Cmd(command=command):
                inner["Cmd"] = self.argv(command)
                self.command_set = True
            case Entrypoint(command=command):
                inner["Entrypoint"] = self.argv(command)
                # A CMD that came with the base image was meant for its entrypoint.
                if not self.command_set:
                    inner.pop("Cmd", None)
            case Stopsignal(signal=signal):
                inner["StopSignal"] = signal
            case Shell(argv=words):
                inner["Shell"] = list(words)
            case Onbuild(text=text):
                inner["OnBuild"] = [*(inner.get("OnBuild") or []), text]
            case Maintainer(author=author):
                self.author = author
            case Healthcheck():
                inner["Healthcheck"] = _health(instruction)


def _health(instruction: Healthcheck) -> dict[str, Any]:
    if instruction.command is None:
        return {"Test": ["NONE"]}
    test = ["CMD-SHELL" if instruction.command.shell else "CMD", *instruction.command.argv]
    numbers = {
        "Interval": instruction.interval_ns,
        "Timeout": instruction.timeout_ns,
        "StartPeriod": instruction.start_period_ns,
        "StartInterval": instruction.start_interval_ns,
        "Retries": instruction.retries,
    }
    return {"Test": test} | {name: number for name, number in numbers.items() if number}
