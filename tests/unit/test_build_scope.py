from __future__ import annotations

import pytest

from cellwall.runtime.build.dockerfile import parse
from cellwall.runtime.build.expansion import Expanded, expand
from cellwall.runtime.build.instructions import Add, Arg, Copy, Env, Expose, Mount, Run
from cellwall.runtime.build.scope import PREDEFINED, GlobalScope, Scope, platform_args, undeclared
from cellwall.runtime.build.source import DockerfileError
from cellwall.runtime.images.platforms import Platform

PLATFORMS = platform_args(Platform.parse("linux/amd64"), Platform.parse("linux/arm/v7"))


def walk(
    text: str, build_args: dict[str, str] | None = None, env: dict[str, str] | None = None
) -> tuple[Scope, list[Expanded]]:
    """The scope after the first stage, and its instructions, filled in."""
    dockerfile = parse(text)
    scope = GlobalScope(dockerfile, build_args or {}, PLATFORMS).stage(env or {})
    return scope, [expand(instruction, scope) for instruction in dockerfile.stages[0].instructions]


def variables(text: str, build_args: dict[str, str] | None = None, env: dict[str, str] | None = None) -> dict[str, str]:
    return walk(text, build_args, env)[0].run_environment()


@pytest.mark.parametrize(
    ("text", "build_args", "expected"),
    [
        ("FROM a\nARG x", {}, {}),
        ("FROM a\nARG x", {"x": "1"}, {"x": "1"}),
        ("FROM a\nARG x=d", {}, {"x": "d"}),
        ("FROM a\nARG x=d", {"x": ""}, {"x": ""}),
        # Before FROM, an ARG is for FROM; a stage must ask for it.
        ("ARG x=g\nFROM a", {}, {}),
        ("ARG x=g\nFROM a\nARG x", {}, {"x": "g"}),
        ("ARG x=g\nFROM a\nARG x=d", {}, {"x": "d"}),
        ("ARG x=g\nFROM a\nARG x=d", {"x": "1"}, {"x": "1"}),
        ("ARG x=g\nARG y=$x-h\nFROM a\nARG y", {"x": "1"}, {"y": "1-h"}),
        ("ARG y=$x\nARG x=g\nFROM a\nARG y", {}, {"y": ""}),
        ("FROM a\nARG x=1 y=$x", {}, {"x": "1", "y": "1"}),
        ("FROM a\nARG x=1\nARG x=2", {}, {"x": "2"}),
        # ENV hides an ARG of its name, whichever comes first.
        ("FROM a\nENV x=e\nARG x=1", {"x": "2"}, {"x": "e"}),
        ("FROM a\nARG x=1\nENV x=e", {"x": "2"}, {"x": "e"}),
        ("FROM a\nARG x=1\nENV x=${x:-d}", {}, {"x": "1"}),
        # All values on a line see what held before it.
        ("FROM a\nENV x=old\nENV x=new y=$x", {}, {"x": "new", "y": "old"}),
        ("FROM a\nENV x a 'b' $y\nENV z=\"$x\"", {}, {"x": "a b ", "z": "a b "}),
        # A name after the use isn't declared yet.
        ("FROM a\nENV z=$x\nARG x", {"x": "1"}, {"z": "", "x": "1"}),
        # Platform ARGs: by themselves on FROM lines, asked for in a stage.
        ("FROM a\nENV z=$TARGETARCH", {}, {"z": ""}),
        (
            "FROM a\nARG TARGETARCH TARGETVARIANT BUILDPLATFORM",
            {},
            {"TARGETARCH": "arm", "TARGETVARIANT": "v7", "BUILDPLATFORM": "linux/amd64"},
        ),
        # The predefined ones reach RUN and nothing else.
        ("FROM a\nENV z=$http_proxy", {"http_proxy": "p"}, {"z": "", "http_proxy": "p"}),
        ("FROM a\nARG http_proxy\nENV z=$http_proxy", {"http_proxy": "p"}, {"z": "p", "http_proxy": "p"}),
        ("FROM a", {"unknown": "1"}, {}),
    ],
)
def test_what_a_run_sees(text: str, build_args: dict[str, str], expected: dict[str, str]) -> None:
    assert variables(text, build_args) == expected


