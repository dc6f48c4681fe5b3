"""The run options, defined once for the command line, the ``%%container`` magic, and Python's keywords.

``add_run_options`` puts them on a Parser; ``run_options_of`` makes a RunOptions of what was parsed; ``parse_run`` does both
for a whole command line; ``from_keywords`` for Python; ``describe`` tells completion what there is.
Imports the standard library, options.py, signal_names.py and errors.py; config.py only where it is handed in.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from functools import lru_cache

from ..errors import SpecError
from ..frozen import field, frozen
from ..names.files import needs_gateway
from ..options import Mount, RunOptions
from ..signal_names import signal_name
from ..storage.names import ASKED
from . import log_values, mount_values, network_values, values
from .parser import Parser
from .values import integer

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Literal

    from ..config import Config
    from ..options import PullPolicy

    Kind = Literal["flag", "value", "list"]

Read = Callable[[str, str], object]


@frozen
class Option:
    """One option. ``names`` with the short form first; ``refused`` is why it can't be used yet (then nothing else counts)."""

    # The long name, and what it is called in Python. Of ninety options both are asked for at each run.
    flag: str = field(init=False)
    dest: str = field(init=False)
    names: tuple[str, ...]
    kind: Kind = "value"
    metavar: str = ""
    help: str = ""
    read: Read | None = None
    choices: tuple[str, ...] = ()
    field: str = ""
    refused: str = ""
    # What a flag is where nobody says it; None where the configuration then says it.
    unsaid: bool | None = False

    def __post_init__(self) -> None:
        flag = max(self.names, key=len)
        object.__setattr__(self, "flag", flag)
        object.__setattr__(self, "dest", flag.lstrip("-").replace("-", "_"))

    @property
    def takes_value(self) -> bool:
        return self.kind != "flag"


def _flag(*names: str, help: str, field: str = "") -> Option:
    return Option(names, "flag", help=help, field=field)


def _value(
    *names: str, metavar: str, help: str, read: Read = values.words, field: str = "", choices: tuple[str, ...] = ()
) -> Option:
    return Option(names, "value", metavar, help, read, choices, field)


def _list(
    *names: str, metavar: str, help: str, read: Read = values.words, field: str = "", choices: tuple[str, ...] = ()
) -> Option:
    return Option(names, "list", metavar, help, read, choices, field)


def _refused(*names: str, why: str, kind: Kind = "value") -> Option:
    return Option(names, kind, refused=why)


def _one_of(*names: str, help: str, choices: tuple[str, ...], field: str, prefixes: tuple[str, ...] = ()) -> Option:
    return Option(names, "value", "|".join(choices), help, values.choice(*choices, prefixes=prefixes), choices, field)


