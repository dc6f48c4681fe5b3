"""Containers that stay: `exec`, `ps`, `logs`, `inspect`, `start`, `stop`, `kill`, `rm`, `diff`."""

from __future__ import annotations

import re

from .cases import Group, blanks, case, differs, fails, ids, unordered

OWN_ERRORS = "podman answers 125 to every error of its own, docker 1 where it isn't run or exec"
NO_SESSION = "podman makes an exec session first, and answers 255 where it can't; docker and we refuse the line"
STATE = "podman prints its status for State, docker one word"

# `sleep` as pid 1 takes no SIGTERM.
EXEC = (
    case("run -d --name live -e A=1 -w /tmp -l role=test --stop-signal KILL box:1 sleep 1000", normal=ids),
    case("exec live echo hi"),
    case("exec live sh -c 'echo out; echo err >&2; exit 9'"),
    case("exec live nosuch"),
    case("exec live /etc"),
    case("exec live", fails(125, 255, NO_SESSION)),
    case("exec nosuchbox true"),
    case("exec live sh -c 'kill -9 $$'"),
    case("exec live sh -c 'echo $A $PWD; id -u'"),
    case("exec -e A=2 -e B=3 live sh -c 'echo $A $B'"),
    case("exec --env-file {dir}/env live sh -c 'echo $A $B'"),
    case("exec -w / live pwd"),
    case("exec -w /no/such live pwd"),
    case("exec -u nobody live sh -c 'id -u; echo $HOME'"),
    case(
        "exec -u 1234:77 live id",
        differs(
            "stdout", "uid=1234 gid=77 groups=77\n", "uid=1234 gid=77\n", "podman leaves the group out of its own list"
        ),
    ),
    case("exec -u nosuch live id", fails(125, 255, NO_SESSION)),
    case("exec -i live cat", stdin="words\n"),
    case("exec live cat", stdin="words\n"),
    case("exec live grep CapEff /proc/self/status"),
    case("exec -u nobody live grep CapEff /proc/self/status"),
    case('exec live sh -c \'cat /proc/1/cmdline | tr "\\0" " "\''),
    case("exec --nosuch live true"),
    case(
        "exec -d live touch /tmp/made",
        differs("stdout", "", "ID\n", "podman prints its session's id, docker nothing"),
        normal=ids,
    ),
    case("exec -t live tty"),
    case(
        "exec live sh -c 'until [ -e /tmp/made ]; do :; done; echo x > /root/file; rm /etc/motd; mkdir /d; ln -s x /d/l'"
    ),
    case("diff live", normal=unordered),
    case(
        "ps --format '{{.Names}} {{.Image}} {{.State}}'",
        differs("stdout", "live box:1 running\n", "live box:1 Up N seconds ago\n", STATE),
        normal=lambda text: re.sub(r"(Less than a|\d+) seconds?|About a minute|\d+ minutes", "N seconds", text),
    ),
    case("ps -a --filter name=live --format '{{.Names}}'"),
    case("ps --filter label=role=test --format '{{.Names}}'"),
    case("ps --filter label=role=other --format '{{.Names}}'"),
    case("ps --filter status=exited --format '{{.Names}}'"),
    case("ps --filter nosuch=1"),
    case("ps -q --no-trunc", normal=ids),
    case("rm live", fails(1, 2, "podman has a status of its own for a container that runs, docker hasn't")),
    case("kill -s NOSUCH live"),
    case("kill -s USR1 live"),
    case("kill nosuchbox", fails(1, 125, OWN_ERRORS)),
    case("kill live"),
    case("kill live", fails(1, 125, OWN_ERRORS)),
    case("exec live true", fails(125, 255, NO_SESSION)),
    case("inspect -f '{{.State.Status}} {{.State.Running}} {{.State.ExitCode}}' live"),
    case("rm live"),
    case("rm live"),
    case("rm -f live"),
    case("inspect live", fails(1, 125, OWN_ERRORS)),
)

STAYS = (
    case("run --name kept -l a=b box:1 sh -c 'echo out; echo err >&2; exit 4'"),
    case("run --name kept box:1 true"),
    case("logs kept"),
    case("logs nosuchbox", fails(1, 125, OWN_ERRORS)),
    case("logs --nosuch kept"),
    case(
        "ps -a --format '{{.Names}} {{.State}}'",
        differs("stdout", "kept exited\n", "kept Exited (4) N seconds ago\n", STATE),
        normal=lambda text: re.sub(r"(Less than a|\d+) seconds?|About a minute|\d+ minutes", "N seconds", text),
    ),
    case("ps --format '{{.Names}}'"),
    case("ps -a --filter exited=4 --format '{{.Names}}'"),
    case("inspect -f '{{.State.Status}} {{.State.ExitCode}}' kept"),
    case(
        "inspect -f '{{.Name}}' kept",
        differs("stdout", "/kept\n", "kept\n", "docker's names have a slash before them, from the time of links"),
    ),
    case("inspect nosuch", fails(1, 125, OWN_ERRORS)),
    case("start -a kept"),
    case("start kept"),
    case("start nosuchbox", fails(1, 125, OWN_ERRORS)),
    case("stop kept"),
    case("stop nosuchbox", fails(1, 125, OWN_ERRORS)),
    case(
        "run -d --name term box:1 sh -c 'trap \"echo asked; exit 3\" TERM; echo ready; while :; do sleep 0.1; done'",
        normal=ids,
    ),
    case("stop -t 5 term"),
    case("stop term"),
    case("logs term"),
    case("inspect -f '{{.State.Status}} {{.State.ExitCode}}' term"),
    case("run -d --name deaf box:1 sh -c 'trap : TERM; while :; do sleep 0.1; done'", normal=ids),
    case("stop -t 1 deaf"),
    case("inspect -f '{{.State.Status}} {{.State.ExitCode}}' deaf"),
    case(
        "run -d --name usr --stop-signal USR1 box:1 sh -c 'trap \"exit 5\" USR1; while :; do sleep 0.1; done'",
        normal=ids,
    ),
    case("stop -t 5 usr"),
    case("inspect -f '{{.State.ExitCode}}' usr"),
    case(
        "rm kept term nosuchbox",
        differs("stdout", "kept\nterm\n", "", "podman looks for all before it removes one; docker removes what it can"),
    ),
    case("rm -f nosuchbox"),
    case("ps -a", normal=lambda text: blanks(text).splitlines()[0]),
)

GROUPS = (
    Group("exec", EXEC, ("live",)),
    Group("stays", STAYS, ("kept", "term", "deaf", "usr")),
)
