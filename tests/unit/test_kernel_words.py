"""Kernelspecs without a kernel: their words, what clients may ask for, folders, connection files, logos, and the files on disk."""

from __future__ import annotations

import json
import struct
import zlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cellwall.kernel.asked import asked
from cellwall.kernel.connection import CHANNELS, Connection, check_length
from cellwall.kernel.explaining import death
from cellwall.kernel.folder import mounts_of
from cellwall.kernel.image_kernel import Found, Python, choose, of_command
from cellwall.kernel.kernelspec import check_name, installed, isolated, remove, shell, write
from cellwall.kernel.logos import png, svg
from cellwall.kernel.words import KernelWords, of_config, read_words
from cellwall.runtime.config import Config
from cellwall.runtime.errors import AlreadyExists, CellwallError, NotFound, SpecError
from cellwall.runtime.results import Exit, Usage

COMMAND = ("python3", "-m", "ipykernel_launcher", "-f", "/run/cellwall/connection.json")


@pytest.mark.parametrize(
    "made",
    [
        KernelWords("a:1", COMMAND),
        KernelWords("a:1", COMMAND, ("--memory=64m", "-u5:6", "--volume=/srv:/srv:ro"), "ro", (5, 6), ("b:*",)),
        KernelWords("a:1", ("k", "--", "-f", "x"), ("--env=A=-m 5",), "none"),
        KernelWords("a:1", COMMAND, warm=2),
    ],
)
def test_words_are_read_back(made: KernelWords) -> None:
    assert read_words(made.words()) == made
    assert of_config({"words": made.words()}) == made
    # As a client may start it: with words of its own at the end, which are the kernel's.
    assert read_words([*made.words(), "--debug"]).command == (*made.command, "--debug")


@given(st.lists(st.text(st.characters(blacklist_characters="\0", blacklist_categories=["Cs"])), min_size=1))
def test_any_command_is_read_back(command: list[str]) -> None:
    made = KernelWords("a:1", tuple(command))
    assert read_words(made.words()).command == tuple(command)


@pytest.mark.parametrize("config", [{}, {"words": "x"}, {"words": [1]}, {"words": ["--image"]}, {"words": ["--tty"]}])
def test_a_spoilt_kernelspec(config: dict[str, object]) -> None:
    with pytest.raises(SpecError):
        of_config(config)


LIMITED = KernelWords("a:1", COMMAND, ("--memory=512m", "--cpus=1"), allow_images=("a:*", "b:2"))


def test_what_may_be_asked() -> None:
    wanted = {
        "KERNEL_IMAGE": "a:2",
        "KERNEL_MEMORY_LIMIT": "256m",
        "KERNEL_CPUS_LIMIT": "0.5",
        "KERNEL_WORKING_DIR": "/srv/n/below",
        "KERNEL_LAUNCH_TIMEOUT": "90",
        "KERNEL_USERNAME": "sam",
    }
    found = asked(LIMITED, wanted, "/srv/n", Config.load())
    assert (found.options.image, found.options.memory_bytes, found.options.cpus) == ("a:2", 256 << 20, 0.5)
    assert (found.options.workdir, found.timeout_s) == ("/srv/n/below", 90)
    assert found.options.env == {}
    plain = asked(LIMITED, {}, "/srv/n", Config.load())
    assert (plain.options.image, plain.options.memory_bytes, plain.options.workdir) == ("a:1", 512 << 20, "/srv/n")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("KERNEL_IMAGE", "c:1"),
        ("KERNEL_MEMORY_LIMIT", "513m"),
        ("KERNEL_MEMORY_LIMIT", "much"),
        ("KERNEL_CPUS_LIMIT", "1.5"),
        ("KERNEL_CPUS_LIMIT", "0"),
        ("KERNEL_UID", "7"),
        ("KERNEL_WORKING_DIR", "/srv/n/../../etc"),
        ("KERNEL_WORKING_DIR", "below"),
        ("KERNEL_LAUNCH_TIMEOUT", "1d"),
    ],
)
def test_what_may_not_be_asked(name: str, value: str) -> None:
    with pytest.raises(SpecError) as caught:
        asked(LIMITED, {name: value}, "/srv/n", Config.load())
    assert caught.value.field == name