# `field` is the field of RunOptions that the value goes to as it was read; options without one are joined in run_options_of.
OPTIONS: tuple[Option, ...] = (
    _flag("-i", "--interactive", help="pass standard input on to the command", field="interactive"),
    _flag("-t", "--tty", help="give the command a terminal", field="tty"),
    _flag("-d", "--detach", help="run in the background and print the container's id", field="detach"),
    _flag("--rm", help="remove the container when it ends", field="rm"),
    _value("--name", metavar="NAME", help="name the container", read=values.container_name, field="name"),
    _value("-h", "--hostname", metavar="NAME", help="host name inside", read=values.host_name, field="hostname"),
    _value("--domainname", metavar="NAME", help="NIS domain name inside", read=values.host_name, field="domainname"),
    _list("-e", "--env", metavar="NAME[=VALUE]", help="set a variable; a bare NAME takes the caller's value"),
    _list("--env-file", metavar="FILE", help="read variables from a file"),
    _value("-w", "--workdir", metavar="DIR", help="working directory inside", read=values.absolute, field="workdir"),
    _value(
        "-u", "--user", metavar="USER[:GROUP]", help="user and group, names or numbers", read=values.user, field="user"
    ),
    _list("--group-add", metavar="GROUP", help="join one more group", field="group_add"),
    _value("--entrypoint", metavar="COMMAND", help="run this in place of the image's entrypoint"),
    _list("-l", "--label", metavar="NAME[=VALUE]", help="set a label", read=values.label),
    _list("--annotation", metavar="NAME=VALUE", help="set an annotation of the bundle", read=values.pair),
    _list("--label-file", metavar="FILE", help="read labels from a file"),
    _flag("--init", help="run an init that forwards signals and reaps processes", field="init"),
    _value("--stop-signal", metavar="SIGNAL", help="signal that asks the command to end"),
    _value(
        "--stop-timeout",
        metavar="SECONDS",
        help="seconds between that signal and SIGKILL",
        read=integer(0, 10**9),
        field="stop_timeout_s",
    ),
    _flag("--read-only", help="make the root filesystem read-only", field="read_only"),
    _list("--tmpfs", metavar="DIR[:OPTIONS]", help="mount a tmpfs", read=mount_values.tmpfs),
    _value("--shm-size", metavar="SIZE", help="size of /dev/shm", read=values.positive_size, field="shm_size_bytes"),
    _list(
        "-v",
        "--volume",
        metavar="[SOURCE:]DIR[:OPTIONS]",
        help="mount a host folder or a volume",
        read=mount_values.volume,
    ),
    _list(
        "--mount",
        metavar="KEY=VALUE,…",
        help="mount a host folder, a volume, a tmpfs or an image",
        read=mount_values.mount,
    ),
    _list(
        "--volumes-from",
        metavar="CONTAINER[:ro]",
        help="mount the volumes and host folders that another container has",
        read=mount_values.volumes_from,
        field="volumes_from",
    ),
    _list(
        "-p",
        "--publish",
        metavar="[IP:][HOST:]PORT[/udp]",
        help="publish a port, or a range; without --network the network is bridge then",
        read=network_values.publish,
    ),
    _flag(
        "-P",
        "--publish-all",
        help="publish what the image and --expose name at free ports; without --network the network is bridge then",
        field="publish_all",
    ),
    _list("--expose", metavar="PORT[/udp]", help="name a port that -P publishes", read=network_values.expose),
    _list(
        "--network",
        "--net",
        metavar="NAME",
        help="none (the default), host, bridge, container:NAME, a network's name, or egress=HOST[:PORT],… for what alone "
        "may be reached; several times, or name=…,ip=…,alias=…",
        read=network_values.network,
        choices=("none", "host", "bridge"),
    ),
    _value("--ip", metavar="ADDRESS", help="IPv4 address on the first network", read=network_values.ipv4),
    _value("--ip6", metavar="ADDRESS", help="IPv6 address on the first network", read=network_values.ipv6),
    _value("--mac-address", metavar="ADDRESS", help="MAC address on the first network", read=network_values.mac),
    _list(
        "--network-alias",
        "--net-alias",
        metavar="NAME",
        help="one more name of the container on the first network",
        read=network_values.alias,
    ),
    _list("--dns", metavar="ADDRESS", help="name server for /etc/resolv.conf", read=values.address, field="dns"),
    _list(
        "--dns-search",
        metavar="DOMAIN",
        help="domain that short names are looked up in; . for none",
        read=values.dns_search,
        field="dns_search",
    ),
    _list(
        "--dns-option",
        "--dns-opt",
        metavar="OPTION",
        help="option for /etc/resolv.conf, such as ndots:2",
        read=values.dns_option,
        field="dns_options",
    ),
    _list(
        "--add-host",
        metavar="NAME:ADDRESS",
        help="one more line of /etc/hosts; the address host-gateway is this machine",
        read=values.add_host,
        field="add_hosts",
    ),
    _list("--cap-add", metavar="CAPABILITY", help="add a capability", read=values.capability, field="cap_add"),
    _list(
        "--cap-drop", metavar="CAPABILITY", help="drop a capability, or ALL", read=values.capability, field="cap_drop"
    ),
    _flag("--privileged", help="give the container every right that cellwall itself has", field="privileged"),
    _list(
        "--security-opt",
        metavar="OPTION",
        help="no-new-privileges, seccomp=FILE, seccomp=unconfined, …",
        field="security_opt",
    ),
    _one_of("--userns", help="user namespace: its own, or the host's", choices=("private", "host"), field="userns"),
    _one_of(
        "--pid",
        help="process ids: its own, the host's, or another container's",
        choices=("private", "host"),
        field="pid",
        prefixes=("container",),
    ),
    _one_of(
        "--ipc",
        help="IPC namespace: its own, one that others may join, the host's, or another container's",
        choices=("private", "shareable", "none", "host"),
        field="ipc",
        prefixes=("container",),
    ),
    _one_of("--uts", help="host name: its own, or the host's", choices=("private", "host"), field="uts"),
    _one_of(
        "--cgroupns", help="cgroup namespace: its own, or the host's", choices=("private", "host"), field="cgroupns"
    ),
    _list("--device", metavar="HOST[:DIR[:rwm]]", help="pass a device on", read=values.device, field="devices"),
    _list(
        "--device-cgroup-rule",
        metavar="RULE",
        help="allow a kind of device, such as 'c 42:* rmw'",
        read=values.device_rule,
        field="cgroup_device_rules",
    ),
    _refused("--gpus", why="passing on GPUs isn't there yet; name the devices one by one with --device"),
    _list("--ulimit", metavar="NAME=SOFT[:HARD]", help="set a resource limit", read=values.ulimit, field="ulimits"),
    _list("--sysctl", metavar="NAME=VALUE", help="set a kernel setting of the container's own", read=values.sysctl),
    _value(
        "--oom-score-adj",
        metavar="NUMBER",
        help="-1000 to 1000: the higher, the sooner killed when memory is short",
        read=integer(-1000, 1000),
        field="oom_score_adj",
    ),
    _value("-m", "--memory", metavar="SIZE", help="memory limit", read=values.memory, field="memory_bytes"),
    _value(
        "--memory-swap",
        metavar="SIZE",
        help="limit of memory and swap together, -1 for unlimited swap",
        read=values.memory_swap,
        field="memory_swap_bytes",
    ),
    _value(
        "--memory-reservation",
        metavar="SIZE",
        help="soft memory limit",
        read=values.memory,
        field="memory_reservation_bytes",
    ),
    _value(
        "--memory-swappiness",
        metavar="PERCENT",
        help="how readily memory is swapped out, 0 to 100 (cgroup v1)",
        read=integer(0, 100, (-1,)),
        field="memory_swappiness",
    ),
    _flag(
        "--oom-kill-disable",
        help="stop the container where memory is short, don't kill (cgroup v1)",
        field="oom_kill_disable",
    ),
    _value(
        "--cpus", metavar="NUMBER", help="how many CPUs' worth of time, such as 1.5", read=values.cpus, field="cpus"
    ),
    _value(
        "--cpu-period",
        metavar="MICROSECONDS",
        help="length of the period that --cpu-quota is of",
        read=integer(1000, 1_000_000, (0,)),
        field="cpu_period_us",
    ),
    _value(
        "--cpu-quota",
        metavar="MICROSECONDS",
        help="CPU time in each period, -1 for unlimited",
        read=integer(1000, 10**12, (-1, 0)),
        field="cpu_quota_us",
    ),
    _value(
        "-c",
        "--cpu-shares",
        metavar="NUMBER",
        help="relative weight, 1024 is the usual one",
        read=integer(2, 262144),
        field="cpu_shares",
    ),
    _value(
        "--cpuset-cpus", metavar="LIST", help="CPUs to run on, such as 0-3,6", read=values.cpuset, field="cpuset_cpus"
    ),
    _value("--cpuset-mems", metavar="LIST", help="memory nodes to use", read=values.cpuset, field="cpuset_mems"),
    _value(
        "--pids-limit",
        metavar="NUMBER",
        help="most processes and threads at once, -1 for unlimited",
        read=integer(1, values.PIDS_HIGHEST, (-1, 0)),
        field="pids_limit",
    ),
    _value(
        "--blkio-weight",
        metavar="NUMBER",
        help="relative weight of disk access, 10 to 1000",
        read=integer(10, 1000, (0,)),
        field="blkio_weight",
    ),
    _list(
        "--blkio-weight-device",
        metavar="DEVICE:WEIGHT",
        help="relative weight on one disk, 10 to 1000",
        read=values.device_weight,
        field="blkio_weight_devices",
    ),
    _list(
        "--device-read-bps",
        metavar="DEVICE:RATE",
        help="read at most so many bytes a second",
        read=values.rate_bps,
        field="device_read_bps",
    ),
    _list(
        "--device-write-bps",
        metavar="DEVICE:RATE",
        help="write at most so many bytes a second",
        read=values.rate_bps,
        field="device_write_bps",
    ),
    _list(
        "--device-read-iops",
        metavar="DEVICE:RATE",
        help="at most so many reads a second",
        read=values.rate_iops,
        field="device_read_iops",
    ),
    _list(
        "--device-write-iops",
        metavar="DEVICE:RATE",
        help="at most so many writes a second",
        read=values.rate_iops,
        field="device_write_iops",
    ),
    _value(
        "--net-cls-classid",
        metavar="NUMBER",
        help="class of the container's packets for tc (cgroup v1)",
        read=integer(0, 0xFFFFFFFF),
        field="net_cls_classid",
    ),
    _value(
        "--cidfile",
        metavar="FILE",
        help="write the container's id to a file that must not exist",
        read=values.file_path,
        field="cidfile",
    ),
    _refused(
        "--cgroup-parent",
        why="cellwall's groups stand below 'cellwall' in each tree, where what a killed one left is found again",
    ),
    _value("--platform", metavar="OS/ARCH", help="platform of the image", read=values.platform, field="platform"),
    _one_of("--pull", help="when to pull the image", choices=("missing", "always", "never"), field="pull"),
    Option(
        ("--locked",), "flag", help="run exactly the image that the notebook's lock says", field="locked", unsaid=None
    ),
    _value(
        "--log-driver",
        metavar="NAME",
        help="where the output is kept: json-file, local, none",
        read=log_values.driver,
        choices=log_values.DRIVERS,
        field="log_driver",
    ),
    _list(
        "--log-opt", metavar="NAME=VALUE", help="max-size=, max-file=, labels=, env= of the log", read=log_values.option
    ),
    _value(
        "--restart",
        metavar="POLICY",
        help="start it again when it ends: no, on-failure[:N], always, unless-stopped",
        read=log_values.restart,
        field="restart",
    ),
    _value("--health-cmd", metavar="COMMAND", help="shell command that checks its health", field="health_cmd"),
    _value(
        "--health-interval",
        metavar="TIME",
        help="time between checks (30s)",
        read=values.duration,
        field="health_interval_s",
    ),
    _value(
        "--health-timeout",
        metavar="TIME",
        help="longest time that a check may take (30s)",
        read=values.duration,
        field="health_timeout_s",
    ),
    _value(
        "--health-retries",
        metavar="NUMBER",
        help="failed checks in a row that make it unhealthy (3)",
        read=integer(1, 10**6),
        field="health_retries",
    ),
    _value(
        "--health-start-period",
        metavar="TIME",
        help="time in which failed checks don't count (0s)",
        read=log_values.duration_or_none,
        field="health_start_period_s",
    ),
    _value(
        "--health-start-interval",
        metavar="TIME",
        help="time between checks meanwhile (5s)",
        read=values.duration,
        field="health_start_interval_s",
    ),
    _flag("--no-healthcheck", help="leave out the image's health check", field="no_healthcheck"),
    _value(
        "-s",
        "--storage-driver",
        metavar="NAME",
        help="storage driver of the container",
        choices=ASKED,
        field="storage_driver",
    ),
    _list("--storage-opt", metavar="size=SIZE", help="most that the container may write", read=values.pair),
    _value(
        "--timeout",
        metavar="SECONDS",
        help="kill the command after so long (30, 500ms, 5m)",
        read=values.duration,
        field="timeout_s",
    ),
)

