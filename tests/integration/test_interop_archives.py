"""Archives between cellwall, docker and podman: what one saves or exports the others load or import, the same image by its id."""

from __future__ import annotations

import gzip
import subprocess
from pathlib import Path

import pytest

import cellwall
from cellwall.runtime.cli import main
from cellwall.runtime.engine import Engine

from .. import docker_daemon
from ..docker_daemon import Docker
from ..layer_trees import tree_facts
from .test_share import output, podman_home
from .test_unpack_peers import differences

docker = docker_daemon.docker
docker_or_none = docker_daemon.docker_or_none

pytestmark = pytest.mark.needs("root", "overlay", "busybox-static")

SCRIPT = """
echo hi > /new; rm /etc/motd; ln /new /hard; rm -r /home; mkdir /home; touch /home/in; cp /bin/busybox /suid; chmod 4755 /suid
mkdir /owned; chown 1000:65535 /owned; mkfifo /pipe; ln -s new /soft
"""
RUN = ["sh", "-c", "cat /hard; ls /etc; stat -c %a:%u:%g /suid /owned"]
SAID = "hi\n" + "{etc}4755:0:0\n755:1000:65535\n"


def two_images(engine: Engine, base: str) -> list[str]:
    """Two images that share all layers but one."""
    names = ["docker.io/interop/one:1", "localhost:5000/interop/two:2"]
    with cellwall.container(base, name="lab", engine=engine) as box:
        box.run(SCRIPT)
        box.commit(names[0], changes=["ENV ONE=1", 'CMD ["cat", "/new"]', "USER 0:0"])
        box.commit(names[1], changes=["LABEL two=2", 'ENTRYPOINT ["cat"]', 'CMD ["/hard"]'])
    engine.remove("lab")
    return names


def cellwall_says(capfd: pytest.CaptureFixture[str], *words: str) -> str:
    status = main(list(words))
    said = capfd.readouterr()
    assert (status, said.err) == (0, "")
    return said.out


def test_docker_loads_what_was_saved_and_the_other_way(
    engine: Engine, busybox: str, docker: Docker, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    names = two_images(engine, busybox)
    ids = {name: str(engine.images.find(name).id) for name in names}
    trees = {}
    archive = str(tmp_path / "ours.tar")
    assert cellwall_says(capfd, "save", "-o", archive, *names) == ""
    assert docker("load", "-i", archive).splitlines() == [
        "Loaded image: interop/one:1",
        "Loaded image: localhost:5000/interop/two:2",
    ]
    for name in names:
        assert docker("image", "inspect", "-f", "{{.Id}}", name) == ids[name]
        assert docker("run", "--rm", "--network", "none", name) == "hi"
        with docker.tree(name) as tree:
            trees[name] = tree_facts(tree)
    assert docker("image", "inspect", "-f", "{{json .Config.Labels}}", names[1]) == '{"two":"2"}'

    theirs = tmp_path / "theirs.tar"
    docker("save", "-o", str(theirs), *names)
    (tmp_path / "theirs.tar.gz").write_bytes(gzip.compress(theirs.read_bytes(), 1))
    docker("rmi", *names)
    for path in (theirs, tmp_path / "theirs.tar.gz"):
        engine.images.prune(all=True)
        assert engine.images.list() == []
        said = cellwall_says(capfd, "load", "-q", "-i", str(path)).splitlines()
        assert sorted(said) == ["Loaded image: interop/one:1", "Loaded image: localhost:5000/interop/two:2"]
        assert {name: str(engine.images.find(name).id) for name in names} == ids
        assert cellwall.run(names[1], engine=engine).stdout == "hi\n"
    # And back once more: what docker saved and cellwall loaded is still the tree that docker had.
    assert cellwall_says(capfd, "save", "-o", archive, names[0]) == ""
    docker("load", "-i", archive)
    with docker.tree(names[0]) as tree:
        assert differences(tree_facts(tree), trees[names[0]]) == []
    docker("rmi", names[0])


@pytest.mark.needs("podman")
def test_podman_loads_two_at_once_and_the_other_way(
    engine: Engine, busybox: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    names = two_images(engine, busybox)
    ids = {name: engine.images.find(name).id.encoded for name in names}
    archive, theirs = str(tmp_path / "ours.tar"), str(tmp_path / "theirs.tar")
    assert cellwall_says(capfd, "save", "-o", archive, *names) == ""
    with podman_home() as podman:
        output(*podman, "load", "-q", "-i", archive)
        assert {name: output(*podman, "image", "inspect", "-f", "{{.Id}}", name).strip() for name in names} == ids
        output(*podman, "save", "-q", "--multi-image-archive", "-o", theirs, *names)
    engine.images.prune(all=True)
    cellwall_says(capfd, "load", "-q", "-i", theirs)
    assert {name: engine.images.find(name).id.encoded for name in names} == ids
    assert cellwall.run(names[0], engine=engine).stdout == "hi\n"


def test_trees_without_history(
    engine: Engine, busybox: str, docker: Docker, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """export and import, each side's by the other."""
    with cellwall.container(busybox, name="lab", engine=engine) as box:
        box.run(SCRIPT)
        ours = str(tmp_path / "ours.tar")
        assert cellwall_says(capfd, "export", "-o", ours, "lab") == ""
    engine.remove("lab")
    assert docker("import", "-c", "ENV PATH=/bin", ours, "interop/flat:1").startswith("sha256:")
    said = docker("run", "--rm", "--network", "none", "interop/flat:1", *RUN)
    assert f"{said}\n" == SAID.format(etc="group\nhostname\nhosts\nmtab\npasswd\nresolv.conf\n")

    made = docker("create", "--network", "none", "interop/flat:1", "true")
    theirs = str(tmp_path / "theirs.tar")
    docker("export", "-o", theirs, made)
    docker("rm", made)
    docker("rmi", "interop/flat:1")
    assert cellwall_says(capfd, "import", "-c", "ENV PATH=/bin", theirs, "flat:2").startswith("sha256:")
    found = cellwall.run("flat:2", RUN, engine=engine).stdout
    assert found.startswith("hi\ngroup\nhostname\nhosts\n")
    assert found.endswith("4755:0:0\n755:1000:65535\n")


def test_a_pipe_from_one_to_the_other(engine: Engine, busybox: str, docker: Docker, tmp_path: Path) -> None:
    """`cellwall save X | docker load`, as it is typed."""
    (name, _) = two_images(engine, busybox)
    command = ["docker", "-H", f"unix://{docker.home}/d.sock", "load"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=False) as loading:
        assert loading.stdin is not None and loading.stdout is not None
        engine.images.save([name], loading.stdin)
        loading.stdin.close()
        assert loading.stdout.read() == b"Loaded image: interop/one:1\n"
    assert docker("run", "--rm", "--network", "none", name) == "hi"
    docker("rmi", name)
