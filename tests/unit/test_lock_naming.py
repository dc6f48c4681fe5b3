"""Which images cells name and make: every way that a notebook has, read and never run."""

from __future__ import annotations

from pathlib import Path

import pytest

from cellwall.magics.building import dockerfile_parser, layer_parser
from cellwall.magics.cell_options import cell_parser
from cellwall.magics.union import union_parser
from cellwall.runtime.cli.cell_words import MAGICS, cell_words
from cellwall.runtime.cli.command import COMMANDS
from cellwall.runtime.cli.command_parsers import parser_of, target_of
from cellwall.runtime.cli.parser import Parser
from cellwall.runtime.errors import LockError
from cellwall.runtime.locking.naming import Naming, images_of


def read(*cells: str, folder: Path = Path("/nowhere")) -> Naming:
    return images_of(enumerate(cells, 1), folder)


def named(*cells: str, folder: Path = Path("/nowhere")) -> list[str]:
    found = read(*cells, folder=folder)
    assert found.remarks == []
    return [one.text for one in found.named]


@pytest.mark.parametrize(
    ("cell", "images"),
    [
        ("%%container debian\nid", ["debian"]),
        ("\n\n  %%container debian\nid", ["debian"]),
        ("%%container -m 64m -v /a:/b --out x debian:12 --rm\nid", ["debian:12"]),
        ("%%container --memory={limit} --env A=$B debian\nid", ["debian"]),
        ("%%container debian -i frame -o 'a table' --map parts\nid", ["debian"]),
        ("%%container host\nid", ["host"]),
        ("%%container oci:./base:1\nid", ["oci:./base:1"]),
        ("%%container debian@sha256:" + "a" * 64 + "\nid", ["debian@sha256:" + "a" * 64]),
        ("%%container a --mount type=image,source=b,target=/b\nid", ["a", "b"]),
        ("%%time\n%%container debian\nid", ["debian"]),
        ("%%capture out --no-stderr\n%%container debian\nid", ["debian"]),
        ("%%layer debian:12 -t lab:1 --mount type=bind,from=tools,target=/t\nid", ["debian:12", "tools"]),
        (
            "%%dockerfile -t lab\nARG BASE=debian\nFROM $BASE AS a\nRUN id\nFROM ubuntu\nCOPY --from=a /x /x\nCOPY --from=busybox /y /y",
            ["debian", "ubuntu", "busybox"],
        ),
        (
            "%%dockerfile --build-arg BASE=alpine\nARG BASE=debian\nFROM ${BASE}\nRUN --mount=type=bind,from=tools,target=/t id",
            ["alpine", "tools"],
        ),
        ("%%dockerfile --target a\nFROM debian AS a\nFROM never AS b", ["debian"]),
        ("%%dockerfile --cache-from old:1\nFROM scratch\nCOPY . /", ["old:1"]),
        ("%%union br=/tmp=rw:/var=ro\nls", ["host"]),
        ("%%union --image debian br=/tmp=rw:/var=ro\nls", ["debian"]),
        ("%%union --image debian mount -t aufs -o br=/a=rw none /x\n", ["debian"]),
        ("%container run -d --name web -p 80:80 nginx sh -c 'echo debian'", ["nginx"]),
        ("%container run -it --rm debian bash\n%container create busybox", ["debian", "busybox"]),
        ("x = 1\nout = %container run debian id\nfor i in x:\n    %image pull busybox", ["debian", "busybox"]),
        ("%container run -d \\\n   --name web \\\n   nginx", ["nginx"]),
        ("%image pull --platform linux/arm64 debian", ["debian"]),
        ("%container image pull debian", ["debian"]),
        ("%container pull debian", ["debian"]),
        ("!cellwall run --rm debian id", ["debian"]),
        ("!cellwall --root /tmp/x pull debian", ["debian"]),
        ("!python -m cellwall run debian", ["debian"]),
        ("%union br=/tmp=rw", ["host"]),
        ("import cellwall\ncellwall.run('debian', ['id'], memory='64m')", ["debian"]),
        ("import cellwall as cw\nwith cw.container(image='debian', name='x') as box:\n    box.run('id')", ["debian"]),
        ("from cellwall import run as r, aio\nr('debian')\nawait aio.run('busybox')", ["debian", "busybox"]),
        (
            "import cellwall\ncellwall.build(dockerfile='FROM debian\\nRUN id\\n', tag='lab')\ncellwall.run('lab')",
            ["debian"],
        ),
        ("import cellwall\n%image pull debian\ncellwall.run('busybox')", ["debian", "busybox"]),
        # What names no image.
        ("%%bash\ncellwall run debian", []),
        ("print('%%container debian')", []),
        ("run('debian')", []),
        ("%container ps -a\n%container logs -f debian\n%image ls debian\n%volume create debian", []),
        ("%%dockerfile\nFROM scratch\nCOPY . /", []),
        ("not python at all: (", []),
    ],
)
def test_what_a_cell_names(cell: str, images: list[str]) -> None:
    assert named(cell) == images