# What docker run has besides. Known, so that the answer is better than "unknown option".
_NOT_THERE = (
    "--attach",
    "--cpu-rt-period",
    "--cpu-rt-runtime",
    "--detach-keys",
    "--isolation",
    "--link",
    "--link-local-ip",
    "--runtime",
    "--volume-driver",
)
_NOT_THERE_FLAGS = ("--disable-content-trust", "--sig-proxy")


def add_run_options(parser: Parser, *, omit: Collection[str] = (), only: Collection[str] | None = None) -> None:
    """Put the run options on ``parser``, without the names in ``omit`` (``{"-i"}``: the magic has another ``-i``).

    ``only``: those alone that have one of these names, and none that is only refused.
    """
    for option in OPTIONS:
        if only is not None and not set(option.names).intersection(only):
            continue
        names = tuple(name for name in option.names if name not in omit)
        if not names:
            continue
        if option.refused:
            parser.refuse(*names, why=option.refused, takes_value=option.takes_value)
        elif option.kind == "flag":
            parser.flag(*names, dest=option.dest, help=option.help, default=option.unsaid)
        else:
            parser.value(
                *names,
                dest=option.dest,
                read=option.read,
                repeated=option.kind == "list",
                metavar=option.metavar,
                help=option.help,
            )
    for name in (*_NOT_THERE, *_NOT_THERE_FLAGS) if only is None else ():
        if name not in omit:
            names = ("-a", name) if name == "--attach" else (name,)
            why = "cellwall doesn't have this option of docker's"
            parser.refuse(*names, why=why, takes_value=name not in _NOT_THERE_FLAGS)