def test_the_base_images_environment_counts() -> None:
    assert variables("FROM a\nARG P=2\nENV Q=$P", {"P": "3"}, {"P": "1"}) == {"P": "1", "Q": "1"}


def test_a_stage_inherits_args_and_env_of_its_base() -> None:
    scope, _ = walk("FROM a\nARG x=1\nENV y=2")
    child = scope.child()
    assert child.run_environment() == {"x": "1", "y": "2"}
    child.set_env("z", "3")
    child.declare("x", "4")
    assert scope.run_environment() == {"x": "1", "y": "2"}


def test_proxies_take_no_part_in_the_cache() -> None:
    scope, _ = walk("FROM a\nARG x=1", dict.fromkeys(PREDEFINED, "p"))
    assert scope.run_args() == {"x": "1"}
    assert set(scope.run_environment()) == {"x", *PREDEFINED}


def test_what_each_instruction_substitutes() -> None:
    text = (
        "FROM a\nARG v=1 two='80 443/udp' u=me\n"
        'COPY --chown=$u:$u --chmod=64$v --exclude=*.$v $v "$v" d/\n'
        "ADD --checksum=sha256:" + "0" * 64 + " https://x/$v /d\n"
        "LABEL l$v=$v\nWORKDIR /w$v\nUSER $u\nVOLUME /d$v\nEXPOSE $two 80${v}-80${v}\nSTOPSIGNAL ${s:-TERM}\n"
        'RUN --mount=type=cache,id=$v,target=/c$v echo $v\nCMD echo $v\nENTRYPOINT ["$v"]\n'
        'HEALTHCHECK CMD echo $v\nSHELL ["$v"]\nONBUILD RUN echo $v\nMAINTAINER $v\n'
    )
    _, found = walk(text)
    filled = {item.instruction.name: item.instruction.arguments() for item in found}
    assert (
        filled["COPY"] | {"sources": ["1", "1"], "chown": "me:me", "chmod": "641", "excludes": ["*.1"]}
        == filled["COPY"]
    )
    assert filled["ADD"]["sources"] == ["https://x/1"]
    assert filled["LABEL"]["pairs"] == [["l1", "1"]]
    assert filled["WORKDIR"]["path"] == "/w1"
    assert filled["USER"]["user"] == "me"
    assert filled["VOLUME"]["paths"] == ["/d1"]
    assert filled["EXPOSE"]["ports"] == ["80/tcp", "443/udp", "801/tcp"]
    assert filled["STOPSIGNAL"]["signal"] == "TERM"
    assert (filled["RUN"]["mounts"][0]["id"], filled["RUN"]["mounts"][0]["target"]) == ("1", "/c1")
    for name in ("RUN", "CMD", "ENTRYPOINT", "HEALTHCHECK"):
        assert "$v" in filled[name]["command"]["argv"][0]
    assert filled["SHELL"]["argv"] == ["$v"]
    assert filled["ONBUILD"]["text"] == "RUN echo $v"
    assert filled["MAINTAINER"]["author"] == "$v"
    used = {item.instruction.name: item.used for item in found}
    assert used["COPY"] == {"u", "v"}
    assert used["CMD"] == frozenset()


def test_a_heredoc_file_is_filled_in_unless_its_mark_is_quoted() -> None:
    _, found = walk("FROM a\nARG v=1\nCOPY <<A <<-'B' /d/\n\"$v\" \\$v ${x:-'d'}\nA\n\t$v \\$v\nB\n")
    copy = found[1].instruction
    assert isinstance(copy, Copy)
    assert [heredoc.body() for heredoc in copy.files] == ["\"1\" $v 'd'\n", "$v \\$v\n"]


def test_the_escape_directive_is_followed() -> None:
    scope, _ = walk("# escape=`\nFROM a\nENV x=C:\\dir y=`$x\n")
    assert scope.env == {"x": "C:\\dir", "y": "$x"}


