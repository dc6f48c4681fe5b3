"""Networks of root's containers: who reaches whom, from where, by real sockets between network namespaces.

"The host" is a namespace of the tests' own: cellwall's command line runs in it. ``client`` is a machine beside it.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from cellwall.runtime.errors import NetworkError
from cellwall.runtime.network import pools

from ..leaks import leftovers
from ..network_namespaces import Cellwall, Echo, Namespace, ask, linked, made
from ..registries import busybox_image, write_layout
from ..waiting import kill

pytestmark = pytest.mark.needs("root", "nft", "ip", "bridge-links", "nftables-nat")

HOST, HOST6, CLIENT, CLIENT6 = "192.0.2.1", "2001:db8::1", "192.0.2.2", "2001:db8::2"
FOREIGN = "table ip theirs { chain input { type filter hook input priority 0; policy accept; tcp dport 9 counter packets 0 bytes 0; }; set s { type ipv4_addr; elements = { 192.0.2.9 }; }; }"


@pytest.fixture(scope="module")
def host() -> Iterator[Namespace]:
    with made() as found:
        assert found.command("nft", FOREIGN).returncode == 0
        yield found


@pytest.fixture(scope="module")
def client(host: Namespace) -> Iterator[Namespace]:
    with made() as found:
        linked(host, found, "up0", {f"{HOST}/24": f"{CLIENT}/24", f"{HOST6}/64": f"{CLIENT6}/64"})
        # It tries to get at containers by routing, as a neighbour could.
        found.ip("route", "add", "10.0.0.0/8", "via", HOST)
        yield found


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = write_layout(
        tmp_path_factory.mktemp("image"), {"latest": busybox_image(ExposedPorts={"70/tcp": {}, "71/udp": {}})}
    )
    return f"oci:{folder}:latest"


@pytest.fixture(scope="module")
def cellwall(host: Namespace, client: Namespace) -> Iterator[Cellwall]:
    root = Path(tempfile.mkdtemp(prefix="cw-net-", dir="/tmp"))
    yield Cellwall(host, root)
    assert leftovers(root) == []
    shutil.rmtree(root)


@pytest.fixture(scope="module")
def before(host: Namespace, client: Namespace) -> dict[str, Any]:
    return host.facts()


@pytest.fixture(scope="module")
def up(cellwall: Cellwall, host: Namespace, image: str, before: dict[str, Any]) -> Iterator[None]:
    """Containers on networks of several kinds, each with servers on 80/tcp and 53/udp."""
    cellwall("network", "create", "--subnet", "10.77.0.0/24", "--subnet", "fd00:77::/64", "lab")
    cellwall("network", "create", "other")
    cellwall("network", "create", "--internal", "closed")
    cellwall("network", "create", "-o", "com.docker.network.bridge.enable_icc=false", "apart")
    sleep = (image, "sleep", "1000")
    started = (
        ("web", "-p", "8080:80", "-p", "8053:53/udp", "-p", f"{HOST}:8081:80", "--network", "lab", *sleep),
        ("near", "--network", "lab", *sleep),
        ("far", "--network", "other", *sleep),
        ("shut", "--network", "closed", *sleep),
        ("shut2", "--network", "closed", *sleep),
        ("lone", "-p", "8082:80", "--network", "apart", *sleep),
        ("lone2", "--network", "apart", *sleep),
    )
    try:
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(lambda words: cellwall("run", "-d", "--name", *words), started))
        yield
    finally:
        cellwall("rm", "-f", *(name for name, *_ in started))
        cellwall("network", "prune", "-f")
    # Nothing is left of all the tests that stood on these, and what wasn't cellwall's is as it was.
    assert host.facts() == before


def test_a_container_reaches_out_by_the_hosts_address(cellwall: Cellwall, client: Namespace, up: None) -> None:
    with Echo(client, 90), Echo(client, 91, "udp"), cellwall.namespace("web") as web, cellwall.namespace("far") as far:
        assert ask(web, CLIENT, 90) == HOST
        assert ask(web, CLIENT, 91, "udp") == HOST
        assert ask(web, CLIENT6, 90) == HOST6
        assert ask(far, CLIENT, 90) == HOST


def test_published_ports(cellwall: Cellwall, host: Namespace, client: Namespace, up: None) -> None:
    """From everywhere, and the server sees who asks wherever the answer's way allows it."""
    near = cellwall.address("near", "lab")
    with (
        cellwall.namespace("web") as web,
        cellwall.namespace("near") as near_by,
        cellwall.namespace("far") as far,
        cellwall.namespace("lone") as lone,
        Echo(web, 80),
        Echo(web, 53, "udp"),
        Echo(lone, 80),
    ):
        table = [
            (host, "127.0.0.1", 8080, "tcp", "10.77.0.1"),
            (host, "127.0.0.1", 8053, "udp", "10.77.0.1"),
            (host, HOST, 8080, "tcp", HOST),
            (host, HOST6, 8080, "tcp", HOST6),
            (host, HOST, 8081, "tcp", HOST),
            (host, "127.0.0.1", 8081, "tcp", "refused"),  # published at one address only
            (host, "::1", 8080, "tcp", "refused"),  # which clients take as a reason to try 127.0.0.1
            (client, HOST, 8080, "tcp", CLIENT),
            (client, HOST, 8053, "udp", CLIENT),
            (client, HOST6, 8080, "tcp", CLIENT6),
            (client, HOST6, 8053, "udp", CLIENT6),
            (near_by, HOST, 8080, "tcp", "10.77.0.1"),  # through the host and back to the same bridge
            (near_by, "10.77.0.1", 8053, "udp", "10.77.0.1"),
            (web, HOST, 8080, "tcp", "10.77.0.1"),  # to itself
            (far, HOST, 8080, "tcp", "10.77.0.1"),  # it has left its own network with the host's address
            (client, HOST, 8082, "tcp", CLIENT),
            (near_by, cellwall.address("web", "lab"), 80, "tcp", near),  # a neighbour needs no published port
        ]  # fmt: skip
        found = [(address, port, ask(where, address, port, protocol)) for where, address, port, protocol, _ in table]
        assert found == [(address, port, seen) for _, address, port, _, seen in table]


