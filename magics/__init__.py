"""The notebook's face: what ``%load_ext cellwall`` puts into IPython and ipykernel.

Loading registers names only. What a magic needs is imported at its first use, so that a notebook which loads the extension
and runs no container pays nothing for it. A name that another extension holds is never taken: the magic that would have it
is left out, and one line says so. ``%cellwall_alias docker`` gives ``%%container`` and ``%container`` one more name.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    # Kind ("cell" or "line"), the magic's name, and its function.
    Entry = tuple[str, str, Callable[..., Any]]

_SESSION = "_cellwall_session"
# What IPython's no_var_expand decorator sets: {{…}} of a --format is for the command, so the rest of the line is expanded by commands.py.
_NO_VAR_EXPAND = "_ipython_magic_no_var_expand"


class Session:
    """What cellwall keeps about one IPython shell: the names it has taken there, and what it has said already."""

    def __init__(self, shell: Any) -> None:
        self.shell = shell
        self.taken: list[Entry] = []
        self.warned: set[str] = set()
        self.matcher: Any = None

    def container_cell(self, line: str, cell: str) -> Any:
        """Run the cell in a fresh container and remove it: ``%%container IMAGE [run options] [cell options]``.

        Run options are those of ``docker run``, cell options those of ``%%script``: ``--lang``, ``--in VAR``, ``--out VAR``,
        ``--err VAR``, ``--result VAR``, ``--bg``, ``--proc VAR``, ``--no-raise-error``, ``--timeout SECONDS``, ``--diff``, ``--watch``. With ``--name NAME`` the
        container stays, and later cells with that name run in it. ``%container run --help`` lists all of them.
        """
        from .container import run_cell

        return run_cell(self, line, cell)

    def dockerfile_cell(self, line: str, cell: str) -> Any:
        """Build an image as the cell's Dockerfile says: ``%%dockerfile -t NAME [build options] [FOLDER]``.

        COPY takes files from FOLDER, by default the notebook's. Every step is shown with *hit* or *miss because …*;
        ``--result VAR`` keeps them. ``%%dockerfile --help`` lists the options.
        """
        from .building import dockerfile_cell

        return dockerfile_cell(self, line, cell)

    def layer_cell(self, line: str, cell: str) -> Any:
        """Run the cell as one more read-only layer on an image: ``%%layer PARENT -t NAME [options]``.

        What a Dockerfile's RUN is, as a cell: run again, it comes from the cache. ``%%layer --help`` lists the options.
        """
        from .building import layer_cell

        return layer_cell(self, line, cell)

    def container_line(self, line: str) -> Any:
        """Run a command of ``cellwall``: ``%container ps``, ``%container logs NAME``, ``%container rm -f NAME``, ``%container --help``."""
        from .commands import container, expanded

        return container(self, expanded(self.shell, line))

    def image_line(self, line: str) -> Any:
        """Run a command about images: ``%image ls``, ``%image pull NAME``, ``%image rm NAME``, ``%image inspect NAME``."""
        from .commands import expanded, image

        return image(self, expanded(self.shell, line))

    def volume_line(self, line: str) -> Any:
        """Run a command about volumes: ``%volume ls``, ``%volume create NAME``, ``%volume inspect NAME``, ``%volume rm NAME``."""
        from .commands import expanded, volume

        return volume(self, expanded(self.shell, line))

    def network_line(self, line: str) -> Any:
        """Run a command about networks: ``%network ls``, ``%network create NAME``, ``%network inspect NAME``, ``%network rm NAME``."""
        from .commands import expanded, network

        return network(self, expanded(self.shell, line))

    def union_cell(self, line: str, cell: str) -> Any:
        """Mount folders over each other and show which gives each file: ``%%union`` with ``br=/tmp=rw:/var=ro:/opt=ro`` below it.

        Or the whole ``mount -t aufs -o br=… none /aufs``, or one branch a line. Behind a line ``---`` stands a script that runs in the
        union; with the branches on the magic's line the cell is the script. ``--write`` writes into the rw branch itself,
        ``--image IMAGE`` takes folders of an image, ``--path``, ``--depth`` and ``--limit`` choose what is shown. ``%union --help`` lists all.
        """
        from .union import union_cell

        return union_cell(self, line, cell)

    def union_line(self, line: str) -> Any:
        """Show which folder gives each file of a union, without a script: ``%union br=/tmp=rw:/var=ro``."""
        from .union import union_line

        return union_line(self, line)

    def lock_line(self, line: str) -> None:
        """Run the images of a notebook's lock from here on, or none: ``%cellwall_lock FILE.ipynb``. ``--off`` ends that.

        ``cellwall lock FILE.ipynb`` makes the lock. Alone it says which lock counts.
        """
        from .locking import lock_line

        lock_line(self, line)

    def layers_line(self, line: str) -> Any:
        """Show the layers of a container or an image as they are mounted: ``%layers X``, ``%layers X --path /etc/hosts``.

        The value has the facts: ``v = %layers X``, then ``v.to_dict()``. ``%layers --help`` lists the options.
        """
        from .views import view_line

        return view_line(self, "layers", line)

    def namespaces_line(self, line: str) -> Any:
        """Show the namespaces of containers beside this machine's, their processes, id maps and rights: ``%namespaces [X…]``."""
        from .views import view_line

        return view_line(self, "namespaces", line)

    def cgroups_line(self, line: str) -> Any:
        """Show limits, use and pressure of a container, and its control groups: ``%cgroups [X]``, ``%cgroups X --watch``."""
        from .views import view_line

        return view_line(self, "cgroups", line)

    def mounts_line(self, line: str) -> Any:
        """Show what is mounted in a container, from where and how: ``%mounts [X]``."""
        from .views import view_line

        return view_line(self, "mounts", line)

    def alias_line(self, line: str) -> None:
        """Give ``%%container`` and ``%container`` one more name: ``%cellwall_alias docker``. ``--remove`` takes it back.

        Names that another extension holds stay with it.
        """
        words = line.split()
        removing = "--remove" in words
        names = [word for word in words if word != "--remove"]
        if len(names) != 1 or not names[0].isidentifier():
            print("cellwall: usage: %cellwall_alias [--remove] NAME, such as %cellwall_alias docker")
        elif removing:
            self.release([entry for entry in self.taken if entry[1] == names[0] and names[0] not in _OWN])
        elif names[0] in _OWN:
            print(f"cellwall: {names[0]} is a name of cellwall's own already")
        else:
            self.take([("cell", names[0], self.container_cell), ("line", names[0], self.container_line)])

    def take(self, entries: list[Entry]) -> None:
        """Register ``entries`` but for those whose name is held, and say which were left out."""
        held = []
        for kind, name, function in entries:
            if _holder(self.shell, kind, name) is None:
                self.shell.register_magic_function(function, kind, name)
                self.taken.append((kind, name, function))
            elif (kind, name) not in [entry[:2] for entry in self.taken]:
                held.append(f"{'%%' if kind == 'cell' else '%'}{name}")
        if held:
            print(f"cellwall: {' and '.join(held)} stays what it was, another extension holds that name")

    def release(self, entries: list[Entry]) -> None:
        """Take ``entries`` back, but for those that someone else has put their own function over."""
        for entry in entries:
            kind, name, function = entry
            if _holder(self.shell, kind, name) == function:
                del self.shell.magics_manager.magics[kind][name]
            self.taken.remove(entry)

    def has(self, kind: str, name: str) -> bool:
        """Whether the magic of that kind and name is cellwall's here."""
        return any(entry[:2] == (kind, name) for entry in self.taken)

    @property
    def cell_names(self) -> set[str]:
        """The names under which ``%%container`` is registered now."""
        return {name for kind, name, function in self.taken if kind == "cell" and function == self.container_cell}

    @property
    def line_names(self) -> set[str]:
        """The names of the line magics that take a command of ``cellwall``."""
        return {name for kind, name, function in self.taken if kind == "line" and function == self.container_line}


