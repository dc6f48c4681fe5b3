"""The name server of a container: real sockets of three namespaces, its upstreams on the way, a launcher's loop around it."""

from __future__ import annotations

import json
import os
import resource
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from cellwall.runtime.names import message

from ..name_servers import NameServer, Script, ask_tcp, ask_udp, question, rcode, silent, table
from ..netns import Netns
from ..tree import TOP
from ..waiting import PATIENCE_S, until

pytestmark = pytest.mark.needs("root")

WEB = {"web": ["172.30.0.2"], "many": [f"172.30.1.{number}" for number in range(1, 120)]}
OUTSIDE = table(
    {
        ("example.org", message.A): [message.address_record("203.0.113.7", 300)],
        ("example.org", message.AAAA): [message.address_record("2001:db8::7", 300)],
        ("large.org", message.A): [message.address_record(f"203.0.113.{number}", 9) for number in range(1, 250)],
    }
)


class Served:
    """A responder of its own process, with its host's and its container's namespace."""

    def __init__(
        self,
        host: Netns,
        inside: Netns,
        process: subprocess.Popen[Any],
        resolv_conf: Path,
        servers: list[NameServer],
    ) -> None:
        self.host = host
        self.inside = inside
        self.process = process
        self.resolv_conf = resolv_conf
        self.servers = servers

    def ask(self, name: str, kind: int = message.A, edns: int | None = None) -> message.Answer:
        data = ask_udp(self.inside, question(name, kind, edns=edns))
        return message.read_answer(data, message.labels(name))

    def allowed(self) -> list[Any]:
        """What an egress list has let through next."""
        assert self.process.stdout is not None
        found: list[Any] = json.loads(self.process.stdout.readline())
        return found

    def addresses(self, name: str) -> list[str]:
        return [address for address, _ in self.ask(name).addresses]


@contextmanager
def serving(
    folder: Path,
    upstreams: dict[str, Script] | None = None,
    dns: tuple[str, ...] = (),
    egress: tuple[str, ...] = (),
) -> Iterator[Served]:
    """A responder whose host has these upstreams; the resolv.conf names them all in order where ``dns`` doesn't."""
    upstreams = {"127.0.0.53": OUTSIDE} if upstreams is None else upstreams
    resolv_conf = folder / "resolv.conf"
    resolv_conf.write_text("".join(f"nameserver {address}\n" for address in upstreams))
    with ExitStack() as stack:
        host, inside = stack.enter_context(Netns()), stack.enter_context(Netns())
        servers = [NameServer(host, address, script) for address, script in upstreams.items()]
        for upstream in servers:
            stack.callback(upstream.close)
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        fds = [theirs.fileno(), inside.fd]
        driver = [sys.executable, "-m", "tests.names_driver", *map(str, fds), str(resolv_conf), json.dumps(WEB)]
        driver += [json.dumps(egress), *dns]
        environment = os.environ | {"PYTHONPATH": f"{TOP / 'src'}:{TOP}"}
        process = host.popen(driver, pass_fds=fds, stdout=subprocess.PIPE, text=True, cwd=TOP, env=environment)
        theirs.close()
        assert process.stdout is not None
        try:
            assert process.stdout.readline() == "ready\n"
            yield Served(host, inside, process, resolv_conf, servers)
        finally:
            ours.close()
            process.stdout.close()
            assert process.wait(PATIENCE_S) == 0


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with serving(tmp_path_factory.mktemp("names")) as made:
        yield made


def test_names_of_containers_and_of_the_world(served: Served) -> None:
    assert served.addresses("web") == ["172.30.0.2"]
    assert served.addresses("WEB.") == ["172.30.0.2"]
    assert served.addresses("example.org") == ["203.0.113.7"]
    # A name that is there has no address of that kind: not the same as a name that isn't there.
    nothing = served.ask("web", message.AAAA)
    assert (nothing.rcode, nothing.addresses) == (message.NOERROR, [])
    assert served.ask("nowhere.org").rcode == message.NXDOMAIN