def test_a_udp_client_that_goes_on_follows_the_port(
    cellwall: Cellwall, image: str, client: Namespace, up: None
) -> None:
    """The kernel remembers where a flow went, which has no end; it is told to forget."""

    def again(answered: bool = False) -> str:
        return ask(client, HOST, 8400, "udp", source_port=4400, answered=answered)

    assert again() in ("silence", "refused")
    for address in ("10.77.0.50", "10.77.0.51"):
        there = ("--network", "lab", "--ip", address, "-p", "8400:53/udp")
        cellwall("run", "-d", "--name", "moved", *there, image, "sleep", "1000")
        try:
            with cellwall.namespace("moved") as moved, Echo(moved, 53, "udp"):
                assert again(answered=True) == CLIENT
        finally:
            cellwall("rm", "-f", "moved")
    assert again() in ("silence", "refused")


def test_who_reaches_whom(cellwall: Cellwall, host: Namespace, client: Namespace, up: None) -> None:
    """Each "silence" has its counterpart that is answered, so that it can't pass for want of a server."""
    names = ("web", "near", "far", "shut", "shut2", "lone", "lone2")
    networks = dict(zip(names, ("lab", "lab", "other", "closed", "closed", "apart", "apart"), strict=True))
    address = {name: cellwall.address(name, networks[name]) for name in names}
    spaces = {name: Namespace.of(cellwall.state(name)["pid"]) for name in names} | {"host": host, "client": client}
    servers = [Echo(spaces[name], 60) for name in names] + [Echo(client, 60)]
    address["client"] = CLIENT
    try:
        # A container with CAP_NET_ADMIN could give itself this route; it must not help.
        spaces["shut"].ip("route", "add", "default", "via", gateway(cellwall, "closed"))
        table = [
            ("near", "web", True),
            ("host", "web", True),
            ("far", "web", False),
            ("web", "far", False),
            ("client", "web", False),
            ("client", "far", False),
            ("shut", "shut2", True),
            ("host", "shut", True),
            ("shut", "client", False),
            ("shut", "far", False),
            ("far", "shut", False),
            ("client", "shut", False),
            ("lone", "lone2", False),
            ("lone", "client", True),
        ]
        found = [
            (one, other, "." in ask(spaces[one], address[other], 60, answered=reaches)) for one, other, reaches in table
        ]
        assert found == table
        # What listens on the machine's loopback alone is nobody's, though the bridge takes packets for it.
        spaces["near"].ip("route", "add", "127.1.0.0/16", "via", "10.77.0.1")
        with Echo(host, 61, address="127.1.0.1"):
            assert ask(host, "127.1.0.1", 61) == "127.0.0.1"
            near_by = spaces["near"].command("sh", "-c", "echo 1 > /proc/sys/net/ipv4/conf/all/route_localnet")
            assert near_by.returncode == 0, near_by.stderr
            spaces["near"].ip("addr", "del", "127.0.0.1/8", "dev", "lo")
            assert ask(spaces["near"], "127.1.0.1", 61, answered=False) == "silence"
    finally:
        for server in servers:
            server.close()
        for name in names:
            spaces[name].close()


