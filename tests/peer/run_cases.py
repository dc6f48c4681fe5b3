"""`run`: what a fresh container is like, and how the command line ends."""

from __future__ import annotations

from .cases import Group, case, differs, fails, ids, refused

STARTS = "podman notices when it starts the container: 126; docker and we when the line is read: 125"
NO_DOMAIN = "podman has no --domainname, docker has"
SAFER_NODES = "docker and podman let root make nodes, of devices that it can't open then; a user namespace lets nobody"

OPTIONS = (
    case("run --rm box:1 echo hi"),
    case("run --rm box:1"),
    case("run --rm -i box:1", stdin="echo from stdin"),
    case("run --rm box:1 cat", stdin="not passed on"),
    case("run --rm -i box:1 wc -c", stdin="x" * 100_000),
    case("run --rm box:1 sh -c 'echo out; echo err >&2; exit 7'"),
    case("run --rm box:1 sh -c 'printf \"\\0\\377\\n\"'"),
    case("run --rm --env-file {dir}/env box:1 sh -c 'echo $A; echo $B; echo ${C-unset}'"),
    case("run --rm --env-file {dir}/nosuch box:1 true"),
    case(
        "run --rm -w /tmp -e A=1 -e B='two words' -e EMPTY= -e NOSUCHVARIABLE box:1 sh -c 'pwd; echo $A/$B/${EMPTY-unset}/$HOME/$PATH/${NOSUCHVARIABLE-unset}'"
    ),
    case(
        "run --rm -w /made/for/it box:1 sh -c 'pwd; stat -c %a:%u .'",
        differs("status", 0, 126, "docker makes the folder, podman wants it in the image"),
        differs("stdout", "/made/for/it\n755:0\n", "", "docker makes the folder, podman wants it in the image"),
        differs("stderr", False, True, "docker makes the folder, podman wants it in the image"),
    ),
    case("run --rm -w relative box:1 pwd", fails(125, 126, STARTS)),
    case("run --rm -u nobody box:1 sh -c 'id -u; id -g; echo $HOME'"),
    case("run --rm -u 1234 box:1 sh -c 'id -u; id -g; id -G; echo $HOME'"),
    case(
        "run --rm -u 1234:5678 box:1 id",
        differs(
            "stdout",
            "uid=1234 gid=5678 groups=5678\n",
            "uid=1234(1234) gid=5678(5678) groups=5678(5678)\n",
            "podman adds a line to /etc/passwd and /etc/group, docker leaves them as the image has them",
        ),
    ),
    case("run --rm -u nobody:root box:1 id"),
    case("run --rm -u nosuchuser box:1 id", fails(125, 126, STARTS)),
    case("run --rm -u 0:nosuchgroup box:1 id", fails(125, 126, STARTS)),
    case("run --rm -u 1234:5678 --group-add 77 --group-add nobody box:1 id -G"),
    case("run --rm --entrypoint echo -w /tmp box:1 a b"),
    case("run --rm --entrypoint '' box:1 echo a"),
    case("run --rm --entrypoint '' full:1"),
    case("run --rm full:1"),
    case("run --rm full:1 other words"),
    case("run --rm --entrypoint pwd full:1"),
    case("run --rm -u 0 -e IMAGE=run -w / full:1 other"),
    case(
        "run --rm -h lab box:1 sh -c 'hostname; cat /etc/hostname; grep -c lab /etc/hosts'",
        differs("stdout", "lab\nlab\n1\n", "lab\nlab1\n", "docker ends the line of /etc/hostname, podman 4.3 doesn't"),
    ),
    case(
        "run --rm --hostname a.long.name --domainname dom box:1 sh -c 'hostname; cat /proc/sys/kernel/domainname'",
        differs("status", 0, 125, NO_DOMAIN),
        differs("stdout", "a.long.name\ndom\n", "", NO_DOMAIN),
        differs("stderr", False, True, NO_DOMAIN),
    ),
    case("run --rm --add-host there:10.1.2.3 --add-host six:fd00::1 box:1 grep -E 'there|six' /etc/hosts"),
    case("run --rm --network host --dns 10.9.8.7 --dns 10.9.8.6 box:1 grep nameserver /etc/resolv.conf"),
    case("run --rm --read-only box:1 sh -c 'touch /x; touch /dev/shm/x && echo shm'"),
    case(
        "run --rm --read-only box:1 touch /tmp/x /run/x /var/tmp/x",
        differs("status", 1, 0, "podman's --read-only-tmpfs is on: tmpfs on /run, /tmp and /var/tmp; docker has none"),
        differs(
            "stderr", True, False, "podman's --read-only-tmpfs is on: tmpfs on /run, /tmp and /var/tmp; docker has none"
        ),
    ),
    case("run --rm --read-only --tmpfs /tmp box:1 sh -c 'touch /tmp/x && echo tmp'"),
    case(
        "run --rm --tmpfs /t:size=64k,mode=700 box:1 sh -c 'stat -c %a /t; df -k /t | tail -1 | awk \"{print \\$2}\"'"
    ),
    case(
        'run --rm --tmpfs /t box:1 sh -c \'stat -c %a /t; grep " /t " /proc/mounts | grep -o -E "nosuid|nodev|noexec"\'',
        differs(
            "stdout",
            "1777\nnosuid\nnodev\nnoexec\n",
            "1777\nnosuid\nnodev\n",
            "docker's tmpfs is noexec unless :exec says otherwise, and so podman's manual has it; podman 4.3 forgets it",
        ),
    ),
    case("run --rm --tmpfs /t:exec box:1 sh -c 'cp /bin/busybox /t/true; /t/true && echo runs'"),
    case("run --rm --tmpfs /t:nosuch box:1 true"),
    case("run --rm --mount type=tmpfs,destination=/t,tmpfs-size=64k,tmpfs-mode=0750 box:1 sh -c 'stat -c %a /t'"),
    case("run --rm --shm-size 1m box:1 sh -c 'df -k /dev/shm | tail -1 | awk \"{print \\$2}\"'"),
    case(
        "run --rm --shm-size 0 box:1 true",
        refused(125, "docker's manual: the size is more than 0; podman takes 0 for no limit"),
    ),
    case("run --rm --shm-size x box:1 true"),
    case("run --rm -v {dir}/shared:/s box:1 sh -c 'cat /s/file; echo new > /s/made'"),
    case("run --rm -v {dir}/shared:/s:ro box:1 sh -c 'cat /s/file; echo new > /s/made'"),
    case("run --rm -v {dir}/shared/file:/etc/motd:ro box:1 cat /etc/motd"),
    case("run --rm --mount type=bind,source={dir}/shared,target=/s,readonly box:1 touch /s/x"),
    case("run --rm --mount type=bind,source={dir}/nosuch,target=/s box:1 true"),
    case("run --rm -v {dir}/shared:relative box:1 true"),
    case("run --rm -v {dir}/shared:/s:nosuchoption box:1 true"),
    case("run --rm -v {dir}/shared:/ box:1 true", fails(125, 126, STARTS)),
    case("run --rm --mount type=nosuch,target=/s box:1 true"),
    case("run --rm --mount type=bind,target=/s box:1 true"),
    case("run --rm --init box:1 sh -c 'echo $$'"),
    case("run --rm --init box:1 sh -c 'kill -TERM $$'"),
    case("run --rm box:1 sh -c 'kill -TERM $$; echo still here'"),
    case("run --rm box:1 sh -c 'sh -c \"kill -9 \\$\\$\"; exit $?'"),
    case("run --rm -t box:1 sh -c 'tty; echo a'"),
)

