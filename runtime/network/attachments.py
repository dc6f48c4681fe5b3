"""From options to a container's networks: ``record["network"]``, and the launcher's part of it, ``request["network"]``.

``record["network"]`` holds

    mode         none, host, container:<id>, networks, or bridge: an ordinary user's, see user_mode.py
    attachments  [{"network": id, "name", "aliases", "ip", "ip6", "mac", "egress"}] in order, the first is eth0
    publish      [{"container_port", "protocol", "host_ip", "host_port", "host_port_end"}], ``-P`` taken into account
    exposed      ["80/tcp"], of the image and of ``--expose``

``request["network"]`` is what attached.py says, ``{"join": {"id", "name", "hostname"}}`` for a namespace to be joined, or None.
"""

from __future__ import annotations

from ..errors import NotFound, SpecError, StatusError, UnsupportedError
from ..frozen import asdict
from ..options import NetworkUse, Port
from .definitions import BRIDGE, Definitions

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ..engine import Engine
    from ..options import RunOptions

# The modes that are no network of cellwall's.
MODES = ("none", "host")


def networks_of(options: RunOptions) -> tuple[NetworkUse, ...]:
    """The networks that a container is to be on; empty where it has none of cellwall's."""
    if options.network in (None, *MODES) or (options.network or "").startswith("container:"):
        return ()
    return options.networks or (NetworkUse(options.network or ""),)


def wanted(engine: Engine, options: RunOptions, config: dict[str, Any]) -> dict[str, Any]:
    """``record["network"]`` of a new container whose image has ``config``. Raises NotFound, SpecError, UnsupportedError."""
    exposed = sorted({*(config.get("ExposedPorts") or {}), *options.expose}, key=_port_order)
    record: dict[str, Any] = {"mode": "none", "attachments": [], "publish": [], "exposed": exposed}
    mode = options.network or "none"
    if mode.startswith("container:"):
        other = engine.known.find(mode.removeprefix("container:"))
        return record | {"mode": f"container:{other.id}"}
    uses = networks_of(options)
    if not uses:
        return record | {"mode": mode}
    if engine.identity.rootless:
        _check_user_mode(uses)
        return record | {"mode": BRIDGE, "publish": _published(options, exposed)}
    definitions = Definitions(engine.paths)
    attachments: list[dict[str, Any]] = []
    for use in uses:
        network = definitions.find(use.name)
        if any(one["network"] == network["id"] for one in attachments):
            raise SpecError("--network", f"{use.name} is given twice")
        if use.aliases and not network["user_defined"]:
            raise SpecError("--network-alias", f"network {use.name} has no aliases: make one (cellwall network create)")
        attachments.append(
            {
                "network": network["id"],
                "name": network["name"],
                "aliases": list(use.aliases),
                "ip": use.ip,
                "ip6": use.ip6,
                "mac": use.mac,
                "egress": list(use.egress),
            }
        )
    return record | {"mode": "networks", "attachments": attachments, "publish": _published(options, exposed)}


def _check_user_mode(uses: tuple[NetworkUse, ...]) -> None:
    """Raise UnsupportedError where an ordinary user's container can't be on the networks that it is to be on."""
    if uses[0].egress:
        raise UnsupportedError(
            "--network egress=… as an ordinary user: nothing outside of the container's reach could enforce it",
            "run it as root, or with --network none",
        )
    mend = (
        "bridges of one's own need root: use --network bridge, which is a network of the container alone, none or host"
    )
    if len(uses) != 1 or uses[0].name != BRIDGE:
        raise UnsupportedError(f"--network {uses[0].name} as an ordinary user", mend)
    for flag, value in (("--ip", uses[0].ip), ("--ip6", uses[0].ip6), ("--mac-address", uses[0].mac)):
        if value:
            raise UnsupportedError(f"{flag} as an ordinary user", "leave it out: the network is the container's alone")
    user_mode_program()


def user_mode_program() -> tuple[str, str]:
    """The program that carries an ordinary user's packets: its kind and its path. Raises UnsupportedError."""
    from ..probes.commands import find

    for kind in ("slirp4netns", "pasta"):
        path = find(kind)
        if path is not None:
            return kind, path
    raise UnsupportedError(
        "--network bridge as an ordinary user: no program slirp4netns or pasta",
        "sudo apt install slirp4netns, or use --network host or none",
    )


def _published(options: RunOptions, exposed: list[str]) -> list[dict[str, Any]]:
    """The ports of ``-p``, and with ``-P`` those that are exposed."""
    publish = [asdict(port) for port in options.publish]
    if options.publish_all:
        said = {(port.container_port, port.protocol) for port in options.publish}
        for text in exposed:
            number, _, protocol = text.partition("/")
            if number.isdigit() and (int(number), protocol or "tcp") not in said and protocol in ("", "tcp", "udp"):
                publish.append(asdict(Port(int(number), "udp" if protocol == "udp" else "tcp")))
    return publish


def _port_order(text: str) -> tuple[int, str]:
    number, _, protocol = text.partition("/")
    return (int(number) if number.isdigit() else 0, protocol)


def request(engine: Engine, record: dict[str, Any], hostname: str) -> dict[str, Any] | None:
    """What the launcher is told of the networks of the container of ``record``. Raises NotFound, StatusError."""
    network = record["network"]
    if network["mode"].startswith("container:"):
        return {"join": _joined(engine, network["mode"].removeprefix("container:"))}
    if network["mode"] == BRIDGE:
        kind, program = user_mode_program()
        return {
            "user_mode": kind,
            "program": program,
            "run": str(engine.paths.endpoints),
            "container": {"id": record["id"], "name": record["name"], "hostname": hostname},
            "publish": network["publish"],
        }
    if network["mode"] == "host" or engine.identity.rootless:
        return None
    if network["mode"] == "none" and record["ephemeral"]:
        return None
    # Also for one on no network: it may be put on one while it runs, and its launcher takes down what it has then.
    return {
        "networks": str(engine.paths.networks),
        "run": str(engine.paths.endpoints),
        "container": {"id": record["id"], "name": record["name"], "hostname": hostname},
        "attachments": network["attachments"],
        "publish": network["publish"],
        "record": None if record["ephemeral"] else str(engine.known.folder(record["id"]) / "record.json"),
    }


def _joined(engine: Engine, container_id: str) -> dict[str, Any]:
    """The container whose network namespace is joined."""
    try:
        other = engine.known.find(container_id)
    except NotFound:
        raise NotFound(
            f"--network container:{container_id[:12]}: that container is gone, and its network with it"
        ) from None
    found = engine.known.state(other.id)
    if found is None or not found["pid"] or other.status != "running":
        raise StatusError(f"--network container:{other.name}: the container", other.status, "running: start it first")
    hostname = found["cellwall"]["process"]["env"].get("HOSTNAME") or other.id[:12]
    return {"id": other.id, "name": other.name, "hostname": hostname}