def gateway(cellwall: Cellwall, network: str) -> str:
    return str(json.loads(cellwall("network", "inspect", network))[0]["IPAM"]["Config"][0]["Gateway"])


def test_inside_the_container(cellwall: Cellwall, up: None) -> None:
    with cellwall.namespace("web") as web, cellwall.namespace("shut") as shut:
        one = next(link for link in web.ip("addr") if link["ifname"] == "eth0")
        addresses = {
            f"{found['local']}/{found['prefixlen']}" for found in one["addr_info"] if found["scope"] == "global"
        }
        assert addresses == {f"{cellwall.address('web', 'lab')}/24", f"{cellwall.address('web', 'lab', True)}/64"}
        assert (one["mtu"], one["address"][:6]) == (1500, "02:42:")
        assert [route["gateway"] for route in web.ip("route") if route["dst"] == "default"] == ["10.77.0.1"]
        assert [route["gateway"] for route in web.ip("-6", "route") if route["dst"] == "default"] == ["fd00:77::1"]
        assert [link["ifname"] for link in shut.ip("link")] == ["lo", "eth0"]
    # Only what has an IPv6 subnet speaks IPv6, and no neighbour can pose as its router.
    assert cellwall("exec", "far", "cat", "/proc/sys/net/ipv6/conf/eth0/disable_ipv6") == "1"
    assert cellwall("exec", "web", "cat", "/proc/sys/net/ipv6/conf/eth0/accept_ra") == "0"


def test_what_is_told(cellwall: Cellwall, up: None) -> None:
    settings = json.loads(cellwall("inspect", "web"))[0]["NetworkSettings"]
    at = (
        {"HostIp": "0.0.0.0", "HostPort": "8080"},
        {"HostIp": "::", "HostPort": "8080"},
        {"HostIp": HOST, "HostPort": "8081"},
    )
    assert settings["Ports"]["80/tcp"] == list(at)
    assert settings["Ports"]["70/tcp"] is None
    assert settings["Networks"]["lab"]["Gateway"] == "10.77.0.1"
    assert cellwall("ps", "-f", "name=web", "--format", "{{.Ports}}").startswith(
        "0.0.0.0:8080->80/tcp, 0.0.0.0:8053->53/udp, "
    )
    users = json.loads(cellwall("network", "inspect", "lab"))[0]["Containers"].values()
    assert sorted(one["Name"] for one in users) == ["near", "web"]
    listed = {one["Name"]: one for one in json.loads(cellwall("network", "ls", "--format", "json"))}
    assert {name: one["Containers"] for name, one in listed.items()} == {
        "bridge": 0, "host": 0, "none": 0, "lab": 2, "other": 1, "closed": 2, "apart": 2,
    }  # fmt: skip
    assert cellwall("network", "ls", "-f", "type=custom", "-f", "name=o", "--format", "{{.Name}}") == "closed\nother"
    assert "network lab is used by" in cellwall.failure("network", "rm", "lab")