SECURITY = (
    case("run --rm box:1 grep -E 'Cap(Eff|Bnd|Inh|Prm)|Seccomp:' /proc/self/status"),
    case("run --rm --cap-drop ALL box:1 grep -E 'Cap(Eff|Bnd|Inh|Amb)' /proc/self/status"),
    case(
        "run --rm --cap-drop ALL --cap-add CHOWN --cap-add NET_BIND_SERVICE box:1 grep -E 'Cap(Eff|Bnd)' /proc/self/status"
    ),
    case("run --rm --cap-drop CHOWN box:1 sh -c 'touch /x; chown 5:5 /x'"),
    case("run --rm --cap-add CAP_SYS_NICE box:1 nice -n -5 echo nicer"),
    case("run --rm --cap-add nosuch box:1 true"),
    case("run --rm -u 1234 box:1 grep -E 'Cap(Eff|Prm)' /proc/self/status"),
    case(
        "run --rm -u 1234 --cap-add CHOWN box:1 grep -E 'Cap(Eff|Amb)' /proc/self/status",
        differs(
            "stdout",
            "CapEff:\t0000000000000000\nCapAmb:\t0000000000000000\n",
            "CapEff:\t0000000000000001\nCapAmb:\t0000000000000001\n",
            "podman puts what was added into the ambient set; docker gives a user other than root none",
        ),
    ),
    case(
        "run --rm --security-opt no-new-privileges --security-opt seccomp=unconfined box:1 grep -E 'NoNewPrivs|Seccomp:' /proc/self/status"
    ),
    case("run --rm --security-opt nosuch box:1 true"),
    case("run --rm --security-opt seccomp={dir}/nosuch box:1 true"),
    case("run --rm box:1 sh -c 'echo 1 > /proc/sys/kernel/panic; mount -t tmpfs tmpfs /tmp'"),
    case(
        "run --rm box:1 sh -c 'cat /proc/kcore /proc/timer_list | wc -c; ls /proc/acpi; ls /sys/firmware; ls /proc/scsi'"
    ),
    case(
        'run --rm box:1 sh -c \'ls /dev | sort | tr "\\n" " "\'',
        differs(
            "stdout",
            "cell core fd full mqueue null ptmx pts random shm stderr stdin stdout tty urandom zero ",
            "core fd full mqueue null ptmx pts random shm stderr stdin stdout tty urandom zero ",
            "in /dev/cell the texts of cells come into the container",
        ),
    ),
    case(
        "run --rm box:1 sh -c 'mknod /x c 1 3 && echo made'",
        differs("status", 1, 0, SAFER_NODES),
        differs("stdout", "", "made\n", SAFER_NODES),
        differs("stderr", True, False, SAFER_NODES),
    ),
    case("run --rm --device /dev/null:/dev/other box:1 sh -c 'echo x > /dev/other && stat -c %F /dev/other'"),
    case("run --rm --device /dev/zero:/dev/z:r box:1 sh -c 'head -c 2 /dev/z | wc -c; echo x > /dev/z'"),
    case("run --rm --device /dev/nosuch box:1 true"),
    case(
        "run --rm --ulimit nofile=100:200 --ulimit core=0 --ulimit nproc=4096:4096 box:1 sh -c 'ulimit -n; ulimit -Hn; ulimit -c'"
    ),
    case("run --rm --ulimit nofile=200:100 box:1 true"),
    case("run --rm --ulimit nosuch=1 box:1 true"),
    case("run --rm --sysctl kernel.msgmax=4096 box:1 cat /proc/sys/kernel/msgmax"),
    case(
        "run --rm --sysctl net.ipv4.ip_unprivileged_port_start=80 box:1 cat /proc/sys/net/ipv4/ip_unprivileged_port_start"
    ),
    case("run --rm --sysctl kernel.panic=1 box:1 true"),
    case("run --rm --sysctl nosuch box:1 true"),
    case("run --rm --oom-score-adj 300 box:1 cat /proc/self/oom_score_adj"),
    case("run --rm --oom-score-adj 3000 box:1 true", fails(125, 126, STARTS)),
    case("run --rm --pid host --ipc host --cgroupns host box:1 sh -c 'test $$ != 1 && echo others'"),
    case("run --rm --ipc none box:1 sh -c 'grep -c /dev/shm /proc/mounts'"),
    case("run --rm --uts host -h lab box:1 true"),
    case("run --rm --network host box:1 cut -d: -f1 /proc/net/dev"),
    case("run --rm --network none box:1 cut -d: -f1 /proc/net/dev"),
    case("run --rm --network nosuch box:1 true"),
    case("run --rm --privileged box:1 sh -c 'mount -t tmpfs tmpfs /tmp && echo mounted'"),
    case("run --rm --userns host box:1 cat /proc/self/uid_map"),
)

