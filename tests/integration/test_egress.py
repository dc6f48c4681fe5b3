"""Egress allow-lists against code that wants out: what the container reaches, and what of it is seen on the machine's wire.

The code that tries is root in its container, with every capability over its network that can be given.
"""

from __future__ import annotations

import json
import socket
import struct
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cellwall.runtime.names import message

from ..netns import Netns
from ..network_world import EVIL, GOOD, OTHER, RESOLVER, World
from ..waiting import kill, until

pytestmark = pytest.mark.needs("root", "overlay", "busybox-static", "bridge-links", "nftables-nat")

LIST = f"good.test,*.wild.test:8080,{OTHER}:443,rebound.test"
# Runs in the container, on the machine's own python3: each attempt by its name, and whether it came through.
TRY = """
import json, socket, sys

def tcp(address, port, family=socket.AF_INET):
    with socket.socket(family, socket.SOCK_STREAM) as sock:
        sock.settimeout(1)
        try:
            sock.connect((address, port))
            sock.settimeout(60)  # it is let through: the answer comes
            sock.sendall(b"GET / HTTP/1.0\\r\\n\\r\\n")
            return bool(sock.recv(100))
        except OSError:
            return False

def udp(address, port, data):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.settimeout(0.5)
        try:
            sock.connect((address, port))
            sock.send(data)
            return bool(sock.recv(100))
        except OSError:
            return False

def lookup(name):
    try:
        return sorted({found[4][0] for found in socket.getaddrinfo(name, None)})
    except OSError:
        return []
"""


class Wire:
    """Every packet that leaves the machine for the internet, as the internet's end of the link sees it."""

    def __init__(self, space: Netns, interface: str) -> None:
        self.sock = space.socket(socket.AF_PACKET, socket.SOCK_RAW)
        self.sock.bind((interface, 3))  # ETH_P_ALL
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)
        self.sock.settimeout(0.2)
        self.seen: set[tuple[str, int, int]] = set()
        self.odd: list[bytes] = []
        self.stopping = threading.Event()
        self.thread = threading.Thread(target=self._read)
        self.thread.start()

    def _read(self) -> None:
        while True:
            try:
                data, (_, _, kind, *_) = self.sock.recvfrom(65535)
            except TimeoutError:
                if self.stopping.is_set():
                    return
                continue
            if kind == socket.PACKET_OUTGOING:
                continue
            self._note(data)

    def _note(self, data: bytes) -> None:
        (kind,) = struct.unpack_from("!H", data, 12)
        if kind == 0x0806:
            return
        if kind != 0x0800:
            # The machine itself looks for routers and tells of its groups. Source: RFC 4861, RFC 3810.
            if not (kind == 0x86DD and data[20] in (0, 58)):
                self.odd.append(data)
            return
        packet = data[14:]
        header = (packet[0] & 15) * 4
        port = struct.unpack_from("!H", packet, header + 2)[0] if packet[9] in (6, 17) else 0
        self.seen.add((socket.inet_ntoa(packet[16:20]), packet[9], port))

    def close(self) -> set[tuple[str, int, int]]:
        """Where packets went: address, protocol, port."""
        self.stopping.set()
        self.thread.join()
        self.sock.close()
        return self.seen


class Listener:
    """A service of the machine's own, on all its addresses; ``reached`` counts who came."""

    def __init__(self, space: Netns, port: int) -> None:
        self.sock = space.socket(socket.AF_INET, socket.SOCK_STREAM)
        self.sock.bind(("0.0.0.0", port))
        self.sock.listen(64)
        self.sock.setblocking(False)

    @property
    def reached(self) -> int:
        count = 0
        while True:
            try:
                self.sock.accept()[0].close()
            except BlockingIOError:
                return count
            count += 1

    def close(self) -> None:
        self.sock.close()


@pytest.fixture
def world(tmp_path: Path, cellwall_root: Path) -> Iterator[World]:
    made = World(tmp_path, cellwall_root)
    yield made
    made.remove_containers()
    made.close()


def endpoints(world: World) -> list[dict[str, Any]]:
    """What running containers have on networks, as it is on disk."""
    return [json.loads(path.read_bytes()) for path in (world.root / "run/networks").glob("*/*.json")]


def run_python(world: World, code: str, *options: str, listed: str = LIST) -> tuple[Any, str]:
    """What ``code`` prints as JSON in a container with an egress list, and what was said of it."""
    out, err = world.both("run", "--rm", *options, "--network", f"egress={listed}", "host", "python3", "-c", TRY + code)
    return json.loads(out), err