def test_a_shared_network_namespace(cellwall: Cellwall, image: str, host: Namespace, up: None) -> None:
    web = cellwall.state("web")["pid"]
    inside = cellwall(
        "run",
        "--rm",
        "--network",
        "container:web",
        image,
        "sh",
        "-c",
        "readlink /proc/self/ns/net; ls /sys/class/net; hostname",
    )
    assert inside.split() == [os.readlink(f"/proc/{web}/ns/net"), "eth0", "lo", cellwall("exec", "web", "hostname")]
    # Whoever it is there, ports below 1024 are for all that share the namespace; and a link of it is nobody's to change.
    script = "nc -l -p 79 < /etc/motd & ip link set eth0 down 2>&1; until nc 127.0.0.1 79; do kill -0 $! || exit; done"
    told = cellwall("run", "--rm", "--network", "container:web", "--cap-add", "NET_ADMIN", image, "sh", "-c", script)
    assert "not permitted" in told and told.endswith("hello from a layer")
    assert "exited" in cellwall.failure(
        "run", "--rm", "--network", f"container:{_ended(cellwall, image)}", image, "true"
    )
    assert "no container nobody" in cellwall.failure("run", "--rm", "--network", "container:nobody", image, "true")
    assert "--publish" in cellwall.failure("run", "--rm", "-p", "80:80", "--network", "container:web", image, "true")
    cellwall("rm", "ended")


def _ended(cellwall: Cellwall, image: str) -> str:
    cellwall("run", "--name", "ended", image, "true")
    return "ended"


def test_connect_and_disconnect(cellwall: Cellwall, image: str, client: Namespace, up: None) -> None:
    cellwall("run", "-d", "--name", "guest", image, "sleep", "1000")
    try:
        with cellwall.namespace("guest") as guest, cellwall.namespace("near") as near, Echo(near, 62), Echo(client, 63):
            assert ask(guest, "10.77.0.1", 62) == "unreachable"
            cellwall("network", "connect", "--ip", "10.77.0.99", "--alias", "g", "lab", "guest")
            cellwall("network", "connect", "other", "guest")
            assert ask(guest, cellwall.address("near", "lab"), 62) == "10.77.0.99"
            assert [link["ifname"] for link in guest.ip("link")] == ["lo", "eth0", "eth1"]
            assert "already" in cellwall.failure("network", "connect", "lab", "guest")
            cellwall("network", "disconnect", "lab", "guest")
            # Its default route went with the link, and the other network's took over.
            assert [link["ifname"] for link in guest.ip("link")] == ["lo", "eth1"]
            assert ask(guest, CLIENT, 63) == HOST
            assert "not on network lab" in cellwall.failure("network", "disconnect", "lab", "guest")
        cellwall("stop", "-t", "0", "guest")
        cellwall("network", "create", "later")
        cellwall("network", "connect", "later", "guest")
        cellwall("network", "rm", "later")
        assert "network later was removed: make it again" in cellwall.failure("start", "guest")
        cellwall("network", "create", "later")
        cellwall("start", "guest")
        with cellwall.namespace("guest") as guest:
            assert [link["ifname"] for link in guest.ip("link")] == ["lo", "eth0", "eth1"]
            cellwall("network", "disconnect", "later", "guest")
            assert [link["ifname"] for link in guest.ip("link")] == ["lo", "eth0"]
        cellwall("network", "rm", "later")
        cellwall("restart", "-t", "0", "guest")
        with cellwall.namespace("guest") as guest:
            assert [link["ifname"] for link in guest.ip("link")] == ["lo", "eth0"]
    finally:
        cellwall("rm", "-f", "guest")


