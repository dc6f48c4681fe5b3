"""The options of a build, defined once for ``cellwall build``, ``%%dockerfile`` and ``%%layer``.

Source: docker-build(1), docker-buildx-build(1); podman-build(1) for the limits of RUN steps.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from ..errors import SpecError
from . import values
from .parser import Parser
from .run_options import add_run_options, run_options_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ..build.results import BuildRequest, Secret
    from ..config import Config

# The run options that RUN steps obey.
OF_STEPS = (
    "--network",
    "--add-host",
    "--dns",
    "--shm-size",
    "--ulimit",
    "--memory",
    "--memory-swap",
    "--cpus",
    "--cpu-shares",
    "--cpuset-cpus",
    "--cpuset-mems",
    "--pids-limit",
    "--cap-add",
    "--cap-drop",
    "--security-opt",
    "--storage-driver",
    "--locked",
)
_REFUSED = {
    "--squash": "layers stay apart here: that is what the cache and pushes live by",
    "--ssh": "keys aren't passed on to RUN steps; give what they need as --secret",
    "--output": "the result is an image; `cellwall save` and `cellwall export` write it out",
    "--cache-to": "the cache travels with the image: push it, and name it with --cache-from",
    "--allow": "every step runs isolated here",
}


def add_build_options(parser: Parser) -> None:
    """Put what all three have in common on ``parser``."""
    parser.value(
        "-t", "--tag", repeated=True, metavar="NAME[:TAG]", help="a name for the image; may be said several times"
    )
    parser.value(
        "--build-arg", repeated=True, metavar="NAME[=VALUE]", help="the value of an ARG; a bare NAME takes the caller's"
    )
    parser.value("--label", repeated=True, read=values.label, metavar="NAME[=VALUE]", help="a label of the image")
    parser.value("--cache-from", repeated=True, metavar="IMAGE", help="an image whose steps count as built already")
    parser.flag("--no-cache", help="build every step anew")
    parser.value(
        "--secret",
        repeated=True,
        metavar="id=ID[,src=FILE|,env=NAME]",
        help="what RUN --mount=type=secret may read",
        read=_secret,
    )
    add_run_options(parser, only=OF_STEPS)
    for name, why in _REFUSED.items():
        names = ("-o", name) if name == "--output" else (name,)
        parser.refuse(*names, why=why, takes_value=name != "--squash")


def request_of(
    said: argparse.Namespace,
    dockerfile: str | bytes,
    *,
    config: Config,
    context: Path | None,
    environment: Mapping[str, str] | None = None,
    **more: Any,
) -> BuildRequest:
    """The build that the options ask for; ``more`` are further fields of it. Raises SpecError."""
    from ..build.results import BuildRequest

    run = run_options_of(said, "scratch", config=config, environment=environment)
    return BuildRequest(
        dockerfile=dockerfile,
        context=context,
        tags=tuple(said.tag),
        build_args=_build_args(said.build_arg, os.environ if environment is None else environment),
        labels=dict(said.label),
        no_cache=said.no_cache,
        cache_from=tuple(name for text in said.cache_from for name in cache_images(text)),
        secrets={secret.id: secret for secret in said.secret},
        run=run,
        storage_driver=run.storage_driver,
        **more,
    )


def _build_args(said: Sequence[str], caller: Mapping[str, str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for text in said:
        name, equals, value = text.partition("=")
        if not name:
            raise SpecError("--build-arg", f"{text!r} isn't NAME=VALUE")
        if equals:
            found[name] = value
        elif name in caller:
            found[name] = caller[name]
    return found


def cache_images(text: str) -> list[str]:
    """docker's two forms: images, or ``type=registry,ref=IMAGE``."""
    if "=" not in text:
        return [name for name in text.split(",") if name]
    fields = dict(item.partition("=")[::2] for item in text.split(","))
    if fields.get("type") != "registry" or not fields.get("ref"):
        raise SpecError("--cache-from", f"{text!r}: name an image, or type=registry,ref=IMAGE")
    return [fields["ref"]]


def _secret(flag: str, text: str) -> Secret:
    from ..build.results import Secret

    fields: dict[str, str] = {}
    for item in text.split(","):
        key, equals, value = item.partition("=")
        name = {"source": "src", "src": "src", "id": "id", "env": "env", "type": "type"}.get(key)
        if name is None or not equals or not value:
            raise SpecError(flag, f"{text!r} isn't id=ID,src=FILE or id=ID,env=NAME")
        fields[name] = value
    if fields.get("type", "file") not in ("file", "env"):
        raise SpecError(flag, f"{fields['type']!r} is no kind of secret: file or env")
    name = fields.get("id") or Path(fields.get("src", "")).name
    if not name:
        raise SpecError(flag, f"{text!r} has no id: RUN --mount=type=secret,id=… asks for it by that")
    if fields.get("type") == "env" or ("env" in fields and "src" not in fields):
        return Secret(name, None, fields.get("env") or fields.get("src") or name)
    if "src" in fields:
        return Secret(name, Path(fields["src"]).absolute())
    # As docker: without a source, a variable of that name, else a file.
    return Secret(name, None, name) if name in os.environ else Secret(name, Path(name).absolute())