def test_an_answer_too_large_for_a_datagram_comes_over_tcp(served: Served) -> None:
    for name, count in (("many", 119), ("large.org", 249)):
        assert served.ask(name).truncated
        (data,) = ask_tcp(served.inside, question(name))
        answer = message.read_answer(data, message.labels(name))
        assert (answer.truncated, len(answer.addresses)) == (False, count)
    assert len(served.ask("many", edns=4096).addresses) == 119


def test_a_connection_carries_several_questions(served: Served) -> None:
    asked = {1: "web", 2: "example.org", 3: "nowhere.org"}
    answers = ask_tcp(served.inside, *(question(name, id=id) for id, name in asked.items()))
    found = {int.from_bytes(data[:2], "big"): message.rcode_of(data) for data in answers}
    assert found == {1: message.NOERROR, 2: message.NOERROR, 3: message.NXDOMAIN}


def test_what_is_no_question_is_refused_and_hurts_nobody(served: Served) -> None:
    whole = question("web")
    for data, expected in (
        (whole[:-1], message.FORMERR),
        (whole + b"\0", message.FORMERR),
        (whole[:2] + b"\x28" + whole[3:], message.NOTIMP),
        (whole[:-2] + b"\0\3", message.REFUSED),
    ):
        assert message.rcode_of(ask_udp(served.inside, data)) == expected
    with served.inside.socket() as sock:
        for data in (b"", b"\0", whole[:2] + b"\x80" + whole[3:], bytes(5000)):
            sock.sendto(data, ("127.0.0.11", 53))
        with served.inside.socket(socket.AF_INET, socket.SOCK_STREAM) as stream:
            stream.connect(("127.0.0.11", 53))
            stream.sendall(b"\xff\xff" + bytes(100))
            assert stream.recv(1) == b""
    assert served.addresses("web") == ["172.30.0.2"]


def test_a_flood_and_idle_clients_leave_room_for_others(served: Served) -> None:
    idle = [served.inside.socket(socket.AF_INET, socket.SOCK_STREAM) for _ in range(40)]
    try:
        for sock in idle:
            sock.connect(("127.0.0.11", 53))
        with served.inside.socket() as sock:
            for number in range(3000):
                sock.sendto(question("web", id=number), ("127.0.0.11", 53))
        assert ask_tcp(served.inside, question("web"))
    finally:
        for sock in idle:
            sock.close()

    def answered() -> list[str]:
        try:
            data = ask_udp(served.inside, question("web"), timeout_s=1)
        except TimeoutError:
            return []
        return [address for address, _ in message.read_answer(data, message.labels("web")).addresses]

    # Asked again, as a resolver does: what is left of the flood may still fill the socket, and the kernel drops what comes then.
    assert until(answered, "an answer behind the flood") == ["172.30.0.2"]


def test_glibc_reads_its_answers(served: Served, tmp_path: Path) -> None:
    (tmp_path / "resolv.conf").write_text("nameserver 127.0.0.11\noptions ndots:0\n")
    (tmp_path / "nsswitch.conf").write_text("hosts: dns\n")
    script = "".join(f"mount --bind {tmp_path}/{name} /etc/{name} && " for name in ("resolv.conf", "nsswitch.conf"))
    script += "getent ahosts example.org; getent ahosts web; getent hosts nowhere.org; echo $?"
    lines = served.inside.run("unshare", "-m", "sh", "-c", script).splitlines()
    found = {line.split()[0] for line in lines}
    assert {"203.0.113.7", "2001:db8::7", "172.30.0.2"} <= found
    assert lines[-1] == "2"


def test_the_host_changes_its_resolvers(tmp_path: Path) -> None:
    other = table({("example.org", message.A): [message.address_record("198.51.100.1", 5)]})
    with serving(tmp_path, {"127.0.0.53": OUTSIDE, "127.0.0.54": other}) as served:
        assert served.addresses("example.org") == ["203.0.113.7"]
        served.resolv_conf.write_text("# moved\nsearch x\nnameserver\nnameserver 127.0.0.54\n")
        assert served.addresses("example.org") == ["198.51.100.1"]
        served.resolv_conf.unlink()
        assert served.ask("example.org").rcode == message.SERVFAIL


