"""`volume`, `cp`, and what `run` does with volumes: named, anonymous, filled from the image, taken over, read-only."""

from __future__ import annotations

from .cases import Group, case, differs, fails, ids, nothing, unordered
from .container_cases import OWN_ERRORS

VOLUMES = (
    case("volume create data"),
    case(
        "volume create data",
        differs("status", 0, 125, "docker makes the same volume once and names it again, podman refuses"),
        differs("stdout", "data\n", "", "docker makes the same volume once and names it again, podman refuses"),
        differs("stderr", False, True, "docker makes the same volume once and names it again, podman refuses"),
    ),
    case("volume create --label role=test labelled"),
    case("volume create 'bad name'"),
    case("volume create --driver nosuch other"),
    case("volume create --opt type=tmpfs --opt device=tmpfs --opt o=mode=700,nr_inodes=77 mem"),
    case("volume ls -q --filter label=role=test"),
    case("volume ls -q --filter name=dat"),
    case("volume ls --filter nosuch=1"),
    case("volume ls --filter name=data --format '{{.Name}} {{.Driver}}'"),
    case("volume inspect -f '{{.Name}} {{.Driver}}' data labelled"),
    case("volume inspect -f '{{.Labels.role}}' labelled"),
    case("volume inspect nosuch", fails(1, 125, OWN_ERRORS)),
    case("run --rm -v data:/d box:1 sh -c 'echo kept > /d/file; stat -c %a:%u:%g /d'"),
    case("run --rm -v data:/d:ro box:1 sh -c 'cat /d/file; echo x > /d/other'"),
    case("run --rm -u 1234 -v data:/d box:1 sh -c 'cat /d/file; echo x > /d/other'"),
    case("run --rm --mount type=volume,source=data,target=/d,ro box:1 sh -c 'cat /d/file; touch /d/x'"),
    case("run --rm --mount type=volume,target=/d box:1 sh -c 'touch /d/x && ls /d'"),
    case("run --rm --read-only -v data:/d box:1 sh -c 'echo more >> /d/file; cat /d/file'"),
    case("run --rm -v mem:/d box:1 sh -c 'stat -f -c %c /d; stat -c %a /d'"),
    case("run --rm -v fresh:/etc box:1 cat /etc/motd"),
    case("run --rm -v fresh:/d box:1 sh -c 'ls /d | grep -v -E \"hosts|hostname|resolv|mtab\"; cat /d/motd'"),
    case("run --rm -v bare:/etc:nocopy box:1 cat /etc/motd"),
    case("run --rm -v data:relative box:1 true"),
    case("run --rm -v '/d:/d:/d:ro' box:1 true"),
    case("run --rm -v '' box:1 true"),
    case("run --rm -v .hidden:/d box:1 true"),
    case("run --rm -v x/y:/d box:1 true"),
    case(
        "run -d --name owner -v data:/d -v /anon --tmpfs /t -v {dir}/shared:/s:ro --stop-signal KILL box:1 sleep 1000",
        normal=ids,
    ),
    case("exec owner sh -c 'echo anonymous > /anon/file'"),
    case("run --rm --volumes-from owner box:1 sh -c 'cat /d/file /anon/file /s/file; touch /s/x'"),
    case("run --rm --volumes-from owner:ro box:1 sh -c 'cat /anon/file; touch /d/x /anon/x'"),
    case("run --rm --volumes-from nosuchbox box:1 true"),
    case("run --rm --volumes-from owner:nosuch box:1 true"),
    case("volume rm data", fails(1, 2, "podman has a status of its own for a volume in use, docker hasn't")),
    case("volume rm nosuch"),
    case("volume rm -f nosuch"),
    case("stop -t 0 owner"),
    case(
        "run --rm --volumes-from owner box:1 cat /anon/file",
        differs("stderr", False, True, "podman warns of the stopped container's tmpfs, which isn't a volume"),
    ),
    case("volume rm data", fails(1, 2, "podman has a status of its own for a volume in use, docker hasn't")),
    case("rm -v owner"),
    case(
        "volume ls -q --filter dangling=true --filter name=data",
        differs(
            "stdout",
            "data\n",
            "bare\ndata\nfresh\nlabelled\nmem\n",
            "docker's filters of different kinds narrow together; podman takes either",
        ),
    ),
    case("volume rm labelled"),
    case("volume rm data fresh bare mem", normal=unordered),
    case("volume ls -q"),
    case("volume create --label a=b one"),
    case("volume prune -f --filter label=a=b", normal=nothing),
    case(
        "volume ls -q",
        differs(
            "stdout", "one\n", "", "docker prunes anonymous volumes only, unless --all; podman all that nothing uses"
        ),
    ),
    case("volume rm -f one", normal=nothing),
    case("run --rm vol:1 sh -c 'ls -l /vol | tail -n +2 | cut -c1-10; stat -c %a:%u:%g /vol; cat /vol/file'"),
    case("run --rm --name holder vol:1 true"),
    case("volume ls -q"),
)

