"""The launcher: a small, resident, single-threaded fork server that makes every container of one client.

A notebook's process has threads and a large heap: forking it is slow, and running Python in its child is unsafe. So
every clone happens here. See docs/adr/0002-process-model.md.

Everything but ``client.py`` runs in the launcher or in its children before their exec, and stays light: no dataclasses,
typing, pathlib, subprocess or logging.
"""

# A container's PATH where its image has none, as docker's.
DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
# Files of /proc that tools lay over the kernel's own, as lxcfs does; nothing else there can be mounted over. Source: runc, checkProcMount
PROC_FILES = tuple(
    f"/proc/{name}" for name in ("cpuinfo", "diskstats", "meminfo", "stat", "swaps", "uptime", "loadavg", "slabinfo")
)