def test_a_limit_that_the_kernelspec_leaves_out_is_the_configs() -> None:
    limit = asked(KernelWords("a:1", COMMAND), {}, None, Config.load()).options.memory_bytes
    if limit is None:
        pytest.skip("this machine doesn't say how much memory it has")
    with pytest.raises(SpecError, match="more than this kernel allows"):
        asked(KernelWords("a:1", COMMAND), {"KERNEL_MEMORY_LIMIT": str(limit + 1)}, None, Config.load())


def test_the_notebooks_folder(tmp_path: Path) -> None:
    keys = tmp_path / "notebooks" / "keys"
    keys.mkdir(parents=True)
    mount, hidden = mounts_of(str(tmp_path / "notebooks"), "ro", [keys, tmp_path / "elsewhere", tmp_path])
    assert (mount.source, mount.target, mount.read_only) == (f"{tmp_path}/notebooks", f"{tmp_path}/notebooks", True)
    assert (hidden.type, hidden.target, hidden.read_only) == ("tmpfs", str(keys), True)
    (tmp_path / "link").symlink_to(tmp_path / "notebooks")
    mount, hidden = mounts_of(str(tmp_path / "link"), "rw", [keys])
    assert (mount.source, mount.target, hidden.target) == (
        f"{tmp_path}/notebooks",
        f"{tmp_path}/link",
        f"{tmp_path}/link/keys",
    )
    # What lies in a folder that is emptied already has no place of its own in it.
    for name in ("keys/run", "keys-too"):
        (tmp_path / "notebooks" / name).mkdir()
    private = [keys / "run", tmp_path / "notebooks/keys-too", keys]
    _, *emptied = mounts_of(str(tmp_path / "notebooks"), "rw", private)
    assert [one.target for one in emptied] == [str(keys), f"{keys}-too"]


@pytest.mark.parametrize("folder", ["/", "/usr", "/usr/lib", "/etc", "/proc/self", "/dev", "/tmp", "/run"])
def test_folders_of_the_images_own(folder: str) -> None:
    with pytest.raises(SpecError, match="would hide the image's own folder"):
        mounts_of(folder, "rw", [])


def test_no_folder(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="is no folder of this machine"):
        mounts_of(str(tmp_path / "gone"), "rw", [])


INFO = {
    "transport": "tcp",
    "ip": "127.0.0.1",
    "key": "k",
    "signature_scheme": "hmac-sha256",
    **{f"{name}_port": 5000 + number for number, name in enumerate(CHANNELS)},
}


def test_connection_files(tmp_path: Path) -> None:
    found = Connection.read(INFO)
    assert found.endpoint("iopub") == "tcp://127.0.0.1:5001"
    inside = json.loads(found.inside())
    assert (inside["transport"], inside["ip"], inside["hb_port"], inside["key"]) == ("ipc", "/run/cellwall/k", 5, "k")
    for change in ({"shell_port": 0}, {"hb_port": "5"}, {"transport": "carrier"}, {"curve_publickey": "x"}):
        with pytest.raises(SpecError, match="connection file"):
            Connection.read({**INFO, **change})
    for text in ("", "[]", "{"):
        (tmp_path / "c.json").write_text(text)
        with pytest.raises(CellwallError, match="connection file"):
            Connection.load(str(tmp_path / "c.json"))
    with pytest.raises(SpecError, match=r"too long for a Unix socket.*CELLWALL_ROOT"):
        check_length("/" + "x" * 107)
    check_length("/" + "x" * 106)


PYTHON = Python("/usr/bin/python3", (3, 12), "cpython", "glibc 2.36", "x86_64", "/p", False, ())
R_SPEC = {"argv": ["R", "-f", "{connection_file}"], "language": "R", "display_name": "R", "interrupt_mode": "message"}
PYTHON_SPEC = {"argv": ["python3", "-m", "ipykernel_launcher", "-f", "{connection_file}"], "language": "python"}