def test_only_what_is_listed_is_reached(world: World, busybox: str) -> None:
    before = world.state()
    run = world.cellwall
    run(
        "run",
        "-d",
        "--name",
        "web",
        "--network",
        "bridge",
        "-p",
        "18080:80",
        busybox,
        "httpd",
        "-f",
        "-p",
        "80",
        "-h",
        "/etc",
    )
    run(
        *("run", "-d", "--name", "shut", "--hostname", "shut", "-p", "18081:80", "--network", "egress=good.test"),
        *(busybox, "httpd", "-f", "-p", "80", "-h", "/etc"),
    )
    web, shut = (json.loads(run("inspect", name))[0]["NetworkSettings"]["Networks"] for name in ("web", "shut"))
    machine = Listener(world.machine, 7777)
    wire = Wire(world.internet, "w0p")
    query = message.write_query(9, message.labels("secret.evil.test"), message.A)
    code = f"""
found = {{
    "before its name": tcp("{GOOD}", 80),
    "names": {{name: lookup(name) for name in ("good.test", "sub.wild.test", "wild.test", "evil.test", "rebound.test",
        "secret.evil.test", "web", "shut", "x.good.test")}},
    "good": [port for port in (80, 443, 8080, 22) if tcp("{GOOD}", port)],
    "listed": [port for port in (80, 443, 8080, 22) if tcp("{OTHER}", port)],
    "evil": [port for port in (80, 443, 8080, 53) if tcp("{EVIL}", port)],
    "dns": [udp("{RESOLVER}", 53, {query!r}), tcp("{RESOLVER}", 53), udp("{GOOD}", 443, b"x")],
    "machine": [(address, port) for address in ("198.51.100.1", "{shut["egress"]["Gateway"]}", "{web["bridge"]["Gateway"]}",
        "169.254.169.254") for port in (7777, 18080, 18081, 80) if tcp(address, port)],
    "containers": [address for address in ("{web["bridge"]["IPAddress"]}", "{shut["egress"]["IPAddress"]}") if tcp(address, 80)],
}}
print(json.dumps(found))
"""
    try:
        found, said = run_python(world, code)
        reached = machine.reached
    finally:
        machine.close()
        sent = wire.close()
    assert found == {
        "before its name": False,
        "names": {
            "good.test": [GOOD],
            "sub.wild.test": [OTHER],
            **{
                name: []
                for name in ("wild.test", "evil.test", "rebound.test", "secret.evil.test", "web", "shut", "x.good.test")
            },
        },
        "good": [80, 443],
        "listed": [443, 8080],
        "evil": [],
        "dns": [False, False, False],
        "machine": [],
        "containers": [],
    }
    assert reached == 0
    assert sent == {(RESOLVER, 17, 53), (GOOD, 6, 80), (GOOD, 6, 443), (OTHER, 6, 443), (OTHER, 6, 8080)}
    assert wire.odd == []
    asked = {message.text_of(message.read_query(data).name) for data in world.resolver.asked}
    assert asked == {"good.test", "sub.wild.test", "rebound.test"}
    # The person is told what was refused, by name and by address.
    (line,) = said.splitlines()[-1:]
    assert line.startswith("cellwall: --network egress=… has refused name wild.test (once), evil.test (once), ")
    for part in (
        "secret.evil.test (once)",
        f"{EVIL}:443/tcp (once)",
        f"{RESOLVER}:53/udp (once)",
        f"{GOOD}:443/udp (once)",
    ):
        assert part in line or "more" in line
    # Who comes in by a published port is answered: from the internet, and from the machine itself.
    get = "import sys, urllib.request as u; print(u.urlopen(sys.argv[1], timeout=60).read().decode(), end='')"
    for space, address in (
        (world.internet, "198.51.100.1"),
        (world.machine, "198.51.100.1"),
        (world.machine, "127.0.0.1"),
    ):
        assert space.run(sys.executable, "-I", "-c", get, f"http://{address}:18081/hostname") == "shut\n"
    run("rm", "-f", "web", "shut")
    assert world.state() == before


