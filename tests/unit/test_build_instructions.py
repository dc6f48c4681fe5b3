from __future__ import annotations

import json

import pytest

from cellwall.runtime.build.dockerfile import instruction_source, parse, parse_trigger
from cellwall.runtime.build.instructions import (
    Add,
    Arg,
    Cmd,
    CommandLine,
    Copy,
    Entrypoint,
    Env,
    Expose,
    From,
    Healthcheck,
    Instruction,
    Label,
    Maintainer,
    Mount,
    Onbuild,
    Run,
    Shell,
    Stopsignal,
    User,
    Volume,
    Workdir,
)
from cellwall.runtime.build.parser import INSTRUCTIONS
from cellwall.runtime.build.source import DockerfileError

S = instruction_source("")


def shell(text: str) -> CommandLine:
    return CommandLine((text,), shell=True)


def exec_form(*argv: str) -> CommandLine:
    return CommandLine(argv, shell=False)


def one(text: str) -> Instruction:
    return parse(f"FROM base\n{text}\n").stages[0].instructions[0]


CASES: list[tuple[str, Instruction]] = [
    ("RUN  ls  -l ", Run(source=S, command=shell("ls  -l"))),
    ("run ls", Run(source=S, command=shell("ls"))),
    ('RUN ["ls", "-l"]', Run(source=S, command=exec_form("ls", "-l"))),
    # docker takes what isn't JSON as a shell command.
    ("RUN ['ls']", Run(source=S, command=shell("['ls']"))),
    ("RUN [ -f x ] && ls", Run(source=S, command=shell("[ -f x ] && ls"))),
    ('RUN ["a",]', Run(source=S, command=shell('["a",]'))),
    ("RUN --network=none ls", Run(source=S, command=shell("ls"), network="none")),
    ("RUN --security=insecure ls", Run(source=S, command=shell("ls"), security="insecure")),
    ("RUN -- --odd", Run(source=S, command=shell("--odd"))),
    ('CMD ["a", "b\\n", "\\u00e9"]', Cmd(source=S, command=exec_form("a", "b\n", "é"))),
    ("CMD a $b", Cmd(source=S, command=shell("a $b"))),
    ("CMD []", Cmd(source=S, command=exec_form())),
    ('CMD ["\\ud800"]', Cmd(source=S, command=exec_form("\ufffd"))),
    ("ENTRYPOINT exec top", Entrypoint(source=S, command=shell("exec top"))),
    ('ENTRYPOINT ["top"]', Entrypoint(source=S, command=exec_form("top"))),
    ("COPY a b/", Copy(source=S, sources=("a",), destination="b/")),
    ('COPY ["a b", "c d"]', Copy(source=S, sources=("a b",), destination="c d")),
    (
        "COPY --from=0 --chown=1:2 --chmod=755 --link --parents --exclude=*.a --exclude=b a b",
        Copy(
            source=S,
            sources=("a",),
            destination="b",
            stage="0",
            chown="1:2",
            chmod="755",
            link=True,
            parents=True,
            excludes=("*.a", "b"),
        ),
    ),
    ("COPY --link=false a b", Copy(source=S, sources=("a",), destination="b")),
    ("COPY --chown=\"a\":'b' a b", Copy(source=S, sources=("a",), destination="b", chown="a:b")),
    (
        "ADD --checksum=sha256:0 --keep-git-dir=true --unpack=false https://x/y.tar /z",
        Add(
            source=S,
            sources=("https://x/y.tar",),
            destination="/z",
            checksum="sha256:0",
            keep_git_dir=True,
            unpack=False,
        ),
    ),
    ("ADD a b", Add(source=S, sources=("a",), destination="b")),
    ('ENV A=1 B="x y" C=a\\ b D=', Env(source=S, pairs=(("A", "1"), ("B", '"x y"'), ("C", "a\\ b"), ("D", "")))),
    ("ENV A  the rest  of it ", Env(source=S, pairs=(("A", "the rest  of it"),))),
    ("ENV A=b=c", Env(source=S, pairs=(("A", "b=c"),))),
    ('LABEL "a b"=c x.y=z', Label(source=S, pairs=(('"a b"', "c"), ("x.y", "z")))),
    ("LABEL a b c", Label(source=S, pairs=(("a", "b c"),))),
    ("ARG A", Arg(source=S, defaults=(("A", None),))),
    ("ARG A= B=1 C", Arg(source=S, defaults=(("A", ""), ("B", "1"), ("C", None)))),
    ("WORKDIR /a b", Workdir(source=S, path="/a b")),
    ("USER a:b", User(source=S, user="a:b")),
    ("VOLUME /a /b", Volume(source=S, paths=("/a", "/b"))),
    ('VOLUME ["/a b"]', Volume(source=S, paths=("/a b",))),
    ("EXPOSE 80 443/udp $P", Expose(source=S, ports=("80", "443/udp", "$P"))),
    ("STOPSIGNAL SIGINT", Stopsignal(source=S, signal="SIGINT")),
    ("HEALTHCHECK NONE", Healthcheck(source=S, command=None)),
    ("HEALTHCHECK cmd a b", Healthcheck(source=S, command=shell("a b"))),
    (
        'HEALTHCHECK --interval=1m30s --timeout=.5s --start-period=1h --start-interval=100ms --retries=4 CMD ["a"]',
        Healthcheck(
            source=S,
            command=exec_form("a"),
            interval_ns=90_000_000_000,
            timeout_ns=500_000_000,
            start_period_ns=3_600_000_000_000,
            start_interval_ns=100_000_000,
            retries=4,
        ),
    ),
    ('SHELL ["/bin/bash", "-c"]', Shell(source=S, argv=("/bin/bash", "-c"))),
    (
        "ONBUILD COPY . /a",
        Onbuild(source=S, text="COPY . /a", trigger=Copy(source=S, sources=(".",), destination="/a")),
    ),
    ("onbuild  run x", Onbuild(source=S, text="run x", trigger=Run(source=S, command=shell("x")))),
    ("MAINTAINER A <a@b>", Maintainer(source=S, author="A <a@b>")),
    ("RUN a \\\n && b", Run(source=S, command=shell("a  && b"))),
]