def test_addresses_that_cant_be_given(cellwall: Cellwall, image: str, host: Namespace, before: dict[str, Any]) -> None:
    cellwall("network", "create", "--subnet", "10.78.0.0/29", "small")
    inside = ("run", "--rm", "--network", "small")
    try:
        asked = {
            ("--ip", "10.79.0.2"): "not an address of network small, whose subnet is 10.78.0.0/29",
            ("--ip", "10.78.0.1"): "the gateway of network small",
            ("--ip", "10.78.0.7"): "the first and the last address",
            ("--ip6", "fd00::5"): "network small has no IPv6 subnet",
            ("--network-alias", "a b"): "is no name",
        }
        for words, part in asked.items():
            assert part in cellwall.failure(*inside, *words, image, "true"), words
        # Twenty at once for five addresses: each goes to one, and the others are told that there is none.
        script = "ip -4 -o addr show eth0 | awk '{print $4}'; cat"
        running = [
            cellwall.host.popen(
                cellwall.words("run", "--rm", "-i", "--network", "small", image, "sh", "-c", script),
                cellwall.environment,
            )
            for _ in range(8)
        ]
        lines = [process.stdout.readline().strip() for process in running if process.stdout]
        assert sorted(filter(None, lines)) == [f"10.78.0.{number}/29" for number in range(2, 7)]
        told = cellwall.failure(*inside, "--ip", "10.78.0.4", image, "true")
        assert "has that address on network small: take another" in told
        ends = [process.communicate()[1] for process in running]
        assert sum("no free address left in 10.78.0.0/29" in text for text in ends) == 3, ends
        assert cellwall(*inside, "--ip", "10.78.0.4", "--mac-address", "02:00:00:00:00:05", image, "cat", "/sys/class/net/eth0/address") == "02:00:00:00:00:05"  # fmt: skip
    finally:
        cellwall("network", "rm", "small")


def test_ports_in_use_and_chosen(cellwall: Cellwall, image: str, host: Namespace, up: None) -> None:
    with Echo(host, 8100), Echo(host, 8101, "udp"):
        said = cellwall.failure("run", "--rm", "-p", "8100:80", image, "true")
        assert "port 8100/tcp of 0.0.0.0 is in use by" in said and f"(pid {os.getpid()})" in said
        assert "8101/udp" in cellwall.failure("run", "--rm", "-p", "8101:80/udp", image, "true")
        assert "8080/tcp of 0.0.0.0 is in use by container web" in cellwall.failure(
            "run", "--rm", "-p", "8080:80", image, "true"
        )
        assert "192.0.2.7: this machine has no such address" in cellwall.failure(
            "run", "--rm", "-p", "192.0.2.7:80:80", image, "true"
        )
        cellwall("run", "-d", "--name", "chosen", "-P", "-p", "8099-8105:80", image, "sleep", "1000")
        try:
            ports = json.loads(cellwall("inspect", "chosen"))[0]["NetworkSettings"]["Ports"]
            assert [one["HostPort"] for one in ports["80/tcp"]] == ["8099"]
            assert ports["70/tcp"] and ports["71/udp"], ports
            with cellwall.namespace("chosen") as chosen, Echo(chosen, 70):
                assert ask(host, "127.0.0.1", int(ports["70/tcp"][0]["HostPort"])) != "refused"
            # Taken for everybody else as well.
            with pytest.raises(OSError, match="in use"):
                Echo(host, 8099, address="0.0.0.0")
        finally:
            cellwall("rm", "-f", "chosen")