def test_root_inside_cannot_undo_it(world: World, busybox: str) -> None:
    """Another address, another sender, other kinds of frames, its own rules: nothing gets anywhere."""
    run = world.cellwall
    # A neighbour that may reach more: its address would be worth having.
    listen = "import socket; s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3)); print('up', flush=True)\n"
    listen += "while True:\n data, place = s.recvfrom(2000)\n if place[2] != 4 and b'frame of mine' in data: print('got', data.hex(), flush=True)"
    run(
        "run",
        "-d",
        "--name",
        "rich",
        "--cap-add",
        "NET_RAW",
        "--network",
        f"egress={EVIL}:80",
        "host",
        "python3",
        "-c",
        listen,
    )
    rich = json.loads(run("inspect", "rich"))[0]["NetworkSettings"]["Networks"]["egress"]
    until(lambda: run("logs", "rich") == "up\n", "the neighbour's ears")
    machine = Listener(world.machine, 7777)
    wire = Wire(world.internet, "w0p")
    code = f"""
import signal, struct, subprocess
def ip(*words): return subprocess.run(["ip", *words], capture_output=True, text=True)
own = socket.gethostbyname(socket.gethostname())
raw = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
raw.bind(("eth0", 0))
mac = raw.getsockname()[4]
gateway = bytes.fromhex("{rich["GatewayMac"] if "GatewayMac" in rich else "ffffffffffff"}")
theirs = bytes.fromhex("{rich["MacAddress"].replace(":", "")}")
link_local = bytes.fromhex("fe80000000000000") + bytes(8)

def packet(source, target, protocol=17, data=b"frame of mine"):
    body = struct.pack("!HHHH", 9, 80, 8 + len(data), 0) + data
    head = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 20 + len(body), 1, 0, 64, protocol, 0, socket.inet_aton(source), socket.inet_aton(target))
    total = sum(struct.unpack("!10H", head))
    total = (total & 0xffff) + (total >> 16)
    return head[:10] + struct.pack("!H", ~(total + (total >> 16)) & 0xffff) + head[12:] + body

tcp("{GOOD}", 80)  # so that the way out is known: its hardware address is in the neighbour table
out = ip("neigh").stdout
near = next((line.split()[4] for line in out.splitlines() if "lladdr" in line), "ff:ff:ff:ff:ff:ff")
router = bytes.fromhex(near.replace(":", ""))
for target_mac in (router, theirs, b"\\xff" * 6):
    for sender_mac in (mac, theirs, b"\\x02\\x42\\x01\\x02\\x03\\x04"):
        for source in (own, "{rich["IPAddress"]}", "203.0.113.200", "0.0.0.0"):
            for target in ("{EVIL}", "{rich["IPAddress"]}", "255.255.255.255"):
                raw.send(target_mac + sender_mac + b"\\x08\\x00" + packet(source, target))
        # IPv6, a VLAN's tag, a frame of an unknown kind, an ARP message that takes the neighbour's address.
        raw.send(target_mac + sender_mac + b"\\x86\\xdd" + struct.pack("!IHBB", 6 << 28, 13, 59, 64) + link_local * 2 + b"frame of mine")
        raw.send(target_mac + sender_mac + b"\\x81\\x00\\0\\1\\x08\\x00" + packet(own, "{rich["IPAddress"]}"))
        raw.send(target_mac + sender_mac + b"\\x88\\xb5frame of mine")
        arp = struct.pack("!HHBBH", 1, 0x800, 6, 4, 2) + sender_mac + socket.inet_aton("{rich["IPAddress"]}") + target_mac + socket.inet_aton(own)
        raw.send(target_mac + sender_mac + b"\\x08\\x06" + arp + b"frame of mine")
# Looked at now, before the neighbour speaks again and is known anew.
signal.pthread_sigmask(signal.SIG_BLOCK, {{signal.SIGUSR1}})
print("sent", flush=True)
signal.sigwait({{signal.SIGUSR1}})
found = {{}}
found["own rules"] = [subprocess.run(["nft", "flush", "ruleset"], capture_output=True).returncode, tcp("{EVIL}", 80)]
ip("address", "add", "{rich["IPAddress"]}/16", "dev", "eth0")
ip("route", "replace", "default", "via", "{rich["Gateway"]}", "src", "{rich["IPAddress"]}")
found["another's address"] = tcp("{EVIL}", 80)
ip("address", "flush", "dev", "eth0")
ip("link", "set", "eth0", "address", "{rich["MacAddress"]}")
ip("address", "add", "{rich["IPAddress"]}/16", "dev", "eth0")
ip("route", "add", "default", "via", "{rich["Gateway"]}")
found["another's address and sender"] = [tcp("{EVIL}", 80), tcp("198.51.100.1", 7777), tcp("{rich["Gateway"]}", 7777)]
print(json.dumps(found), flush=True)
"""
    with world.machine.socket() as sock:
        # So that the machine knows the neighbour's hardware address, and would have it changed.
        sock.sendto(b"x", (rich["IPAddress"], 9))
    capabilities = ("--cap-add", "NET_ADMIN", "--cap-add", "NET_RAW")
    words = (
        "run",
        "--rm",
        "--name",
        "foe",
        *capabilities,
        "--network",
        f"egress={GOOD}:80",
        "host",
        "python3",
        "-c",
        TRY + code,
    )
    try:
        process = world.popen(*words)
        assert process.stdout is not None
        if (line := process.stdout.readline()) != "sent\n":
            pytest.fail(f"{line!r}, then {process.communicate(timeout=60)}")
        neighbours = json.loads(world.machine.run("ip", "-j", "neigh", "show", "to", rich["IPAddress"]))
        learned = json.loads(world.machine.run("bridge", "-j", "fdb", "show"))
        run("kill", "-s", "USR1", "foe")
        out, _ = process.communicate(timeout=60)
        found = json.loads(out)
        reached = machine.reached
    finally:
        machine.close()
        sent = wire.close()
    assert found == {
        "own rules": [found["own rules"][0], False],
        "another's address": False,
        "another's address and sender": [False, False, False],
    }
    assert reached == 0
    assert sent == {(GOOD, 6, 80)}
    assert wire.odd == []
    # Whose address it is, and behind which port it lies, is known as before.
    assert [one["lladdr"] for one in neighbours] == [rich["MacAddress"]]
    places = {one["ifname"] for one in learned if one["mac"] == rich["MacAddress"] and one.get("state") != "permanent"}
    assert "02:42:01:02:03:04" not in {one["mac"] for one in learned}
    (link,) = [one["link"] for one in endpoints(world) if one["name"] == "rich"]
    assert places == {link}
    # What the neighbour heard: nothing. That it listens at all is shown by one that is let through.
    assert run("logs", "rich") == "up\n"
    run("rm", "-f", "rich")


