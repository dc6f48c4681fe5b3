"""``python -P -m cellwall.kernel.bridge PIDFD FLAGS FOLDER_FD UID GID PORT…``: Unix sockets in a container for a kernel that knows TCP alone.

The kernel listens at ports of its container's own network namespace. This process joins that namespace, is there who the kernel is, and has a
socket in the kernel's folder for each port, as a kernel that knows Unix sockets makes them itself: this side goes on as with those. It ends
when its standard input does, so with whoever started it. It isn't in the container's process namespace: nothing in there can see it.
Source: setns(2), proc_net(5).
"""

from __future__ import annotations

import asyncio
import os
import socket
import sys

from ..runtime.errors import SyscallError
from ..runtime.linux.process import setns

_LISTENS = "0A"
_CHUNK = 1 << 17
# Nobody tells when a port is listened at in a network namespace: it is looked at, the less often the longer it takes.
_LOOK_S, _LOOK_LESS_S = 0.01, 0.2


def main(words: list[str]) -> int:
    pidfd, flags, folder_fd, uid, gid, *ports = map(int, words)
    setns(pidfd, flags)
    # /proc/net is the namespace's that it was opened in.
    with open("/proc/self/net/tcp") as table:
        os.fchdir(folder_fd)
        try:
            os.setgroups([])
        except PermissionError:  # an ordinary user's namespace without a map of groups
            pass
        os.setresgid(gid, gid, gid)
        os.setresuid(uid, uid, uid)
        asyncio.run(_serve(table.fileno(), ports))
    return 0


async def _serve(table_fd: int, ports: list[int]) -> None:
    # Whoever started this has ended, or wants it to end; there is nothing to put in order.
    asyncio.get_running_loop().add_reader(0, os._exit, 0)
    servers = await _listen(table_fd, ports)
    await asyncio.gather(*(server.serve_forever() for server in servers))


async def _listen(table_fd: int, ports: list[int]) -> list[asyncio.Server]:
    """A socket for each port, once the kernel listens there."""
    servers = []
    look_s = _LOOK_S
    waiting = {port: f"k-{number}" for number, port in enumerate(ports, 1)}
    while True:
        for port in waiting.keys() & _listening(table_fd):
            servers.append(await _open(waiting.pop(port), port))
        if not waiting:
            return servers
        await asyncio.sleep(look_s)
        look_s = min(look_s * 1.2, _LOOK_LESS_S)


def _listening(table_fd: int) -> set[int]:
    """The ports of the namespace that somebody listens at."""
    os.lseek(table_fd, 0, os.SEEK_SET)
    text = b""
    while data := os.read(table_fd, 1 << 16):
        text += data
    fields = [line.split() for line in text.decode("ascii", "replace").splitlines()[1:]]
    return {int(field[1].rpartition(":")[2], 16) for field in fields if len(field) > 3 and field[3] == _LISTENS}


async def _open(name: str, port: int) -> asyncio.Server:
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(f"{name}.new")
    listener.listen(128)
    listener.setblocking(False)
    # Whoever sees it by its name can connect.
    os.rename(f"{name}.new", name)

    async def join(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            from_kernel, to_kernel = await asyncio.open_connection("127.0.0.1", port)
        except OSError:  # the kernel is about to end
            writer.close()
            return
        ways = [asyncio.ensure_future(_move(*way)) for way in ((reader, to_kernel), (from_kernel, writer))]
        # A connection of ZMQ's ends as a whole.
        await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        for end in (writer, to_kernel):
            end.close()
        for way in ways:
            way.cancel()

    return await asyncio.start_unix_server(join, sock=listener, limit=_CHUNK)


async def _move(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(_CHUNK):
            writer.write(data)
            await writer.drain()
    except OSError:  # one of them has gone
        pass


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except (SyscallError, OSError) as error:
        sys.exit(f"cellwall: the kernel's ports can't be reached: {error}")
