"""Networks of containers: bridges of root's own, with an address pool, veth pairs, NAT and published ports.

What is where:

- ``<data>/networks/<network id>.json``: a network's definition (``definitions.py``).
- ``<run>/networks/<network id>/<container id>.json``: an *endpoint*, what a running container has on a network: its addresses
  (which are taken by being written there), its names, its links, its published ports, and its owner (``endpoints.py``).
- The kernel's side, made when the first container of a network starts and removed with the last: a bridge, a veth pair for
  each container, and one nftables table for each network (``links.py``, ``rules.py``, both in the network worker).

An endpoint is written *before* anything of it is made in the kernel, and its file goes last, so whatever ``kill -9`` leaves is
named by a file whose owner has ended: the next start removes it (``stale.py``).

How a launcher uses it (``attached.py``): ``Attached.claim`` before the clone (addresses, ports: what fails, fails early),
``attach`` once there is a network namespace, ``wait`` before the first process goes on, ``release`` at the end. The work on links
and rules is done by the **network worker** (``worker.py``): a process of its own, the only one that imports pyroute2.

Light, as the launcher imports them: this file, ``attached.py``, ``client.py``, ``endpoints.py``, ``ports.py``.
Source: docs/adr/0010-networks.md.
"""
