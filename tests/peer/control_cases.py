"""`inspect` of what was asked for, and `pause`, `unpause`, `rename`, `top`, `update`, `stats`, `export`, `commit`."""

from __future__ import annotations

import re

from .cases import Group, blanks, case, differs, fails, ids, nothing
from .container_cases import NO_SESSION, OWN_ERRORS

ASKED = (
    "create --name asked -e A=1 -w /tmp -u 1:2 -l a=b -h lab --entrypoint echo --stop-timeout 7 -m 64m --cpus 0.5 --cpu-shares 512 "
    "--pids-limit 20 --read-only --init -t -i --restart on-failure:3 --add-host x:1.2.3.4 --oom-score-adj 5 --shm-size 1m "
    "-v {dir}/shared:/s:ro box:1 a b"
)
CONFIG = "Hostname User WorkingDir Cmd Entrypoint Labels Tty OpenStdin StopTimeout"
HOST_CONFIG = (
    "Memory NanoCpus CpuShares ReadonlyRootfs Init RestartPolicy.Name RestartPolicy.MaximumRetryCount ExtraHosts OomScoreAdj "
    "ShmSize Privileged AutoRemove NetworkMode PidsLimit"
)
LOOK = " ".join(
    [
        *(f"Config.{name}" for name in CONFIG.split()),
        *(f"HostConfig.{name}" for name in HOST_CONFIG.split()),
        *(f"Mounts.{name}" for name in ("Type", "Source", "Destination", "RW")),
        "Path",
        "Args",
        "RestartCount",
        "State.Status",
        "State.Pid",
        "State.ExitCode",
    ]
)

INIT = "podman shows the init that --init puts before the command, docker the command"
COMMIT = differs("stderr", False, True, "podman tells of each blob that it copies, docker prints the id alone")

CONTROL = (
    case(
        ASKED,
        differs("Path", "echo", "/run/podman-init", INIT),
        differs("Args", ["a", "b"], ["--", "echo", "a", "b"], INIT),
        normal=ids,
        look=f"asked: {LOOK}",
    ),
    case(
        "create --name plain -h lab -m 1g full:1",
        differs(
            "HostConfig.RestartPolicy.Name",
            "no",
            None,
            "docker names the policy that is in force, podman leaves it empty",
        ),
        differs("HostConfig.ShmSize", 64 << 20, 65536000, "docker's 64 MiB; podman counts them in thousands"),
        normal=ids,
        look=f"plain: {LOOK}",
    ),
    case("run -d --name busy --cpus 1 --stop-signal KILL box:1 sleep 1000", normal=ids),
    case(
        "pause busy",
        differs("State.Running", True, None, "docker's paused container counts as running as well"),
        look="busy: State.Status State.Paused State.Running",
    ),
    case("pause busy", fails(1, 125, OWN_ERRORS)),
    case("ps --filter status=paused --format '{{.Names}}'"),
    case("exec busy true", fails(125, 255, NO_SESSION)),
    case("unpause busy", look="busy: State.Status State.Paused State.Running"),
    case("unpause busy", fails(1, 125, OWN_ERRORS)),
    case("pause nosuchbox", fails(1, 125, OWN_ERRORS)),
    case("rename busy other"),
    case("rename nosuchbox x1", fails(1, 125, OWN_ERRORS)),
    case("rename other plain", fails(1, 125, OWN_ERRORS)),
    case("rename other 'bad name'"),
    case("top other -o pid,args", normal=lambda text: re.sub(r"\d+", "N", blanks(text))),
    case("top nosuchbox", fails(1, 125, OWN_ERRORS)),
    case("update -m 32m --cpus 0.25 other", normal=nothing),
    case("exec other sh -c 'cd /sys/fs/cgroup; cat memory/memory.limit_in_bytes cpu/cpu.cfs_quota_us'"),
    case("stats --no-stream --format '{{.Name}}' other"),
    case("stats --no-stream nosuchbox", fails(1, 125, OWN_ERRORS)),
    case("exec other touch /new"),
    case("commit other made:1", COMMIT, normal=nothing),
    case("run --rm made:1 ls /new"),
    case("kill other"),
    case("pause other", fails(1, 125, OWN_ERRORS)),
    case("top other", fails(1, 125, OWN_ERRORS)),
)

GROUPS = (Group("control", CONTROL, ("asked", "plain", "busy", "other")),)
