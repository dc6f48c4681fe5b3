"""The text of a container's /etc/hosts and /etc/resolv.conf.

Source: hosts(5), resolv.conf(5); docker's own files, which these are like.
"""

from __future__ import annotations

from . import ADDRESS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

HOST_GATEWAY = "host-gateway"
# Of the loopback interface, where there is no address of its own: as Debian's installer writes it.
NO_ADDRESS = "127.0.1.1"
_HOSTS = """\
127.0.0.1\tlocalhost
::1\tlocalhost ip6-localhost ip6-loopback
fe00::\tip6-localnet
ff00::\tip6-mcastprefix
ff02::1\tip6-allnodes
ff02::2\tip6-allrouters
"""


def wanted(
    hostname: str,
    domainname: str,
    add_hosts: tuple[str, ...],
    dns: tuple[str, ...],
    dns_search: tuple[str, ...],
    dns_options: tuple[str, ...],
) -> dict[str, Any]:
    """What was said of a container's names, as the launcher is told of it."""
    return {
        "hostname": hostname,
        "domainname": domainname,
        "add_hosts": list(add_hosts),
        "dns": list(dns),
        "dns_search": list(dns_search),
        "dns_options": list(dns_options),
    }


def hosts(names: dict[str, Any], addresses: list[str], gateway: str = "", *, usual: str = _HOSTS) -> str:
    """/etc/hosts: the ``usual`` names, those of ``--add-host``, and the container's own at ``addresses``.

    ``names`` is what ``wanted`` gave; ``gateway`` is what ``host-gateway`` stands for.
    """
    lines = [usual if usual.endswith("\n") or not usual else f"{usual}\n"]
    for item in names["add_hosts"]:
        name, _, address = item.partition(":")
        lines.append(f"{gateway if address == HOST_GATEWAY else address}\t{name}\n")
    own = names["hostname"]
    if names["domainname"]:
        own = f"{own}.{names['domainname']} {own}"
    lines += [f"{address}\t{own}\n" for address in addresses]
    return "".join(lines)


def needs_gateway(add_hosts: list[str] | tuple[str, ...]) -> str:
    """The first ``--add-host`` that says host-gateway, or nothing."""
    return next((item for item in add_hosts if item.endswith(f":{HOST_GATEWAY}")), "")


def resolv_conf(names: dict[str, Any], host: str, *, served: bool) -> str:
    """/etc/resolv.conf. ``host`` is this machine's text or nothing, it gives what wasn't said; ``served``: by the container's responder.

    An absolute name is one without a dot too then (``ndots:0``), as containers' names are.
    """
    given = parse(host)
    servers = [ADDRESS] if served else names["dns"] or given["nameserver"]
    search = [word for word in names["dns_search"] or given["search"] if word != "."]
    options = list(names["dns_options"] or given["options"])
    if served and not any(option.startswith("ndots:") for option in options):
        options.append("ndots:0")
    lines = [f"nameserver {server}" for server in servers]
    if search:
        lines.append("search " + " ".join(search))
    if options:
        lines.append("options " + " ".join(options))
    return "".join(f"{line}\n" for line in lines)


def read(path: str) -> str:
    """A file of this machine's, or nothing where there is none."""
    try:
        with open(path, "rb") as file:
            return file.read(65536).decode("utf-8", "replace")
    except OSError:
        return ""


def parse(text: str) -> dict[str, list[str]]:
    """A resolv.conf's name servers, search list and options; the last ``search`` or ``domain`` counts."""
    found: dict[str, list[str]] = {"nameserver": [], "search": [], "options": []}
    for words in map(str.split, text.splitlines()):
        if len(words) < 2:
            continue
        if words[0] == "nameserver":
            found["nameserver"].append(words[1])
        elif words[0] in ("search", "domain"):
            found["search"] = words[1:]
        elif words[0] == "options":
            found["options"] += words[1:]
    return found
