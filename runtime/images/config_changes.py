"""``--change``: Dockerfile instructions that change an image's config, one a string.

Source: docker-container-commit(1), docker-image-import(1); image-spec config.md#properties.
"""

from __future__ import annotations

import json
from collections.abc import Callable

from ..errors import SpecError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

ALLOWED = ("CMD", "ENTRYPOINT", "ENV", "EXPOSE", "LABEL", "ONBUILD", "STOPSIGNAL", "USER", "VOLUME", "WORKDIR")
_FLAG = "--change"


def apply(config: dict[str, Any], changes: tuple[str, ...]) -> dict[str, Any]:
    """``config`` (the ``config`` object of an image config) with ``changes`` applied in order. Raises SpecError."""
    changed = dict(config)
    for text in changes:
        word, _, rest = text.strip().partition(" ")
        instruction = _INSTRUCTIONS.get(word.upper())
        if instruction is None:
            raise SpecError(_FLAG, f"{text!r} begins with none of {', '.join(ALLOWED)}")
        if not rest.strip():
            raise SpecError(_FLAG, f"{text!r} says nothing after {word}")
        instruction(changed, rest.strip())
    return changed


def command(text: str) -> list[str]:
    """The argument vector of CMD and ENTRYPOINT: a JSON array of strings as it is, anything else for a shell."""
    if text.startswith("["):
        try:
            words = json.loads(text)
        except ValueError:
            words = None
        if isinstance(words, list) and all(isinstance(word, str) for word in words):
            return words
    return ["/bin/sh", "-c", text]


def _pairs(text: str, word: str) -> list[tuple[str, str]]:
    import shlex

    try:
        words = shlex.split(text)
    except ValueError as error:
        raise SpecError(_FLAG, f"{word} {text}: {str(error).lower()}") from error
    if words and "=" not in words[0] and len(words) > 1:
        # The old form: everything behind the name is the value.
        name, _, value = text.partition(" ")
        return [(name, value.strip())]
    pairs = [each.partition("=") for each in words]
    if bad := [name for name, sign, _ in pairs if not name or not sign]:
        raise SpecError(_FLAG, f"{word} {text}: {bad[0]!r} isn't NAME=VALUE")
    return [(name, value) for name, _, value in pairs]


def set_env(config: dict[str, Any], pairs: list[tuple[str, str]]) -> None:
    """Set variables in ``config["Env"]``: one that is there keeps its place."""
    env = list(config.get("Env") or [])
    for name, value in pairs:
        places = [at for at, known in enumerate(env) if known.partition("=")[0] == name]
        if places:
            env[places[0]] = f"{name}={value}"
        else:
            env.append(f"{name}={value}")
    config["Env"] = env


def _cmd(config: dict[str, Any], text: str) -> None:
    config["Cmd"] = command(text)


def _entrypoint(config: dict[str, Any], text: str) -> None:
    config["Entrypoint"] = command(text)


def _env(config: dict[str, Any], text: str) -> None:
    set_env(config, _pairs(text, "ENV"))


def _label(config: dict[str, Any], text: str) -> None:
    config["Labels"] = {**(config.get("Labels") or {}), **dict(_pairs(text, "LABEL"))}


def _expose(config: dict[str, Any], text: str) -> None:
    # Imported here: an image that is only run needs no reading of instructions.
    from ..build.values import ValueFault, exposed_ports

    ports = dict(config.get("ExposedPorts") or {})
    for word in text.split():
        try:
            ports |= {port: {} for port in exposed_ports(word)}
        except ValueFault as fault:
            raise SpecError(_FLAG, f"EXPOSE {text}: {fault}") from fault
    config["ExposedPorts"] = ports


def _volume(config: dict[str, Any], text: str) -> None:
    paths = command(text) if text.startswith("[") else text.split()
    config["Volumes"] = {**(config.get("Volumes") or {}), **{path: {} for path in paths}}


def _user(config: dict[str, Any], text: str) -> None:
    config["User"] = text


def _workdir(config: dict[str, Any], text: str) -> None:
    above = config.get("WorkingDir") or "/"
    config["WorkingDir"] = text if text.startswith("/") else f"{above.rstrip('/')}/{text}"


def _stop_signal(config: dict[str, Any], text: str) -> None:
    config["StopSignal"] = text


def _on_build(config: dict[str, Any], text: str) -> None:
    config["OnBuild"] = [*(config.get("OnBuild") or []), text]


_INSTRUCTIONS: dict[str, Callable[[dict[str, Any], str], None]] = {
    "CMD": _cmd,
    "ENTRYPOINT": _entrypoint,
    "ENV": _env,
    "EXPOSE": _expose,
    "LABEL": _label,
    "ONBUILD": _on_build,
    "STOPSIGNAL": _stop_signal,
    "USER": _user,
    "VOLUME": _volume,
    "WORKDIR": _workdir,
}
