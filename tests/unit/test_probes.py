"""The probes: known words, real answers, nothing left behind, and doctor's text and data."""

from __future__ import annotations

import json
import os
import pwd
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from cellwall.runtime import probes
from cellwall.runtime.cgroups.hierarchy import hierarchy
from cellwall.runtime.probes import Probe, attempt, cgroups, commands, doctor, identity, storage
from cellwall.runtime.probes.probe import Status

from ..tree import TOP

# What tests and documentation may ask for.
WORDS = """
    root not-root user-namespaces uidmap subids cgroup-v1 cgroup-v2 cgroup-memory cgroup-pids cgroup-devices cgroup-freezer
    cgroup-cpu cgroup-cpuset cgroup-io cgroup-net-cls cgroup-kill overlay overlay-userns idmapped-mounts seccomp
    docker-registry skopeo umoci buildah podman crun runc busybox-static mmdebstrap bwrap network-namespaces
    time-namespaces swap-accounting libseccomp htpasswd openssl setfattr setcap mkfs.ext4
""".split()


@pytest.mark.parametrize("word", WORDS)
def test_known_words(word: str) -> None:
    assert word in probes.names()
    reason = probes.answer(word)
    assert reason is None or reason


def test_an_unknown_word() -> None:
    with pytest.raises(KeyError):
        probes.answer("a-moon")
    with pytest.raises(KeyError):
        probes.probe("a-moon")


def test_root_is_who_runs_this() -> None:
    assert (probes.answer("root") is None) == (os.geteuid() == 0)
    assert (probes.answer("not-root") is None) == (os.geteuid() != 0)


def test_commands_are_those_of_the_path() -> None:
    for name in commands.PACKAGES:
        assert (probes.probe(name).status == "ok") == (commands.find(name) is not None)
        if shutil.which(name):
            assert probes.answer(name) is None


def test_a_missing_command_says_its_package() -> None:
    lacking = [name for name in commands.PACKAGES if commands.find(name) is None]
    for name in lacking:
        assert probes.answer(name) == f"no command {name} (sudo apt install {commands.PACKAGES[name]})"


def test_a_dynamic_busybox_is_not_a_static_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copy(os.path.realpath(sys.executable), tmp_path / "busybox")
    monkeypatch.setenv("PATH", str(tmp_path))
    status, detail, mend = commands.busybox_static()
    assert (status, mend) == ("missing", "sudo apt install busybox-static")
    assert "linked dynamically" in detail


def test_namespaces_as_the_kernel_says_by_another_way() -> None:
    """util-linux's unshare is the second opinion."""
    options = {"network-namespaces": "--net", "time-namespaces": "--time", "cgroup-namespaces": "--cgroup"}
    for word, option in options.items():
        user = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
        done = subprocess.run(["unshare", *user, option, "true"], capture_output=True)
        assert (probes.answer(word) is None) == (done.returncode == 0)


def test_filters_count() -> None:
    status = Path("/proc/self/status").read_text()
    assert (probes.answer("seccomp") is None) == ("Seccomp_filters:" in status or "Seccomp:" in status)


def test_cgroups_as_proc_says() -> None:
    mounted = {line.split(" - ")[1].split()[0] for line in Path("/proc/self/mountinfo").read_text().splitlines()}
    assert (probes.answer("cgroup-v2") is None) == ("cgroup2" in mounted)


@pytest.mark.needs("root", "cgroup-write")
@pytest.mark.parametrize("name", cgroups.CONTROLLERS)
def test_where_groups_can_be_made_one_is_made(name: str) -> None:
    found = probes.probe(f"cgroup-{name.replace('_', '-')}")
    tree = hierarchy().find("blkio" if name == "io" else name)
    if found.status == "missing":
        lines = Path("/proc/cgroups").read_text().splitlines()
        assert tree is None or (name, hierarchy().mode) == ("devices", "hybrid"), lines
        return
    assert tree is not None
    group = Path(tree.folder, f"cellwall-test-{os.getpid()}")
    try:
        group.mkdir()
        made = True
        group.rmdir()
    except OSError:
        made = False
    assert made == (found.status == "ok")


