"""Dockerfiles without RUN and COPY, built by buildah: the config that it makes is the one that ours says; what it refuses, we do."""

from __future__ import annotations

import json
import posixpath
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from cellwall.runtime.build.dockerfile import parse
from cellwall.runtime.build.expansion import expand
from cellwall.runtime.build.instructions import (
    Cmd,
    CommandLine,
    Entrypoint,
    Env,
    Expose,
    Healthcheck,
    Label,
    Onbuild,
    Shell,
    Stopsignal,
    User,
    Volume,
    Workdir,
)
from cellwall.runtime.build.scope import GlobalScope, Scope, platform_args
from cellwall.runtime.build.source import DockerfileError
from cellwall.runtime.build.stages import plan
from cellwall.runtime.images.platforms import Platform

pytestmark = [
    pytest.mark.needs("root"),
    pytest.mark.skipif(shutil.which("buildah") is None, reason="needs buildah"),
]

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class Buildah:
    """buildah with state folders of its own, without networks and without running anything."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.state = ["--root", str(folder / "root"), "--runroot", str(folder / "run"), "--storage-driver", "vfs"]

    def build(self, text: str, build_args: dict[str, str]) -> subprocess.CompletedProcess[str]:
        context = self.folder / "context"
        context.mkdir(exist_ok=True)
        (context / "Dockerfile").write_text(text)
        options = [
            "--isolation",
            "chroot",
            "--format",
            "docker",
            "--layers=false",
            "--iidfile",
            str(self.folder / "id"),
        ]
        options += [f"--build-arg={name}={value}" for name, value in build_args.items()]
        command = ["buildah", *self.state, "bud", *options, str(context)]
        return subprocess.run(command, capture_output=True, text=True, timeout=60)

    def config(self) -> dict[str, Any]:
        image = (self.folder / "id").read_text()
        command = ["buildah", *self.state, "inspect", "--type", "image", image]
        found = subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout
        config = json.loads(found)["Docker"]["config"]
        config["Labels"].pop("io.buildah.version", None)
        return dict(config)


@pytest.fixture
def buildah(tmp_path: Path) -> Buildah:
    return Buildah(tmp_path)


def argv(command: CommandLine, shell: list[str]) -> list[str]:
    return [*shell, *command.argv] if command.shell else list(command.argv)


def ours(text: str, build_args: dict[str, str]) -> dict[str, Any]:
    """The config that the target's instructions make, on an empty base."""
    dockerfile = parse(text)
    found = plan(dockerfile, GlobalScope(dockerfile, build_args, platform_args(Platform.here(), Platform.here())))
    config: dict[str, Any] = {
        "Env": {"PATH": PATH},
        "Labels": {},
        "ExposedPorts": set(),
        "Volumes": set(),
        "WorkingDir": "",
    }
    config |= {
        "User": "",
        "Cmd": [],
        "Entrypoint": [],
        "StopSignal": "",
        "Shell": None,
        "OnBuild": [],
        "Healthcheck": None,
    }
    scopes: dict[int, Scope] = {}
    for planned in found.stages:
        scope = GlobalScope(dockerfile, build_args, {}).stage({"PATH": PATH})
        scopes[planned.index] = scope = scope if planned.base is None else scopes[planned.base].child()
        for instruction in planned.stage.instructions:
            _apply(config, expand(instruction, scope).instruction)
    return config


def _apply(config: dict[str, Any], instruction: object) -> None:
    shell = config["Shell"] or ["/bin/sh", "-c"]
    match instruction:
        case Env(pairs=pairs):
            config["Env"] |= dict(pairs)
        case Label(pairs=pairs):
            config["Labels"] |= dict(pairs)
        case Expose(ports=ports):
            config["ExposedPorts"] |= set(ports)
        case Volume(paths=paths):
            config["Volumes"] |= set(paths)
        case User(user=user):
            config["User"] = user
        case Workdir(path=path):
            config["WorkingDir"] = posixpath.normpath(posixpath.join("/", config["WorkingDir"], path))
        case Cmd(command=command):
            config["Cmd"] = argv(command, shell)
        case Entrypoint(command=command):
            config["Entrypoint"] = argv(command, shell)
        case Stopsignal(signal=signal):
            config["StopSignal"] = signal
        case Shell(argv=words):
            config["Shell"] = list(words)
        case Onbuild(text=text):
            config["OnBuild"].append(text)
        case Healthcheck(command=None):
            config["Healthcheck"] = {"Test": ["NONE"]}
        case Healthcheck(command=command) if command:
            test = ["CMD-SHELL" if command.shell else "CMD", *command.argv]
            times = {
                "Interval": instruction.interval_ns,
                "Timeout": instruction.timeout_ns,
                "StartPeriod": instruction.start_period_ns,
            }
            config["Healthcheck"] = {"Test": test} | {key: value for key, value in times.items() if value}
            if instruction.retries:
                config["Healthcheck"]["Retries"] = instruction.retries


