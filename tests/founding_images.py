"""The images of the founding text, made of this machine's own Debian files: ubuntu64, training/webapp, training/postgres.

The web app answers on port 5000, and the database is a real PostgreSQL server. Skips the test where a package isn't installed.
"""

from __future__ import annotations

import io
import os
import re
import subprocess
import tarfile
from collections.abc import Iterable
from pathlib import Path

import pytest

from .registries import MadeImage, busybox_layer, make_image, tar_of

POSTGRES = "/usr/lib/postgresql/15"
# What of the packages a server or a small web app does without.
LEFT_OUT = re.compile(
    r"/usr/share/(man|doc|locale|lintian|bug)/|/bitcode/|llvmjit|/extension/(?!plpgsql)|__pycache__"
    r"|/(idlelib|lib2to3|pydoc_data|config-3[^/]*|test|tests)(/|$)"
)

WEB_APP = b"""
import os
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

class Hello(BaseHTTPRequestHandler):
    def do_GET(self):
        body = f"Hello {os.environ.get('PROVIDER', 'world')}!\\n".encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

server = ThreadingHTTPServer(("", int(os.environ.get("PORT", 5000))), Hello)
print("listening", flush=True)
server.serve_forever()
"""

# busybox's shell takes its own setpriv for that name. The lock is the volume's: a second server on the same files waits until the first has gone.
SERVER = b"""#!/bin/sh
set -e
export PGDATA="${PGDATA:-/dbdata/main}"
mkdir -p "$PGDATA"
exec 9>"${PGDATA%/*}/lock"
flock 9
mkdir -p /run/postgresql
chown -R postgres:postgres "$PGDATA" /run/postgresql
chmod 700 "$PGDATA"
as_postgres="/usr/bin/setpriv --reuid postgres --regid postgres --clear-groups"
if [ ! -s "$PGDATA/PG_VERSION" ]; then
    $as_postgres initdb --no-sync --auth trust --username postgres --locale C --encoding UTF8 --pgdata "$PGDATA" >/dev/null
    echo 'host all all all trust' >> "$PGDATA/pg_hba.conf"
fi
exec $as_postgres "$@"
"""


def ubuntu64() -> MadeImage:
    """A small system with bash."""
    layers = [layer(_programs("/usr/bin/bash")), _base(), tar_of({"bin/bash": "/usr/bin/bash"})]
    config = {"Cmd": ["/bin/bash"], "Env": ["PATH=/usr/bin:/bin"]}
    return make_image(layers, compression="zstd", config=config)


def webapp() -> MadeImage:
    """``python app.py`` in /opt/webapp, which EXPOSEs 5000."""
    paths = installed("python3.11-minimal", "libpython3.11-minimal", "libpython3.11-stdlib")
    files = tar_of({"usr/bin/python": "python3.11", "opt": None, "opt/webapp": None, "opt/webapp/app.py": WEB_APP})
    return make_image(
        [layer({*paths, *libraries(paths)}), _base(), files],
        compression="zstd",
        config={
            "WorkingDir": "/opt/webapp",
            "ExposedPorts": {"5000/tcp": {}},
            "Cmd": ["python", "app.py"],
            "Env": ["PATH=/usr/bin:/bin"],
        },
    )


def postgres() -> MadeImage:
    """A PostgreSQL server whose data is in the volume /dbdata."""
    paths = installed("postgresql-15", "postgresql-client-15")
    programs = {f"{POSTGRES}/bin/{name}" for name in ("initdb", "postgres", "psql")}
    paths = {path for path in paths if f"{POSTGRES}/bin/" not in path} | programs
    zones = {f"/usr/share/zoneinfo/{name}" for name in ("UTC", "Etc/UTC")}
    files = tar_of(
        {
            "etc/passwd": b"root:x:0:0:root:/root:/bin/sh\npostgres:x:101:101::/:/bin/sh\n",
            "etc/group": b"root:x:0:\npostgres:x:101:\n",
            "usr/local/bin/serve": SERVER,
            "var": None,
            "var/run": None,
        }
    )
    tools = _programs("/usr/bin/flock", "/usr/bin/setpriv")
    return make_image(
        [layer({*paths, *libraries(paths), *zones, *tools}), _base(), files],
        compression="zstd",
        config={
            "Entrypoint": ["serve"],
            # What the test needs of a server, and no more of the machine than it must have.
            "Cmd": [
                "postgres", "-c", "listen_addresses=*", "-c", "unix_socket_directories=/run/postgresql", "-c", "shared_buffers=8MB", "-c", "fsync=off",
            ],
            "Env": [f"PATH=/usr/local/bin:{POSTGRES}/bin:/usr/bin:/bin", "PGHOST=/run/postgresql", "PGUSER=postgres", "TZ=UTC"],
            "Volumes": {"/dbdata": {}},
            "ExposedPorts": {"5432/tcp": {}},
            "StopSignal": "SIGINT",
        },
    )  # fmt: skip


def _base() -> bytes:
    """busybox's names, below what came before them: programs of Debian's stand in /usr/bin, which comes first."""
    return busybox_layer()


def installed(*packages: str) -> set[str]:
    found: set[str] = set()
    for package in packages:
        done = subprocess.run(["dpkg", "-L", package], capture_output=True, text=True)
        if done.returncode:
            pytest.skip(f"not installed: {package}")
        found.update(line for line in done.stdout.splitlines() if not LEFT_OUT.search(line))
    return {path for path in found if os.path.lexists(path)}


def _programs(*paths: str) -> set[str]:
    return {*paths, *libraries(paths)}


def libraries(paths: Iterable[str]) -> set[str]:
    """What the ELF files among ``paths`` are linked with."""
    binaries = []
    for path in paths:
        if os.path.isfile(path):
            with open(path, "rb") as file:
                if file.read(4) == b"\x7fELF":
                    binaries.append(path)
    listed = subprocess.run(["ldd", *binaries], capture_output=True, text=True).stdout
    return set(re.findall(r"(/\S+) \(0x", listed))


def layer(paths: Iterable[str]) -> bytes:
    """A tar of ``paths`` with the folders above them. /lib and /lib64 are links into /usr here: files go where they lead."""
    buffer = io.BytesIO()
    done: set[str] = set()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name in ("lib", "lib64"):
            if os.path.islink(f"/{name}"):
                _add(tar, Path("usr"), Path("/usr"), done)
                tar.add(f"/{name}", name)
        for path in sorted(paths):
            real = Path(os.path.realpath(Path(path).parent), Path(path).name)
            for parent in [*reversed(real.parents)][1:]:
                _add(tar, parent.relative_to("/"), parent, done)
            _add(tar, real.relative_to("/"), real, done)
            if real.is_symlink() and (target := real.resolve()).is_file():
                for parent in [*reversed(target.parents)][1:]:
                    _add(tar, parent.relative_to("/"), parent, done)
                _add(tar, target.relative_to("/"), target, done)
    return buffer.getvalue()


def _add(tar: tarfile.TarFile, name: Path, source: Path, done: set[str]) -> None:
    if str(name) not in done:
        done.add(str(name))
        tar.add(source, str(name), recursive=False)
