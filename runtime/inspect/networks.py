"""A network as a drawing: its bridge, the pairs of interfaces that lead to containers, their addresses and published ports.

Which interfaces there are, and whether they are up and on the bridge, is the kernel's answer of that moment; names and
ports are those of the endpoints (network/endpoints.py). Imports the package's own files.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ..network.looking import interface
from . import plain
from .data import described
from .drawing import drawing, label, line, rectangle
from .look import BAD, ISOLATED, SHARED, Tone
from .page import Html, code, cut, element, faint, heading, join, legend, more, name, page, pairs, table, toned, warning
from .tree import Node
from .tree import text as tree_text
from .view import COLUMNS, View

# Containers in the picture; the table has more of them.
_DRAWN = 16
_LISTED = 100


@dataclass(frozen=True)
class Port:
    container_port: int
    protocol: str
    host_ip: str
    host_port: int

    @property
    def outside(self) -> str:
        return f"[{self.host_ip}]:{self.host_port}" if ":" in self.host_ip else f"{self.host_ip}:{self.host_port}"

    def __str__(self) -> str:
        return f"{self.outside} → {self.container_port}/{self.protocol}"


@dataclass(frozen=True)
class Endpoint:
    """A container on the network. ``state`` is the kernel's of its pair's end on this machine: up, down, missing; ``bridge`` what that is on."""

    container_id: str
    name: str
    interface: str
    link: str
    state: str
    bridge: str
    mac: str
    addresses: tuple[str, ...]
    aliases: tuple[str, ...]
    ports: tuple[Port, ...]


@dataclass(frozen=True)
class NetworkView(View):
    """``bridge`` is empty where the network has none, ``bridge_state`` the kernel's: up, down or missing."""

    name: str
    id: str
    driver: str
    internal: bool
    bridge: str
    bridge_state: str
    subnets: tuple[str, ...]
    gateways: tuple[str, ...]
    endpoints: tuple[Endpoint, ...]

    @property
    def note(self) -> str:
        return ", ".join([self.driver, *self.subnets, *(["internal"] if self.internal else [])])

    @property
    def outside(self) -> str:
        """What leads out of it, in one sentence."""
        if self.driver == "host":
            return "this machine's own interfaces: nothing is between"
        if self.driver == "null":
            return "nothing but the container's own lo"
        return "nothing leads out of it" if self.internal else "the rest of the world is reached through this machine"

    def _bridge_line(self) -> str:
        state = self.bridge_state if self.bridge_state != "missing" else "not there yet: the first container makes it"
        return f"{self.bridge} ({state})"

    def text(self, columns: int = COLUMNS) -> str:
        made = plain.heading(f"network {plain.shown(self.name)}", self.note, columns)
        facts = [("id", self.id), ("out", self.outside)]
        if self.bridge:
            facts += [("bridge", self._bridge_line()), ("address", ", ".join(self.gateways) or "none")]
        made += plain.pairs(facts, columns)
        kept, rest = cut(self.endpoints, _LISTED)
        nodes = [
            Node(
                f"{one.link} ─ {one.interface}  {plain.shown(one.name)}",
                ", ".join(one.addresses),
                (
                    Node(f"{one.container_id[:12]}", f"{one.mac}, {one.state}{self._elsewhere(one)}"),
                    *(Node(f"alias {alias}") for alias in one.aliases),
                    *(Node(str(port)) for port in one.ports),
                ),
            )
            for one in kept
        ]
        if not nodes and self.driver not in ("host", "null"):
            return made + "no running container is on it\n"
        return made + tree_text(nodes, columns, most=_LISTED) + plain.more(rest, "containers")

    def _elsewhere(self, one: Endpoint) -> str:
        if one.state == "missing" or one.bridge == self.bridge:
            return ""
        return f", on {one.bridge}" if one.bridge else ", on no bridge"

    def html(self) -> str:
        return page(self.picture(), label=f"network {self.name}")

    def picture(self) -> Html:
        """The drawing and its table, without the outermost element."""
        parts = [heading(f"network {self.name}", self.note)]
        facts: list[tuple[str, str]] = [("id", code(self.id[:12])), ("out", self.outside)]
        if self.bridge:
            facts += [("bridge", code(self._bridge_line())), ("address", code(", ".join(self.gateways) or "none"))]
        parts.append(pairs(facts))
        if self.bridge:
            parts.append(self._drawn())
        if not self.endpoints:
            if self.bridge:
                parts.append(faint("no running container is on it"))
            return join(*parts)
        kept, rest = cut(self.endpoints, _LISTED)
        heads = ["container", "addresses", "published", "pair", "mac"]
        parts.append(table(heads, [self._row(one) for one in kept], label=f"containers on {self.name}"))
        parts.append(more(rest, "containers"))
        lost = [one.name for one in self.endpoints if one.state == "missing"]
        if lost:
            parts.append(warning("their interfaces are gone: ", ", ".join(lost[:10]), tone=BAD))
        parts.append(legend([(SHARED, "this machine's bridge"), (ISOLATED, "a container's own network")]))
        return join(*parts)

    def _row(self, one: Endpoint) -> list[str]:
        state = toned(one.state, BAD) if one.state == "missing" else faint(f"{one.state}{self._elsewhere(one)}")
        named = join(name(one.name), *([" ", faint("also " + ", ".join(one.aliases))] if one.aliases else []))
        return [
            named,
            code(", ".join(one.addresses)),
            join(*(element("div", code(str(port))) for port in one.ports)),
            join(code(f"{one.link} ─ {one.interface}"), " ", state),
            code(one.mac),
        ]

    def _drawn(self) -> Html:
        """From above: the world, the bridge, and a branch for each container."""
        shown, rest = cut(self.endpoints, _DRAWN)
        wide, top, step = 360, 34, 56
        height = top + 44 + step * len(shown) + (20 if rest else 4)
        bridge_tone = SHARED
        gateways = ", ".join(self.gateways)
        shapes: list[Html] = []
        if self.internal:
            shapes.append(label(24, 16, "✕ nothing leads out", faint=True))
        else:
            shapes += [label(34, 16, "↕ this machine, the world", faint=True), line([(24, 4), (24, top)], bridge_tone)]
        shapes += [
            rectangle(1, top, wide - 2, 32, bridge_tone, self._bridge_line()),
            label(12, top + 20, self.bridge, code=True, most=18),
            label(wide - 12, top + 20, gateways, anchor="end", code=True, most=30),
        ]
        for at, one in enumerate(shown):
            y = top + 40 + at * step
            middle = y + 24
            tone = ISOLATED if one.state != "missing" else BAD
            shapes += [
                line([(24, top + 32 if at == 0 else middle - step), (24, middle), (136, middle)], bridge_tone),
                label(30, middle - 5, one.link, code=True, faint=True, most=15),
                _box(136, y, wide - 137, one, tone),
            ]
        if rest:
            shapes.append(label(136, height - 6, f"… and {rest:,} more", faint=True))
        title = f"network {self.name}: bridge {self.bridge} and {len(self.endpoints)} containers"
        return drawing(wide, height, title, *shapes)