LIMITS = (
    case(
        "run --rm -m 64m --memory-reservation 32m --cpus 0.5 --cpu-shares 512 --cpuset-cpus 0 --pids-limit 20 box:1 sh -c "
        "'cd /sys/fs/cgroup; cat memory/memory.limit_in_bytes memory/memory.soft_limit_in_bytes cpu/cpu.cfs_quota_us "
        "cpu/cpu.cfs_period_us cpu/cpu.shares cpuset/cpuset.cpus pids/pids.max; nproc'"
    ),
    case("run --rm -m 64m --memory-swap 64m box:1 sh -c 'head -c 200m /dev/zero | tail'"),
    case("run --rm -m 1k box:1 true", fails(125, 126, STARTS)),
    case("run --rm -m x box:1 true"),
    case("run --rm -m 64m --memory-swap 32m box:1 true"),
    case("run --rm --memory-swap 64m box:1 true"),
    case("run --rm -m 64m --memory-reservation 128m box:1 true"),
    case("run --rm --cpus 0 box:1 true"),
    case(
        "run --rm --cpus -1 box:1 true",
        refused(125, "docker and we want 0.01 or more; podman takes a negative number for no limit"),
    ),
    case("run --rm --cpuset-cpus 900 box:1 true"),
    case("run --rm --pids-limit -1 box:1 sh -c 'for i in 1 2 3 4 5 6 7 8; do true & done; wait; echo all'"),
    case("run --rm --pids-limit 5 box:1 sh -c 'for i in 1 2 3 4 5 6 7 8; do sleep 1 & done; wait'"),
    case(
        "run --rm --blkio-weight 5 box:1 true",
        differs(
            "status",
            125,
            0,
            "docker and we name the range, 10 to 1000; podman looks no further than this kernel's want of weights",
        ),
    ),
    case("run --rm box:1 cat /sys/fs/cgroup/pids/pids.max"),
)

