"""Dockerfiles and contexts that try to get out, to be taken for something else, or to change under the build's hands."""

from __future__ import annotations

import os
import stat
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import cellwall
from cellwall.runtime.build import archives, copy_step
from cellwall.runtime.build.results import BuildRequest, BuildResult
from cellwall.runtime.cli import main
from cellwall.runtime.engine import Engine
from cellwall.runtime.errors import BuildError, CellwallError

from ..hostile_tars import HOSTILE
from ..registries import tar_of

pytestmark = pytest.mark.needs("root", "overlay")

SECRET = "what only the host has\n"


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    """A file of the host beside the context."""
    path = tmp_path / "secret"
    path.write_text(SECRET)
    return path


@pytest.fixture
def context(tmp_path: Path) -> Path:
    made = tmp_path / "context"
    made.mkdir()
    return made


def build(engine: Engine, text: str, context: Path | None = None, **more: Any) -> BuildResult:
    return engine.build(BuildRequest(dockerfile=text, context=context, **more))


def said_by(engine: Engine, image: BuildResult, script: str) -> str:
    found = cellwall.run(str(image.image.id), script=script, engine=engine, check=True).stdout
    assert isinstance(found, str)
    return found


def test_links_of_the_context(engine: Engine, busybox: str, context: Path, secret: Path) -> None:
    (context / "absolute").symlink_to(secret)
    (context / "relative").symlink_to("../secret")
    (context / "up").symlink_to("..")
    (context / "inside").mkdir()
    (context / "inside/link").symlink_to(secret)
    for source in ("absolute", "relative", "up/secret", "./inside/../relative", "../secret", "inside/link", "up/*cret"):
        with pytest.raises(BuildError) as raised:
            build(engine, f"FROM {busybox}\nCOPY {source} /got\n", context)
        assert SECRET not in str(raised.value)
        with pytest.raises(BuildError):
            build(engine, f"FROM {busybox}\nADD {source} /got\n", context)
        with pytest.raises(CellwallError):
            build(engine, f"FROM {busybox}\nRUN --mount=target=/m,source={source} cat /m\n", context)
    # As content they are links, and lead where they lead in the image: nowhere.
    result = build(engine, f"FROM {busybox}\nCOPY . /c\nRUN --mount=target=/m ! cat /m/absolute 2>/dev/null\n", context)
    assert said_by(
        engine, result, "readlink /c/absolute; cat /c/absolute /c/inside/link 2>/dev/null || echo nothing"
    ) == (f"{secret}\nnothing\n")


def test_links_of_a_stage(engine: Engine, busybox: str, secret: Path) -> None:
    folder = secret.parent
    text = (
        f"FROM {busybox} AS made\nRUN ln -s {secret} /file; ln -s {folder} /folder; ln -s ../../../../../..{folder} /up; "
        "mkdir /d; ln -s / /d/root; ln -s /proc/self/root /d/proc\n"
        f"FROM {busybox}\n"
    )
    for source in (
        "/file",
        "/folder/secret",
        "/up/secret",
        "/d/proc/etc/shadow",
        "../../../etc/shadow",
        "/d/*/*/secret",
    ):
        with pytest.raises(BuildError) as raised:
            build(engine, f"{text}COPY --from=made {source} /got\n")
        assert SECRET not in str(raised.value)
    # Destinations through links stay in the image.
    build(engine, f"FROM {busybox}\nRUN ln -s {folder} /out\nCOPY --from={busybox} /etc/motd /out/written\n")
    build(engine, f"FROM {busybox}\nRUN ln -s {folder} /out\nWORKDIR /out/made\n")
    assert sorted(os.listdir(folder)) == ["secret"]


def test_archives(engine: Engine, busybox: str, context: Path, outside: Path) -> None:
    """Each hostile archive by ADD: refused in one line, or unpacked below its destination with nothing beside it."""
    refused = 0
    tried = [one for number, one in enumerate(HOSTILE) if number % 20 == 0]
    for hostile in tried:
        (context / "a.tar").write_bytes(hostile.archive)
        try:
            result = build(engine, f"FROM {busybox}\nADD a.tar /into/here/\n", context)
        except CellwallError as error:
            refused += 1
            assert "\n" not in str(error), hostile.name
            assert "line 2" in str(error), (hostile.name, str(error))
            continue
        last = result.image.layers[-1]
        assert len(result.image.layers) == 3, hostile.name
        tree = engine.driver.stack(result.image.chain_ids)[0]
        if isinstance(tree, str):
            assert set(os.listdir(tree)) == {"into"}, (hostile.name, last)
            assert os.listdir(f"{tree}/into") == ["here"], hostile.name
    assert 0 < refused < len(tried)
    engine.prune_builds()
    engine.images.prune(all=True)
    engine.images.sweep()


