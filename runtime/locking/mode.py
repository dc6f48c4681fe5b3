"""Whether images are those of a lock, and of which notebook's: what this process was told, its variables, the front end's.

Asked before each image, so it imports the standard library and errors.py only.

A kernel isn't told by Jupyter which notebook it serves. What there is, in the order in which it counts:

- ``%cellwall_lock FILE`` in the notebook;
- ``CELLWALL_LOCK=FILE``: for nbclient, ``jupyter execute``, nbconvert and papermill, which tell a kernel nothing;
- ``JPY_SESSION_NAME``: JupyterLab, Notebook and everything else on jupyter_server (not after the notebook was renamed);
- ``__vsc_ipynb_file__``, a variable that VS Code puts into the kernel's namespace.
"""

from __future__ import annotations

import os
import sys
import threading
from pathlib import Path

from ..errors import LockError, SpecError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..config import Config
    from .lock import Lock

ON, FILE = "CELLWALL_LOCKED", "CELLWALL_LOCK"
_TRUE, _FALSE = ("1", "t", "true"), ("0", "f", "false")
_lock = threading.Lock()
# What %cellwall_lock said in this process; None where it didn't.
_on: bool | None = None
_path: Path | None = None
# The last lock that was read: the file's identity, and what was in it.
_read: tuple[tuple[object, ...], Lock] | None = None


def say(on: bool | None, path: Path | None) -> None:
    """From now on in this process: whether locks count, and which notebook's; None leaves it to the variables and the front end."""
    global _on, _path
    _on, _path = on, path and path.expanduser().absolute()


def said() -> tuple[bool | None, Path | None]:
    """What ``say`` was told last."""
    return _on, _path


def is_on(config: Config, said: bool | None) -> bool:
    """Whether an image is to be the lock's: what the command said, else the notebook, else the variable as it is now, else the file.

    Raises SpecError where the variable is neither true nor false.
    """
    if said is not None:
        return said
    if _on is not None:
        return _on
    text = os.environ.get(ON, "")
    if not text:
        return config.locked
    if text.lower() not in (*_TRUE, *_FALSE):
        raise SpecError(ON, f"{text!r} is neither true nor false")
    return text.lower() in _TRUE


def variables() -> dict[str, str]:
    """What a command in a process of its own must have in its environment to be under the same lock."""
    found = {} if _on is None else {ON: "1" if _on else "0"}
    path = _path or (_front_end() if not os.environ.get(FILE) else None)
    return found | ({FILE: str(path)} if path is not None else {})


def notebook() -> Path:
    """The notebook whose lock counts. Raises LockError where nothing says which."""
    if _path is not None:
        return _path
    if named := os.environ.get(FILE):
        return Path(named).expanduser().absolute()
    found = _front_end()
    if found is None:
        raise LockError(
            "which notebook's lock counts isn't known here: say CELLWALL_LOCK=FILE.ipynb before the kernel starts, "
            "or %cellwall_lock FILE.ipynb in the notebook"
        )
    return found


def _front_end() -> Path | None:
    """The notebook as the front end names it. A session of a console has a name as well, which is no notebook's."""
    session = os.environ.get("JPY_SESSION_NAME", "")
    if session.endswith(".ipynb"):
        return Path(session).absolute()
    # In a kernel __main__ is the user's namespace.
    told = getattr(sys.modules.get("__main__"), "__vsc_ipynb_file__", None)
    return Path(told) if isinstance(told, str) and told.endswith(".ipynb") else None


def lock_in_force() -> tuple[Lock, Path]:
    """The lock that counts, read anew where its notebook has changed, and the notebook. Raises LockError."""
    global _read
    path = notebook()
    try:
        said = os.stat(path)
    except OSError as error:
        raise LockError(
            f"{path}, whose lock counts, can't be read: {(error.strerror or '').lower()}: name the notebook with "
            "CELLWALL_LOCK or %cellwall_lock, as after it was renamed"
        ) from None
    identity = (str(path), said.st_dev, said.st_ino, said.st_size, said.st_mtime_ns)
    with _lock:
        if _read is not None and _read[0] == identity:
            return _read[1], path
        from .notebook import NotebookFile

        lock = NotebookFile(path).lock
        if lock is None:
            raise LockError(f"{path} has no lock: 'cellwall lock {path}' makes one")
        _read = (identity, lock)
        return lock, path