def test_which_kernel_of_an_image() -> None:
    both = Found((0, 0), PYTHON, {"ir": R_SPEC, "python3": PYTHON_SPEC})
    assert choose(both, "a:1", "").needs_ipykernel
    r = choose(both, "a:1", "r")
    assert (r.command, r.interrupt_mode) == (("R", "-f", "/run/cellwall/connection.json"), "message")
    assert choose(Found((0, 0), None, {"ir": R_SPEC}), "a:1", "").language == "R"
    with pytest.raises(SpecError, match="no kernel for julia; it has ir, python, python3: name one with --language"):
        choose(both, "a:1", "julia")
    with pytest.raises(SpecError, match="take an image with one, or name the kernel's command"):
        choose(Found((0, 0), None, {}), "a:1", "")
    assert of_command(["k", "{connection_file}"], "").command == ("k", "/run/cellwall/connection.json")
    with pytest.raises(SpecError):
        of_command(["k"], "")


def test_kernelspecs_on_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path))
    kernels = tmp_path / "kernels"
    words = KernelWords("a:1", COMMAND, ("--memory=64m",))
    spec = isolated(words, choose(Found((0, 0), PYTHON, {}), "a:1", ""), "Python <3>", "base:1")
    for _ in range(2):
        write(kernels, "one", spec)
    write(kernels, "sh", shell(KernelWords("a:1", run=("--memory=64m",)), "A shell", "dash"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["kernels"]
    assert sorted(path.name for path in (kernels / "one").iterdir()) == [
        "kernel.json", "logo-32x32.png", "logo-64x64.png", "logo-svg.svg",
    ]  # fmt: skip
    mine = {one.name: one for one in installed() if one.folder.startswith(str(tmp_path))}
    assert (mine["one"].image, mine["one"].kind, mine["sh"].kind) == ("base:1", "isolated", "shell")
    found = json.loads((kernels / "one/kernel.json").read_text())
    words_of_argv = found["argv"][found["argv"].index("{connection_file}") + 1 :]
    assert read_words(words_of_argv) == of_config(found["metadata"]["kernel_provisioner"]["config"]) == words
    (kernels / "other").mkdir()
    (kernels / "other/kernel.json").write_text("{}")
    with pytest.raises(AlreadyExists, match="isn't cellwall's"):
        write(kernels, "other", spec)
    with pytest.raises(NotFound):
        remove("other")
    remove("one")
    assert not (kernels / "one").exists()


@pytest.mark.parametrize("name", [None, "", "a b", "../x", ".hidden", "a/b", "ä"])
def test_names(name: str | None) -> None:
    with pytest.raises(SpecError):
        check_name(name)


@pytest.mark.parametrize("is_shell", [True, False])
def test_logos(is_shell: bool) -> None:
    picture = png(32, shell=is_shell)
    assert picture.startswith(b"\x89PNG\r\n\x1a\n")
    assert struct.unpack(">II", picture[16:24]) == (32, 32)
    length = struct.unpack(">I", picture[33:37])[0]
    rows = zlib.decompress(picture[41 : 41 + length])
    assert len(rows) == 32 * (1 + 32 * 4)
    # The corner shows what is below it, the middle doesn't.
    assert rows[4] == 0 and rows[16 * 129 + 1 + 16 * 4 + 3] == 255
    assert svg(shell=is_shell).startswith("<svg ") and "script" not in svg(shell=is_shell)


def test_why_a_kernel_died() -> None:
    oom = Exit(137, oom_killed=True, memory_limit_bytes=512 << 20, usage=Usage(memory_peak_bytes=512 << 20))
    assert death(oom, b"") == (
        "cellwall: the kernel ran out of memory: 512 MiB of 512 MiB; install it with more `-m`, or keep less at once"
    )
    assert death(Exit(139), b"") == "cellwall: the kernel died: killed by signal 11 (SIGSEGV)"
    assert death(Exit(3), b"a\n\x1b[2Jb\n") == "cellwall: the kernel died: exit status 3\na\n\\x1b[2Jb"
