"""Dockerfiles without RUN and COPY, built by buildah: the config that it makes is the one that ours says; what it refuses, we do."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from cellwall.runtime.build.config_steps import Config
from cellwall.runtime.build.dockerfile import parse
from cellwall.runtime.build.expansion import expand
from cellwall.runtime.build.scope import GlobalScope, Scope, platform_args
from cellwall.runtime.build.source import DockerfileError
from cellwall.runtime.build.stages import plan
from cellwall.runtime.images.platforms import Platform
from cellwall.runtime.launcher import DEFAULT_PATH

pytestmark = [
    pytest.mark.needs("root"),
    pytest.mark.skipif(shutil.which("buildah") is None, reason="needs buildah"),
]


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


def ours(text: str, build_args: dict[str, str]) -> dict[str, Any]:
    """The config that the target's instructions make, on an empty base."""
    dockerfile = parse(text)
    found = plan(dockerfile, GlobalScope(dockerfile, build_args, platform_args(Platform.here(), Platform.here())))
    scopes: dict[int, Scope] = {}
    configs: dict[int, Config] = {}
    for planned in found.stages:
        if planned.base is None:
            scope = GlobalScope(dockerfile, build_args, {}).stage({"PATH": DEFAULT_PATH})
            config = Config({"Env": [f"PATH={DEFAULT_PATH}"]})
        else:
            scope, config = scopes[planned.base].child(), configs[planned.base].copy()
        scopes[planned.index], configs[planned.index] = scope, config
        for instruction in planned.stage.instructions:
            config.apply(expand(instruction, scope).instruction)
    return configs[found.target].inner


def essence(config: dict[str, Any]) -> dict[str, Any]:
    """What a config says, whichever way it is written."""
    found = {
        key: config.get(key)
        for key in ("WorkingDir", "User", "Cmd", "Entrypoint", "StopSignal", "Shell", "Healthcheck")
    }
    found["WorkingDir"] = (found["WorkingDir"] or "").rstrip("/") if found["WorkingDir"] != "/" else ""
    found |= {
        "StopSignal": found["StopSignal"] or "",
        "Cmd": found["Cmd"] or [],
        "Entrypoint": found["Entrypoint"] or [],
        "User": found["User"] or "",
    }
    return found | {
        "Env": dict(item.partition("=")[::2] for item in config["Env"]),
        "Labels": config.get("Labels") or {},
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
    assert essence(ours(FILES[name], build_args)) == essence(buildah.config())


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