ERRORS = (
    case("run"),
    case("run --rm"),
    case("run --rm box:1 nosuch"),
    case("run --rm box:1 /no/such"),
    case("run --rm box:1 /etc"),
    case(
        "run --rm box:1 /etc/passwd",
        fails(
            126,
            1,
            "crun's exec fails after it has become the container's process; 126 is what a shell and docker's manual say",
        ),
    ),
    case(
        "run --rm box:1 ''",
        fails(127, 126, "docker finds no such program in PATH: 127; crun tries to open the root folder"),
    ),
    case("run --rm -w /etc/passwd box:1 true"),
    case("run --nosuch box:1 true"),
    case("run --rm --pull never nosuch:1 true"),
    case("run --rm 'BAD NAME' true"),
    case("run --rm --name 'bad name' box:1 true"),
    case("run --rm --name x box:1 true", refused(125, "docker's names have two letters or more, podman's one")),
    case("run --rm -e '=x' box:1 true"),
    case("run --rm -l '=x' box:1 true"),
    case("run --rm --stop-signal NOSUCH box:1 true"),
    case("run --rm --stop-timeout x box:1 true"),
    case("run --rm --add-host nosuch box:1 true"),
    case("run --rm --dns nosuch box:1 true"),
    case("run --rm --pid nosuch box:1 true"),
    case("run --rm --ipc nosuch box:1 true"),
    case("run --rm --userns nosuch box:1 true"),
    case("run --rm --log-driver nosuch box:1 true"),
    case("run --rm --pull never --platform nosuch/nosuch box:1 true"),
    case("run --rm=maybe box:1 true"),
    case("run -d --rm box:1 nosuch", normal=ids),
)

GROUPS = (
    Group("run-options", OPTIONS),
    Group("run-security", SECURITY),
    Group("run-limits", LIMITS),
    Group("run-errors", ERRORS),
)