for _function in (Session.container_line, Session.image_line, Session.volume_line, Session.network_line):
    setattr(_function, _NO_VAR_EXPAND, True)

# The views of runtime/inspect, as line magics.
VIEWS = ("layers", "namespaces", "cgroups", "mounts")
_OWN = (
    "container",
    "dockerfile",
    "layer",
    "image",
    "volume",
    "network",
    "union",
    "cellwall_lock",
    "cellwall_alias",
    *VIEWS,
)


def _holder(shell: Any, kind: str, name: str) -> Any:
    """Who holds a name, or None. A magic that IPython only knows by name yet (lazy_magics) counts as held."""
    manager = shell.magics_manager
    held = manager.magics[kind].get(name)
    if held is None and name in getattr(manager, "lazy_magics", {}):
        return manager.lazy_magics[name]
    return held


def load_ipython_extension(shell: Any) -> None:
    """Called by IPython for ``%load_ext cellwall`` and after the unloading of ``%reload_ext``."""
    session = getattr(shell, _SESSION, None)
    if session is None:
        session = Session(shell)
        setattr(shell, _SESSION, session)
    session.take(
        [
            ("cell", "container", session.container_cell),
            ("cell", "dockerfile", session.dockerfile_cell),
            ("cell", "layer", session.layer_cell),
            ("line", "container", session.container_line),
            ("line", "image", session.image_line),
            ("line", "volume", session.volume_line),
            ("line", "network", session.network_line),
            ("cell", "union", session.union_cell),
            ("line", "union", session.union_line),
            ("line", "cellwall_lock", session.lock_line),
            ("line", "cellwall_alias", session.alias_line),
            *(("line", name, getattr(session, f"{name}_line")) for name in VIEWS),
        ]
    )
    matchers = getattr(getattr(shell, "Completer", None), "custom_matchers", None)
    if matchers is not None and session.matcher is None:
        session.matcher = _matcher(session)
        matchers.append(session.matcher)


def unload_ipython_extension(shell: Any) -> None:
    """Called by IPython for ``%unload_ext cellwall``. Containers and background cells go on."""
    session = getattr(shell, _SESSION, None)
    if session is None:
        return
    session.release(list(session.taken))
    matchers = getattr(getattr(shell, "Completer", None), "custom_matchers", [])
    if session.matcher in matchers:
        matchers.remove(session.matcher)
    session.matcher = None


def _matcher(session: Session) -> Any:
    """A matcher of IPython's API v2 that loads the rest of completion when a line of ours is completed."""

    def cellwall_matcher(context: Any) -> Any:
        line = context.line_with_cursor.lstrip()
        if not line.startswith("%"):
            return {"completions": [], "suppress": False}
        from .completion import complete

        return complete(session, context)

    # What IPython's context_matcher decorator sets; importing it from IPython.core.completer is what this avoids.
    cellwall_matcher.matcher_api_version = 2  # type: ignore[attr-defined]
    cellwall_matcher.matcher_priority = 100.0  # type: ignore[attr-defined]
    cellwall_matcher.matcher_identifier = "cellwall"  # type: ignore[attr-defined]
    return cellwall_matcher