def test_what_a_run_leaves(engine: Engine, busybox: str) -> None:
    result = build(
        engine,
        f"FROM {busybox}\nRUN cp /bin/busybox /su && chmod 6755 /su && mknod /pipe p; "
        "! mknod /null c 1 3 2>/dev/null && ! mknod /white c 0 0 2>/dev/null; mkdir /dev/x; ls -d /null /white 2>/dev/null | wc -l > /count\n",
    )
    assert said_by(engine, result, "cat /count; stat -c %a /su; ls -d /dev/x 2>/dev/null | wc -l") == "0\n6755\n0\n"
    for left in (".wh.etc", "etc/.wh..wh..opq", ".wh..wh.plnk"):
        with pytest.raises(BuildError, match=r"line 2.*named as whiteouts are"):
            build(engine, f"FROM {busybox}\nRUN echo > /{left}\n")
    for line in ("WORKDIR /.wh.etc", "COPY --from=0 /etc/motd /.wh.etc/x", "COPY <<x /.wh.etc\nx"):
        with pytest.raises(BuildError, match=r"line \d.*named as whiteouts are"):
            build(engine, f"FROM {busybox}\nFROM {busybox}\n{line}\n")


def test_setuid_files_are_out_of_reach(
    busybox: str, tmp_path: Path, cellwall_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where CELLWALL_ROOT is a folder that everybody may enter."""
    root = cellwall_root / "open"
    root.mkdir()
    for folder in (cellwall_root, root):
        folder.chmod(0o755)
    monkeypatch.setenv("CELLWALL_ROOT", str(root))
    engine = Engine()
    try:
        build(
            engine,
            f"FROM {busybox}\nRUN --mount=type=cache,target=/c,mode=0777 cp /bin/busybox /su; chmod 4755 /su; cp -p /su /c/su\n",
        )
        # The build's containers are still being cleaned up, which only this walk takes as it comes.
        copies = [Path(folder, "su") for folder, _, names in os.walk(root) if "su" in names]
        found = [path for path in copies if path.stat().st_mode & stat.S_ISUID]
        assert {path.relative_to(root).parts[0] for path in found} >= {"build-cache"}
        for path in found:
            assert not _reaches(path), path
    finally:
        engine.close()


def _reaches(path: Path) -> bool:
    """Whether a stranger comes to ``path``."""
    command = ["test", "-e", str(path)]
    return subprocess.run(command, user=65534, group=65534, extra_groups=[], check=False).returncode == 0


ODD = "a\nb\x1b[31m\x9b\u202e"


def test_odd_names_and_output_on_the_screen(
    busybox: str, cellwall_root: Path, context: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """No control character of a name, an instruction or an output reaches the terminal."""
    odd = os.fsdecode(b"a\nb\x1b[31m\xff")
    (context / odd).write_text("1")
    (context / "Dockerfile").write_text(
        f'FROM {busybox}\nLABEL x="\x1b]0;title\x07"\n'
        "COPY . /c\nRUN printf '\\033[31mred\\a\\r\\n\\302\\233x\\n' ; echo \x1b[1m >&2\n"
    )
    assert main(["build", "-t", "odd:1", str(context)]) == 0
    (context / odd).write_text("2")
    assert main(["build", "-t", "odd:1", str(context)]) == 0
    with (context / "Dockerfile").open("a") as file:
        file.write("RUN echo '\x1b[31m'; exit 1\n")
    assert main(["build", "-t", "odd:1", str(context)]) == 1
    (context / "Dockerfile").write_text(f"FROM {busybox}\nCOPY \x1b[2Jx y\x07 /\n")
    assert main(["build", str(context)]) == 1
    (context / "Dockerfile").write_text("FR\x1b[2JOM x\n")
    assert main(["build", str(context)]) == 1
    assert main(["system", "df", "-v"]) == 0
    out, err = capfd.readouterr()
    assert "because file a" in err
    for text in (out, err):
        assert {character for character in text if not character.isprintable()} <= {"\n"}, text


@pytest.mark.parametrize("name", ["Dockerfile", ".dockerignore", "Dockerfile.dockerignore"])
@pytest.mark.parametrize("kind", ["pipe", "endless", "device"])
def test_files_that_never_end(
    name: str, kind: str, context: Path, cellwall_root: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    if name != "Dockerfile":
        (context / "Dockerfile").write_text("FROM scratch\nLABEL a=1\n")
    path = context / name
    match kind:
        case "pipe":
            os.mkfifo(path)
        case "endless":
            path.symlink_to("/dev/zero")
        case "device":
            path.touch()
            os.truncate(path, 17 << 20)
    assert main(["build", str(context)]) == 1
    err = capfd.readouterr().err
    assert name in err
    assert "no regular file" in err or "holds more than 16 MiB" in err


def test_huge_instructions(engine: Engine, busybox: str) -> None:
    """Each ends in a line that says what is too long, or works."""
    for text in (f"RUN true {'x' * 140_000}", f"ENV X={'x' * 140_000}\nRUN true"):
        with pytest.raises(BuildError, match="argument list too long") as raised:
            build(engine, f"FROM {busybox}\n{text}\n")
        assert len(str(raised.value)) < 1000
    result = build(engine, f"FROM {busybox}\nLABEL X={'x' * 1_000_000}\nRUN true\n")
    assert len(result.image.config["config"]["Labels"]["X"]) == 1_000_000
    with pytest.raises(CellwallError, match="limit"):
        build(engine, f"FROM {busybox}\nLABEL X={'x' * 14_000_000}\n")


def replaced(make: Callable[[Path, Path], object]) -> Callable[[Path, Path], object]:
    """A change that removes the file first."""

    def change(path: Path, secret: Path) -> None:
        path.unlink()
        make(path, secret)

    return change


def folder_to_a_link(path: Path, secret: Path) -> None:
    path.parent.rename(path.parent.with_name("away"))
    path.parent.symlink_to(secret.parent)


CHANGES: dict[str, Callable[[Path, Path], object]] = {
    "content": lambda path, secret: path.write_text("other"),
    "a link out": replaced(lambda path, secret: path.symlink_to(secret)),
    "gone": replaced(lambda path, secret: None),
    "a pipe": replaced(lambda path, secret: os.mkfifo(path)),
    "permissions": lambda path, secret: path.chmod(0o777),
    "a folder": replaced(lambda path, secret: path.mkdir()),
    "its folder a link out": folder_to_a_link,
    "one more": lambda path, secret: path.with_name("more").write_text("more"),
}


@pytest.mark.parametrize("how", CHANGES)
def test_a_context_that_changes_meanwhile(
    how: str, engine: Engine, busybox: str, context: Path, secret: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the look at the files and their copy: the build stops, and the cache doesn't remember a mixture."""
    (context / "d").mkdir()
    path = context / "d/secret"
    path.write_text("as it was")
    real = copy_step.copy_job

    def changing(*arguments: Any) -> Any:
        if not changed:
            changed.append(how)
            CHANGES[how](path, secret)
        return real(*arguments)

    changed: list[str] = []
    monkeypatch.setattr(copy_step, "copy_job", changing)
    text = f"FROM {busybox}\nCOPY d /d\n"
    with pytest.raises(CellwallError) as raised:
        build(engine, text, context)
    assert changed == [how]
    assert "line 2" in str(raised.value)
    assert SECRET not in str(raised.value)
    assert not [image for image in engine.images.list(steps=True) if len(image.layers) > 2]
    # What is there now is what the next build takes.
    if how not in ("gone", "its folder a link out"):
        result = build(engine, text, context)
        assert [step.status for step in result.steps] == ["hit", "miss"]
        assert SECRET not in said_by(
            engine, result, "cd /d; ls -l; for f in *; do [ -p $f ] || cat $f 2>/dev/null; done; true"
        )


def test_an_archive_that_changes_meanwhile(
    engine: Engine, busybox: str, context: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = context / "a.tar"
    before, after = (tar_of({"name": content}) for content in (b"before", b"after!"))
    path.write_bytes(before)
    real = archives.unpack

    def changing(*arguments: Any) -> Any:
        path.write_bytes(after)
        return real(*arguments)

    text = f"FROM {busybox}\nADD a.tar /d/\n"
    with monkeypatch.context() as patch:
        patch.setattr(archives, "unpack", changing)
        with pytest.raises(BuildError, match="line 2.*the context changed while it was copied"):
            build(engine, text, context)
    path.write_bytes(before)
    assert said_by(engine, build(engine, text, context), "cat /d/name") == "before"
    # Its content alone counts.
    path.chmod(0o600)
    assert build(engine, text, context).hits == 2
    path.write_bytes(after)
    again = build(engine, text, context)
    assert [(step.status, step.reason, step.changed) for step in again.steps[1:]] == [
        ("miss", "file a.tar changed", ("a.tar",))
    ]
    assert said_by(engine, again, "cat /d/name") == "after!"