@pytest.mark.parametrize(
    ("first", "expected"),
    [
        (rcode(message.SERVFAIL), message.NOERROR),
        (rcode(message.REFUSED), message.NOERROR),
        (rcode(message.NXDOMAIN), message.NXDOMAIN),
        (silent, message.NOERROR),
    ],
)
def test_the_next_resolver_is_asked_where_one_fails(tmp_path: Path, first: Script, expected: int) -> None:
    # Nobody listens on the first of all.
    with serving(
        tmp_path, {"127.0.0.53": first, "127.0.0.54": OUTSIDE}, ("127.0.0.52", "127.0.0.53", "127.0.0.54")
    ) as served:
        assert served.ask("example.org").rcode == expected
        (data,) = ask_tcp(served.inside, question("example.org"))
        assert message.rcode_of(data) == expected


def test_all_resolvers_fail(tmp_path: Path) -> None:
    with serving(tmp_path, {"127.0.0.53": rcode(message.REFUSED)}, ("127.0.0.53", "127.0.0.52")) as served:
        assert served.ask("example.org").rcode == message.REFUSED
    with serving(tmp_path, {}, ("127.0.0.52",)) as served:
        assert served.ask("example.org").rcode == message.SERVFAIL


def test_a_slow_resolver_holds_nobody_up(tmp_path: Path) -> None:
    """Questions that wait are answered when the answer comes, and those beyond the bound at once."""
    answer_now = threading.Event()

    def slow(query: message.Query, tcp: bool) -> bytes | None:
        if query.name[0].startswith(b"slow"):
            answer_now.wait(PATIENCE_S)
        return OUTSIDE(query, tcp)

    with serving(tmp_path, {"127.0.0.53": slow}) as served, served.inside.socket() as sock:
        sock.settimeout(PATIENCE_S)
        for number in range(101):
            sock.sendto(question(f"slow{number}.org", id=number), ("127.0.0.11", 53))
        # Own names are answered meanwhile; the one too many is refused.
        assert served.addresses("web") == ["172.30.0.2"]
        data = sock.recv(1000)
        assert (int.from_bytes(data[:2], "big"), message.rcode_of(data)) == (100, message.SERVFAIL)
        answer_now.set()
        found = [sock.recv(1000) for _ in range(100)]
        assert {int.from_bytes(data[:2], "big") for data in found} == set(range(100))
        assert {message.rcode_of(data) for data in found} == {message.NXDOMAIN}


def test_a_forged_answer_is_not_taken(tmp_path: Path) -> None:
    """Whoever may send from the resolver's own address must guess the id as well."""
    forged = message.address_record("6.6.6.6", 5)
    true = message.address_record("203.0.113.7", 5)

    def script(query: message.Query, tcp: bool) -> bytes | None:
        return message.write_answer(query, message.NOERROR, [true], tcp=tcp)

    class Forger(NameServer):
        def _answer(self, data: bytes, tcp: bool) -> bytes | None:
            query = message.read_query(data)
            wrong = message.with_id(message.write_answer(query, message.NOERROR, [forged]), query.id ^ 1)
            other = message.read_query(question("other.org", id=query.id))
            if not tcp:
                client = self.peer
                self.udp.sendto(wrong, client)
                self.udp.sendto(message.write_answer(other, message.NOERROR, [forged]), client)
            return super()._answer(data, tcp)

        def _udp(self) -> None:
            while True:
                data, self.peer = self.udp.recvfrom(65535)
                if not data:
                    return
                answer = self._answer(data, False)
                assert answer is not None
                self.udp.sendto(answer, self.peer)

    with serving(tmp_path, {}, ("127.0.0.60",)) as served:
        forger = Forger(served.host, "127.0.0.60", script)
        try:
            assert served.addresses("example.org") == ["203.0.113.7"]
        finally:
            forger.close()


def test_without_a_descriptor_left_questions_fail_and_nothing_else(served: Served) -> None:
    assert served.addresses("example.org") == ["203.0.113.7"]  # the host's resolvers are known from here on
    pid = served.process.pid
    before = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    taken = {int(name) for name in os.listdir(f"/proc/{pid}/fd")}
    lowest = next(number for number in range(len(taken) + 1) if number not in taken)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (lowest, before[1]))
    try:
        for _ in range(120):
            assert served.ask("example.org").rcode == message.SERVFAIL
        assert served.addresses("web") == ["172.30.0.2"]
    finally:
        resource.prlimit(pid, resource.RLIMIT_NOFILE, before)
    assert served.addresses("example.org") == ["203.0.113.7"]


