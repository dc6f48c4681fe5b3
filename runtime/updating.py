"""What can be changed of a container that is there: its name and its limits.

Both are written down first, so that a process killed halfway leaves what the next start reads and cleans up.
Source: docker-container-rename(1), docker-container-update(1).
"""

from __future__ import annotations

from . import events, state
from .attaching import ask
from .cgroups.extending import extend, lacking, planned
from .cgroups.group import Group
from .containers import options_from_dict, options_to_dict
from .errors import AlreadyExists, NotFound, SpecError, UnsupportedError
from .frozen import replace
from .network import endpoints
from .resources import changed_resources
from .supervision import restart_policy

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from .containers import Containers
    from .engine import Engine
    from .options import RunOptions


def rename(known: Containers, name_or_id: str, name: str) -> None:
    """See ``Engine.rename``."""
    container = known.find(name_or_id)
    if name == container.name:
        raise AlreadyExists(f"container {name} has that name already: take another one")
    with known.locked():
        for other in known.list(all=True):
            if other.name == name and other.id != container.id:
                raise AlreadyExists(
                    f"the name {name} is taken by container {other.id[:12]}: remove it (cellwall rm {name}) or take another name"
                )
        record = known.record(container.id)
        if record is not None:
            options = None if record["options"] is None else {**record["options"], "name": name}
            known.update({**record, "name": name, "options": options})
        found = known.state(container.id)
        if found is not None:
            # Its shim first: one that starts it again meanwhile writes what is changed next.
            ask(str(known.paths.running), container.id, {"changed": {"record": {"name": name}}})
            state.change(str(known.paths.running), container.id, lambda now: now["cellwall"].update(name=name))
    _rename_endpoints(str(known.paths.endpoints), container.id, name)
    told = record or (found or {}).get("cellwall")
    if told is not None:
        events.emit_container(
            str(known.paths.run), "rename", container.id, {**told, "name": name}, oldName=container.name
        )


def _rename_endpoints(run: str, container_id: str, name: str) -> None:
    """Have other containers find it by its new name, and no more by the old one."""
    if endpoints.of_container(run, container_id):
        with endpoints.Locked(run):
            for one in endpoints.of_container(run, container_id):
                endpoints.save(run, {**one, "name": name})


def update(engine: Engine, name_or_id: str, changes: dict[str, Any]) -> list[str]:
    """See ``Engine.update``."""
    from .cli.run_options import check_together

    known = engine.known
    container = known.find(name_or_id)
    if not changes:
        raise SpecError("cellwall update", "says nothing to change: give a limit, such as --memory 512m")
    record, found = known.record(container.id), known.state(container.id)
    told = record or (found or {}).get("cellwall")
    if told is None:
        raise NotFound(f"no container {name_or_id}: cellwall ps -a lists them")
    if "restart" in changes and record is None:
        raise SpecError("--restart", f"container {container.name} is removed at its end: run it without --rm")
    if not told.get("options"):
        raise UnsupportedError(
            f"container {container.name}", "it was started by an earlier cellwall, which kept no options of it"
        )
    before = options_from_dict(told["options"])
    after: RunOptions = replace(before, **changes)
    check_together(after)
    warnings: list[str] = []
    resources = changed_resources(after, changes)
    if found is not None and found["pid"]:
        warnings = _limit(known, found, resources)
    if found is not None:
        # Its shim, where it has one, may start it again.
        ask(str(known.paths.running), container.id, {"changed": {"resources": resources}})
        if "restart" in changes:
            ask(str(known.paths.running), container.id, {"restart": restart_policy(after)})
    options = options_to_dict(after)
    if record is not None:
        known.update({**record, "options": options})
    else:
        state.change(str(known.paths.running), container.id, lambda now: now["cellwall"].update(options=options))
    events.emit_container(str(known.paths.run), "update", container.id, {**told, "name": container.name})
    return warnings


def _limit(known: Containers, found: dict[str, Any], resources: dict[str, Any]) -> list[str]:
    """Set the limits of a running container; returns what isn't in force."""
    resources = {section: values for section, values in resources.items() if values}
    if not resources:
        return []
    group = Group.open(found["cellwall"].get("cgroup") or {})
    missing = lacking(group, resources)
    warnings: list[str] = []
    if missing:
        parts, warnings = planned(group, found["id"], missing)
        if parts:
            # Before they are made: whoever cleans up then knows of them.
            paths = {**group.paths, **{part.key: part.path for part in parts}}
            found["cellwall"]["cgroup"] = paths

            def note(now: dict[str, Any]) -> None:
                if now["pid"] == found["pid"]:
                    now["cellwall"]["cgroup"] = paths

            state.change(str(known.paths.running), found["id"], note)
        warnings += extend(group, parts, missing)
        group = Group.open(found["cellwall"]["cgroup"])
    group.update(resources)
    return list(dict.fromkeys([*warnings, *group.unsupported]))
