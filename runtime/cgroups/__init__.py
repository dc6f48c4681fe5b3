"""Control groups, version 1, version 2 and both at once (hybrid), behind one interface.

``hierarchy()`` tells what the machine has, ``Group.create`` makes one container's group in each tree that a limit or a
count needs. The launcher loads this package: it imports nothing heavy. Source: cgroups(7), the kernel's
admin-guide/cgroup-v1 and admin-guide/cgroup-v2, runtime-spec config-linux.md#control-groups.
"""

from __future__ import annotations

from .group import PARENT, Group, orphans
from .hierarchy import Hierarchy, hierarchy
from .resources import check
from .stats import SUBSYSTEMS

__all__ = ["PARENT", "SUBSYSTEMS", "Group", "Hierarchy", "check", "hierarchy", "orphans"]
