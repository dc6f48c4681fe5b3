"""The host image's skeleton: what it takes of a machine, and what it never takes."""

from __future__ import annotations

import io
import os
import tarfile
from pathlib import Path

from cellwall.runtime.storage import host


def machine(root: Path) -> Path:
    """A small machine with secrets in every place that a real one has."""
    for folder in (
        "usr/bin",
        "usr/lib",
        "lib64",
        "etc/ssl/certs",
        "etc/ssl/private",
        "etc/ssh",
        "etc/fonts/deep",
        "opt/app",
        "root",
    ):
        (root / folder).mkdir(parents=True)
    (root / "bin").symlink_to("usr/bin")
    (root / "lib").symlink_to("usr/lib")
    for path, text in {
        "etc/passwd": "root:x:0:0:root:/root:/bin/bash\nwww-data:x:33:33:www-data:/var/www:/usr/sbin/nologin\n"
        "alice:x:1000:1000:Alice Liddell,,,:/home/alice:/bin/bash\nnobody:x:65534:65534:nobody:/nonexistent:/bin/false\n",
        "etc/group": "root:x:0:\nsudo:x:27:alice\nalice:x:1000:\n",
        "etc/shadow": "root:$6$secret:1::::::",
        "etc/ssl/private/key.pem": "secret",
        "etc/ssh/ssh_host_rsa_key": "secret",
        "etc/machine-id": "secret",
        "etc/environment": "TOKEN=secret",
        "etc/profile.d/proxy.sh": "export https_proxy=http://alice:secret@proxy",
        "etc/fstab": "//server/share /mnt cifs password=secret",
        "etc/ssl/certs/ca.pem": "certificate",
        "etc/nsswitch.conf": "passwd: files",
        "etc/resolv.conf": "search secret.example",
        "etc/hosts": "10.0.0.1 secret",
        "etc/fonts/deep/file": "hello",
        "etc/bash_completion.d/closed": "export TOKEN=secret",
        "opt/app/config": "secret",
        "root/.bash_history": "secret",
    }.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text)
        (root / path).chmod(0o644)
    (root / "etc/bash_completion.d/closed").chmod(0o640)
    (root / "etc/localtime").symlink_to("/usr/share/zoneinfo/UTC")
    os.mkfifo(root / "etc/fonts/pipe")
    return root


def test_it_takes_what_programs_need_and_no_secret(tmp_path: Path) -> None:
    data = host.skeleton(machine(tmp_path))
    assert b"secret" not in data
    assert b"alice" not in data.lower()
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        members = {member.name: member for member in tar}
        passwd = tar.extractfile("etc/passwd")
        assert passwd is not None
        assert passwd.read().splitlines() == [
            b"root:x:0:0::/root:/bin/bash",
            b"www-data:x:33:33::/var/www:/usr/sbin/nologin",
            b"nobody:x:65534:65534::/nonexistent:/bin/false",
        ]
        group = tar.extractfile("etc/group")
        assert group is not None
        assert group.read() == b"root:x:0:\nsudo:x:27:\n"
    assert members["bin"].linkname == "usr/bin"
    assert members["lib64"].isdir()
    assert members["usr"].isdir()
    assert members["etc/localtime"].issym()
    assert members["etc/fonts/deep/file"].isfile()
    assert members["etc/ssl"].isdir()
    assert members["etc/ssl/certs/ca.pem"].isfile()
    assert members["tmp"].mode == 0o1777
    assert members["root"].mode == 0o700
    for absent in (
        "etc/shadow",
        "etc/ssl/private",
        "etc/fonts/pipe",
        "etc/bash_completion.d/closed",
        "etc/environment",
        "opt/app",
    ):
        assert absent not in members
    assert all(member.uid == member.gid == 0 for member in members.values())


def test_parents_come_before_what_is_in_them_and_each_name_once(tmp_path: Path) -> None:
    for root in (machine(tmp_path), Path("/")):
        with tarfile.open(fileobj=io.BytesIO(host.skeleton(root))) as tar:
            seen: set[str] = set()
            for member in tar:
                assert member.name not in seen
                assert os.path.dirname(member.name) in seen | {""}
                seen.add(member.name)


def test_the_same_machine_gives_the_same_bytes(tmp_path: Path) -> None:
    root = machine(tmp_path)
    assert host.skeleton(root) == host.skeleton(root)


def test_folders_are_mounted_and_links_are_not(tmp_path: Path) -> None:
    root = machine(tmp_path)
    assert [entry["at"] for entry in host.mounts(root)] == ["/usr", "/lib64"]
    assert host.mounts(root)[0] == {
        "at": "/usr",
        "type": "overlay",
        "lowers": [str(root / "usr")],
        "upper": None,
        "work": None,
        "fallback": "bind",
    }


def test_the_config_is_recognised() -> None:
    assert host.is_host({"config": host.config()})
    assert not host.is_host({"config": {"Labels": None}})
    assert not host.is_host({})
    assert host.config()["Cmd"][0] in ("bash", "sh")
