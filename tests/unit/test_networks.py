"""Networks without a network: how they and ports are written, subnets, addresses from a pool, the host's ports."""

from __future__ import annotations

import errno
import os
import socket
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from cellwall.runtime.cli.run_options import parse_run
from cellwall.runtime.errors import AlreadyExists, NetworkError, NotFound, SpecError, StatusError
from cellwall.runtime.linux.process import start_time
from cellwall.runtime.network import endpoints, nftables, pools, ports
from cellwall.runtime.network.definitions import Definitions
from cellwall.runtime.options import NetworkUse, Port, RunOptions
from cellwall.runtime.paths import Paths

OWNER = {"pid": os.getpid(), "started": start_time(os.getpid())}


def run(line: str) -> RunOptions:
    return parse_run(line.split())


@pytest.mark.parametrize(
    ("line", "published"),
    [
        ("-p 80", [Port(80)]),
        ("-p 8080:80", [Port(80, host_port=8080)]),
        ("-p 127.0.0.1:8080:80/tcp", [Port(80, "tcp", "127.0.0.1", 8080)]),
        ("-p 127.0.0.1::53/UDP", [Port(53, "udp", "127.0.0.1")]),
        ("-p [2001:db8::1]:8080:80", [Port(80, "tcp", "2001:db8::1", 8080)]),
        ("-p 8000-8001:9000-9001", [Port(9000, host_port=8000), Port(9001, host_port=8001)]),
        ("-p 8000-8005:80", [Port(80, host_port=8000, host_port_end=8005)]),
        ("-p 70-71", [Port(70), Port(71)]),
        ("-p 80 -p 443:443/udp", [Port(80), Port(443, "udp", "", 443)]),
    ],
)
def test_ports_as_docker_writes_them(line: str, published: list[Port]) -> None:
    assert run(f"{line} x").publish == tuple(published)


@pytest.mark.parametrize(
    ("line", "flag", "part"),
    [
        ("-p 0:80", "--publish", "0 is no port"),
        ("-p 80:65536", "--publish", "65536 is no port"),
        ("-p a:80", "--publish", "'a' is no port"),
        ("-p 1-3:1-2", "--publish", "differ in length"),
        ("-p 3-1:80", "--publish", "ends before it begins"),
        ("-p 80/sctp", "--publish", "tcp and udp are"),
        ("-p host:80:80", "--publish", "'host' is no IPv4 address"),
        ("-p ::1:80:80", "--publish", "goes into []"),
        ("-p [::1]:80:80", "--publish", "take 127.0.0.1"),
        ("-p [::1:80:80", "--publish", "the form [IPV6]"),
        ("--expose 80-", "--expose", "is no port"),
        ("-P --network none", "--publish-all", "no way to the ports"),
        ("-p 80 --network container:a", "--publish", "no way to the ports"),
        ("--expose 80 --network container:a", "--expose", "the other container's"),
        ("--ip 10.0.0.1", "--ip", "needs a network"),
        ("--ip fd00::1 --network lab", "--ip", "is no IPv4 address"),
        ("--ip6 10.0.0.1 --network lab", "--ip6", "is no IPv6 address"),
        ("--mac-address 01:00:00:00:00:01 --network lab", "--mac-address", "a group's address"),
        ("--mac-address nonsense --network lab", "--mac-address", "is no MAC address"),
        ("--network-alias web --network bridge", "--network-alias", "has no aliases"),
        ("--network lab --network host", "--network", "host goes with no other"),
        ("--network none --network lab", "--network", "none goes with no other"),
        ("--network name=lab,ip=1.2.3", "--network", "is no IPv4 address"),
        ("--network alias=a", "--network", "names no network"),
        ("--network name=lab,color=red", "--network", "'color' isn't known"),
        ("--network name=lab,ip=10.0.0.1,ip=10.0.0.2", "--network", "given twice"),
        ("--network name=lab,ip=10.0.0.1 --ip 10.0.0.2", "--ip", "twice"),
        ("--network a/b", "--network", "is no network"),
        ("--network container:", "--network", "names no container"),
        ("--network container:a -h b", "--hostname", "the other container's"),
        ("--network container:a --dns 10.0.0.1", "--dns", "the other container's"),
    ],
)
def test_what_is_wrong_is_named(line: str, flag: str, part: str) -> None:
    with pytest.raises(SpecError) as caught:
        run(f"{line} x")
    assert caught.value.field == flag
    assert part in str(caught.value)


