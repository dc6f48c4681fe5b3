"""What an isolated kernel runs at its start: ``%layers``, ``%namespaces``, ``%cgroups``, ``%mounts``, ``%container``, about its own container.

It runs in the container, in the image's Python (3.7 and later), and cellwall itself never imports it: asking.py puts its text beside the
kernel's sockets, where PYTHONSTARTUP names it. Each magic makes a socket there, puts one question to whoever comes, and shows the answer.
"""

from __future__ import annotations

import json
import os
import shlex
import socket
import sys
import threading

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

FOLDER = "/run/cellwall"
MAGICS = ("layers", "namespaces", "cgroups", "mounts", "container")
# Somebody comes at once, or never; a look may have to wait for others before it.
COME_S, ANSWER_S = 10.0, 120.0
_one_at_a_time = threading.Lock()


class View:
    """What a magic has shown: its facts by ``to_dict``, its text by ``print``."""

    def __init__(self, bundle: dict[str, Any], data: dict[str, Any]) -> None:
        self._bundle = bundle
        self._data = data

    def to_dict(self) -> dict[str, Any]:
        return self._data

    def __str__(self) -> str:
        return str(self._bundle.get("text/plain", ""))

    def _repr_mimebundle_(self, include: object = None, exclude: object = None) -> dict[str, Any]:
        return dict(self._bundle)


def ask(magic: str, words: list[str]) -> dict[str, Any]:
    """The answer to one question. Raises OSError where nobody gives one, ValueError where it is none."""
    place = f"{FOLDER}/ask"
    making = f"{place}.{os.getpid()}"
    with _one_at_a_time, socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.settimeout(COME_S)
        try:
            listener.bind(making)
            listener.listen(1)
            # It is seen when it has its name, and takes connections by then.
            os.rename(making, place)
            peer, _ = listener.accept()
        finally:
            for path in (making, place):
                try:
                    os.unlink(path)
                except OSError:
                    pass
    with peer:
        peer.settimeout(ANSWER_S)
        peer.sendall(json.dumps({"magic": magic, "words": words}).encode() + b"\n")
        told = b""
        while not told.endswith(b"\n"):
            data = peer.recv(1 << 16)
            if not data:
                raise OSError(0, "the answer broke off")
            told += data
    answer = json.loads(told.decode())
    return answer if isinstance(answer, dict) else {}


def magic_of(name: str) -> Any:
    def magic(line: str) -> View | None:
        from IPython.core.error import UsageError

        try:
            answer = ask(name, shlex.split(line))
        except socket.timeout:  # noqa: UP041 - before Python 3.10 it has a class of its own
            raise UsageError(f"%{name}: nobody answers") from None
        except (OSError, ValueError) as error:
            raise UsageError(f"%{name}: can't be asked: {getattr(error, 'strerror', '') or error}") from None
        if "error" in answer:
            raise UsageError(str(answer["error"]))
        if "text" in answer:
            sys.stdout.write(str(answer["text"]))
            return None
        return View(answer.get("bundle", {}), answer.get("data", {}))

    magic.__doc__ = f"Show this kernel's own container: %{name} --help says what it takes."
    return magic


def main() -> None:
    # At the prompt of a plain Python there are no magics.
    shell = sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None
    if shell is not None:
        for name in MAGICS:
            shell.register_magic_function(magic_of(name), "line", name)


if __name__ == "cellwall_magics":
    main()