def _box(x: float, y: float, wide: float, one: Endpoint, tone: Tone) -> Html:
    ports = ", ".join(f"{port.host_port} → {port.container_port}/{port.protocol}" for port in one.ports)
    address = one.addresses[0] if one.addresses else ""
    return join(
        rectangle(x, y, wide, 48, tone, one.name),
        element("text", plain.shown(one.name, 24), x=x + 10, y=y + 19, font_weight=600),
        label(x + wide - 10, y + 19, ports, anchor="end", code=True, most=17),
        label(x + 10, y + 38, one.interface, faint=True, code=True, most=8),
        label(x + wide - 10, y + 38, address, anchor="end", code=True, most=26),
    )


def look(definition: dict[str, Any], found: Sequence[dict[str, Any]]) -> NetworkView:
    """A network of its definition and its endpoints, each with what the kernel says of its interface now."""
    bridge = str(definition.get("bridge") or "")
    links = {one["link"]: interface(one["link"]) for one in found}
    endpoints = [
        Endpoint(
            container_id=one["container"],
            name=one["name"],
            interface=one["interface"],
            link=one["link"],
            state=links[one["link"]][0],
            bridge=links[one["link"]][1],
            mac=one["mac"],
            addresses=tuple(one["addresses"]),
            aliases=tuple(alias for alias in one["aliases"] if alias != one["name"]),
            ports=tuple(
                Port(port["container_port"], port["protocol"], port["host_ip"], port["host_port"])
                for port in one.get("ports") or ()
            ),
        )
        for one in sorted(found, key=lambda one: (str(one["name"]), str(one["container"])))
    ]
    subnets = definition["subnets"]
    return NetworkView(
        name=definition["name"],
        id=definition["id"],
        driver=definition["driver"],
        internal=bool(definition["internal"]),
        bridge=bridge,
        bridge_state=interface(bridge)[0] if bridge else "",
        subnets=tuple(str(one["subnet"]) for one in subnets),
        gateways=tuple(str(one["gateway"]) for one in subnets),
        endpoints=tuple(endpoints),
    )


def drawn_and_described(views: Sequence[NetworkView], described_as: Sequence[dict[str, Any]]) -> str:
    """What ``network inspect`` shows: each network drawn, and docker's data below, folded."""
    parts = []
    for view, one in zip(views, described_as, strict=True):
        parts += [view.picture(), described(one, open=False)]
    return page(*parts)