def test_networks_as_docker_writes_them() -> None:
    assert (run("x").network, run("x").networks) == (None, ())
    assert run("-p 80 x").network == "bridge"
    assert run("-P x").network == "bridge"
    assert run("--network host -p 80 x").network == "host"
    assert run("--network container:a x").network == "container:a"
    assert run("--network default x").network == "bridge"
    said = run(
        "--network name=lab,alias=a,alias=b,ip=10.0.0.5 --net other --network-alias c --ip6 fd00::5 --mac-address 02-00-00-00-00-0A x"
    )
    assert said.network == "lab"
    assert said.networks == (
        NetworkUse("lab", ("a", "b", "c"), "10.0.0.5", "fd00::5", "02:00:00:00:00:0a"),
        NetworkUse("other"),
    )
    assert run("--expose 80 --expose 90-91/udp x").expose == ("80/tcp", "90/udp", "91/udp")


@pytest.mark.parametrize(
    ("subnets", "gateways", "ranges", "flag", "part"),
    [
        (["10.0.0.0"], [], [], "--subnet", "write 10.0.0.0/24"),
        (["10.0.0.1/24"], [], [], "--subnet", "write 10.0.0.0/24"),
        (["x"], [], [], "--subnet", "is no subnet"),
        (["10.0.0.0/31"], [], [], "--subnet", "too small"),
        (["127.0.0.0/24"], [], [], "--subnet", "no addresses of containers"),
        (["10.0.0.0/24", "10.1.0.0/24"], [], [], "--subnet", "one IPv4 subnet"),
        (["10.0.0.0/24"], ["10.1.0.1"], [], "--gateway", "lies in no --subnet"),
        (["10.0.0.0/24"], ["10.0.0.255"], [], "--gateway", "no address of a machine"),
        (["10.0.0.0/24"], [], ["10.1.0.0/28"], "--ip-range", "lies in no --subnet"),
        ([], ["10.0.0.1"], [], "--gateway", "lies in no --subnet"),
    ],
)
def test_subnets_that_cant_be(subnets: list[str], gateways: list[str], ranges: list[str], flag: str, part: str) -> None:
    with pytest.raises(SpecError) as caught:
        pools.read(subnets, gateways, ranges)
    assert caught.value.field == flag
    assert part in str(caught.value)


@pytest.fixture
def definitions(tmp_path: Path) -> Definitions:
    return Definitions(Paths(tmp_path, tmp_path / "run"))


def claim(definitions: Definitions, network: dict[str, Any], number: int, **wanted: str) -> dict[str, Any]:
    asked = {"aliases": [], "ip": "", "ip6": "", "mac": "", **wanted}
    container = {"id": f"{number:064x}"[::-1], "name": f"box{number}", "hostname": f"box{number}"}
    with endpoints.Locked(definitions.run):
        return endpoints.new(definitions.run, network, asked, container, OWNER, 0)


def test_addresses_of_a_pool(definitions: Definitions) -> None:
    network = definitions.create(
        "lab", subnets=["10.99.0.0/29", "fd99::/64"], ranges=["10.99.0.0/30"], gateways=["10.99.0.2"]
    )
    first = claim(definitions, network, 1)
    assert (first["addresses"], first["gateways"]) == (["10.99.0.1/29", "fd99::2/64"], ["10.99.0.2", "fd99::1"])
    assert first["mac"] == "02:42:0a:63:00:01"
    assert len(first["link"]) <= 15
    assert claim(definitions, network, 2)["addresses"] == ["10.99.0.3/29", "fd99::3/64"]
    with pytest.raises(NetworkError, match="no free address left in 10.99.0.0/30"):
        claim(definitions, network, 3)
    # What is asked for may lie outside of the range, but in the subnet, and isn't anybody's.
    assert claim(definitions, network, 3, ip="10.99.0.6", ip6="fd99::0:6")["addresses"] == [
        "10.99.0.6/29",
        "fd99::6/64",
    ]
    for wanted, part in (
        ({"ip": "10.99.0.6"}, "container box3 has that address"),
        ({"ip": "10.99.0.2"}, "the gateway"),
        ({"ip": "10.99.0.8"}, "not an address of network lab"),
        ({"ip": "10.99.0.5", "ip6": "fd99::6"}, "container box3 has that address"),
        ({"ip": "10.99.0.5", "mac": "02:42:0a:63:00:01"}, "container box1 has it"),
    ):
        with pytest.raises(NetworkError, match=part):
            claim(definitions, network, 4, **wanted)
    with pytest.raises(AlreadyExists, match="is on network lab already"):
        claim(definitions, network, 1)
    endpoints.forget(definitions.run, first)
    assert claim(definitions, network, 5)["addresses"] == ["10.99.0.1/29", "fd99::2/64"]
    assert [one["name"] for one in endpoints.of_container(definitions.run, f"{5:064x}"[::-1])] == ["box5"]
    assert endpoints.stale(definitions.run) == []


