"""`--security-opt`, `--privileged`, and seccomp profiles in files as docker and podman write them."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path
from typing import Any

import pytest

from cellwall.runtime.errors import SpecError, UnsupportedError
from cellwall.runtime.security.capabilities import DEFAULT
from cellwall.runtime.security.default_profile import default_profile
from cellwall.runtime.security.profile import (
    MASKED_PATHS,
    READONLY_PATHS,
    SecurityOptions,
    parse_security_opt,
    read_profile,
)
from cellwall.runtime.security.seccomp import compile_filter


def test_defaults() -> None:
    options = parse_security_opt(())
    assert options == SecurityOptions(True, "default", MASKED_PATHS, READONLY_PATHS)
    assert options.seccomp_profile(DEFAULT) == default_profile(DEFAULT)
    # What docker covers in /proc and /sys.
    assert {"/proc/kcore", "/proc/keys", "/proc/timer_list", "/sys/firmware"} <= set(MASKED_PATHS)
    assert {"/proc/sys", "/proc/sysrq-trigger", "/proc/irq", "/proc/bus", "/proc/fs"} == set(READONLY_PATHS)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("no-new-privileges", True),
        ("no-new-privileges:true", True),
        ("no-new-privileges=true", True),
        ("no-new-privileges:false", False),
        ("no-new-privileges=false", False),
    ],
)
def test_no_new_privileges(text: str, expected: bool) -> None:
    assert parse_security_opt([text]).no_new_privileges is expected


def test_privileged_is_open_unless_it_is_said() -> None:
    options = parse_security_opt((), privileged=True)
    assert options == SecurityOptions(False, "unconfined", (), ())
    assert options.seccomp_profile(DEFAULT) is None
    options = parse_security_opt(["seccomp=builtin", "no-new-privileges"], privileged=True)
    assert (options.seccomp, options.no_new_privileges) == ("default", True)


def test_what_is_so_anyway_is_taken() -> None:
    assert parse_security_opt(["apparmor=unconfined", "label=disable", "label:disable"]) == parse_security_opt(())
    assert parse_security_opt(["systempaths=unconfined"]).masked_paths == ()
    assert parse_security_opt(["seccomp=unconfined"]).seccomp_profile(DEFAULT) is None


@pytest.mark.parametrize(
    ("text", "error", "said"),
    [
        ("apparmor=docker-default", UnsupportedError, "AppArmor profile docker-default: cellwall sets none"),
        ("label=type:svirt_t", UnsupportedError, "SELinux type:svirt_t: cellwall sets no labels"),
        ("no-new-privileges=maybe", SpecError, "no-new-privileges is true or false, not 'maybe'"),
        ("sekcomp=x", SpecError, "'sekcomp=x' is not an option; the options are no-new-privileges"),
        ("seccomp", SpecError, "'seccomp' is not an option"),
        ("", SpecError, "'' is not an option"),
    ],
)
def test_clear_answers(text: str, error: type[Exception], said: str) -> None:
    with pytest.raises(error, match=said):
        parse_security_opt([text])


# Files


def write(path: Path, profile: Any) -> str:
    path.write_text(profile if isinstance(profile, str) else json.dumps(profile))
    return str(path)


DOCKERS = {
    "defaultAction": "SCMP_ACT_ERRNO",
    "defaultErrnoRet": 1,
    "archMap": [
        {"architecture": "SCMP_ARCH_X86_64", "subArchitectures": ["SCMP_ARCH_X86", "SCMP_ARCH_X32"]},
        {"architecture": "SCMP_ARCH_AARCH64", "subArchitectures": ["SCMP_ARCH_ARM"]},
        {"architecture": "SCMP_ARCH_RISCV64", "subArchitectures": None},
    ],
    "syscalls": [
        {"names": ["read", "write"], "action": "SCMP_ACT_ALLOW"},
        {"names": ["mount"], "action": "SCMP_ACT_ALLOW", "includes": {"caps": ["CAP_SYS_ADMIN"]}},
        {"names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": 38, "excludes": {"caps": ["CAP_SYS_ADMIN"]}},
        {"names": ["arch_prctl"], "action": "SCMP_ACT_ALLOW", "includes": {"arches": ["amd64"]}},
        {"names": ["ptrace"], "action": "SCMP_ACT_ALLOW", "includes": {"minKernel": "4.8"}},
        {"names": ["kill"], "action": "SCMP_ACT_ALLOW", "includes": {"minKernel": "99.0"}},
        {"name": "getpid", "action": "SCMP_ACT_ALLOW", "args": None},
        {
            "names": ["personality"],
            "action": "SCMP_ACT_ALLOW",
            "comment": "only the present one",
            "args": [{"index": 0, "value": 0, "op": "SCMP_CMP_EQ"}],
        },
    ],
}


def names(profile: dict[str, Any]) -> list[str]:
    return [name for rule in profile["syscalls"] for name in rule["names"]]


def test_dockers_form(tmp_path: Path) -> None:
    path = write(tmp_path / "profile.json", DOCKERS)
    plain = read_profile(path, DEFAULT, "x86_64")
    assert plain["architectures"] == ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"]
    assert names(plain) == ["read", "write", "clone3", "arch_prctl", "ptrace", "getpid", "personality"]
    assert plain["syscalls"][1] == {"names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": 38}
    strong = read_profile(path, (*DEFAULT, "CAP_SYS_ADMIN"), "aarch64")
    assert strong["architectures"] == ["SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM"]
    assert names(strong) == ["read", "write", "mount", "ptrace", "getpid", "personality"]
    compile_filter(plain, "x86_64")
    compile_filter(strong, "aarch64")


def test_podmans_form_names_the_errno(tmp_path: Path) -> None:
    path = write(
        tmp_path / "profile.json",
        {
            "defaultAction": "SCMP_ACT_ERRNO",
            "defaultErrno": "ENOSYS",
            "syscalls": [{"names": ["bpf"], "action": "SCMP_ACT_ERRNO", "errno": "EPERM"}],
        },
    )
    profile = read_profile(path, DEFAULT)
    assert profile["defaultErrnoRet"] == errno.ENOSYS
    assert profile["syscalls"][0]["errnoRet"] == errno.EPERM


def test_a_bundles_own_form_stays_as_it_is(tmp_path: Path) -> None:
    profile = default_profile(DEFAULT)
    assert read_profile(write(tmp_path / "profile.json", profile), ()) == profile


@pytest.mark.skipif(not os.path.exists("/usr/share/containers/seccomp.json"), reason="podman's profile isn't installed")
def test_podmans_own_profile_compiles() -> None:
    profile = read_profile("/usr/share/containers/seccomp.json", DEFAULT)
    assert len(names(profile)) > 300
    assert 8 * 100 < len(compile_filter(profile)) < 8 * 600


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("{", "is not JSON"),
        ("[]", "is not a seccomp profile: it has no defaultAction"),
        ("{}", "is not a seccomp profile: it has no defaultAction"),
        ({"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [1]}, "is not a seccomp profile"),
        ({"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [{"action": "x"}]}, "is not a seccomp profile"),
        ({"defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": "many"}, "errnoRet 'many' is not a number"),
        ({"defaultAction": "SCMP_ACT_ERRNO", "archMap": 3}, "is not a seccomp profile"),
    ],
)
def test_bad_files(tmp_path: Path, content: Any, said: str) -> None:
    with pytest.raises(SpecError, match=said):
        read_profile(write(tmp_path / "profile.json", content), DEFAULT)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=f"--security-opt seccomp: {tmp_path}/none.json: no such file or directory"):
        parse_security_opt([f"seccomp={tmp_path}/none.json"]).seccomp_profile(DEFAULT)
