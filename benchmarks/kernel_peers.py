"""Kernels of one image under podman and docker, with their five ports published on loopback: started one by one, as they are asked for.

A program for kernel_start.py, which runs it in network, mount and process namespaces of its own (``apart.sh`` and ``unshare --net``): bridge,
firewall rules and what the engines keep for the whole machine go with these. Words: podman or docker, the image as an OCI layout, a
scratch folder, a control group's name. It prints a line once it is ready, and for each line that it reads the seconds of a start.
"""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

PATIENCE_S = 120.0
# A message on a connection that an engine's proxy took before the kernel was there is lost.
_AGAIN_S = 1.0
_PORTS = ("shell", "iopub", "stdin", "control", "hb")


def first_reply(client: Any) -> None:
    """Wait for the first kernel_info_reply."""
    client.start_channels()
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        client.kernel_info()
        try:
            client.get_shell_msg(timeout=_AGAIN_S)
            return
        except queue.Empty:
            pass
    raise TimeoutError(f"no answer in {PATIENCE_S:g} s")


def main(engine: str, layout: str, scratch: str, group: str) -> int:
    folder = Path(scratch)
    folder.mkdir()
    _prepare()
    run, end = {"podman": _podman, "docker": _docker}[engine](layout, folder, group)
    try:
        _start(run, folder)
        print("ready", flush=True)
        for _ in sys.stdin:
            print(_start(run, folder), flush=True)
    finally:
        end()
    return 0


def _prepare() -> None:
    if os.path.ismount("/sys/fs/cgroup/unified"):
        # crun 1.8 refuses to run where a tree of version 2 is mounted beside version 1.
        _check("umount", "/sys/fs/cgroup/unified")
    for place in ("/run", "/dev/shm"):
        _check("mount", "-t", "tmpfs", "tmpfs", place)
    _check("ip", "link", "set", "lo", "up")


def _podman(layout: str, folder: Path, group: str) -> tuple[list[str], Callable[[], None]]:
    words = ["podman", "--root", f"{folder}/root", "--runroot", f"{folder}/runroot", "--tmpdir", f"{folder}/tmp"]
    words += ["--cgroup-manager", "cgroupfs", "--events-backend", "file"]
    image = _check(*words, "pull", "-q", f"oci:{layout}:latest").split()[-1]
    limits = ["--ulimit", "nofile=4096:4096", "--ulimit", "nproc=4096:4096", "--cgroup-parent", f"/{group}"]
    return [*words, "run", "--rm", "--log-driver", "k8s-file", *limits, "IMAGE", image], lambda: None


def _docker(layout: str, folder: Path, group: str) -> tuple[list[str], Callable[[], None]]:
    archive = f"{folder}/image.tar"
    _check("skopeo", "copy", "-q", f"oci:{layout}:latest", f"docker-archive:{archive}:kernel:1")
    (folder / "none.json").write_text("{}")
    # Short, for containerd's sockets lie deep below it.
    socket = "/run/d.sock"
    with open(folder / "log", "wb") as log:
        daemon = subprocess.Popen(
            ["dockerd", "--config-file", f"{folder}/none.json", "--data-root", f"{folder}/data", "--exec-root", "/run/d",
             "--pidfile", "/run/d.pid", "-H", f"unix://{socket}", "--cgroup-parent", f"/{group}", "--storage-driver", "overlay2",
             "--exec-opt", "native.cgroupdriver=cgroupfs"],
            stdin=subprocess.DEVNULL, stdout=log, stderr=log,
        )  # fmt: skip

    def end() -> None:
        daemon.send_signal(signal.SIGTERM)
        daemon.wait(30)

    try:
        deadline = time.monotonic() + 60
        while not os.path.exists(socket) or "API listen on" not in (folder / "log").read_text():
            if daemon.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"dockerd doesn't start: {(folder / 'log').read_text().splitlines()[-1:]}")
            time.sleep(0.05)
        words = ["docker", "-H", f"unix://{socket}"]
        os.environ["DOCKER_CONFIG"] = f"{folder}/config"
        _check(*words, "load", "-q", "-i", archive)
    except BaseException:
        end()
        raise
    return [*words, "run", "--rm", "IMAGE", "kernel:1"], end


def _start(run: list[str], folder: Path) -> float:
    """Seconds from the engine's start to the first reply."""
    from jupyter_client.blocking.client import BlockingKernelClient
    from jupyter_client.connect import write_connection_file

    path, info = write_connection_file(str(folder / "outside.json"), ip="127.0.0.1", key=b"k")
    known: dict[str, Any] = dict(info)
    inside = folder / "inside.json"
    inside.write_text(json.dumps({**known, "ip": "0.0.0.0", "key": "k"}))
    ports = [f"-p=127.0.0.1:{known[f'{name}_port']}:{known[f'{name}_port']}" for name in _PORTS]
    at = run.index("IMAGE")
    command = [*run[:at], *ports, "-v", f"{inside}:/connection.json", *run[at + 1 :]]
    command += ["python3", "-m", "ipykernel_launcher", "-f", "/connection.json"]
    client = BlockingKernelClient()
    begin = time.perf_counter()
    process = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    try:
        client.load_connection_file(path)
        first_reply(client)
        took = time.perf_counter() - begin
        client.shutdown()
        process.wait(PATIENCE_S)
    except TimeoutError as error:
        process.kill()
        raise RuntimeError(f"{error}: {process.communicate()[1].strip()[-300:]}") from error
    finally:
        client.stop_channels()
        process.kill()
        process.communicate()
        Path(path).unlink()
    return took


def _check(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command[:3])}: {done.stderr.strip()[-300:]}")
    return done.stdout


if __name__ == "__main__":
    try:
        sys.exit(main(*sys.argv[1:]))
    except RuntimeError as error:
        sys.exit(str(error))