def asked_flags(said: argparse.Namespace) -> list[str]:
    """The flags of what was said, for warnings about what isn't in force."""
    return [option.flag for option in OPTIONS if getattr(said, option.dest, None) not in (None, [], False)]


def run_options_of(
    parsed: argparse.Namespace,
    image: str,
    command: Sequence[str] = (),
    *,
    config: Config | None = None,
    environment: Mapping[str, str] | None = None,
) -> RunOptions:
    """What ``add_run_options``'s parser read, as RunOptions; what wasn't said comes from ``config``'s defaults.

    ``environment`` (default: this process's) is where a bare ``-e NAME`` looks. Raises SpecError naming the flag where
    options don't go together, UnsupportedError where the capability isn't there yet.
    """
    caller = os.environ if environment is None else environment
    if not image:
        raise SpecError("IMAGE", "needs the name of an image, such as debian or host")
    fields: dict[str, Any] = {}
    for option in OPTIONS:
        value = getattr(parsed, option.dest, None)
        if option.field and value is not None:
            fields[option.field] = tuple(value) if option.kind == "list" else value
    said: dict[str, Any] = {
        option.dest: getattr(parsed, option.dest, [] if option.kind == "list" else None) for option in OPTIONS
    }
    fields["env"] = _environment(said["env_file"], said["env"], caller)
    fields["labels"] = _labels(said["label_file"], said["label"])
    fields["sysctls"] = dict(said["sysctl"])
    fields["annotations"] = dict(said["annotation"])
    fields["mounts"] = _mounts([*said["volume"], *said["mount"], *said["tmpfs"]])
    if said["entrypoint"] is not None:
        fields["entrypoint"] = (said["entrypoint"],) if said["entrypoint"] else ()
    fields |= network_values.fields_of(said)
    fields["log_opts"] = log_values.options(said["log_opt"], fields.get("log_driver"))
    if said["storage_opt"]:
        fields["storage_size_bytes"] = _storage_size(said["storage_opt"])
    if said["stop_signal"] is not None:
        fields["stop_signal"] = signal_name("--stop-signal", said["stop_signal"])
    if "pull" not in fields and config is not None and config.pull is not None:
        fields["pull"] = config.pull
    options = RunOptions(image, tuple(command), **fields)
    check_together(options)
    return options if config is None else config.fill(options)