def theirs(config: dict[str, Any]) -> dict[str, Any]:
    found = {
        key: config.get(key)
        for key in ("WorkingDir", "User", "Cmd", "Entrypoint", "StopSignal", "Shell", "Healthcheck")
    }
    found["WorkingDir"] = (found["WorkingDir"] or "").rstrip("/") if found["WorkingDir"] != "/" else ""
    found |= {
        "StopSignal": found["StopSignal"] or "",
        "Cmd": found["Cmd"] or [],
        "Entrypoint": found["Entrypoint"] or [],
    }
    return found | {
        "Env": dict(item.partition("=")[::2] for item in config["Env"]),
        "Labels": config["Labels"],
        "ExposedPorts": set(config.get("ExposedPorts") or ()),
        "Volumes": set(config.get("Volumes") or ()),
        "OnBuild": config.get("OnBuild") or [],
    }


FILES = {
    "env": r"""FROM scratch
ENV A=1 B="two words" C='$A' D=a\ b E= F="q\"q" G=a=b
ENV OLD  the rest  of it
ENV H=$A${B}x I=${NONE:-d$A} J=${A:+set} K=${NONE:+set} L=\$A M="\$A" N='a'"b"c
ENV A=2 O=$A
""",
    "args": """ARG VERSION=scratch
FROM $VERSION
ARG X=default
ARG Y
ARG Z=${X}z
ENV A=$X B=$Y C=$Z D=${UNDECLARED:-none}
ENV X=env
ENV E=$X
""",
    "labels": """FROM scratch
LABEL a=b "c d"="e f" g.h=$PATH
LABEL old value of it
LABEL multi="one \\
two"
""",
    "commands": r"""FROM scratch
CMD ["a", "b c", "$PATH", "\u00e9\n"]
ENTRYPOINT exec  top -b $X
""",
    "shell": """FROM scratch
CMD echo a | cat
ENTRYPOINT []
SHELL ["/bin/bash", "-o", "pipefail", "-c"]
""",
    "the rest": """# a comment
from scratch AS First
expose 80 443/tcp 53/udp
VOLUME /a /b
VOLUME ["/c d"]
USER me:us
WORKDIR /x
WORKDIR y/../z
STOPSIGNAL SIGINT
HEALTHCHECK --interval=1m30s --timeout=5s --retries=4 CMD wget -q localhost || exit 1
ONBUILD COPY . /app
ONBUILD RUN make
""",
    "health": """FROM scratch
HEALTHCHECK --start-period=2s CMD ["a", "b"]
""",
    "no health": """FROM scratch
HEALTHCHECK NONE
""",
    "lines": """#escape=`

FROM scratch
ENV A=1 `
    # a comment in between
    B=2 `
    C=3
# the end
""",
    "stages": """FROM scratch AS one
ENV A=1
LABEL a=1
FROM scratch AS unused
ENV NO=1
FROM one
ENV B=${A}2
""",
}


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("build_args", [{}, {"X": "given", "Y": "why"}], ids=["plain", "args"])
def test_the_same_config(buildah: Buildah, name: str, build_args: dict[str, str]) -> None:
    done = buildah.build(FILES[name], build_args)
    assert done.returncode == 0, done.stderr
    assert ours(FILES[name], build_args) == theirs(buildah.config())


@pytest.mark.parametrize(
    "text",
    [
        "",
        "RUNN x",
        "ENV A",
        "ENV A=1 B",
        "ENV A=${x",
        "LABEL a",
        "ARG",
        "HEALTHCHECK --interval=5 CMD x",
        "HEALTHCHECK NONE x",
        "SHELL /bin/sh",
        "ONBUILD FROM x",
        "ONBUILD ONBUILD RUN x",
        "COPY a",
        "COPY --nope=1 a b",
        "FROM a b",
        "VOLUME []",
        "STOPSIGNAL SIGNOPE",
        "RUN --nope ls",
    ],
)
def test_what_it_refuses_is_refused(buildah: Buildah, text: str) -> None:
    whole = f"FROM scratch\n{text}\n" if text else ""
    assert buildah.build(whole, {}).returncode != 0
    with pytest.raises(DockerfileError):
        ours(whole, {})
