"""What a person asked for when they started a container: the one form that the command line, the magics and Python share.

Every field has docker's meaning. Sizes in bytes, times in seconds, rates in bytes or operations a second. ``None`` and
empty containers mean "not said". Imports the standard library and frozen.py only.
"""

from __future__ import annotations

from .frozen import field, frozen

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Literal

    PullPolicy = Literal["missing", "always", "never"]


@frozen
class Mount:
    """One ``-v``, ``--mount`` or ``--tmpfs``: ``type`` is bind, volume, tmpfs or image; ``target`` is an absolute container path.

    ``options`` are what stood behind the second colon (bind) or the tmpfs's mount options, in order. ``flag`` is the option
    that said it, for messages. ``subpath`` is what is shown of a volume or image; ``labels`` and ``driver_options``
    (``NAME=VALUE``) are for a volume that isn't there yet.
    """

    type: Literal["bind", "volume", "tmpfs", "image"]
    target: str
    source: str = ""
    read_only: bool = False
    options: tuple[str, ...] = ()
    flag: str = field(default="--volume", compare=False)
    subpath: str = ""
    labels: tuple[str, ...] = ()
    driver_options: tuple[str, ...] = ()


@frozen
class Ulimit:
    """One ``--ulimit NAME=SOFT[:HARD]``; -1 is unlimited. ``name`` is docker's lower-case one (nofile)."""

    name: str
    soft: int
    hard: int


@frozen
class Rate:
    """One ``--device-read-bps`` and its kind: a device path on the host and its rate."""

    path: str
    rate: int


@frozen
class Script:
    """A cell's text, run from a file in the container. ``language`` None: its ``#!`` line, else bash where there is one, else sh."""

    text: bytes
    language: str | None = None


@frozen
class NetworkUse:
    """One ``--network NAME[,ip=…,alias=…]``: a network of cellwall's by name or id, and what the container is to have there.

    Empty texts mean "not said": then the address comes from the network's pool.
    """

    name: str
    aliases: tuple[str, ...] = ()
    ip: str = ""
    ip6: str = ""
    mac: str = ""
    # ``--network egress=…``: what alone may be reached, each as policy.py has it. The network's name is ``egress`` then.
    egress: tuple[str, ...] = ()


@frozen
class Port:
    """One port to be published: ``-p [host_ip:][host_port:]container_port/protocol``.

    ``host_port`` 0 is any free one; ``host_port_end`` above it, the first free one of that range. ``host_ip`` "" is every address
    of this machine.
    """

    container_port: int
    protocol: Literal["tcp", "udp"] = "tcp"
    host_ip: str = ""
    host_port: int = 0
    host_port_end: int = 0


@frozen
class RunOptions:
    """One container to be run."""

    image: str
    command: tuple[str, ...] = ()
    entrypoint: tuple[str, ...] | None = None
    name: str | None = None
    hostname: str | None = None
    domainname: str | None = None
    env: dict[str, str] = field(default_factory=dict)
    labels: dict[str, str] = field(default_factory=dict)
    annotations: dict[str, str] = field(default_factory=dict)
    workdir: str | None = None
    user: str | None = None
    group_add: tuple[str, ...] = ()
    interactive: bool = False
    tty: bool = False
    detach: bool = False
    rm: bool = False
    init: bool = False
    stop_signal: str | None = None
    stop_timeout_s: float | None = None
    # while it lives by itself
    restart: str | None = None  # no, on-failure[:N], always, unless-stopped
    log_driver: str | None = None
    log_opts: dict[str, str] = field(default_factory=dict)
    health_cmd: str | None = None
    health_interval_s: float | None = None
    health_timeout_s: float | None = None
    health_start_period_s: float | None = None
    health_start_interval_s: float | None = None
    health_retries: int | None = None
    no_healthcheck: bool = False
    # root filesystem and mounts
    read_only: bool = False
    mounts: tuple[Mount, ...] = ()
    volumes_from: tuple[str, ...] = ()
    shm_size_bytes: int | None = None
    storage_driver: str | None = None
    storage_size_bytes: int | None = None
    # network
    # The first --network: none, host, container:NAME, or a network's name; what belongs to it is in ``networks``.
    network: str | None = None
    networks: tuple[NetworkUse, ...] = ()
    publish: tuple[Port, ...] = ()
    publish_all: bool = False
    # Ports as docker's EXPOSE writes them: "80/tcp".
    expose: tuple[str, ...] = ()
    dns: tuple[str, ...] = ()
    dns_search: tuple[str, ...] = ()
    dns_options: tuple[str, ...] = ()
    add_hosts: tuple[str, ...] = ()
    # security and namespaces
    cap_add: tuple[str, ...] = ()
    cap_drop: tuple[str, ...] = ()
    privileged: bool = False
    security_opt: tuple[str, ...] = ()
    userns: str | None = None
    pid: str | None = None
    ipc: str | None = None
    uts: str | None = None
    cgroupns: str | None = None
    devices: tuple[str, ...] = ()
    # As docker writes them: "c 42:* rmw".
    cgroup_device_rules: tuple[str, ...] = ()
    ulimits: tuple[Ulimit, ...] = ()
    sysctls: dict[str, str] = field(default_factory=dict)
    oom_score_adj: int | None = None
    # resources
    memory_bytes: int | None = None
    memory_swap_bytes: int | None = None
    memory_reservation_bytes: int | None = None
    memory_swappiness: int | None = None
    oom_kill_disable: bool = False
    cpus: float | None = None
    cpu_period_us: int | None = None
    cpu_quota_us: int | None = None
    cpu_shares: int | None = None
    cpuset_cpus: str | None = None
    cpuset_mems: str | None = None
    pids_limit: int | None = None
    blkio_weight: int | None = None
    # ``rate`` is the weight here.
    blkio_weight_devices: tuple[Rate, ...] = ()
    device_read_bps: tuple[Rate, ...] = ()
    device_write_bps: tuple[Rate, ...] = ()
    device_read_iops: tuple[Rate, ...] = ()
    device_write_iops: tuple[Rate, ...] = ()
    net_cls_classid: int | None = None
    # image
    platform: str | None = None
    pull: PullPolicy = "missing"
    # The image that the notebook's lock says, or none; None: as CELLWALL_LOCKED and the configuration say.
    locked: bool | None = None
    # Where the id of a new container is written to.
    cidfile: str | None = None
    # cellwall's own
    # With init: signals go to the command's process group, as a terminal's do, not to the command alone.
    signal_group: bool = False
    timeout_s: float | None = None
    record_changes: bool = False