def test_addresses_are_let_through_for_a_time(world: World, busybox: str) -> None:
    run = world.cellwall
    run("run", "-d", "--name", "box", "--network", f"egress=good.test:443,{OTHER}", busybox, "sleep", "1000")
    run("exec", "box", "nslookup", "good.test")
    (table,) = [
        entry["table"]["name"]
        for entry in json.loads(world.machine.run("nft", "-j", "list", "tables"))["nftables"]
        if entry.get("table", {}).get("family") == "bridge"
    ]

    def allowed() -> dict[str, int]:
        data = json.loads(world.machine.run("nft", "-j", "list", "set", "inet", table, "allowed"))
        elements = next(entry["set"] for entry in data["nftables"] if "set" in entry)["elem"]
        found = {}
        for one in elements:
            key = one["elem"]["val"] if "elem" in one else one
            address, protocol, port = key["concat"]
            found[f"{address}:{port}/{protocol}"] = one.get("elem", {}).get("expires", 0)
        return found

    first = allowed()
    assert set(first) == {f"{GOOD}:443/tcp", f"{OTHER}:80/tcp", f"{OTHER}:443/tcp"}
    # The record has five seconds: a minute at least, and a little more for who uses it in its last moment.
    assert 60 < first[f"{GOOD}:443/tcp"] <= 90
    assert first[f"{OTHER}:80/tcp"] == 0
    settings = json.loads(run("inspect", "box"))[0]["NetworkSettings"]
    assert settings["Egress"] == {"Allowed": ["good.test:443", OTHER], "Refused": []}
    # What is refused is told while it runs, and when it has ended.
    run("exec", "box", "sh", "-c", f"! wget -qO- http://{EVIL}/; ! wget -qO- http://evil.test/")
    told = f"--network egress=… has refused name evil.test (once); address {EVIL}:80/tcp (once)"

    def refused() -> list[str]:
        found: list[str] = json.loads(run("inspect", "box"))[0]["NetworkSettings"]["Egress"]["Refused"]
        return found

    # While it runs names are written down a moment later.
    until(lambda: refused() == [told], refused)
    for _ in range(2):
        run("stop", "-t", "0", "box")
        assert refused() == [told]
    run("start", "box")

    # Killed with its launcher: the next start takes its rules away, and its address may be given to another.
    before = world.machine.run("nft", "list", "tables")
    state = json.loads(next((world.root / "run/containers").glob("*/state.json")).read_bytes())
    kill(state["cellwall"]["launcher"]["pid"])
    assert table in before
    run("rm", "-f", "box")
    assert world.machine.run("nft", "list", "tables") == ""


def test_what_cannot_be_is_said(world: World, busybox: str) -> None:
    run = world.cellwall
    for options, said in (
        (("--network", "egress="), "--network egress=: needs what may be reached"),
        (("--network", "egress"), "--network: egress needs what may be reached, such as"),
        (("--network", "egress=*"), "--network egress=: *: every name may be reached with --network bridge"),
        (("--network", "egress=good.test", "--network", "bridge"), "--network: egress=… goes with no other network"),
        (("--network", "egress=good.test", "--add-host", "up:host-gateway"), "nothing leads to this machine"),
    ):
        assert said in run("run", "--rm", *options, busybox, "true", status=125).splitlines()[-1]
    run("network", "create", "lab")
    run("run", "-d", "--name", "box", "--network", "egress=good.test", busybox, "sleep", "1000")
    assert "would be a way round an egress list" in run("network", "connect", "lab", "box", status=1)
    assert "is one of cellwall's own" in run("network", "rm", "egress", status=1)
    run("rm", "-f", "box")