def test_twenty_at_once_get_twenty_addresses(definitions: Definitions) -> None:
    network = definitions.create("lab", subnets=["10.99.0.0/27"])
    with ThreadPoolExecutor(20) as pool:
        made = list(pool.map(lambda number: claim(definitions, network, number), range(1, 21)))
    addresses = {one["addresses"][0] for one in made}
    assert addresses == {f"10.99.0.{number}/27" for number in range(2, 22)}
    assert len({one["mac"] for one in made} | {one["link"] for one in made}) == 40
    assert len(definitions.users(network["id"])) == 20


def test_networks_on_disk(definitions: Definitions) -> None:
    default = definitions.find("bridge")
    assert definitions.find("bridge") == default and not default["user_defined"]
    lab = definitions.create("lab", ipv6=True, options={"mtu": "1400"})
    assert (lab["mtu"], [one["subnet"].partition(":")[0][:2] for one in lab["subnets"]]) == (1400, ["10", "fd"])
    assert lab["subnets"][0] != definitions.create("lab2")["subnets"][0]
    assert definitions.find(lab["id"][:20]) == lab
    with pytest.raises(NetworkError, match="overlaps .* of network lab"):
        definitions.create("third", subnets=[lab["subnets"][0]["subnet"]])
    with pytest.raises(AlreadyExists, match="the name lab is taken"):
        definitions.create("lab")
    for name in ("bridge", "host", "none"):
        with pytest.raises(NetworkError, match="is one of cellwall's own and stays"):
            definitions.remove(name)
    used = claim(definitions, lab, 1)
    with pytest.raises(StatusError, match="used by box1"):
        definitions.remove("lab")
    endpoints.forget(definitions.run, used)
    definitions.remove("lab")
    with pytest.raises(NotFound, match="no network lab"):
        definitions.find("lab")
    for options, part in (
        ({"mtu": "x"}, "an MTU"),
        ({"nope": "1"}, "isn't known"),
        ({"com.docker.network.bridge.name": "a/b"}, "a link's name"),
    ):
        with pytest.raises(SpecError, match=part):
            definitions.create("odd", options=options)


def test_a_full_pool_is_told(definitions: Definitions, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pools, "_USERS", (("10.201.0.0/30", 31),))
    definitions.create("one")
    definitions.create("two")
    with pytest.raises(NetworkError, match=r"no subnet of the address pool is free: .*--subnet"):
        definitions.create("three")


@pytest.mark.parametrize(
    ("number", "says", "mend"),
    [
        (errno.EPERM, "may not change nftables (CAP_NET_ADMIN)", "run as root of the machine"),
        (errno.EPROTONOSUPPORT, "this kernel has no nftables (protocol not supported)", "modprobe nf_tables"),
        (errno.EOPNOTSUPP, "this kernel has no nftables (operation not supported)", "modprobe nf_tables"),
    ],
)
def test_what_is_missing_is_told_with_its_mend(number: int, says: str, mend: str) -> None:
    found = nftables.missing(number)
    assert says in str(found)
    assert mend in found.mend and "--network host" in found.mend


def test_a_port_is_taken_and_given_back(tmp_path: Path) -> None:
    wanted = {"container_port": 80, "protocol": "tcp", "host_ip": "127.0.0.1", "host_port": 0, "host_port_end": 0}
    held, published = ports.reserve(str(tmp_path), [wanted], [socket.AF_INET])
    number = published[0]["host_port"]
    try:
        with pytest.raises(NetworkError, match=f"port {number}/tcp of 127.0.0.1 is in use by"):
            ports.reserve(str(tmp_path), [wanted | {"host_port": number}], [socket.AF_INET])
        with socket.create_server(("127.0.0.1", 0)) as server:
            taken = wanted | {"host_port": server.getsockname()[1]}
            with pytest.raises(NetworkError, match=rf"is in use by \S+ \(pid {os.getpid()}\)"):
                ports.reserve(str(tmp_path), [taken], [socket.AF_INET])
        # A connection that was is no obstacle, as for a server that starts again: the socket waits in TIME_WAIT.
        with socket.create_server(("127.0.0.1", 0)) as server:
            used = server.getsockname()[1]
            with socket.create_connection(("127.0.0.1", used)) as one, server.accept()[0] as other:
                other.close()
                assert one.recv(1) == b""
        again, _ = ports.reserve(str(tmp_path), [wanted | {"host_port": used}], [socket.AF_INET])
        again[0].close()
        with pytest.raises(NetworkError, match="no such address"):
            ports.reserve(str(tmp_path), [wanted | {"host_ip": "192.0.2.55", "host_port": 9}], [socket.AF_INET])
        with pytest.raises(NetworkError, match="no IPv6 address"):
            ports.reserve(str(tmp_path), [wanted | {"host_ip": "2001:db8::1"}], [socket.AF_INET])
    finally:
        for sock in held:
            sock.close()