def check_together(options: RunOptions) -> None:
    """Raise SpecError where two options contradict each other, as docker does."""
    memory, swap, soft = options.memory_bytes, options.memory_swap_bytes, options.memory_reservation_bytes
    if swap is not None and swap != -1:
        if memory is None:
            raise SpecError("--memory-swap", "counts memory and swap together, so it needs --memory as well")
        if swap < memory:
            raise SpecError(
                "--memory-swap",
                f"{values.size_text(swap)} is out of range: it counts memory and swap together, "
                f"so at least --memory's {values.size_text(memory)}",
            )
    if memory is not None and soft is not None and soft > memory:
        raise SpecError(
            "--memory-reservation",
            f"{values.size_text(soft)} is out of range: at most --memory's {values.size_text(memory)}",
        )
    if options.cpus is not None and (options.cpu_period_us or options.cpu_quota_us):
        flag = "--cpu-period" if options.cpu_period_us else "--cpu-quota"
        raise SpecError(flag, "says the same as --cpus in other words: use one of them")
    if options.rm and options.restart not in (None, "no"):
        raise SpecError("--restart", "starts a container again that --rm would have removed: take one of them")
    health = ("health_cmd", "health_interval_s", "health_timeout_s", "health_retries", "health_start_period_s")
    if options.no_healthcheck and any(getattr(options, name) is not None for name in health):
        raise SpecError("--no-healthcheck", "goes with none of the --health options")
    if options.network == "host" and (bad := next((name for name in options.sysctls if name.startswith("net.")), "")):
        raise SpecError("--sysctl", f"{bad} would change this machine's own network under --network host")
    if (options.network or "").startswith("container:"):
        for flag, value in (
            ("--hostname", options.hostname),
            ("--dns", options.dns),
            ("--dns-search", options.dns_search),
            ("--dns-option", options.dns_options),
            ("--add-host", options.add_hosts),
        ):
            if value:
                raise SpecError(flag, f"can't be under --network {options.network}, as that is the other container's")
    if (options.network or "none") == "none" and (bad := needs_gateway(options.add_hosts)):
        raise SpecError("--add-host", f"{bad}: nothing leads to this machine under --network none")
    if options.ipc == "host" and (bad := next((name for name in options.sysctls if not name.startswith("net.")), "")):
        raise SpecError("--sysctl", f"{bad} would change this machine's own IPC under --ipc host")
    if (options.ipc or "").startswith("container:"):
        if bad := next((name for name in options.sysctls if not name.startswith("net.")), ""):
            raise SpecError("--sysctl", f"{bad} would change the IPC of the container that this one joins")
    if options.uts == "host" and options.hostname:
        raise SpecError("--hostname", "can't be set under --uts host")