def test_an_idle_responder_uses_no_time(served: Served) -> None:
    served.addresses("web")

    def ticks() -> int:
        with open(f"/proc/{served.process.pid}/schedstat") as file:
            return int(file.read().split()[2])

    def rests() -> bool:
        before = ticks()
        time.sleep(0.3)
        # How often it was scheduled: not once, unless something wakes it up.
        return ticks() == before

    # Once it has done with what came before.
    until(lambda: rests() and rests(), "an idle responder")


def test_an_egress_list_answers_allowed_names_alone(tmp_path: Path) -> None:
    """Nothing of the container's goes out but a name of the list; nothing comes in but addresses that are let through first."""

    def alias(query: message.Query, tcp: bool) -> bytes:
        # Its chain leads over another name to the address, with a text beside it that nobody asked for.
        target = message.encode(message.labels("cdn.example.net"))
        whole = message.write_answer(query, message.NOERROR, [(message.CNAME, 20, target)], tcp=tcp)
        more = target + struct.pack("!2HIH4s", 1, 1, 4000, 4, b"\xcb\x00\x71\x09")
        more += target + struct.pack("!2HIH4s", 1, 1, 4000, 4, b"\x7f\x00\x00\x01")
        more += target + struct.pack("!2HIH", 16, 1, 4000, 4) + b"\3txt"
        return whole[:6] + b"\0\4" + whole[8:] + more

    def script(query: message.Query, tcp: bool) -> bytes | None:
        return alias(query, tcp) if query.name[0] == b"cdn" else OUTSIDE(query, tcp)

    listed = ("example.org", "cdn.test:8443", "*.below.test", "large.org", "nowhere.test")
    with serving(tmp_path, {"127.0.0.53": script}, egress=listed) as served:
        upstream = served.servers[0]
        assert served.addresses("example.org") == ["203.0.113.7"]
        assert served.allowed() == [["203.0.113.7"], [["tcp", 443], ["tcp", 80]], 330]
        # What came with options and in capitals goes out without.
        marked = question("example.org", edns=4000).replace(b"example", b"eXaMpLe")
        assert message.read_answer(ask_udp(served.inside, marked), message.labels("example.org")).addresses
        assert upstream.asked[-1][2:] == question("example.org")[2:]
        served.allowed()
        assert served.addresses("cdn.test") == ["203.0.113.9"]
        assert served.allowed() == [["203.0.113.9"], [["tcp", 8443]], 90]
        assert served.ask("large.org").truncated
        (data,) = ask_tcp(served.inside, question("large.org"))
        assert len(message.read_answer(data, message.labels("large.org")).addresses) == 249
        count = len(upstream.asked)
        for name in ("evil.test", "www.example.org", "below.test", "web.evil.test"):
            refused = ask_udp(served.inside, question(name, edns=1232))
            assert message.rcode_of(refused) == message.NXDOMAIN
            assert refused.endswith(b"not on this container's list: --network egress=\xe2\x80\xa6")
        for kind in (message.AAAA, 16, 65, message.ANY):
            answer = ask_udp(served.inside, question("example.org", kind))
            assert (message.rcode_of(answer), answer[6:8]) == (message.NOERROR, b"\0\0")
        assert len(upstream.asked) == count, "a name that isn't on the list, or a kind that isn't an address, went out"
        assert served.ask("nowhere.test").rcode == message.NXDOMAIN
        assert served.ask("x.below.test").rcode == message.NXDOMAIN
        assert served.addresses("web") == ["172.30.0.2"]


def test_an_address_that_could_not_be_let_through_is_not_told(tmp_path: Path) -> None:
    stuck = table({("stuck.test", message.A): [message.address_record("203.0.113.99", 5)]})
    with serving(tmp_path, {"127.0.0.53": stuck}, egress=("stuck.test",)) as served:
        assert served.ask("stuck.test").rcode == message.SERVFAIL
