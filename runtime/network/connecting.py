"""``network connect`` and ``disconnect``: a container's networks changed later, while it runs or before its next start.

The container's record says on which networks it is to be. What a running one gets is its launcher's to take down, as if it had been
there from the start.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from ..errors import NetworkError, NotFound, SpecError, StatusError
from ..linux.process import is_running, pidfd_open
from . import endpoints
from .attached import attach_message, detach_message, tell
from .client import Worker
from .definitions import EGRESS, Definitions

if TYPE_CHECKING:
    from ..containers import Container
    from ..engine import Engine
    from ..options import NetworkUse


def connect(engine: Engine, use: NetworkUse, name_or_id: str) -> None:
    """Put a container on one more network. Raises NotFound, StatusError, NetworkError, AlreadyExists."""
    definitions = Definitions(engine.paths)
    network = definitions.find(use.name)
    container, known = _container(engine, name_or_id)
    mode = known["mode"]
    if network["name"] == EGRESS or any(one.get("egress") for one in known["attachments"]):
        raise NetworkError(
            f"network {network['name']} would be a way round an egress list: run container {container.name} anew with --network egress=…"
        )
    if mode not in ("none", "networks"):
        raise StatusError(f"container {container.name}", f"on --network {mode}", "on networks of its own, or on none")
    if mode == "none" and engine.known.record(container.id) is None:
        raise NetworkError(
            f"container {container.name} was made without a network, to be forgotten at its end: give it a --name or a --network"
        )
    if use.aliases and not network["user_defined"]:
        raise SpecError("--alias", f"network {network['name']} has no aliases: make one (cellwall network create)")
    if any(one["network"] == network["id"] for one in known["attachments"]):
        raise StatusError(f"container {container.name}", f"on network {network['name']} already", "elsewhere")
    wanted = {
        "network": network["id"],
        "name": network["name"],
        "aliases": list(use.aliases),
        "ip": use.ip,
        "ip6": use.ip6,
        "mac": use.mac,
    }
    if container.status == "running":
        _attach(engine, container, network, wanted)
    _change(engine, container.id, [*known["attachments"], wanted])


def _attach(engine: Engine, container: Container, network: dict[str, Any], wanted: dict[str, Any]) -> None:
    run = str(engine.paths.endpoints)
    found = engine.known.state(container.id)
    if found is None:
        raise StatusError(f"container {container.name}", "exited", "running")
    worker = Worker()
    try:
        with _namespace(container, found) as netns_fd:
            worker.start()
            with endpoints.Locked(run):
                # Looked at with the lock in hand: it may have been removed since.
                network = endpoints.definition(str(engine.paths.networks), network["id"], network["name"])
                others = endpoints.of_container(run, container.id)
                index = next(
                    number for number in range(len(others) + 1) if all(one["index"] != number for one in others)
                )
                names = {"id": container.id, "name": container.name, "hostname": _hostname(found, container)}
                made = endpoints.new(run, network, wanted, names, found["cellwall"]["launcher"], index)
            has_route = any(one["gateways"] for one in others)
            try:
                message = attach_message(run, [made], {network["id"]: network}, default_route=not has_route)
                worker.call(message, [netns_fd])
                tell(run, "connect", [made])
            except BaseException:
                worker.call(detach_message(run, [made], str(engine.paths.networks)))
                raise
    finally:
        worker.close()


def _hostname(found: dict[str, Any], container: Container) -> str:
    return str(found["cellwall"]["process"]["env"].get("HOSTNAME") or container.id[:12])


def disconnect(engine: Engine, network_name: str, name_or_id: str) -> None:
    """Take a container off a network, also off one that was removed since. Raises NotFound, StatusError."""
    container, known = _container(engine, name_or_id)
    run = str(engine.paths.endpoints)
    definitions = Definitions(engine.paths)
    # By its name, as it may have been removed, or made again, since; else by its id or the beginning of it.
    known_names = {one["name"] for one in known["attachments"]} | {one["name"] for one in definitions.each()}
    name = network_name if network_name in known_names else definitions.find(network_name)["name"]
    rest = [one for one in known["attachments"] if one["name"] != name]
    endpoint = next((one for one in endpoints.of_container(run, container.id) if one["network_name"] == name), None)
    if len(rest) == len(known["attachments"]) and endpoint is None:
        raise StatusError(f"container {container.name}", f"not on network {network_name}", "on it")
    if endpoint is not None:
        _detach(engine, container, endpoint)
        tell(run, "disconnect", [endpoint])
    _change(engine, container.id, rest)


def _detach(engine: Engine, container: Container, endpoint: dict[str, Any]) -> None:
    run = str(engine.paths.endpoints)
    message = detach_message(run, [endpoint], str(engine.paths.networks))
    found = engine.known.state(container.id)
    worker = Worker()
    try:
        if found is None or container.status != "running":
            worker.call(message)
            return
        with _namespace(container, found) as netns_fd:
            # Its default route went with the link: another network that leads out takes over.
            others = [one for one in endpoints.of_container(run, container.id) if one["network"] != endpoint["network"]]
            out = next((one for one in others if one["gateways"]), None)
            if out is not None:
                message["routes"] = {"interface": out["interface"], "gateways": out["gateways"]}
            worker.call(message, [netns_fd])
    finally:
        worker.close()


@contextmanager
def _namespace(container: Container, found: dict[str, Any]) -> Iterator[int]:
    """A descriptor of a running container's network namespace. Raises StatusError where it has ended."""
    ended = StatusError(f"container {container.name}", "exited", "running")
    try:
        pidfd = pidfd_open(found["pid"])
    except ProcessLookupError:
        raise ended from None
    try:
        netns_fd = os.open(f"/proc/{found['pid']}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        raise ended from None
    finally:
        os.close(pidfd)
    try:
        # Looked at with the namespace in hand: had the pid been given to another process, this one would have ended.
        if not is_running(found["pid"], found["cellwall"]["init_started"]):
            raise ended
        yield netns_fd
    finally:
        os.close(netns_fd)


def _container(engine: Engine, name_or_id: str) -> tuple[Container, dict[str, Any]]:
    """The container and its ``record["network"]``."""
    container = engine.known.find(name_or_id)
    record = engine.known.record(container.id)
    if record is None:
        found = engine.known.state(container.id)
        if found is None:
            raise NotFound(f"no container {name_or_id}: cellwall ps -a lists them")
        record = found["cellwall"]
    network = record.get("network")
    if network is None:
        raise NetworkError(f"container {container.name} was made before cellwall had networks: make it again")
    if record.get("ephemeral"):
        # It isn't kept, so nothing is written down: what it is on is what its endpoints say.
        run = str(engine.paths.endpoints)
        attached = [
            {"network": one["network"], "name": one["network_name"]}
            for one in endpoints.of_container(run, container.id)
        ]
        network = {**network, "attachments": attached}
    return container, network


def _change(engine: Engine, container_id: str, attachments: list[dict[str, Any]]) -> None:
    """Write down on which networks a kept container is to be."""
    with endpoints.Locked(str(engine.paths.endpoints)):
        record = engine.known.record(container_id)
        if record is None:
            return
        record["network"]["attachments"] = attachments
        record["network"]["mode"] = "networks" if attachments else "none"
        engine.known.update(record)
