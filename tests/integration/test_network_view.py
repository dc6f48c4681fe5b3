"""A network as it is drawn, compared with what ip(8) says of it in a network namespace of the test's own."""

from __future__ import annotations

import json
import os
import sys
from functools import partial
from pathlib import Path

import pytest

from cellwall.runtime.network.looking import interface

from ..netns import Netns
from ..tree import TOP
from ..waiting import until

pytestmark = pytest.mark.needs("root", "ip", "nft", "bridge-links", "nftables-nat")


def test_interfaces_are_the_kernels_of_this_namespace() -> None:
    with Netns() as here:
        here.run("ip", "link", "add", "br9", "type", "bridge")
        here.run("ip", "link", "add", "one", "type", "veth", "peer", "name", "two")
        here.run("ip", "link", "set", "one", "master", "br9", "up")
        assert here.do(lambda: interface("one"))[1] == "br9"
        for name in ("one", "two", "br9"):

            def same(name: str = name) -> bool:
                (told,) = json.loads(here.run("ip", "-j", "link", "show", name))
                state, _ = here.do(partial(interface, name))
                return bool(state == told["operstate"].lower().replace("lowerlayer", "lower layer "))

            # The kernel works a link's state out a moment later than the command that changed it has ended.
            until(same, f"the state of {name} that ip tells")
        here.run("ip", "link", "set", "two", "up")
        until(lambda: here.do(lambda: interface("one")) == ("up", "br9"), "a link that is up")
        for name in ("none", "x" * 16, ""):
            assert here.do(partial(interface, name)) == ("missing", "")
        # Another namespace's aren't this one's.
        assert interface("br9") == ("missing", "")


def test_a_network_is_drawn_as_it_is(cellwall_root: Path) -> None:
    environment = os.environ | {"CELLWALL_ROOT": str(cellwall_root), "PYTHONPATH": str(TOP / "src")}
    with Netns() as here:

        def cellwall(*words: str) -> str:
            return here.run(sys.executable, "-m", "cellwall", *words, env=environment)

        cellwall("network", "create", "lab")
        cellwall("run", "-d", "--name", "web", "--network", "lab", "-p", "8080:80", "host", "sleep", "1000")
        try:
            found = json.loads(cellwall("network", "show", "--format", "json", "lab"))
            text = cellwall("network", "show", "lab")
            # ip writes an empty object for each interface of another type.
            (bridge,) = filter(None, json.loads(here.run("ip", "-j", "-4", "address", "show", "type", "bridge")))
            (link,) = filter(None, json.loads(here.run("ip", "-j", "link", "show", "type", "veth")))
            inside = json.loads(cellwall("inspect", "web"))[0]["NetworkSettings"]
        finally:
            cellwall("rm", "-f", "web")
            cellwall("network", "rm", "lab")
    assert (found["bridge"], found["bridge_state"]) == (bridge["ifname"], "up")
    assert [found["gateways"][0]] == [one["local"] for one in bridge["addr_info"]]
    (endpoint,) = found["endpoints"]
    assert (endpoint["link"], endpoint["state"], endpoint["bridge"]) == (link["ifname"], "up", bridge["ifname"])
    network = inside["Networks"]["lab"]
    assert endpoint["addresses"][0] == f"{network['IPAddress']}/{network['IPPrefixLen']}"
    assert endpoint["mac"] == network["MacAddress"]
    assert [f"{port['host_port']} {port['container_port']}/{port['protocol']}" for port in endpoint["ports"]] == [
        "8080 80/tcp"
    ]
    for fact in (link["ifname"], bridge["ifname"], network["IPAddress"], "0.0.0.0:8080 → 80/tcp", "web"):
        assert fact in text
    assert max(map(len, text.splitlines())) <= 80
