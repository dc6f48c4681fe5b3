"""What networks of root's containers need: bridges, veth pairs, nftables, and packets that are forwarded."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable

from . import attempt
from .commands import find
from .probe import Answer, limited, missing, ok


def tried(name: str, found: str, mend: str) -> Callable[[], Answer]:
    """A probe that is one trial in a network namespace of its own."""

    def probe() -> Answer:
        outcome = attempt.outcome(name)
        return ok(found) if outcome.worked else missing(outcome.text, mend)

    return probe


def forwarding() -> Answer:
    """Whether packets of containers leave the machine: the kernel's switch, and firewalls of others, which have the last word."""
    path = "/proc/sys/net/ipv4/ip_forward"
    try:
        with open(path) as file:
            on = file.read().strip() == "1"
    except OSError as error:
        return missing(f"{path}: {(error.strerror or '').lower()}")
    if not on and not os.access(path, os.W_OK):
        return missing(f"{path} is 0 and can't be set", "as root of the machine: sysctl -w net.ipv4.ip_forward=1")
    if drops := _dropping_chain():
        mend = "; ".join(f'nft insert rule {drops} {way} "cw-*" accept' for way in ("iifname", "oifname"))
        return limited(f"the firewall drops what it doesn't know ({drops}), so also packets of containers", mend)
    return ok("on" if on else "off, and set when a network needs it")


def _dropping_chain() -> str:
    """``ip filter FORWARD`` where a chain of someone else's drops what no rule of it accepts; "" where none does."""
    program = find("nft")
    if program is None or os.geteuid() != 0:
        return ""
    done = subprocess.run([program, "-j", "list", "chains"], stdin=subprocess.DEVNULL, capture_output=True, text=True)
    if done.returncode:
        return ""
    for one in json.loads(done.stdout)["nftables"]:
        chain = one.get("chain", {})
        if chain.get("hook") == "forward" and chain.get("policy") == "drop":
            return f"{chain['family']} {chain['table']} {chain['name']}"
    return ""


PROBES: dict[str, Callable[[], Answer]] = {
    "bridge-links": tried("bridge-link", "can be made", "modprobe bridge, or a kernel with CONFIG_BRIDGE"),
    "veth-links": tried("veth-link", "can be made", "modprobe veth, or a kernel with CONFIG_VETH"),
    "nftables-nat": tried(
        "nftables-nat",
        "NAT, masquerading and maps",
        "modprobe nft_chain_nat nft_masq nft_nat nft_fib_inet nft_ct, or a kernel with CONFIG_NF_TABLES_INET",
    ),
    "forwarding": forwarding,
}
