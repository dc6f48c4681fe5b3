"""A build in which nothing changed leaves the store as it is, makes no folder and starts nothing, nor loads what would."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from cellwall.runtime.build.results import BuildRequest, BuildResult
from cellwall.runtime.engine import Engine
from cellwall.runtime.storage import scratch

pytestmark = pytest.mark.needs("root", "overlay")

DOCKERFILE = """\
FROM scratch
WORKDIR /srv
COPY conf tree/
CMD ["/srv/tree/run"]
"""
# What containers and downloads need, and what compares texts; each costs milliseconds of every command.
_HEAVY = (
    *("cellwall.runtime.launching", "cellwall.runtime.build.sandbox", "cellwall.runtime.cgroups"),
    *(
        "asyncio",
        "ssl",
        "difflib",
        "dataclasses",
        "inspect",
        "subprocess",
        "socket",
        "datetime",
        "shutil",
        "typing",
        "hashlib",
    ),
)
_COMMAND = f"""
import sys
from cellwall.runtime.cli import main
status = main(["build", "-q", "-t", "still:1", sys.argv[1]])
print(*[name for name in {_HEAVY!r} if name in sys.modules])
sys.exit(status)
"""

Build = Callable[..., BuildResult]


@pytest.fixture
def context(tmp_path: Path) -> Path:
    (tmp_path / "conf").write_text("1")
    (tmp_path / "Dockerfile").write_text(DOCKERFILE)
    return tmp_path


@pytest.fixture
def build(engine: Engine, context: Path) -> Build:
    def built(*tags: str) -> BuildResult:
        return engine.build(BuildRequest(dockerfile=DOCKERFILE, context=context, tags=tags or ("still:1",)))

    return built


def stamps(engine: Engine) -> dict[str, tuple[int, int]]:
    """Inode and time of change of each file and folder of the image store and the build cache: a rename or a new name in it shows."""
    found = {}
    for top in (engine.paths.images, engine.paths.build_cache):
        for path in (top, *top.rglob("*")):
            status = path.stat()
            found[str(path)] = (status.st_ino, status.st_ctime_ns)
    return found


def test_the_second_build_writes_nothing(engine: Engine, build: Build) -> None:
    first = build()
    before = stamps(engine)
    second = build()
    assert (first.hits, second.hits) == (1, 4)
    assert stamps(engine) == before
    assert (second.image, second.tags) == (first.image, ("still:1",))


def test_without_a_name_as_well(engine: Engine, context: Path) -> None:
    request = BuildRequest(dockerfile=DOCKERFILE, context=context)
    first = engine.build(request).image
    before = stamps(engine)
    assert engine.build(request).image == first
    assert stamps(engine) == before


def test_a_name_that_went_away_comes_back(engine: Engine, build: Build) -> None:
    first = build("still:1", "still:2").image
    engine.images.remove("still:1")
    assert build().image.id == first.id
    assert engine.images.find("still:1").id == first.id


def test_a_name_that_was_given_to_another_comes_back(engine: Engine, build: Build, context: Path) -> None:
    first = build().image
    (context / "conf").write_text("2")
    assert build().image.id != first.id
    (context / "conf").write_text("1")
    again = build()
    assert again.hits == 4
    assert engine.images.find("still:1").id == first.id


@pytest.mark.parametrize("damage", ["changed", "gone"])
def test_a_damaged_config_is_written_anew(engine: Engine, build: Build, damage: str) -> None:
    first = build().image
    blob = engine.paths.images / "blobs/sha256" / first.id.encoded
    whole = blob.read_bytes()
    if damage == "gone":
        blob.unlink()
    else:
        blob.write_bytes(whole.replace(b"/srv/tree/run", b"/srv/tree/hid"))
    assert build().image.id == first.id
    assert blob.read_bytes() == whole


def test_an_archive_gets_its_folder(engine: Engine, context: Path) -> None:
    subprocess.run(["tar", "-cf", context / "conf.tar", "-C", context, "conf"], check=True)
    request = BuildRequest(dockerfile="FROM scratch\nADD conf.tar /srv/\n", context=context, tags=("still:1",))
    engine.build(request)
    assert not [path for path in engine.paths.build_cache.iterdir() if path.name.startswith(scratch.TMP)]


def test_the_command_loads_nothing_heavy(engine: Engine, build: Build, context: Path) -> None:
    first = build()
    words = [sys.executable, "-c", _COMMAND, str(context)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(words, capture_output=True, text=True, env=environment)
    assert (done.stdout.split("\n"), done.returncode) == ([str(first.image.id), "", ""], 0), done.stderr
