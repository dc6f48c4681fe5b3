"""`network`, and what `run` does with networks: addresses, routes, published ports, names, errors."""

from __future__ import annotations

from .cases import Group, case, differs, fails, ids, nothing, unordered
from .container_cases import OWN_ERRORS
from .run_cases import STARTS

SERVE = "box:1 httpd -f -p 80 -h /etc"
ADDRESS = 'box:1 sh -c \'ip -4 -o addr show eth0 | tr -s " " | cut -d" " -f4; ip route | grep -o "default via [^ ]*"\''


def once_it_listens(address: str) -> str:
    """A server that was just started may not answer at once."""
    return f"sh -c 'until wget -qO- {address} 2>/dev/null; do :; done'"


NETWORKS = (
    case("network create --subnet 10.123.5.0/24 --label a=b lab", normal=nothing),
    case("network create lab", fails(1, 125, OWN_ERRORS)),
    case("network create --subnet 10.123.5.0/25 other", fails(1, 125, OWN_ERRORS)),
    case("network create --subnet nosuch bad"),
    case("network create --subnet 10.123.6.0/24 --gateway 10.9.9.9 bad"),
    case("network create --driver nosuch bad", fails(1, 125, OWN_ERRORS)),
    case("network create 'bad name'"),
    case("network create --internal --subnet 10.123.7.0/24 inside", normal=nothing),
    case("network create --subnet fd12:3456::/64 --ipv6 --subnet 10.123.8.0/24 six", normal=nothing),
    case("network ls --filter name=lab --format '{{.Name}} {{.Driver}}'"),
    case("network ls --filter label=a=b --format '{{.Name}}'"),
    case("network ls --filter nosuch=x"),
    case("network ls -q --filter name=nosuch"),
    case("network inspect -f '{{.Name}} {{.Driver}} {{.Internal}}' lab inside"),
    case("network inspect nosuch", fails(1, 125, OWN_ERRORS)),
    case(f"run --rm --network lab {ADDRESS}", normal=nothing),
    case(f"run --rm --network lab --ip 10.123.5.77 {ADDRESS}"),
    case("run --rm --network lab --ip 10.9.9.9 box:1 true", fails(125, 126, STARTS)),
    case("run --rm --network lab --ip nosuch box:1 true"),
    case("run --rm --ip 10.123.5.77 box:1 true"),
    case("run --rm --network inside --ip 10.123.7.9 box:1 sh -c 'ip route'"),
    case("run --rm --network six --ip6 fd12:3456::77 box:1 sh -c 'ip -6 -o addr show eth0 | grep -o fd12[^/]*'"),
    case("run --rm --network lab --mac-address 02:42:0a:00:00:07 box:1 cat /sys/class/net/eth0/address"),
    case("run --rm --network nosuch box:1 true"),
    case(f"run -d --name srv --network lab --ip 10.123.5.20 --network-alias web {SERVE}", normal=ids),
    case(f"run --rm --network lab box:1 {once_it_listens('http://10.123.5.20/motd')}"),
    case("run --rm --network lab box:1 wget -qO- http://srv/motd"),
    case("run --rm --network lab box:1 wget -qO- http://web/motd"),
    case("run --rm --network lab --ip 10.123.5.20 box:1 true", fails(125, 126, STARTS)),
    case("run --rm --network container:srv box:1 wget -qO- http://localhost/motd"),
    case("run --rm --network container:nosuch box:1 true"),
    case(
        "run --rm --network container:srv -p 8099:80 box:1 true",
        differs("status", 125, 0, "docker refuses ports that can't be published, podman only warns"),
    ),
    case("network rm lab", fails(1, 2, "podman has a status of its own for a network in use, docker hasn't")),
    case("network create --subnet 10.123.9.0/24 second", normal=nothing),
    case("network connect --ip 10.123.9.20 second srv"),
    case("run --rm --network second box:1 wget -qO- http://10.123.9.20/motd"),
    case("network disconnect second srv"),
    case("exec srv sh -c 'ls /sys/class/net'"),
    case("network connect nosuch srv", fails(1, 125, OWN_ERRORS)),
    case("network connect second nosuch", fails(1, 125, OWN_ERRORS)),
    case("network disconnect second srv", fails(1, 125, OWN_ERRORS)),
    case("network rm second"),
    case("network rm nosuch"),
)

PORTS = (
    case(
        f"run -d --name pub --network bridge -p 127.0.0.1:8081:80 {SERVE}",
        normal=ids,
        look="pub: NetworkSettings.Ports",
    ),
    case("port pub"),
    case("port pub 80"),
    case("port pub 80/udp", fails(1, 125, OWN_ERRORS)),
    case("port pub 99", fails(1, 125, OWN_ERRORS)),
    case("port nosuchbox", fails(1, 125, OWN_ERRORS)),
    case(f"run --rm --network host box:1 {once_it_listens('http://127.0.0.1:8081/motd')}"),
    case("run --rm --network bridge -p 127.0.0.1:8081:80 box:1 true", fails(125, 126, STARTS)),
    case("run --rm --network bridge -p 99999:80 box:1 true"),
    case("run --rm --network bridge -p nosuch box:1 true"),
    case("run --rm --network bridge -p 80:80/nosuch box:1 true"),
    case("run --rm --network bridge -p 8090-8092:80-81 box:1 true"),
    case(f"run -d --name many --network bridge -p 8090-8091:80-81 -p 8092:53/udp {SERVE}", normal=ids),
    case("port many", normal=unordered),
    case("run -d --name free --network bridge -u 0 -p 80 --entrypoint httpd full:1 -f -p 80", normal=ids),
    case("port free", normal=lambda text: text.split(":")[0]),
    case("run -d -P --name all --network bridge -u 0 --entrypoint httpd full:1 -f -p 8080", normal=ids),
    case("port all", normal=lambda text: "".join(sorted(line.rpartition(":")[0] + "\n" for line in text.splitlines()))),
)

GROUPS = (
    Group("networks", NETWORKS, ("srv",), networks=("lab", "inside", "six", "second")),
    Group("ports", PORTS, ("pub", "many", "free", "all")),
)
