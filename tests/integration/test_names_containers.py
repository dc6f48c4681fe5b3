"""Names of containers on real networks: who finds whom, what is forwarded, and the files that name servers are found by."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from ..network_world import GOOD, RESOLVER, World

pytestmark = pytest.mark.needs("root", "overlay", "busybox-static", "bridge-links", "nftables-nat")

USUAL = """\
127.0.0.1\tlocalhost
::1\tlocalhost ip6-localhost ip6-loopback
fe00::\tip6-localnet
ff00::\tip6-mcastprefix
ff02::1\tip6-allnodes
ff02::2\tip6-allrouters
"""
# For each name its address, or that there is none; as the C library finds it.
LOOK = 'for name in "$@"; do ping -c1 -W1 $name 2>&1 | sed -n "1s/PING \\([^ ]*\\) (\\([^)]*\\)).*/\\1 \\2/p; 1s/.*bad address.*/$name -/p"; done'


@pytest.fixture
def world(tmp_path: Path, cellwall_root: Path) -> Iterator[World]:
    made = World(tmp_path, cellwall_root)
    yield made
    made.remove_containers()
    made.close()


def found(output: str) -> dict[str, str]:
    return dict(line.split() for line in output.splitlines())


def test_who_finds_whom(world: World, busybox: str) -> None:
    """Names, aliases and ids on one's own networks; the world where there is a way to it; nobody who has gone."""
    before = world.state()
    run = world.cellwall
    for name, options in {"lab": (), "far": (), "cave": ("--internal",)}.items():
        run("network", "create", *options, name)
    serve = ("sh", "-c", "httpd -f -p 80 -h /etc")
    web = run(
        "run",
        "-d",
        "--name",
        "web",
        "--hostname",
        "webhost",
        "--network",
        "name=lab,alias=www,alias=both",
        busybox,
        *serve,
    ).strip()
    run("run", "-d", "--name", "hidden", "--network", "cave", busybox, *serve)
    run("run", "-d", "--name", "plain", "--network", "bridge", busybox, *serve)
    everybody = ("web", "www", "webhost", web[:12], "web.lab", "WEB", "hidden", "plain", "good.test", "nowhere.test")
    look = ("sh", "-c", LOOK, "sh", *everybody)

    from_lab = found(run("run", "--rm", "--network", "lab", busybox, *look))
    address = from_lab["web"]
    assert address.startswith("10.")
    assert from_lab == {
        **dict.fromkeys(("web", "www", "webhost", web[:12], "web.lab", "WEB"), address),
        "hidden": "-",
        "plain": "-",
        "good.test": GOOD,
        "nowhere.test": "-",
    }
    from_far = found(run("run", "--rm", "--network", "far", busybox, *look))
    assert {name for name, place in from_far.items() if place != "-"} == {"good.test"}
    from_cave = found(run("run", "--rm", "--network", "cave", busybox, *look))
    assert {name for name, place in from_cave.items() if place != "-"} == {"hidden"}
    # On two networks: the names of both, and the way out of the one that has it.
    from_both = found(run("run", "--rm", "--network", "cave", "--network", "lab", busybox, *look))
    assert {name for name, place in from_both.items() if place == "-"} == {"plain", "nowhere.test"}
    assert found(run("run", "--rm", "--network", "bridge", busybox, *look))["plain"] != "-"

    # By its name it is reached, and found again by its address.
    script = f"until wget -qO- http://www/hostname; do :; done; nslookup {address}"
    told = run("run", "--rm", "--network", "lab", busybox, "sh", "-c", script)
    assert told.startswith("webhost\n")
    assert "name = web.lab" in told

    # A running container sees others come and go.
    run("run", "-d", "--name", "peer", "--network", "lab", busybox, "sleep", "1000")
    run("run", "-d", "--name", "web2", "--network", "name=lab,alias=both", busybox, *serve)
    assert "web2.lab" in run("exec", "peer", "nslookup", "web2.lab")
    both = run("exec", "peer", "nslookup", "both.lab")
    assert both.count("Address: 10.") == 2
    run("rm", "-f", "web2")
    assert found(run("exec", "peer", "sh", "-c", LOOK, "sh", "web2", "both")) == {"web2": "-", "both": address}
    for name in ("web", "hidden", "plain", "peer"):
        run("rm", "-f", name)
    assert world.state() == before


