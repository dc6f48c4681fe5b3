"""Names in containers: the DNS responder of a container, its /etc/hosts and resolv.conf, and the egress allow-list.

What the launcher loads of it stays light, see launcher/__init__.py.
"""

# Where the responder listens in a container, as docker's does.
ADDRESS = "127.0.0.11"
