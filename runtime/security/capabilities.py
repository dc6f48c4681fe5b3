"""Which capabilities a container gets: docker's fourteen, and what ``--cap-add``, ``--cap-drop``, ``--privileged`` change.

Source: capabilities(7); docker's reference, "Runtime privilege and Linux capabilities".
"""

from __future__ import annotations

from ..errors import SpecError
from ..linux.capabilities import NAMES

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

# What docker gives by default, in bit order.
DEFAULT = (
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETPCAP",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_RAW",
    "CAP_SYS_CHROOT",
    "CAP_MKNOD",
    "CAP_AUDIT_WRITE",
    "CAP_SETFCAP",
)


def capability(name: str, flag: str = "--cap-add") -> str:
    """``name`` as capabilities(7) spells it: ``net_admin`` and ``cap_net_admin`` are CAP_NET_ADMIN; ALL stays ALL.

    Raises SpecError of ``flag`` for anything else, with the nearest name.
    """
    upper = name.strip().upper()
    if upper in ("ALL", "CAP_ALL"):
        return "ALL"
    full = upper if upper.startswith("CAP_") else f"CAP_{upper}"
    if full not in NAMES:
        from difflib import get_close_matches

        near = get_close_matches(full.removeprefix("CAP_"), [known.removeprefix("CAP_") for known in NAMES], 1)
        hint = f"did you mean {near[0]}?" if near else "see capabilities(7) for the names"
        raise SpecError(flag, f"{name!r} is not a capability; {hint}")
    return full


def resolve(add: Iterable[str] = (), drop: Iterable[str] = (), privileged: bool = False) -> tuple[str, ...]:
    """The capabilities of a container, in bit order, by docker's rules.

    ``privileged`` gives all, and then ``add`` and ``drop`` aren't looked at (but must be names). ``drop`` of ALL leaves
    only what is added; ``add`` of ALL gives everything but what is dropped by name; a name in both is added.
    Raises SpecError for a name that isn't a capability.
    """
    added = {capability(name, "--cap-add") for name in add}
    dropped = {capability(name, "--cap-drop") for name in drop}
    if privileged:
        return NAMES
    if "ALL" in added:
        kept = set(NAMES) - dropped
    elif "ALL" in dropped:
        kept = added
    else:
        kept = set(DEFAULT) - dropped | added
    return tuple(name for name in NAMES if name in kept)