CP = (
    case("run -d --name box --stop-signal KILL -v {dir}/shared:/s box:1 sleep 1000", normal=ids),
    case(
        "exec box sh -c 'mkdir -p /a/b; echo one > /a/one; echo two > /a/b/two; ln -s one /a/link; ln -s /etc/motd /a/abs; chmod 640 /a/one; chown 7:8 /a/b/two'"
    ),
    case("cp box:/a/one {dir}/out1"),
    case("cp box:/a {dir}/tree"),
    case("cp box:/a/. {dir}/flat"),
    case("cp box:/a/link {dir}/link"),
    case("cp box:/a/b {dir}/tree"),
    case("cp {dir}/out1 box:/tmp/renamed"),
    case("cp {dir}/out1 box:/tmp"),
    case(
        "cp {dir}/out1 box:/tmp/nosuch/",
        fails(1, 125, OWN_ERRORS),
    ),
    case(
        "cp {dir}/out1 box:/nosuch/file",
        fails(1, 125, OWN_ERRORS),
    ),
    case("cp {dir}/tree box:/copied"),
    case("cp {dir}/tree/. box:/made"),
    case(
        "cp {dir}/nosuch box:/tmp",
        fails(1, 125, OWN_ERRORS),
    ),
    case(
        "cp box:/nosuch {dir}/x",
        fails(1, 125, OWN_ERRORS),
    ),
    case(
        "cp nosuchbox:/etc {dir}/x",
        fails(1, 125, OWN_ERRORS),
    ),
    case(
        "cp {dir}/out1 {dir}/out2",
    ),
    case(
        "cp {dir}/out1 box:/etc/motd/x",
        differs(
            "status",
            1,
            0,
            "podman takes the file for a folder, and makes a file of what is copied; docker says that it isn't one",
        ),
        differs(
            "stderr",
            True,
            False,
            "podman takes the file for a folder, and makes a file of what is copied; docker says that it isn't one",
        ),
    ),
    case("cp {dir}/tree box:/etc/motd", fails(1, 125, OWN_ERRORS)),
    case("cp box:/s/file {dir}/through"),
    case("cp {dir}/out1 box:/s/into"),
    case(
        "exec box sh -c 'cat /tmp/renamed /tmp/out1 /s/into; cd /copied; find . | sort; stat -c %a:%u:%g one b/two; readlink link abs'"
    ),
    case("exec box sh -c 'cd /made 2>/dev/null && find . | sort'"),
    case(
        "run --rm -v {dir}:/x box:1 sh -c 'cd /x; find out1 tree flat link through | sort; stat -c %a out1 tree/one; readlink link tree/abs; cat out1 through'"
    ),
    case("cp box:/a/one -", normal=lambda text: text[:3]),
    case("cp - box:/tmp", fails(1, 125, OWN_ERRORS), stdin="no archive"),
    case("stop -t 0 box"),
    case("cp box:/a/one {dir}/stopped"),
    case("cp {dir}/stopped box:/late"),
    case("cp box:/late {dir}/late"),
    case("rm box"),
)

GROUPS = (
    Group("volumes", VOLUMES, ("owner", "holder"), volumes=("data", "labelled", "mem", "fresh", "bare", "one")),
    Group("cp", CP, ("box",)),
)