@pytest.mark.parametrize(("text", "expected"), CASES)
def test_every_instruction(text: str, expected: Instruction) -> None:
    assert one(text) == expected


def test_the_cases_leave_no_instruction_out() -> None:
    assert {expected.name for _, expected in CASES} | {"FROM"} == set(INSTRUCTIONS)


@pytest.mark.parametrize(
    ("text", "image", "stage", "platform"),
    [
        ("FROM a", "a", "", ""),
        ("from a as B.c-d_1", "a", "b.c-d_1", ""),
        ("FROM --platform=linux/arm64 a:1@sha256:0 AS x", "a:1@sha256:0", "x", "linux/arm64"),
        ("FROM $A", "$A", "", ""),
    ],
)
def test_from(text: str, image: str, stage: str, platform: str) -> None:
    (found,) = parse(text).stages
    assert found.base == From(source=S, image=image, stage=stage, platform=platform)
    assert found.name == (stage or "0")


@pytest.mark.parametrize(
    ("text", "mount"),
    [
        ("type=bind,target=/x", Mount(target="/x")),
        ("target=/x", Mount(target="/x")),
        ("type=bind,from=s,src=a,dst=/x,rw", Mount(stage="s", source="a", target="/x", read_only=False)),
        ("type=bind,target=/x,readwrite=true", Mount(target="/x", read_only=False)),
        ("type=cache,target=/x", Mount(type="cache", target="/x", read_only=False)),
        (
            "type=cache,id=i,target=/x,sharing=locked,mode=0700,uid=1,gid=2,ro",
            Mount(type="cache", id="i", target="/x", sharing="locked", mode=0o700, uid=1, gid=2),
        ),
        ("type=tmpfs,target=/x,size=1.5m", Mount(type="tmpfs", target="/x", size_bytes=3 << 19, read_only=False)),
        ("type=secret,id=t", Mount(type="secret", id="t")),
        ("type=secret,id=t,env=T,required", Mount(type="secret", id="t", environment="T", required=True)),
        ("type=ssh", Mount(type="ssh")),
        ('type=bind,"source=a,b",target=/x', Mount(source="a,b", target="/x")),
    ],
)
def test_mounts(text: str, mount: Mount) -> None:
    quoted = f"'{text}'"
    found = one(f"RUN --mount={quoted} --mount=type=tmpfs,target=/t ls")
    assert isinstance(found, Run)
    assert found.mounts == (mount, Mount(type="tmpfs", target="/t", read_only=False))


