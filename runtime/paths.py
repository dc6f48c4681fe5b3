"""Where cellwall keeps its state: data that stays (images, layers, kept containers) and run-time state (running containers).

Root: /var/lib/cellwall and /run/cellwall. Others: $XDG_DATA_HOME/cellwall and $XDG_RUNTIME_DIR/cellwall.
CELLWALL_ROOT moves all of it: the data to that folder and the run-time state to ``run`` in it.
"""

from __future__ import annotations

import os
from pathlib import Path

from .frozen import frozen


@frozen
class Paths:
    """``data`` outlives a reboot, ``run`` need not. Neither is made by reading this."""

    data: Path
    run: Path

    @classmethod
    def default(cls, environment: dict[str, str] | None = None, uid: int | None = None) -> Paths:
        env = os.environ if environment is None else environment
        uid = os.geteuid() if uid is None else uid
        if moved := env.get("CELLWALL_ROOT"):
            data = Path(moved).absolute()
            return cls(data, data / "run")
        if uid == 0:
            return cls(Path("/var/lib/cellwall"), Path("/run/cellwall"))
        home = Path(env.get("HOME") or os.path.expanduser("~"))
        data = Path(env.get("XDG_DATA_HOME") or home / ".local/share") / "cellwall"
        runtime = env.get("XDG_RUNTIME_DIR")
        # Without a session there is no XDG_RUNTIME_DIR: what is left below the data folder is swept by reconcile.
        return cls(data, Path(runtime) / "cellwall" if runtime else data / "run")

    @property
    def images(self) -> Path:
        """The OCI image layout."""
        return self.data / "images"

    @property
    def storage(self) -> Path:
        """One folder per storage driver."""
        return self.data / "storage"

    @property
    def build_cache(self) -> Path:
        """What builds remember: records of steps, the folders of cache mounts."""
        return self.data / "build-cache"

    @property
    def containers(self) -> Path:
        """Kept containers: config, writable layer, log."""
        return self.data / "containers"

    @property
    def volumes(self) -> Path:
        """Volumes, one folder each."""
        return self.data / "volumes"

    @property
    def volume_claims(self) -> Path:
        """Which containers without a record use which volumes, one entry each."""
        return self.run / "volumes"

    @property
    def running(self) -> Path:
        """state.json of every container that has, or had, an init process."""
        return self.run / "containers"

    @property
    def spares(self) -> Path:
        """A link for each sandbox that waits in a launcher's pool: its control group's name, and whose it is."""
        return self.run / "spares"

    @property
    def networks(self) -> Path:
        """Networks, one JSON file each."""
        return self.data / "networks"

    @property
    def endpoints(self) -> Path:
        """What running containers have on networks: a folder for each network, a file in it for each container."""
        return self.run / "networks"

    @property
    def ids(self) -> Path:
        """Id ranges in use, one entry each."""
        return self.run / "ids"
