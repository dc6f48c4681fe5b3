"""`create`, `start`, `restart`, `wait`, `logs` and restart policies: what a container goes through."""

from __future__ import annotations

import re

from .cases import Group, case, differs, fails, ids
from .container_cases import OWN_ERRORS

# Until it is what it is to be, it may not have written what it has to say.
BEGUN = "exec on sh -c 'until [ $(cat /proc/1/comm) = sleep ]; do :; done'"
STATE = "State.Status State.Running State.ExitCode State.OOMKilled RestartCount"


def no_time(text: str) -> str:
    """RFC 3339 in UTC, with as many digits as each runtime likes."""
    return re.sub(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|\+00:00)", "TIME", text)


LIFE = (
    case("create --name made box:1 sh -c 'echo once; exit 3'", normal=ids, look=f"made: {STATE}"),
    case("create --name made box:1 true", fails(1, 125, OWN_ERRORS)),
    case("create --name never --nosuch box:1"),
    case("create --pull never --name never nosuch:1", fails(1, 125, OWN_ERRORS)),
    case("ps -a --filter status=created --format '{{.Names}}'"),
    case("exec made true", fails(125, 255, "podman makes an exec session first, and answers 255 where it can't")),
    case("start -a made", look=f"made: {STATE}"),
    case("logs made"),
    case("wait made"),
    case("start made"),
    case("wait made"),
    case("logs made"),
    case(
        # No container's id begins with that, which podman takes for one.
        "logs -n 999999999 made",
        differs("status", 0, 125, "docker's -n is --tail, podman's prints the containers' names"),
        differs("stdout", "once\nonce\n", "", "docker's -n is --tail, podman's prints the containers' names"),
        differs("stderr", False, True, "docker's -n is --tail, podman's prints the containers' names"),
    ),
    case("logs --tail 0 made"),
    case(
        "logs --tail all made",
        differs("status", 0, 125, "docker's default for --tail has a name, which podman doesn't know"),
        differs("stdout", "once\nonce\n", "", "docker's default for --tail has a name, which podman doesn't know"),
        differs("stderr", False, True, "docker's default for --tail has a name, which podman doesn't know"),
    ),
    case("logs --tail x made"),
    case("logs -t made", normal=no_time),
    case("logs -f made"),
    case("logs --since 1h made"),
    case(
        "logs --until 1h made",
        differs(
            "stdout",
            "",
            "once\nonce\n",
            "docker's 1h is an hour ago, for --since and --until alike; podman's in an hour",
        ),
    ),
    case("logs --since 2000-01-01T00:00:00Z --until 2001-01-01 made"),
    case("logs --since nosuch made"),
    case("wait nosuchbox", fails(1, 125, OWN_ERRORS)),
    case("restart -t 0 made"),
    case("wait made"),
    case("restart nosuchbox", fails(1, 125, OWN_ERRORS)),
    case("run -d --name on box:1 sh -c 'echo begun; exec sleep 1000'", normal=ids, look=f"on: {STATE}"),
    case(BEGUN),
    case("start on", differs("stdout", "on\n", "", "docker names what runs already as well, podman doesn't")),
    case("restart -t 0 on", look=f"on: {STATE}"),
    case(BEGUN),
    case("logs on"),
    case("kill on"),
    case("wait on", look=f"on: {STATE}"),
    case("restart on", look="on: State.Status State.Running"),
    case("stop -t 0 on", look=f"on: {STATE}"),
    case("attach on", fails(1, 125, OWN_ERRORS)),
    case(
        "run --name again --restart on-failure:2 box:1 sh -c 'echo try; exit 5'",
        look="again: State.Status State.ExitCode",
    ),
    case("run -d --name again2 --restart on-failure:1 box:1 sh -c 'echo try; exit 5'", normal=ids),
    case("run --rm --restart always box:1 true"),
    case("run --rm --restart nosuch box:1 true"),
    case("run --rm --restart on-failure:x box:1 true"),
    case("run -d --rm --name brief box:1 sleep 1000", normal=ids),
    case("kill brief"),
    case("run --rm --name fore --log-driver none box:1 echo hi"),
    case("run --name silent --log-driver none box:1 echo hi"),
    case("logs silent", fails(1, 125, OWN_ERRORS)),
    case("create --name told --cidfile {dir}/cid box:1 true", normal=ids),
    case("run --rm --cidfile {dir}/cid box:1 true"),
    case("run -d --rm --cidfile {dir}/cid2 box:1 true", normal=ids),
    case("run --rm -v {dir}:/x box:1 cat /x/cid2", normal=ids),
    case("run --rm --cidfile {dir}/none/cid box:1 true"),
    case("create -i --name fed box:1 cat", normal=ids, look="fed: Config.OpenStdin Config.Tty"),
    case("start -ai fed", stdin="what was typed\n"),
    case("logs fed"),
)

GROUPS = (Group("lifecycle", LIFE, ("made", "never", "on", "again", "again2", "brief", "silent", "fed", "told")),)
