"""``cellwall network create, ls, inspect, rm, prune, connect, disconnect``: networks of containers.

May import the engine, which the context makes at its first use.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime

from ..errors import CellwallError, NetworkError, NotFound, SpecError, UnsupportedError
from ..options import NetworkUse
from . import network_values, table, values
from .command import note

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ..network.definitions import Definitions
    from .command import Context
    from .parser import Parser

_COLUMNS = (("NETWORK ID", "ID"), ("NAME", "Name"), ("DRIVER", "Driver"), ("SCOPE", "Scope"))


def _definitions(context: Context) -> Definitions:
    from ..network.definitions import Definitions

    engine = context.engine
    engine.known  # noqa: B018  frees what killed launchers left, so that what is shown is in use
    if engine.identity.rootless:
        raise UnsupportedError("networks of one's own", "bridges need root: run cellwall as root")
    return Definitions(engine.paths)


def create(context: Context, words: list[str]) -> int:
    """Make a network; prints its id."""
    parser = context.parser("[OPTIONS] NETWORK")
    parser.value("-d", "--driver", metavar="NAME", help="bridge, the only one", default="bridge")
    parser.value("--subnet", repeated=True, metavar="SUBNET", help="subnet, such as 10.99.0.0/24 or fd00:99::/64")
    parser.value("--gateway", repeated=True, metavar="ADDRESS", help="the bridge's address in the subnet")
    parser.value("--ip-range", repeated=True, metavar="SUBNET", help="give addresses from this part of the subnet")
    parser.flag("--internal", help="let nothing lead out of it")
    parser.flag("--ipv6", help="give it an IPv6 subnet as well")
    parser.value("--label", repeated=True, metavar="NAME[=VALUE]", read=values.label, help="set a label")
    parser.value("-o", "--opt", repeated=True, metavar="NAME=VALUE", read=values.pair, help="option of the driver")
    for name in ("--attachable", "--ingress", "--config-only"):
        parser.refuse(name, why="networks of several machines aren't in cellwall", takes_value=False)
    for name in ("--aux-address", "--config-from", "--ipam-driver", "--ipam-opt", "--scope"):
        parser.refuse(name, why="cellwall doesn't have this option of docker's")
    said, names = parser.parse(words)
    if len(names) != 1:
        raise SpecError(parser.command, f"needs one name: {parser.command} [OPTIONS] NETWORK")
    if said.driver != "bridge":
        raise UnsupportedError(f"--driver {said.driver}", "bridge is the only driver")
    made = _definitions(context).create(
        names[0],
        subnets=said.subnet,
        gateways=said.gateway,
        ranges=said.ip_range,
        internal=said.internal,
        ipv6=said.ipv6,
        labels=dict(said.label),
        options=dict(said.opt),
    )
    print(made["id"])
    return 0


def ls(context: Context, words: list[str]) -> int:
    """List networks."""
    parser = context.parser("[OPTIONS]")
    parser.flag("-q", "--quiet", help="ids only")
    parser.flag("--no-trunc", help="don't shorten ids")
    parser.value(
        "-f",
        "--filter",
        repeated=True,
        metavar="KEY=VALUE",
        help="name=, id=, driver=, label=, scope=, type=custom|builtin, dangling=",
    )
    table.add_format(parser)
    said, rest = parser.parse(words)
    if rest:
        raise SpecError(parser.command, f"takes no {rest[0]!r}; '{parser.command} --help' tells what it takes")
    definitions = _definitions(context)
    tests = [_filter(definitions, text) for text in said.filter]
    found = sorted(
        (one for one in _all(definitions) if all(test(one) for test in tests)), key=lambda one: str(one["name"])
    )
    if said.quiet:
        table.write("".join(f"{one['id'] if said.no_trunc else one['id'][:12]}\n" for one in found))
        return 0
    rows = [_row(definitions, one, said.no_trunc) for one in found]
    table.write(table.listing(rows, _COLUMNS, said.format))
    return 0


def _all(definitions: Definitions) -> list[dict[str, Any]]:
    from ..network.showing import built_in

    definitions.default()
    return [*definitions.each(), *built_in()]


def _row(definitions: Definitions, one: dict[str, Any], whole: bool) -> dict[str, Any]:
    return {
        "ID": one["id"] if whole else one["id"][:12],
        "Name": one["name"],
        "Driver": one["driver"],
        "Scope": "local",
        "IPv4": bool(one["subnets"]),
        "IPv6": one["ipv6"],
        "Internal": one["internal"],
        "Labels": ",".join(f"{key}={value}" for key, value in sorted(one["labels"].items())),
        "CreatedAt": str(datetime.fromtimestamp(one["created"], UTC)),
        "Containers": len(definitions.users(one["id"])),
    }


def _filter(definitions: Definitions, text: str) -> Callable[[dict[str, Any]], bool]:
    key, value = values.pair("--filter", text)
    if key == "name":
        return lambda one: value in one["name"]
    if key == "id":
        return lambda one: value in one["id"]
    if key == "driver":
        return lambda one: value == one["driver"]
    if key == "scope":
        return lambda one: value == "local"
    if key == "label":
        name, sign, wanted = value.partition("=")
        return lambda one: name in one["labels"] and (not sign or one["labels"][name] == wanted)
    if key == "type" and value in ("custom", "builtin"):
        return lambda one: one["user_defined"] == (value == "custom")
    if key == "dangling" and value in ("true", "false", "1", "0"):
        unused = value in ("true", "1")
        return lambda one: one["user_defined"] and (not definitions.users(one["id"])) == unused
    if key in ("type", "dangling"):
        allowed = "custom or builtin" if key == "type" else "true or false"
        raise SpecError("--filter", f"{key}={value} isn't known; it is {allowed}")
    raise SpecError("--filter", f"{key!r} isn't known; it is one of name, id, driver, label, scope, type, dangling")


def inspect(context: Context, words: list[str]) -> int:
    """Print a JSON array of what is known of networks; the status is 1 where one wasn't found."""
    from ..inspect.networks import drawn_and_described, look
    from ..network import endpoints
    from ..network.showing import network

    parser = context.parser("[OPTIONS] NETWORK…")
    parser.value("-f", "--format", metavar="TEMPLATE", help="json, or a template such as '{{.Name}}'")
    parser.flag("-v", "--verbose", help="the same: there is nothing more to be told")
    said, names = parser.parse(words)
    if not names:
        raise SpecError(parser.command, f"needs at least one network: {parser.command} NETWORK…")
    definitions = _definitions(context)
    found, pictures, failed = [], [], 0
    for name in names:
        try:
            one = _named(definitions, name)
        except CellwallError as error:
            note(str(error))
            failed = 1
            continue
        there = list(endpoints.each(definitions.run, one["id"]))
        found.append(network(one, there))
        pictures.append(look(one, there))
    if said.format in (None, "json"):
        text = json.dumps(found, indent=4) + "\n"
        if said.format is None and found and table.has_view():
            table.write_view({"text": text, "html": drawn_and_described(pictures, found)})
        else:
            table.write(text)
    else:
        table.write("".join(table.fill(said.format, one) + "\n" for one in found))
    return failed


