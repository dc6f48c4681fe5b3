"""Waiting for a container's end: ``wait``.

A container with a shim tells its end to whoever is connected to it; another's is told by its launcher's files.
"""

from __future__ import annotations

import json

from .attaching import connect, hear, hello, say
from .events import Reader

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .containers import Containers


def wait(known: Containers, name_or_id: str) -> int:
    """See ``Engine.wait``."""
    container = known.find(name_or_id)
    found = known.state(container.id)
    if found is not None:
        sock = connect(str(known.paths.running), container.id)
        if sock is not None:
            from .launcher.client import read_exit

            with sock:
                say(sock, hello(stdin=False, stdout=False, stderr=False))
                status = None
                # Up to its end, when everything of that run is cleaned up: then ``rm`` finds nothing that runs.
                while packet := hear(sock):
                    message = json.loads(packet)
                    if "exited" in message:
                        status = read_exit(message["exited"]).status
            if status is not None:
                return status
        from .stopping import wait_ended

        wait_ended(known, found, None)
    record = known.record(container.id)
    ended = known.of(record).exit if record is not None else None
    return ended.status if ended is not None else _told(known, container.id)


def _told(known: Containers, container_id: str) -> int:
    """The exit status of a container that left nothing but an event."""
    status = 0
    with Reader(str(known.paths.run)) as reader:
        for event in reader.new():
            if event["Action"] == "die" and event["Actor"]["ID"] == container_id:
                status = int(event["Actor"]["Attributes"]["exitCode"])
    return status