def test_no_user_manager_is_told_from_one_that_listens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
    assert "XDG_RUNTIME_DIR isn't set" in (cgroups.user_manager() or "")
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    assert f"at {tmp_path}/bus (no such file or directory)" in (cgroups.user_manager() or "")
    with socket.socket(socket.AF_UNIX) as bus:
        bus.bind(str(tmp_path / "bus"))
        assert "connection refused" in (cgroups.user_manager() or "")
        bus.listen()
        assert cgroups.user_manager() is None


def test_filesystem_type() -> None:
    assert storage.filesystem("/proc/self") == "proc"


def test_ranges_of_subordinate_ids(tmp_path: Path) -> None:
    file = tmp_path / "subuid"
    file.write_text("ann:100000:65536\n# nothing\n1000:231072:10\nbroken\nann:x:y\n")
    assert identity.ranges(str(file)) == [("ann", 65536), ("1000", 10)]
    assert identity.ranges(str(tmp_path / "none")) == []


def test_a_probe_is_asked_once_and_again_when_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "umoci"
    monkeypatch.setattr(commands, "_SYSTEM", "")
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(probes, "_known", {})
    assert probes.probe("umoci").status == "missing"
    program.touch(mode=0o755)
    assert probes.probe("umoci").status == "missing"
    probes.forget()
    assert probes.probe("umoci").status == "ok"


def test_trials_leave_nothing() -> None:
    before = Path("/proc/self/mountinfo").read_text()
    attempt.forget()
    attempt.attempt_all()
    assert Path("/proc/self/mountinfo").read_text() == before
    children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
    names = [Path(f"/proc/{pid}/cmdline").read_bytes() for pid in children if os.path.exists(f"/proc/{pid}/cmdline")]
    assert not [name for name in names if b"trials" in name]


def test_no_trial_broke() -> None:
    """A kernel may refuse; but what it says is an errno, never a fault of the trial's own."""
    attempt.attempt_all()
    assert {name: found.text for name, found in attempt._known.items() if found.errno == -1} == {}


@pytest.mark.parametrize("status", ["ok", "limited", "missing"])
def test_lines_of_a_probe(status: Status) -> None:
    lines = doctor._lines(Probe("overlay", status, "what was found " * 8, "sudo modprobe overlay"), 80)
    assert lines[0].startswith(f"  {status:7}  overlay ")
    assert all(len(line) <= 80 for line in lines)
    assert lines[-1].strip() == "→ sudo modprobe overlay" or status == "ok"


def test_report_is_the_text_as_data() -> None:
    report = doctor.report()
    assert json.loads(json.dumps(report)) == report
    text = doctor.text()
    for probe in report["probes"]:
        assert probe["status"] in ("ok", "limited", "missing")
        assert f"  {probe['status']:7}  {probe['name']}" in text
        assert probe["section"] in text.splitlines()
    counts = report["counts"]
    assert sum(counts.values()) == len(report["probes"]) == len(probes.run_all())
    assert text.splitlines()[-1] == f"{counts['ok']} ok, {counts['limited']} limited, {counts['missing']} missing"


@pytest.mark.needs("root", "runuser")
def test_doctor_as_an_ordinary_user_without_a_home() -> None:
    """No traceback, and root isn't called a lack: rootless is a way of its own."""
    # Root's own interpreter, and a checkout below /root, may be closed to others.
    user = [commands.find("runuser") or "", "-u", "nobody", "--"]
    readable = (
        f"import sys; sys.path.insert(0, {str(TOP / 'src')!r}); import cellwall; assert sys.version_info >= (3, 11)"
    )
    pythons = [os.path.realpath(sys.executable), "/usr/bin/python3"]
    open_to_all = [it for it in pythons if subprocess.run([*user, it, "-I", "-B", "-c", readable]).returncode == 0]
    if not open_to_all:
        pytest.skip("neither this interpreter nor /usr/bin/python3 can be run by another user, on this checkout")
    code = f"{readable}\nfrom cellwall.runtime.probes import doctor\nprint(doctor.text())"
    command = [*user, open_to_all[0], "-I", "-B", "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, env={"PATH": os.defpath}, cwd="/")
    assert done.returncode == 0, done.stderr
    assert (
        f"ok       user                    uid {pwd.getpwnam('nobody').pw_uid}: containers are rootless" in done.stdout
    )