def _named(definitions: Definitions, name: str) -> dict[str, Any]:
    from ..network.showing import built_in

    one = next((one for one in built_in() if name in (one["name"], one["id"], one["id"][:12])), None)
    return one or definitions.find(name)


def show(context: Context, words: list[str]) -> int:
    """Draw a network: its bridge, who is on it by which pair of interfaces, addresses, published ports."""
    from ..inspect.networks import look
    from ..network import endpoints
    from . import views

    parser = context.parser("[OPTIONS] NETWORK")
    parser.value("--format", read=values.choice("json", "text"), metavar="json|text", help="data, or text for a person")
    said, names = parser.parse(words)
    if len(names) != 1:
        raise SpecError(parser.command, f"needs one network: {parser.command} NETWORK")
    definitions = _definitions(context)
    one = _named(definitions, names[0])
    views.show(look(one, list(endpoints.each(definitions.run, one["id"]))), said.format == "json")
    return 0


def rm(context: Context, words: list[str]) -> int:
    """Remove networks that no running container is on; prints the name of each."""
    parser = context.parser("[OPTIONS] NETWORK…")
    parser.flag("-f", "--force", help="don't mind missing ones")
    said, names = parser.parse(words)
    from .containers import each

    definitions = _definitions(context)

    def remove(name: str) -> None:
        definitions.remove(name)

    return each(parser, names, remove, what="NETWORK", missing_is_fine=said.force)