def test_ports_of_a_range() -> None:
    _, found = walk("FROM a\nEXPOSE 8000-8002/UDP 80 80/tcp")
    assert isinstance(found[0].instruction, Expose)
    assert found[0].instruction.ports == ("8000/udp", "8001/udp", "8002/udp", "80/tcp")


@pytest.mark.parametrize(
    ("text", "line", "column", "said"),
    [
        ("ENV A=1 \\\n  B=${x", 3, 5, "isn't closed"),
        ('ENV A="${x:?give x}"', 2, 7, "x: give x"),
        ("WORKDIR $x", 2, 9, r"WORKDIR is empty after substitution: x isn't set"),
        ("USER ''", 2, 6, "USER is empty"),
        ("VOLUME /a $x", 2, 11, "VOLUME is empty"),
        ("COPY $x /d", 2, 6, "a source is empty"),
        ("COPY a b c", 2, 10, "must end with /"),
        ("COPY a <<E c\nE", 2, 12, "must end with /"),
        ("COPY --chmod=9 a b", 2, 14, "isn't a mode"),
        ("COPY --chown=a:b:c a b", 2, 14, "isn't an owner"),
        ("ADD --checksum=sha256:12 a b", 2, 16, "isn't a checksum"),
        ("EXPOSE 80/xyz", 2, 8, r"allowed: tcp, udp, sctp"),
        ("EXPOSE 0", 2, 8, "from 1 to 65535"),
        ("EXPOSE 90-80", 2, 8, "from 1 to 65535"),
        ("EXPOSE http", 2, 8, "isn't a port"),
        ("STOPSIGNAL SIGNOPE", 2, 12, "isn't a signal"),
        ("STOPSIGNAL 0", 2, 12, "isn't a signal"),
        ("RUN --mount=type=$x,target=/d ls", 2, 13, "isn't a mount's type"),
        ("RUN --mount=type=tmpfs,target=/d,size=$x ls", 2, 13, "isn't a size"),
        ("ENV 'a=b'", 2, 5, "single quote"),
        ("COPY <<E /d\nfine\nnot ${x:-\nE", 4, 5, "isn't closed"),
        ("ENV A=1B${x}C${x", 2, 14, "isn't closed"),
    ],
)
def test_what_shows_only_then(text: str, line: int, column: int, said: str) -> None:
    with pytest.raises(DockerfileError, match=said) as caught:
        walk(f"FROM a\n{text}\n")
    assert (caught.value.line, caught.value.column) == (line, column)


@pytest.mark.parametrize("signal", ["SIGTERM", "term", "9", "64", "RTMIN+3", "SIGRTMAX-1"])
def test_signals(signal: str) -> None:
    walk(f"FROM a\nSTOPSIGNAL {signal}")


@pytest.mark.parametrize("destination", ["d/", ".", "./", "/", "a/..", "/x/."])
def test_destinations_of_several_sources(destination: str) -> None:
    walk(f"FROM a\nCOPY a b {destination}")


def test_mounts_without_variables_are_known_before() -> None:
    (run,) = parse("FROM a\nRUN --mount=target=/a --mount=target=$b ls").stages[0].instructions
    assert isinstance(run, Run)
    assert run.mounts == (Mount(target="/a"),)


def test_arguments_that_nothing_declares() -> None:
    dockerfile = parse("ARG a\nFROM x\nARG b\nONBUILD ARG c\n")
    given = dict.fromkeys(
        ["a", "b", "c", "d", "HTTP_PROXY", "TARGETARCH", "SOURCE_DATE_EPOCH", "BUILDKIT_INLINE_CACHE"], "1"
    )
    assert undeclared(dockerfile, given) == ["d"]


def test_a_default_before_from_that_cannot_be_read() -> None:
    with pytest.raises(DockerfileError, match="line 2, column 7: ARG: .*isn't closed"):
        GlobalScope(parse("ARG a\nARG b=${a\nFROM x"), {}, PLATFORMS)


def test_kinds_stay() -> None:
    _, found = walk("FROM a\nARG x=1\nENV y=2\nADD a b")
    assert [type(item.instruction) for item in found] == [Arg, Env, Add]