def test_names_are_counted_once_and_by_platform() -> None:
    found = read(
        "%%container debian\nid",
        "%%container docker.io/library/debian:latest\nid",
        "%%container debian --platform arm64\nid",
    )
    assert [(one.name, one.platform, one.cell) for one in found.named] == [
        ("docker.io/library/debian:latest", None, 1),
        ("docker.io/library/debian:latest", "linux/arm64", 3),
    ]


@pytest.mark.parametrize(
    "maker",
    [
        "%%layer debian -t lab:1\nid",
        "%%dockerfile -t lab:1\nFROM debian",
        "%%container debian --commit lab:1\nid",
        "%container commit web lab:1",
        "%image tag debian lab:1",
        "%image import tree.tar lab:1",
        "%image bootstrap -t lab:1 debian",
        "!cellwall commit web lab:1",
        "import cellwall\nwith cellwall.container('debian') as box:\n    box.commit('lab:1')",
    ],
)
def test_what_a_notebook_makes_itself(maker: str) -> None:
    found = read(maker, "%%container lab:1\nid", "%%layer lab:1 -t lab:2\nid")
    assert set(found.made) == {"docker.io/library/lab:1", "docker.io/library/lab:2"}
    assert {one.text for one in found.named} <= {"debian"}
    assert found.remarks == []


def test_bootstrap_names_its_suite() -> None:
    found = read("%image bootstrap debian:bookworm", "%image tag debian:bookworm debian", "%%container debian\nid")
    assert found.named == []


def test_a_name_with_two_meanings_is_refused() -> None:
    with pytest.raises(
        LockError, match="cell 2 makes an image called debian:latest, and cell 1 names an image so before"
    ):
        read("%%container debian\nid", "%%layer debian -t debian\nid")


def test_aliases_of_the_magic() -> None:
    assert named("%load_ext cellwall\n%cellwall_alias docker", "%%docker debian\nid", "%docker run busybox") == [
        "debian",
        "busybox",
    ]
    assert named("%%docker debian\nid") == []


def test_what_only_the_run_tells_is_said() -> None:
    found = read(
        "%%container {image} -m 64m\nid",
        "%image pull $image",
        "import cellwall\ncellwall.run(image)",
        "import cellwall\ncellwall.build('folder')",
        "%%container debian --no-such-option\nid",
        "%%container 'debian\nid",
        "%%container UPPER\nid",
        "%%dockerfile\nFROM debian\nRUN --mount=type=nonsense id",
        "%image build -t x -",
        "%image build .",
        "%%layer debian -t x --mount '\"'\nid",
    )
    assert {one.text for one in found.named} <= {"debian"}
    numbers = [remark.partition(":")[0] for remark in found.remarks]
    assert numbers == [f"cell {number}" for number in range(1, 12)]
    assert all("isn't locked" in remark for remark in found.remarks)


def test_builds_on_the_line_read_their_dockerfile(tmp_path: Path) -> None:
    (tmp_path / "site").mkdir()
    (tmp_path / "site/Dockerfile").write_text("FROM debian\n")
    (tmp_path / "other").write_text("FROM busybox\n")
    assert named("%image build -t a site", "%container build -f other .", folder=tmp_path) == ["debian", "busybox"]


def options(parser: Parser) -> dict[str, bool]:
    """Every name of an option, and whether it takes a value."""
    return {name: action.nargs not in (0, "?") for action in parser._actions for name in action.option_strings}


@pytest.mark.parametrize("magic", MAGICS)
def test_the_words_of_cells_are_those_of_the_magics(magic: str) -> None:
    """Each option that a magic takes is known here, and takes a value where it takes one there."""
    theirs = {"container": cell_parser, "union": union_parser, "dockerfile": dockerfile_parser, "layer": layer_parser}[
        magic
    ]()
    ours = options(cell_words(magic))
    assert {name: ours.get(name) for name in options(theirs)} == options(theirs)


def test_every_command_has_a_parser() -> None:
    for command in COMMANDS:
        parser = parser_of(command)
        assert parser.prog.startswith("cellwall ")
        assert target_of(command.split())[0] == command
    assert target_of(["image", "ls", "-q"]) == ("images", ["-q"])
    assert target_of(["no-such"]) == target_of([]) == target_of(["image"]) == ("", [])