def prune(context: Context, words: list[str]) -> int:
    """Remove the networks that no running container is on; asks first."""
    from .pruning import agreed

    parser = context.parser("[OPTIONS]")
    parser.flag("-f", "--force", help="don't ask")
    parser.value("--filter", repeated=True, metavar="KEY=VALUE", help="label=, label!=, until=")
    said, rest = parser.parse(words)
    if rest:
        raise SpecError(parser.command, f"takes no {rest[0]!r}; '{parser.command} --help' tells what it takes")
    tests = [_prune_filter(text) for text in said.filter]
    if not said.force and not agreed(
        "WARNING! This will remove all custom networks not used by at least one container."
    ):
        return 0
    removed = prune_all(context, tests)
    if removed:
        print("\n".join(["Deleted Networks:", *(table.printable(name) for name in removed), ""]))
    return 0


def prune_all(context: Context, tests: list[Callable[[dict[str, Any]], bool]] | None = None) -> list[str]:
    """Remove every network of the user's that no running container is on; their names."""
    definitions = _definitions(context)
    removed = []
    for one in list(definitions.each()):
        if not one["user_defined"] or not all(test(one) for test in tests or ()):
            continue
        try:
            definitions.remove(one["id"])
        except (NetworkError, NotFound, CellwallError):  # in use, or removed by another process meanwhile
            continue
        removed.append(str(one["name"]))
    return removed


def _prune_filter(text: str) -> Callable[[dict[str, Any]], bool]:
    import time

    if text.startswith("label!="):
        unlike = _label(text.removeprefix("label!="))
        return lambda one: not unlike(one)
    key, value = values.pair("--filter", text)
    if key == "label":
        return _label(value)
    if key == "until":
        moment = table.epoch(value)
        before = time.time() - values.duration("--filter", value) if moment is None else moment
        return lambda one: bool(one["created"] < before)
    raise SpecError("--filter", f"{key!r} isn't known; it is one of label, label!, until")


def _label(text: str) -> Callable[[dict[str, Any]], bool]:
    name, sign, wanted = text.partition("=")
    return lambda one: name in one["labels"] and (not sign or one["labels"][name] == wanted)


def connect(context: Context, words: list[str]) -> int:
    """Put a container on a network, at once where it runs."""
    from ..network.connecting import connect

    parser = context.parser("[OPTIONS] NETWORK CONTAINER")
    parser.value(
        "--alias", repeated=True, metavar="NAME", read=network_values.alias, help="one more name on the network"
    )
    parser.value("--ip", metavar="ADDRESS", read=network_values.ipv4, help="IPv4 address")
    parser.value("--ip6", metavar="ADDRESS", read=network_values.ipv6, help="IPv6 address")
    for name in ("--driver-opt", "--gw-priority", "--link", "--link-local-ip"):
        parser.refuse(name, why="cellwall doesn't have this option of docker's")
    said, names = parser.parse(words)
    network, container = _two(parser, names)
    _definitions(context)
    connect(context.engine, NetworkUse(network, tuple(said.alias), said.ip or "", said.ip6 or ""), container)
    return 0


def disconnect(context: Context, words: list[str]) -> int:
    """Take a container off a network, at once where it runs."""
    from ..network.connecting import disconnect

    parser = context.parser("[OPTIONS] NETWORK CONTAINER")
    parser.flag("-f", "--force", help="the same: a container is always taken off")
    _, names = parser.parse(words)
    network, container = _two(parser, names)
    _definitions(context)
    disconnect(context.engine, network, container)
    return 0


def _two(parser: Parser, names: list[str]) -> tuple[str, str]:
    if len(names) != 2:
        raise SpecError(parser.command, f"needs a network and a container: {parser.command} NETWORK CONTAINER")
    if names[0] in network_values.MODES:
        raise NetworkError(f"network {names[0]} can't be joined later: make the container with --network {names[0]}")
    return names[0], names[1]