@pytest.mark.parametrize(
    ("text", "line", "column", "said"),
    [
        ("RUNN ls", 2, 1, r"'RUNN' isn't an instruction, did you mean RUN\? \(allowed: ADD, .*WORKDIR\), in: RUNN ls"),
        ("  xyzzy", 2, 3, "isn't an instruction"),
        ("RUN", 2, 4, "RUN needs an argument"),
        ("RUN []", 2, 5, "array is empty"),
        ("RUN [1]", 2, 5, "strings only"),
        (
            "RUN --netwrk=none ls",
            2,
            5,
            r"no flag --netwrk, did you mean network\? \(allowed: --mount, --network, --security\)",
        ),
        ("RUN --network=x ls", 2, 5, r"allowed: default, none, host"),
        ("RUN --network ls", 2, 5, "needs a value"),
        ("RUN --network=none --network=none ls", 2, 20, "given twice"),
        ("RUN \\\n  --mount=type=blind,target=/x \\\n ls", 3, 3, r"did you mean bind\? \(allowed: bind, cache"),
        ("RUN --mount=type=bind ls", 2, 5, "needs a target"),
        ("RUN --mount=type=tmpfs,target=/x,sharing=locked ls", 2, 5, r"has no key sharing"),
        ("RUN --mount=type=cache,target=/x,mode=9 ls", 2, 5, "isn't an octal mode"),
        ("RUN --mount=type=cache,target=/x,uid=-1 ls", 2, 5, "isn't a number"),
        ("RUN --mount=type=cache,target ls", 2, 5, "needs a value"),
        ("RUN --mount=targt=/x ls", 2, 5, r"no key 'targt', did you mean target\?"),
        ("RUN --mount=type=secret ls", 2, 5, "needs its id"),
        ("RUN --mount=from=$x,target=/y ls", 2, 5, "takes no variable"),
        ("CMD", 2, 4, "CMD needs an argument"),
        ("CMD --x ls", 2, 5, "CMD has no flag --x: CMD has none"),
        ("COPY a", 2, 6, "a source and a destination"),
        ('COPY ["a"]', 2, 6, "a source and a destination"),
        ("COPY --from=$x a b", 2, 6, "takes no variable"),
        ("COPY --link=maybe a b", 2, 6, r"allowed: true, false"),
        ("COPY --checksum=x a b", 2, 6, "no flag --checksum"),
        ("COPY a <<EOF\nEOF", 2, 8, "can't be the destination"),
        ("ADD --from=x a b", 2, 5, "no flag --from"),
        ("ENV A", 2, 5, "needs a value for 'A'"),
        ("ENV A=1 \\\n  B", 3, 3, "'B' has no ="),
        ("ENV =1", 2, 5, "needs a name"),
        ("LABEL a=b =c", 2, 11, "needs a name"),
        ("ARG =1", 2, 5, "needs a name"),
        ("ARG", 2, 4, "needs an argument"),
        ("EXPOSE", 2, 7, "needs an argument"),
        ("VOLUME []", 2, 8, "array is empty"),
        ('VOLUME [""]', 2, 8, "path is empty"),
        ("HEALTHCHECK", 2, 12, "needs an argument"),
        ("HEALTHCHECK NONE x", 2, 18, "takes no arguments"),
        ("HEALTHCHECK CMD", 2, 16, "needs a command"),
        ("HEALTHCHECK curl", 2, 13, r"allowed: CMD, NONE"),
        ("HEALTHCHECK --interval=5 CMD x", 2, 13, "isn't a duration"),
        ("HEALTHCHECK --timeout=1us CMD x", 2, 13, "shorter than 1ms"),
        ("HEALTHCHECK --retries=-1 CMD x", 2, 13, "isn't a number"),
        ("SHELL /bin/bash -c", 2, 7, "needs a JSON array"),
        ("ONBUILD FROM x", 2, 9, "can't be a trigger"),
        ("ONBUILD ONBUILD RUN x", 2, 9, "can't be a trigger"),
        ("ONBUILD RUNN x", 2, 9, "isn't an instruction"),
        ("ONBUILD COPY --form=x a b", 2, 14, r"did you mean from\?"),
        ("FROM a b", 2, 8, r"'b' can't follow the image \(allowed: AS\)"),
        ("FROM a AS", 2, 8, "one name after AS"),
        ("FROM a AS 1x", 2, 11, "can't name a stage"),
        ("FROM", 2, 5, "needs an argument"),
    ],
)
def test_mistakes_are_pointed_at(text: str, line: int, column: int, said: str) -> None:
    with pytest.raises(DockerfileError, match=said) as caught:
        parse(f"FROM base\n{text}\n")
    error = caught.value
    assert (error.line, error.column) == (line, column)
    assert str(error).startswith(f"line {line}, column {column}: ")
    assert "\n" not in str(error)
    assert error.text == text.split("\n")[line - 2]
    assert error.pointed() == f"{error.text}\n{' ' * (column - 1)}^"


def test_nothing_but_arg_stands_before_from() -> None:
    with pytest.raises(
        DockerfileError, match=r"line 2, column 1: RUN stands before the first FROM \(allowed: ARG, FROM\)"
    ):
        parse("ARG A\nRUN x\nFROM a")
    with pytest.raises(DockerfileError, match="no FROM"):
        parse("ARG A")


def test_remarks_say_what_is_likely_meant() -> None:
    found = parse("FROM a AS x\nENV a b\nRUN ['ls']\nMAINTAINER m\nFROM b AS x\nFROM c AS scratch\n").remarks
    assert [remark.line for remark in found] == [2, 3, 4, 5, 6]
    assert "ENV a=value" in str(found[0])
    assert "JSON" in str(found[1])


@pytest.mark.parametrize("text", [text for text, expected in CASES if isinstance(expected, Onbuild)])
def test_a_trigger_reads_back_from_the_config(text: str) -> None:
    onbuild = one(text)
    assert isinstance(onbuild, Onbuild)
    assert parse_trigger(onbuild.text) == onbuild.trigger


@pytest.mark.parametrize(
    ("text", "said"), [("FROM a", "can't be a trigger"), ("RUN a\nRUN b", "one instruction"), ("", "no")]
)
def test_a_config_may_hold_bad_triggers(text: str, said: str) -> None:
    with pytest.raises(DockerfileError, match=said):
        parse_trigger(text)


def test_a_cache_key_holds_what_is_asked_for_and_not_where() -> None:
    keys = {json.dumps(expected.arguments(), sort_keys=True) for _, expected in CASES}
    assert len(keys) == len({repr(expected) for _, expected in CASES})
    assert one("RUN  ls").arguments() == one("\n\nRUN ls").arguments() != one("RUN la").arguments()