def test_what_a_killed_launcher_leaves_is_freed_and_nothing_else(
    cellwall: Cellwall, image: str, host: Namespace, up: None
) -> None:
    alive = host.facts()
    cellwall("run", "-d", "--name", "victim", "-p", "8200:80", "--network", "lab", image, "sleep", "1000")
    cellwall("run", "-d", "--name", "victim2", "-p", "8201:80", image, "sleep", "1000")
    assert host.facts() != alive
    for name in ("victim", "victim2"):
        kill(cellwall.state(name)["cellwall"]["launcher"]["pid"])
    cellwall("ps")
    assert host.facts() == alive
    assert "exited" in cellwall("ps", "-a", "--format", "{{.Names}} {{.State}}", "-f", "name=victim").replace("\n", " ")
    # The port is free again, and so is the address.
    cellwall("run", "--rm", "-p", "8200:80", "--network", "lab", image, "true")
    cellwall("rm", "victim", "victim2")
    assert host.facts() == alive


def test_what_the_machine_has_is_minded() -> None:
    """Subnets and the size of packets of a network to be made fit the machine's own routes and links."""
    with made() as machine:
        assert machine.inside(pools.mtu) == 1500
        machine.ip("link", "add", "vpn0", "mtu", "1380", "type", "bridge")
        machine.ip("link", "set", "vpn0", "up")
        machine.ip("addr", "add", "10.201.0.9/18", "dev", "vpn0")
        machine.ip("route", "add", "10.200.0.0/15", "dev", "vpn0")
        machine.ip("route", "add", "default", "via", "10.201.0.1")
        assert machine.inside(pools.mtu) == 1380
        assert machine.inside(lambda: pools.free([], default=True))["subnet"] == "172.30.0.0/16"
        assert machine.inside(lambda: pools.free([]))["subnet"] == "10.202.0.0/24"
        with pytest.raises(
            NetworkError, match=r"--subnet 10.201.5.0/24 overlaps 10.20\d.0.0/1\d, which this machine has a route to"
        ):
            machine.inside(lambda: pools.check_free({"subnet": "10.201.5.0/24"}, []))


def test_doctor_names_a_firewall_that_has_the_last_word(cellwall: Cellwall, host: Namespace) -> None:
    def forwarding() -> dict[str, str]:
        probes = json.loads(cellwall("doctor", "--format", "json"))["probes"]
        return next(one for one in probes if one["name"] == "forwarding")

    assert forwarding()["status"] == "ok"
    drops = "table ip strict { chain others { type filter hook forward priority 0; policy drop; }; }"
    assert host.command("nft", drops).returncode == 0
    try:
        found = forwarding()
        assert found["status"] == "limited"
        assert "ip strict others" in found["detail"]
        for command in found["mend"].split("; "):
            assert host.command(*command.split()).returncode == 0, command
    finally:
        host.command("nft", "delete", "table", "ip", "strict")


def test_links_and_rights_that_are_missing(
    cellwall: Cellwall, image: str, host: Namespace, before: dict[str, Any]
) -> None:
    present = host.facts()
    cellwall("network", "create", "-o", "com.docker.network.bridge.name=theirs0", "taken")
    host.ip("link", "add", "theirs0", "type", "bridge")
    try:
        said = cellwall.failure("run", "--rm", "--network", "taken", image, "true")
        assert "link theirs0 of network taken is there already and not cellwall's" in said
        assert [link["ifname"] for link in host.ip("link", "show", "theirs0")] == ["theirs0"]
        lacking = ("setpriv", "--bounding-set", "-net_admin", "--inh-caps", "-net_admin")
        said = cellwall.failure("run", "--rm", "--network", "bridge", image, "true", wrapper=lacking)
        assert "may not change nftables (CAP_NET_ADMIN)" in said and "--network host" in said
        # What only began is taken down where the rights are.
        host.ip("link", "del", "theirs0")
        cellwall("run", "--rm", "--network", "taken", image, "true")
    finally:
        cellwall("network", "rm", "taken")
    assert host.facts() == present
    happened = [json.loads(line) for line in (cellwall.root / "run/events.jsonl").read_text().splitlines()]
    told = [
        one["Action"] for one in happened if one["Type"] == "network" and one["Actor"]["Attributes"]["name"] == "taken"
    ]
    assert told[:1] + told[-3:] == ["create", "connect", "disconnect", "destroy"], told