def _environment(files: Iterable[str], said: Iterable[str], caller: Mapping[str, str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for path in files:
        found |= values.environment_file("--env-file", path, caller)
    for text in said:
        if entry := values.environment_variable("--env", text, caller):
            found[entry[0]] = entry[1]
    return found


def _labels(files: Iterable[str], said: Iterable[tuple[str, str]]) -> dict[str, str]:
    found: dict[str, str] = {}
    for path in files:
        found |= dict(values.label("--label-file", line) for line in values.lines_of_file("--label-file", path))
    return found | dict(said)


def _mounts(mounts: list[Mount]) -> tuple[Mount, ...]:
    seen: set[str] = set()
    for mount in mounts:
        if mount.target in seen:
            flag = "--tmpfs" if mount.type == "tmpfs" else "--volume"
            raise SpecError(flag, f"{mount.target} is mounted twice; a path in the container takes one mount")
        seen.add(mount.target)
    return tuple(mounts)


def _storage_size(pairs: Iterable[tuple[str, str]]) -> int | None:
    found = None
    for key, text in pairs:
        if key != "size":
            raise SpecError("--storage-opt", f"{key!r} isn't known; size is the only one")
        found = values.positive_size("--storage-opt", text)
    return found


RUN_USAGE = "[OPTIONS] IMAGE [COMMAND] [ARG...]"


def run_parser(
    command: str = "cellwall run", usage: str = RUN_USAGE, *, interspersed: bool = False, omit: Collection[str] = ()
) -> Parser:
    """A Parser with the run options on it. The magic asks for ``interspersed``: its options stand behind IMAGE."""
    parser = Parser(command, usage, "Run a command in a new container.", interspersed=interspersed)
    add_run_options(parser, omit=omit)
    return parser


def parse_run(
    words: Sequence[str], *, config: Config | None = None, environment: Mapping[str, str] | None = None
) -> RunOptions:
    """RunOptions of a whole ``docker run`` line behind ``run``: options, IMAGE, and the command with its own options."""
    parsed, rest = run_parser().parse(words)
    if not rest:
        raise SpecError("cellwall run", f"needs an image: cellwall run {RUN_USAGE}")
    return run_options_of(parsed, rest[0], rest[1:], config=config, environment=environment)


@lru_cache(maxsize=1)
def _keyword_parser() -> Parser:
    """Made once: it has some ninety options, and making it costs more than reading a line."""
    return run_parser("cellwall.run")


def from_keywords(image: str, command: Sequence[str] = (), *, config: Config | None = None, **words: Any) -> RunOptions:
    """RunOptions of Python's keywords: the flags' names with underscores (``memory="64m"``, ``cap_drop=["ALL"]``, ``rm=True``).

    A mapping gives NAME=VALUE pairs (``env={"A": "1"}``), a sequence repeats the flag, ``None`` is "not said", ``volumes`` and other
    plurals aren't known. ``entrypoint`` may be a sequence. Raises TypeError for a keyword that is no option, SpecError for its value.
    """
    known = {option.dest: option for option in OPTIONS}
    entrypoint = words.pop("entrypoint", None)
    line: list[str] = []
    for name, said in words.items():
        option = known.get(name)
        if option is None:
            raise TypeError(
                f"{name!r} is no run option of cellwall; options are named as the flags: {', '.join(known)}"
            )
        if said is None:
            continue
        if option.kind == "flag":
            line.append(f"{option.flag}={'true' if said else 'false'}")
        elif isinstance(said, Mapping):
            line += [f"{option.flag}={key}={value}" for key, value in said.items()]
        elif isinstance(said, (list, tuple, set, frozenset)) and option.kind == "list":
            line += [f"{option.flag}={item}" for item in said]
        else:
            line.append(f"{option.flag}={said}")
    parsed, _ = _keyword_parser().parse(line)
    options = run_options_of(parsed, image, command, config=config)
    if entrypoint is not None:
        from ..frozen import replace

        options = replace(options, entrypoint=(entrypoint,) if isinstance(entrypoint, str) else tuple(entrypoint))
    return options


def describe() -> list[dict[str, Any]]:
    """The options for completion: ``names``, ``takes_value``, ``repeats``, ``metavar``, ``choices``, ``help``; refused ones left out."""
    return [
        {
            "names": list(option.names),
            "takes_value": option.takes_value,
            "repeats": option.kind == "list",
            "metavar": option.metavar,
            "choices": list(option.choices),
            "help": option.help,
        }
        for option in OPTIONS
        if not option.refused
    ]


__all__ = [
    "OPTIONS",
    "Option",
    "PullPolicy",
    "add_run_options",
    "check_together",
    "describe",
    "from_keywords",
    "parse_run",
    "run_options_of",
    "run_parser",
]