def test_files(world: World, busybox: str) -> None:
    run = world.cellwall
    show = ("sh", "-c", "cat /etc/hosts; echo; cat /etc/resolv.conf")

    def files(*options: str) -> tuple[str, str]:
        hosts, _, resolv = run("run", "--rm", *options, "--hostname", "me", busybox, *show).partition("\n\n")
        return hosts + "\n", resolv

    served = "nameserver 127.0.0.11\nsearch machine.test\noptions timeout:3 ndots:0\n"
    hosts, resolv = files("--network", "bridge")
    gateway = "10.200.0.1"
    assert hosts.removeprefix(USUAL) == "10.200.0.2\tme\n"
    assert resolv == served
    hosts, resolv = files(
        *("--network", "bridge", "--domainname", "corp.test", "--dns", "192.0.2.53", "--dns-search", "a.test"),
        *("--dns-search", "b.test", "--dns-option", "ndots:2", "--dns-opt", "rotate"),
        *("--add-host", "up:host-gateway", "--add-host", "db=10.1.2.3", "--add-host", "six:[2001:db8::1]"),
    )
    said = f"{gateway}\tup\n10.1.2.3\tdb\n2001:db8::1\tsix\n"
    assert hosts.removeprefix(USUAL) == f"{said}10.200.0.2\tme.corp.test me\n"
    assert resolv == "nameserver 127.0.0.11\nsearch a.test b.test\noptions ndots:2 rotate\n"
    assert files("--network", "bridge", "--dns-search", ".")[1] == "nameserver 127.0.0.11\noptions timeout:3 ndots:0\n"
    # Without a network: only what was said.
    assert files() == (USUAL + "127.0.1.1\tme\n", "")
    assert files("--dns", "192.0.2.53", "--dns-search", "a.test")[1] == "nameserver 192.0.2.53\nsearch a.test\n"
    # The machine's own network: the machine's own files.
    hosts, resolv = files("--network", "host", "--add-host", "up:host-gateway")
    assert hosts == world.hosts.read_text() + "127.0.0.1\tup\n127.0.1.1\tme\n"
    assert resolv == world.resolv_conf.read_text()

    # One that shares another's network has its files, and its name server.
    run("run", "-d", "--name", "first", "--hostname", "one", "--network", "bridge", busybox, "sleep", "1000")
    shared = run("run", "--rm", "--network", "container:first", busybox, *show, "hostname")
    assert shared == f"{USUAL}10.200.0.2\tone\n\n{served}"
    assert found(
        run("run", "--rm", "--network", "container:first", busybox, "sh", "-c", LOOK, "sh", "one", "good.test")
    ) == {
        "one": "10.200.0.2",
        "good.test": GOOD,
    }
    run("rm", "-f", "first")

    # A kept one is given its files anew: another has its address now, and --dns is asked instead of the machine's.
    run("run", "--name", "kept", "--dns", RESOLVER, "--network", "bridge", "--hostname", "me", busybox, *show)
    run("run", "-d", "--name", "second", "--network", "bridge", busybox, "sleep", "1000")
    assert "10.200.0.3\tme\n" in run("start", "-a", "kept")
    for name in ("kept", "second"):
        run("rm", "-f", name)


REFUSED = {
    (
        "--add-host",
        "up:host-gateway",
    ): "--add-host: up:host-gateway: nothing leads to this machine under --network none",
    ("--network", "inner", "--add-host", "up:host-gateway"): (
        "--add-host up:host-gateway: nothing leads to this machine from the container's networks"
    ),
    ("--dns-search", "a b"): "--dns-search: 'a b' is no domain; write one such as example.org, or . for none",
    ("--dns-option", "ndots=2"): "--dns-option: 'ndots=2' is no option of resolv.conf; write one such as ndots:2",
    ("--dns", "resolver.test"): "--dns: 'resolver.test' isn't an IPv4 or IPv6 address",
    ("--network", "container:x", "--dns-search", "a.test"): (
        "--dns-search: can't be under --network container:x, as that is the other container's"
    ),
}


def test_what_cannot_be_is_said(world: World, busybox: str) -> None:
    world.cellwall("network", "create", "--internal", "inner")
    for options, said in REFUSED.items():
        error = world.cellwall("run", "--rm", *options, busybox, "true", status=125)
        assert error.splitlines()[-1] == f"cellwall: {said}"
