"""The provisioner ``cellwall``: jupyter_client starts, signals and ends a kernel in a container through it.

Its callbacks are awaited by jupyter_client's KernelManager, in the order pre_launch, launch_kernel, post_launch; then poll and
send_signal while the kernel runs; then shutdown_requested, wait, perhaps terminate and kill, and cleanup. On a restart the same object
is used again. Entry point group ``jupyter_client.kernel_provisioners``.
"""

from __future__ import annotations

import asyncio
import os
import signal
from typing import Any

from jupyter_client.connect import KernelConnectionInfo
from jupyter_client.multikernelmanager import MultiKernelManager
from jupyter_client.provisioning.provisioner_base import KernelProvisionerBase
from tornado.web import HTTPError
from traitlets import List, Unicode

from ..runtime.engine import Engine
from ..runtime.errors import CellwallError
from .connection import CHANNELS, Connection
from .place import Place
from .session import Session
from .spares import Spares
from .starting import start
from .words import of_config

# How often jupyter_client's own provisioner looks; here nothing but an attribute is read.
_LOOK_S = 0.05


class KernelStartError(CellwallError, HTTPError):
    """The kernel can't be started. Being tornado's error too, Jupyter Server hands its sentence on to the front end."""

    def __init__(self, message: str) -> None:
        HTTPError.__init__(self, 500, message)
        self.message = message

    def __str__(self) -> str:
        return self.message


class CellwallProvisioner(KernelProvisionerBase):
    """A kernel in a container of the image that the kernelspec names."""

    words = List(Unicode(), help="what `cellwall kernel install` wrote: see kernel/words.py").tag(config=True)

    def __init__(self, **keywords: Any) -> None:
        super().__init__(**keywords)
        self._session: Session | None = None
        self._place: Place | None = None
        self._status: int | None = None
        # What the kernel before this one died of, and couldn't say in its cell any more.
        self._unsaid = ""

    @property
    def has_process(self) -> bool:
        return self._session is not None

    async def pre_launch(self, **kwargs: Any) -> dict[str, Any]:
        """Choose where the sockets are and write the client's connection file, before any client is made of it."""
        manager = self.parent
        if manager is None:
            raise KernelStartError("the provisioner cellwall needs a KernelManager")
        engine = Engine.default()
        try:
            # The first one's start takes as long as what comes before its first request.
            engine.launcher_for(own_users="--userns=host" not in self.words).start()
            if self._place is None:
                self._place = Place(engine.paths.run / "k")
            else:
                self._place.make()
        except CellwallError as error:
            raise KernelStartError(str(error)) from None
        manager.cache_ports = False
        manager.transport = "ipc"
        manager.ip = self._place.prefix
        for number, channel in enumerate(CHANNELS, 1):
            setattr(manager, f"{channel}_port", number)
        arguments = kwargs.pop("extra_arguments", [])
        kwargs.pop("transport_encryption", None)
        manager.write_connection_file(jupyter_session=(kwargs.get("env") or {}).get("JPY_SESSION_NAME", ""))
        self.connection_info = manager.get_connection_info()
        return await super().pre_launch(cmd=list(arguments), **kwargs)

    async def launch_kernel(self, cmd: list[str], **kwargs: Any) -> KernelConnectionInfo:
        """Start the container; returns once the kernel has its sockets. A pull takes as long as it takes."""
        place = self._place
        assert place is not None
        environment = dict(kwargs.get("env") or os.environ)
        folder = str(kwargs.get("cwd") or os.getcwd())
        manager = self.parent
        connection = {**self.connection_info, "kernel_name": "" if manager is None else manager.kernel_name}
        # A notebook server's; a program that runs one notebook has a manager alone.
        many = manager is not None and isinstance(manager.parent, MultiKernelManager)

        def begin() -> Session:
            engine = Engine.default()
            return start(
                engine,
                of_config({"words": list(self.words)}),
                Connection.read(connection),
                folder=folder,
                environment=environment,
                log=self.log,
                arguments=cmd,
                scratch=str(place.path),
                spares=Spares.of(engine),
                many=many,
            )

        try:
            self._session = await asyncio.to_thread(begin)
        except BaseException as error:
            place.remove()
            if isinstance(error, (CellwallError, OSError)):
                # One sentence for a person: how it came about is in the log where it is asked for.
                self.log.debug("the kernel can't be started", exc_info=True)
                raise KernelStartError(str(error)) from None
            raise
        self._status = None
        if self._unsaid:
            self._session.note(f"{self._unsaid} (the kernel before this one)")
            self._unsaid = ""
        return self.connection_info

    async def poll(self) -> int | None:
        """None while the kernel runs, else its exit status. Called every few seconds by whoever restarts dead kernels."""
        if self._session is None:
            return 0 if self._status is None else self._status
        return None if self._session.exit is None else self._session.exit.status

    async def wait(self) -> int | None:
        """Wait until nothing of the kernel's container is left: then it can be started anew at the same place."""
        session = self._session
        if session is None:
            return self._status
        while not session.gone.is_set():
            await asyncio.sleep(_LOOK_S)
        await asyncio.to_thread(self._over, session)
        self._session = None
        return self._status

    def _over(self, session: Session) -> None:
        """Give ``session`` up, and keep of it what is asked for later."""
        session.close()
        self._status = 0 if session.exit is None else session.exit.status
        self._unsaid = session.unsaid

    async def send_signal(self, signum: int) -> None:
        """Send a signal to the kernel and its children; an interrupt is SIGINT, or a message where the kernelspec says so."""
        if self._session is not None:
            self._session.signal(signum)

    async def kill(self, restart: bool = False) -> None:
        await self.send_signal(signal.SIGKILL)

    async def terminate(self, restart: bool = False) -> None:
        await self.send_signal(signal.SIGTERM)

    async def shutdown_requested(self, restart: bool = False) -> None:
        """A shutdown_request is on its way to the kernel: its end is expected."""
        if self._session is not None:
            self._session.will_end()

    async def cleanup(self, restart: bool = False) -> None:
        """Give up what is left; for a restart the place of the sockets stays."""
        if self._session is not None:
            session, self._session = self._session, None
            await asyncio.to_thread(self._over, session)
        if self._place is not None and not restart:
            self._place.remove()
            self._place = None

    async def get_provisioner_info(self) -> dict[str, Any]:
        info = await super().get_provisioner_info()
        return info | {"container": "" if self._session is None else self._session.container_id}

    def resolve_path(self, path_str: str) -> str | None:
        """The notebook's folder has the same path in the container."""
        path = os.path.abspath(os.path.expanduser(path_str))
        return path if os.path.exists(path) else None


__all__ = ["CellwallProvisioner", "KernelStartError"]
