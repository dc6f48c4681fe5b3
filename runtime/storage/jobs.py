"""Giving a job to a worker process (runtime/worker.py) and waiting for its answer.

The caller's process may have threads: nothing is forked here but by subprocess, which execs at once.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import select
import sys
from fcntl import F_SETPIPE_SZ, fcntl
from pathlib import Path

from ..errors import Cancelled, CellwallError, LayerError, SyscallError

TYPE_CHECKING = False
if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable
    from typing import Any, BinaryIO

# The folder that holds the package. It goes to the end of the worker's path, behind the standard library.
_PACKAGES = str(Path(__file__).absolute().parents[3])
_PACKAGE = __name__.partition(".")[0]
_CODE = f"import sys; sys.path.append(sys.argv[1]); from {_PACKAGE}.runtime.worker import main; main(int(sys.argv[2]))"
_CHUNK = 256 * 1024
_PIPE = 1 << 20
# How often ``cancelled`` is asked while the worker is busy.
_POLL_MS = 50


def run_job(
    job: str,
    arguments: dict[str, Any],
    *,
    fds: dict[str, int] | None = None,
    userns_fd: int | None = None,
    held_fds: tuple[int, ...] = (),
    tar: BinaryIO | None = None,
    digest: object = "archive",
    cancelled: Callable[[], bool] | None = None,
) -> Any:
    """Do ``job`` in a worker and return its result.

    ``fds`` are descriptors that the worker gets, by the name in its request; the caller keeps its own. ``held_fds`` it only
    holds open, so that a lock outlives a killed caller until the worker has ended too. ``tar`` is read in the calling
    thread and goes to the worker as ``tar_fd``. ``userns_fd`` is a user namespace to join. On any way out the worker has
    ended. Raises LayerError, Cancelled, SyscallError, CellwallError (the worker died), and what ``tar.read`` raises.
    """
    with contextlib.ExitStack() as stack:
        request: dict[str, Any] = {"job": job, **arguments, **(fds or {})}
        if userns_fd is not None:
            request["userns_fd"] = userns_fd
        answer_read, answer_write = _pipe(stack)
        lifeline_read, _lifeline_write = _pipe(stack)
        request |= {"answer_fd": answer_write.fd, "lifeline_fd": lifeline_read.fd}
        handed = [answer_write, lifeline_read]
        tar_write = None
        if tar is not None:
            tar_read, tar_write = _pipe(stack)
            with contextlib.suppress(OSError):  # beyond the user's quota of pipe memory: the default size does as well
                fcntl(tar_write.fd, F_SETPIPE_SZ, _PIPE)
            os.set_blocking(tar_write.fd, False)
            request["tar_fd"] = tar_read.fd
            handed.append(tar_read)
        stderr_fd = _memfd(stack, "cellwall-worker-stderr", b"")
        request_fd = _memfd(stack, "cellwall-worker-request", json.dumps(request).encode())
        passed = [value for key, value in request.items() if key.endswith("_fd")]
        import subprocess

        process = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", _CODE, _PACKAGES, str(request_fd)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=stderr_fd,
            pass_fds=[request_fd, *held_fds, *passed],
            # What a Python built with a shared library needs to start, and nothing else of the notebook's environment.
            env={key: os.environ[key] for key in ("LD_LIBRARY_PATH",) if key in os.environ},
            cwd="/",
            # A Ctrl-C in a terminal is the caller's to handle.
            process_group=0,
        )
        stack.callback(_end, process)
        # The worker's ends must be the worker's alone, or neither side would see the other end.
        for end in handed:
            end.close()
        answer = _converse(answer_read, tar_write, tar, cancelled)
        if not answer:
            process.wait()
            raise CellwallError(_last_words(job, process.returncode, stderr_fd))
    return _result(json.loads(answer), job, digest)


class _End:
    """One end of a pipe, closed once."""

    def __init__(self, fd: int) -> None:
        self.fd = fd

    def close(self) -> None:
        if self.fd >= 0:
            fd, self.fd = self.fd, -1
            os.close(fd)


def _pipe(stack: contextlib.ExitStack) -> tuple[_End, _End]:
    read, write = map(_End, os.pipe())
    stack.callback(read.close)
    stack.callback(write.close)
    return read, write


def _memfd(stack: contextlib.ExitStack, name: str, content: bytes) -> int:
    fd = os.memfd_create(name, os.MFD_CLOEXEC)
    stack.callback(os.close, fd)
    os.pwrite(fd, content, 0)
    return fd


def _end(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait()


def _converse(
    answer_read: _End, tar_write: _End | None, tar: BinaryIO | None, cancelled: Callable[[], bool] | None
) -> bytes:
    """Feed the worker until it answers; returns the answer (empty: it died)."""
    answer = b""
    chunk = memoryview(b"")
    poll = select.poll()
    poll.register(answer_read.fd, select.POLLIN)
    if tar_write is not None:
        poll.register(tar_write.fd, select.POLLOUT)
    while True:
        if cancelled is not None and cancelled():
            raise Cancelled("cancelled")
        for fd, _ in poll.poll(None if cancelled is None else _POLL_MS):
            if fd == answer_read.fd:
                piece = os.read(fd, _CHUNK)
                if not piece:
                    return answer
                answer += piece
                continue
            assert tar is not None and tar_write is not None
            chunk = chunk or memoryview(tar.read(_CHUNK))
            if chunk:
                try:
                    chunk = chunk[os.write(fd, chunk) :]
                    continue
                except BlockingIOError:
                    continue
                except BrokenPipeError:  # it has seen enough, and says why in its answer
                    chunk = memoryview(b"")
            poll.unregister(fd)
            tar_write.close()


def _result(answer: dict[str, Any], job: str, digest: object) -> Any:
    if "result" in answer:
        return answer["result"]
    if answer["kind"] == "layer":
        raise LayerError(digest, answer["error"])
    number = int(answer["errno"])
    mend = ""
    if number in (errno.ENOSPC, errno.EDQUOT):
        mend = ": free some space there, or move the store with CELLWALL_ROOT"
    raise SyscallError(number, f"{job} {answer['error']}".strip() + mend)


def _last_words(job: str, status: int, stderr_fd: int) -> str:
    size = os.fstat(stderr_fd).st_size
    lines = os.pread(stderr_fd, 4096, max(0, size - 4096)).decode("utf-8", "replace").strip().splitlines()
    return f"the worker that had to {job} ended with status {status}" + (f": {lines[-1]}" if lines else "")
