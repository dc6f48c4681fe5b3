"""Egress allow-lists: what each entry lets out, and every mistake in one by name."""

from __future__ import annotations

import pytest

from cellwall.runtime.errors import SpecError
from cellwall.runtime.names import message
from cellwall.runtime.names.policy import DEFAULT_PORTS, Policy, may_lead_to

WEB = list(DEFAULT_PORTS)


@pytest.mark.parametrize(
    ("entries", "name", "ports"),
    [
        (["index.example.net"], "index.example.net", WEB),
        (["Index.Example.net."], "index.example.net", WEB),
        (["index.example.net"], "www.index.example.net", []),
        (["index.example.net"], "example.net", []),
        (["index.example.net"], "index.example.net.evil.net", []),
        (["index.example.net:443"], "index.example.net", [("tcp", 443)]),
        (["index.example.net:443", "index.example.net:53/udp"], "index.example.net", [("tcp", 443), ("udp", 53)]),
        (["*.example.org"], "a.example.org", WEB),
        (["*.example.org"], "a.b.example.org", WEB),
        (["*.example.org"], "example.org", []),
        (["*.example.org"], "notexample.org", []),
        (["*.example.org:22", "a.example.org:80"], "a.example.org", [("tcp", 80), ("tcp", 22)]),
        (["10.0.0.5:8080"], "10.0.0.5", []),
        (["xn--bcher-kva.example"], "xn--bcher-kva.example", WEB),
    ],
)
def test_what_a_list_lets_out(entries: list[str], name: str, ports: list[tuple[str, int]]) -> None:
    assert Policy(entries).ports(message.labels(name)) == ports


def test_a_label_with_a_dot_is_another_name() -> None:
    policy = Policy(["index.example.net", "*.example.org"])
    assert not policy.ports((b"index.example.net",))
    assert not policy.ports((b"a.example.org",))
    assert not policy.ports((b"a.example", b"org"))


def test_addresses() -> None:
    policy = Policy(["10.0.0.5:8080", "10.0.0.5:53/udp", "203.0.113.7"])
    assert policy.addresses == {"10.0.0.5": [("tcp", 8080), ("udp", 53)], "203.0.113.7": WEB}


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ("", "--network bridge"),
        ("*", "--network bridge"),
        ("*.", "such as"),
        ("a.*.org", "such as"),
        ("https://index.example.net/simple", "its host: index.example.net"),
        ("index.example.net/simple", "behind the /"),
        ("index.example.net:", "no port"),
        ("index.example.net:0", "no port"),
        ("index.example.net:65536", "no port"),
        ("index.example.net:https", "no port"),
        ("index.example.net:443/sctp", "no protocol"),
        ("index.example.net:80:443", "IPv6"),
        ("[2001:db8::1]:443", "IPv6"),
        ("10.0.0.0/8", "single address"),
        ("10.0.0.256", "no IPv4 address"),
        ("10.0.5", "no IPv4 address"),
        ("bücher.example", "xn--"),
        ("a..org", "1 to 63"),
        ("x" * 64 + ".org", "1 to 63"),
        ("a b.org", "such as"),
    ],
)
def test_mistakes_are_told_by_their_entry(entry: str, said: str) -> None:
    with pytest.raises(SpecError) as caught:
        Policy(["index.example.net", entry])
    assert said in str(caught.value)
    assert entry in str(caught.value)


def test_an_empty_list_is_a_mistake() -> None:
    with pytest.raises(SpecError, match="needs what may be reached"):
        Policy([])


@pytest.mark.parametrize(
    ("address", "may"),
    [
        ("203.0.113.7", True),
        ("10.0.0.5", True),
        ("127.0.0.1", False),
        ("0.0.0.0", False),
        ("169.254.169.254", False),
        ("224.0.0.1", False),
        ("255.255.255.255", False),
        ("223.255.255.255", True),
    ],
)
def test_names_never_lead_to_the_machine_itself(address: str, may: bool) -> None:
    assert may_lead_to(address) == may


@pytest.mark.parametrize("address", ["10.0.0.5", "172.31.255.255", "192.168.0.1", "100.64.0.1"])
def test_names_below_a_star_never_lead_to_neighbours(address: str) -> None:
    policy = Policy(["inner.example.net", "*.example.org"])
    assert policy.is_written_out(message.labels("inner.example.net"))
    assert not policy.is_written_out(message.labels("a.example.org"))
    assert may_lead_to(address)
    assert not may_lead_to(address, private=False)
