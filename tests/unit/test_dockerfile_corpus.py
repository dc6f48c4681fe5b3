"""The corpus of Dockerfiles is whole: every instruction, flag and mount type is in it, and each case says what it shows."""

from __future__ import annotations

from pathlib import Path

import pytest

from cellwall.runtime.build.dockerfile import parse
from cellwall.runtime.build.flags import FLAGS
from cellwall.runtime.build.instructions import CommandLine, Instruction, Onbuild
from cellwall.runtime.build.mount_flag import TYPES

from ..dockerfile_contexts import PIECES
from ..dockerfile_corpus import CORPUS, Case, cases, make_context, read_case

# What no build of the corpus can have: an agent of ssh, rights that a builder must grant, a repository to clone.
NOT_THERE = {"RUN --security", "ADD --keep-git-dir", "mount ssh"}


def everything() -> list[Instruction]:
    """Every instruction of every case."""
    return [
        item
        for case in cases()
        for stage in parse(case.dockerfile.read_bytes()).stages
        for item in (stage.base, *stage.instructions)
    ]


def test_there_are_enough() -> None:
    assert len(cases()) >= 70
    assert len([case for case in cases() if case.name.startswith("mix-")]) >= 10


def test_every_instruction_flag_and_mount_is_there() -> None:
    found = {item.name for item in everything()}
    for item in everything():
        words = item.source.text.split()
        found |= {f"{item.name} {word.partition('=')[0]}" for word in words if word.startswith("--")}
        found |= {f"mount {kind}" for kind in TYPES if f"type={kind}" in item.source.text}
    wanted = {"ADD", "ARG", "CMD", "COPY", "ENTRYPOINT", "ENV", "EXPOSE", "FROM", "HEALTHCHECK", "LABEL", "MAINTAINER"}
    wanted |= {"ONBUILD", "RUN", "SHELL", "STOPSIGNAL", "USER", "VOLUME", "WORKDIR"}
    wanted |= {f"{name} --{flag}" for name, flags in FLAGS.items() for flag in flags}
    wanted |= {f"mount {kind}" for kind in TYPES}
    # ARGs before the first FROM belong to no stage; those of a stage count.
    assert wanted - found == NOT_THERE


def test_both_forms_of_each_command_are_there() -> None:
    forms = {
        (item.name, command.shell)
        for item in everything()
        if isinstance(command := getattr(item, "command", None), CommandLine)
    }
    assert forms == {(name, shell) for name in ("RUN", "CMD", "ENTRYPOINT", "HEALTHCHECK") for shell in (True, False)}
    assert {"RUN", "COPY", "LABEL"} <= {item.trigger.name for item in everything() if isinstance(item, Onbuild)}


@pytest.mark.parametrize("case", cases(), ids=lambda case: case.name)
def test_a_case_is_whole(case: Case, tmp_path: Path) -> None:
    assert case.what.endswith((".", ":")) and len(case.what) < 200
    assert (case.folder / "Dockerfile.buildah").exists() == bool(case.words)
    assert set(case.pieces) <= set(PIECES)
    assert all(len(reason) > 20 for reason in case.differs.values())
    known = {"Dockerfile", "Dockerfile.buildah", "case.toml", "context"}
    assert {path.name for path in case.folder.iterdir()} <= known
    parse(case.buildah_dockerfile.read_bytes())


def test_no_two_cases_are_alike() -> None:
    texts = [
        b"".join(
            path.read_bytes() for path in sorted(case.folder.rglob("*")) if path.is_file() and path.suffix != ".toml"
        )
        for case in cases()
    ]
    assert len(set(texts)) == len(texts)
    assert {piece for case in cases() for piece in case.pieces} == set(PIECES)


def test_few_cases_differ() -> None:
    """A declared difference is an exception: where it is a rule, one of the two is wrong."""
    assert len([case for case in cases() if case.differs]) <= 6


def test_a_context_is_the_same_whatever_the_umask_was(tmp_path: Path) -> None:
    case = read_case(CORPUS / "mix-heredocs")
    made = make_context(case, tmp_path / "context")
    assert {path.name: oct(path.stat().st_mode & 0o777) for path in made.iterdir()} == {
        "run": "0o755",
        "svc.conf": "0o644",
    }


def test_a_key_that_no_case_has_is_refused(tmp_path: Path) -> None:
    (tmp_path / "case.toml").write_text('what = "x."\nwrods = "y"\n')
    with pytest.raises(TypeError, match="wrods"):
        read_case(tmp_path)
