"""Images that cellwall commits and pushes run in podman and docker as they run in cellwall: user, environment, entrypoint, capabilities."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

import cellwall
from cellwall.runtime.engine import Engine

from .. import docker_daemon, registries
from ..docker_daemon import Docker
from ..registries import Registry, write_layout
from ..tool_image import tool_image
from .test_share import podman_home

docker_or_none = docker_daemon.docker_or_none
registry = registries.registry

pytestmark = pytest.mark.needs("root", "overlay", "podman", "busybox-static")

# crun before 1.15 refuses the hybrid mode of cgroups, and root may lack the right to podman's own limits.
APART = ["unshare", "-m", "sh", "-c", 'umount /sys/fs/cgroup/unified 2>/dev/null; exec "$@"', "sh"]
LIMITS = [
    "--ulimit",
    "nofile=4096:4096",
    "--ulimit",
    "nproc=4096:4096",
    "--cgroups=disabled",
    "--log-driver",
    "k8s-file",
]


@dataclass
class Case:
    """What is done in the container, ``--change`` of its commit, words behind the image, and what must come out."""

    script: str
    changes: list[str]
    expected: str
    words: list[str] = field(default_factory=list)
    status: int = 0


USERS = (
    "echo 'lab:x:1234:1235::/home/lab:/bin/sh' >> /etc/passwd; printf 'lab:x:1235:\\nextra:x:77:lab\\n' >> /etc/group; "
)
CASES = {
    "numbers": Case(
        ":", ["USER 1000:1001", 'CMD ["sh", "-c", "id -u; id -g; touch /x 2>/dev/null || echo no"]'], "1000\n1001\nno\n"
    ),
    "user": Case(USERS, ["USER lab", 'CMD ["id"]'], "uid=1234(lab) gid=1235(lab) groups=77(extra),1235(lab)\n"),
    "user-group": Case(USERS, ["USER lab:extra", 'CMD ["sh", "-c", "id -un; id -gn"]'], "lab\nextra\n"),
    "environment": Case(
        ":",
        [
            'ENV A=1 B=\'two words\' C="é=\\"x\\""',
            "ENV PATH=/w:/bin",
            'CMD ["sh", "-c", "echo $A; echo $B; echo $C; echo $PATH"]',
        ],
        '1\ntwo words\né="x"\n/w:/bin\n',
    ),
    "entrypoint": Case(":", ['ENTRYPOINT ["echo", "entry"]', 'CMD ["point", "a b"]'], "entry point a b\n"),
    "entrypoint-words": Case(
        ":", ['ENTRYPOINT ["echo", "entry"]', 'CMD ["point"]'], "entry other words\n", ["other", "words"]
    ),
    "entrypoint-script": Case(
        'printf \'#!/bin/sh\\necho "$0 $# $*"; exec "$@"\\n\' > /start; chmod 755 /start',
        ['ENTRYPOINT ["/start"]', 'CMD ["pwd"]', "WORKDIR /made/for it"],
        "/start 1 pwd\n/made/for it\n",
    ),
    "shell-form": Case(":", ["ENV A=value", "CMD echo $A; exit 3"], "value\n", status=3),
    "capabilities": Case(
        "cp /bin/busybox /grep; setcap cap_chown,cap_net_bind_service=ep /grep; mkdir /d; ln /grep /d/grep",
        ["USER 1000", 'CMD ["sh", "-c", "/d/grep CapEff /proc/self/status; getcap /grep"]'],
        "CapEff:\t0000000000000401\n/grep cap_chown,cap_net_bind_service=ep\n",
    ),
    "setuid": Case(
        "cp /bin/capsh /suid; ln /suid /s2; chmod 4755 /suid; cp /bin/capsh /sgid; chown 0:55 /sgid; chmod 2755 /sgid",
        ["USER 1000:1001", 'CMD ["sh", "-c", "/s2 --print | grep -o euid=.; stat -c %a:%g /suid /sgid"]'],
        "euid=0\n4755:0\n2755:55\n",
    ),
    "deleted": Case(
        "rm /etc/motd; rm -r /home; mkdir /home; echo x > /home/new; mv /etc/old /etc/renamed; ln -s renamed /etc/link",
        ['CMD ["sh", "-c", "ls /home /etc/old /etc/motd 2>&1; cat /etc/link/file"]'],
        "ls: /etc/old: No such file or directory\nls: /etc/motd: No such file or directory\n/home:\nnew\nold file\n",
    ),
    "hard-links": Case(
        "echo one > /a; ln /a /b; mkdir /d; ln /a /d/c; ln -s /d/c /s",
        ['CMD ["sh", "-c", "stat -L -c %h /s; cat /a /s"]'],
        "3\none\none\n",
    ),
    "volume": Case(
        "mkdir -m 1777 /vol; echo in it > /vol/file", ["VOLUME /vol", 'CMD ["cat", "/vol/file"]'], "in it\n"
    ),
    "owner": Case(
        "mkdir -p /srv/app; echo mine > /srv/app/file; chown -R 4321:65535 /srv/app; chmod 700 /srv/app",
        ["USER 4321", "WORKDIR /srv/app", 'CMD ["sh", "-c", "cat file; stat -c %u:%g:%a . file"]'],
        "mine\n4321:65535:700\n4321:65535:644\n",
    ),
}

# A VOLUME of an image is an empty tmpfs in cellwall, until there are volumes that take the image's files.
KNOWN = {("volume", "cellwall")}


def run_in_docker(docker: Docker, name: str, words: list[str]) -> tuple[int, str]:
    # Apart from the run, which has no word for a quiet pull before docker 23.
    docker("pull", "--quiet", name)
    return _ran(["docker", "-H", f"unix://{docker.home}/d.sock", "run", "--rm", "--network", "none", name, *words])


def _ran(command: list[str]) -> tuple[int, str]:
    done = subprocess.run(command, capture_output=True, timeout=120)
    return done.returncode, (done.stdout + done.stderr).decode()


@pytest.fixture
def layout(tmp_path: Path) -> Path:
    base = registries.tar_of(
        {"etc/motd": b"motd", "etc/old": None, "etc/old/file": b"old file\n", "home/was": b"x"}, mode=0o755
    )
    return write_layout(tmp_path / "layout", {"latest": tool_image(base)})


def test_they_run_alike(engine: Engine, layout: Path, registry: Registry, docker_or_none: Docker | None) -> None:
    images = {}
    for case_name, case in CASES.items():
        name = images[case_name] = registry.name(f"interop/run-{case_name}:1")
        with cellwall.container(f"oci:{layout}:latest", name="lab", engine=engine) as box:
            box.run(case.script)
            box.commit(name, changes=case.changes)
        engine.remove("lab")
        engine.images.push(name)
    wrong = []
    with podman_home() as podman:

        def in_podman(name: str, words: list[str]) -> tuple[int, str]:
            return _ran(
                [*APART, *podman, "run", "--rm", "-q", "--tls-verify=false", "--network", "none", *LIMITS, name, *words]
            )

        def in_cellwall(name: str, words: list[str]) -> tuple[int, str]:
            # Setuid bits and file capabilities count only without no_new_privs.
            done = cellwall.run(name, words, engine=engine, security_opt=["no-new-privileges=false"], check=False)
            return done.exit_status, done.stdout + done.stderr

        hands: dict[str, Callable[[str, list[str]], tuple[int, str]]] = {
            "cellwall": in_cellwall,
            "podman": in_podman,
        }
        if (docker := docker_or_none) is not None:
            hands["docker"] = lambda name, words: run_in_docker(docker, name, words)
        for case_name, case in CASES.items():
            for hand, run in hands.items():
                if (case_name, hand) in KNOWN:
                    continue
                found = run(images[case_name], case.words)
                if found != (case.status, case.expected):
                    wrong.append(f"{case_name} in {hand}: {found!r}, expected {(case.status, case.expected)!r}")
    assert "\n".join(wrong) == ""
    assert len(CASES) >= 12
