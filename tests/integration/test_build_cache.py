"""The build cache: an unchanged build is all hits, and each kind of change gives just the misses that it must, with the reason.

Every trial starts from a copy of one store in which the same ten-step stage, and a stage that it copies from, was built once.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from cellwall.runtime.build.results import BuildRequest, BuildResult, Secret
from cellwall.runtime.cli import main
from cellwall.runtime.engine import Engine

from .. import registries
from ..registries import Registry, busybox_image, make_image, tar_of, write_layout

registry = registries.registry

pytestmark = pytest.mark.needs("root", "overlay")

DOCKERFILE = """\
FROM {base} AS tools
ARG ONLY_TOOLS=1
COPY tool.src /src
RUN head -c 4 /src > /tool

FROM {base}
ENV MODE=fast
LABEL kind=test
WORKDIR /srv
COPY app.conf /etc/app.conf
COPY tree /srv/tree
ARG VERSION=1
RUN --mount=type=cache,target=/cache --mount=type=secret,id=token \\
    cat /run/secrets/token > /dev/null; echo "$VERSION $MODE" >> /cache/log; echo "$VERSION" > /version
COPY --from=tools /tool /usr/bin/tool
CMD ["cat", "/version"]
"""
STEPS = [
    "tools FROM", "tools ARG", "tools COPY", "tools RUN",
    "FROM", "ENV", "LABEL", "WORKDIR", "COPY app.conf", "COPY tree", "ARG", "RUN", "COPY --from=tools", "CMD",
]  # fmt: skip
PARENT = ("what it is built on changed", ("parent",))
# What stands above a step's place in the list is unchanged; from there on everything is built anew.
FROM_CONF = {"COPY tree": PARENT, "ARG": PARENT, "RUN": PARENT, "COPY --from=tools": PARENT, "CMD": PARENT}
FROM_TREE = dict.fromkeys(("ARG", "RUN", "COPY --from=tools", "CMD"), PARENT)
FROM_RUN = dict.fromkeys(("COPY --from=tools", "CMD"), PARENT)
Missed = dict[str, tuple[str, tuple[str, ...]]]


@dataclass
class Trial:
    """A context, a Dockerfile and the options of one build, to be changed."""

    context: Path
    base: str
    text: str
    build_args: dict[str, str] = field(default_factory=dict)
    more: dict[str, Any] = field(default_factory=dict)

    def replace(self, old: str, new: str) -> None:
        assert old in self.text
        self.text = self.text.replace(old, new)

    def request(self) -> BuildRequest:
        return BuildRequest(
            dockerfile=self.text,
            context=self.context,
            tags=("ten:1",),
            build_args=self.build_args,
            secrets={"token": Secret("token", self.context.parent / "token")},
            **self.more,
        )


def name_of(stage: str, instruction: str) -> str:
    """A step as the lists here call it."""
    words = instruction.split()
    word = f"COPY {words[1]}" if words[0] == "COPY" and stage != "tools" else words[0].upper()
    return f"tools {word}" if stage == "tools" else word


def listed(result: BuildResult) -> list[tuple[str, str, str, tuple[str, ...]]]:
    """The steps, the tools' first: they may run at any moment before the one that needs them."""
    steps: list[tuple[str, str, str, tuple[str, ...]]] = [
        (name_of(step.stage, step.instruction), step.status, step.reason, step.changed) for step in result.steps
    ]
    return [step for step in steps if step[0].startswith("tools")] + [
        step for step in steps if not step[0].startswith("tools")
    ]


def expected(names: list[str], missed: Missed) -> list[tuple[str, str, str, tuple[str, ...]]]:
    return [(name, "miss", *missed[name]) if name in missed else (name, "hit", "", ()) for name in names]


@pytest.fixture(scope="module")
def warmed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Trial, str]:
    """A state folder with the build done once, what was built, and the image's id."""
    folder = tmp_path_factory.mktemp("warmed")
    layout = write_layout(folder / "layout", {"latest": busybox_image()})
    context = folder / "context"
    (context / "tree/sub").mkdir(parents=True)
    (context / "app.conf").write_text("colour = blue\n")
    (context / "tool.src").write_text("tool and its tail\n")
    (context / "tree/one").write_text("1\n")
    (context / "tree/sub/two").write_text("2\n")
    (context / "tree/notes.log").write_text("ignored\n")
    (context / ".dockerignore").write_text("*.log\n**/*.log\n")
    (folder / "token").write_text("secret\n")
    base = f"oci:{layout}:latest"
    trial = Trial(context, base, DOCKERFILE.format(base=base))
    root = folder / "root"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CELLWALL_ROOT", str(root))
        engine = Engine()
        result = engine.build(trial.request())
        engine.close()
    assert all(step.reason == "not built before" for step in result.misses)
    return root, trial, str(result.image.id)


@pytest.fixture
def trial(warmed: tuple[Path, Trial, str], cellwall_root: Path, tmp_path: Path) -> Trial:
    """The context copied, with its times, and the state folder a copy of the warmed one."""
    root, made, _ = warmed
    # cp(1): a layer's whiteouts are devices, which shutil reads from.
    subprocess.run(["cp", "-a", f"{root}/.", str(cellwall_root)], check=True)
    for path in (made.context, made.context.parent / "token"):
        subprocess.run(["cp", "-a", str(path), str(tmp_path)], check=True)
    return Trial(tmp_path / "context", made.base, made.text)


@pytest.fixture
def engine(trial: Trial) -> Iterator[Engine]:
    made = Engine()
    yield made
    made.close()


def touch_all(trial: Trial) -> None:
    for path in trial.context.rglob("*"):
        os.utime(path, (1, 1))


def cached_otherwise(trial: Trial) -> None:
    (log,) = Path(os.environ["CELLWALL_ROOT"], "build-cache/mounts").glob("*/log")
    assert log.read_text() == "1 fast\n"
    log.write_text("another\n")


def layout_changes(trial: Trial) -> None:
    trial.replace("LABEL kind=test\n", "\n# a comment\nlabel   kind=test\n\n")
    trial.replace("ENV MODE=fast", "ENV \\\n  # within\n  MODE=fast")
    trial.replace(" \\\n    cat", " \\\n  # a comment\n\\\n    cat")


REWRITTEN = "comments, blanks and continuation lines"
NO_MISS: dict[str, Callable[[Trial], object]] = {
    "nothing": lambda trial: None,
    "times": touch_all,
    "an ignored file": lambda trial: (trial.context / "tree/notes.log").write_text("other\n"),
    "a new ignored file": lambda trial: (trial.context / "tree/sub/new.log").write_text("new\n"),
    "a file that nothing copies": lambda trial: (trial.context / "README").write_text("read\n"),
    "a pattern that leaves out nothing else": lambda trial: (trial.context / ".dockerignore").write_text("**/*.log\n"),
    "a proxy": lambda trial: trial.build_args.update(HTTP_PROXY="http://127.0.0.1:1", no_proxy="*"),
    "the default of an argument said": lambda trial: trial.build_args.update(VERSION="1"),
    "a secret's content": lambda trial: (trial.context.parent / "token").write_text("other\n"),
    "a cache mount's content": cached_otherwise,
    REWRITTEN: layout_changes,
}


def test_what_changes_nothing(engine: Engine, trial: Trial, warmed: tuple[Path, Trial, str]) -> None:
    """All kinds one after the other, each on top of those before."""
    for kind, change in NO_MISS.items():
        change(trial)
        result = engine.build(trial.request())
        assert listed(result) == expected(STEPS, {}), kind
        assert (result.hits, result.misses) == (len(STEPS), ())
        # The history shows instructions as they are written.
        assert (str(result.image.id) == warmed[2]) == (kind != REWRITTEN), kind


def write(name: str, text: str) -> Callable[[Trial], object]:
    return lambda trial: (trial.context / name).write_text(text)


def swap(old: str, new: str) -> Callable[[Trial], object]:
    return lambda trial: trial.replace(old, new)


def arguments(**values: str) -> Callable[[Trial], object]:
    return lambda trial: trial.build_args.update(values)


def grown_base(trial: Trial) -> None:
    layout = write_layout(
        trial.context.parent / "layout", {"latest": make_image([registries.busybox_layer(), tar_of({"new": b"1"})])}
    )
    trial.replace(f"FROM {trial.base}\n", f"FROM oci:{layout}:latest\n")


def was(text: str) -> tuple[str, tuple[str, ...]]:
    return f"the instruction changed: it was {text}", (text,)


MISSES: dict[str, tuple[Callable[[Trial], object], Missed]] = {
    "content of a copied file": (
        write("app.conf", "colour = red\n"),
        {"COPY app.conf": ("file app.conf changed", ("app.conf",)), **FROM_CONF},
    ),
    "a file added": (
        write("tree/sub/three", "3\n"),
        {"COPY tree": ("file tree/sub/three is new", ("tree/sub/three",)), **FROM_TREE},
    ),
    "a file removed": (
        lambda trial: (trial.context / "tree/one").unlink(),
        {"COPY tree": ("file tree/one is gone", ("tree/one",)), **FROM_TREE},
    ),
    "a file renamed": (
        lambda trial: (trial.context / "tree/one").rename(trial.context / "tree/uno"),
        {"COPY tree": ("file tree/uno is new, file tree/one is gone", ("tree/uno", "tree/one")), **FROM_TREE},
    ),
    "permissions of a file": (
        lambda trial: (trial.context / "tree/one").chmod(0o600),
        {"COPY tree": ("file tree/one changed", ("tree/one",)), **FROM_TREE},
    ),
    "permissions of a folder": (
        lambda trial: (trial.context / "tree/sub").chmod(0o700),
        {"COPY tree": ("file tree/sub changed", ("tree/sub",)), **FROM_TREE},
    ),
    ".dockerignore": (
        write(".dockerignore", "**/two\n*.log\n**/*.log\n"),
        {"COPY tree": ("file tree/sub/two is gone", ("tree/sub/two",)), **FROM_TREE},
    ),
    "the text of a RUN": (
        swap("> /version", "> /version; date"),
        {
            "RUN": (
                "the instruction changed: it was RUN --mount=type=cache,target=/cache --mount=type=secret,id=token \\…",
                (DOCKERFILE[DOCKERFILE.index("RUN --mount") : DOCKERFILE.index("\nCOPY --from")],),
            ),
            **FROM_RUN,
        },
    ),
    "the destination of a COPY": (
        swap("COPY tree /srv/tree", "COPY tree /srv/wood"),
        {"COPY tree": was("COPY tree /srv/tree"), **FROM_TREE},
    ),
    "a variable that a RUN sees": (
        swap("MODE=fast", "MODE=slow"),
        {"ENV": was("ENV MODE=fast"), "RUN": ("variable MODE changed", ("MODE",)), **FROM_RUN},
    ),
    "an argument that a RUN sees": (
        arguments(VERSION="2"),
        {
            "ARG": ("argument VERSION changed", ("VERSION",)),
            "RUN": ("argument VERSION changed", ("VERSION",)),
            **FROM_RUN,
        },
    ),
    "an argument of the other stage": (
        # That stage's RUN is made anew, what is copied from it stays the same.
        arguments(ONLY_TOOLS="2"),
        {
            "tools ARG": ("argument ONLY_TOOLS changed", ("ONLY_TOOLS",)),
            "tools RUN": ("argument ONLY_TOOLS changed", ("ONLY_TOOLS",)),
        },
    ),
    "a label": (swap("kind=test", "kind=trial"), {"LABEL": was("LABEL kind=test")}),
    "the base": (
        grown_base,
        {
            name: (
                PARENT if name != "FROM" else ("", ())  # filled in by the test: it names the folder
            )
            for name in STEPS
            if not name.startswith("tools")
        },
    ),
    "the stage that is copied from, other content": (
        write("tool.src", "look and its tail\n"),
        {
            "tools COPY": ("file tool.src changed", ("tool.src",)),
            "tools RUN": PARENT,
            "COPY --from=tools": ("file tool changed", ("tool",)),
            "CMD": PARENT,
        },
    ),
    "the stage that is copied from, same content": (
        write("tool.src", "tool and another tail\n"),
        {"tools COPY": ("file tool.src changed", ("tool.src",)), "tools RUN": PARENT},
    ),
    "the directory": (
        swap("WORKDIR /srv", "WORKDIR /svr"),
        {
            "WORKDIR": was("WORKDIR /srv"),
            "COPY app.conf": PARENT,
            **FROM_CONF,
        },
    ),
    "the command": (swap('"cat", ', '"tac", '), {"CMD": was('CMD ["cat", "/version"]')}),
    "--no-cache": (
        lambda trial: trial.more.update(no_cache=True),
        {name: ("--no-cache", ()) for name in STEPS if "FROM" not in name},
    ),
}


@pytest.fixture
def afresh(warmed: tuple[Path, Trial, str], trial: Trial, cellwall_root: Path) -> Callable[[], Trial]:
    """Returns a function that gives the context and the cache's records as they were, and the trial for that."""
    root, made, _ = warmed

    def again() -> Trial:
        for path, origin in (
            (trial.context, made.context),
            (cellwall_root / "build-cache/steps", root / "build-cache/steps"),
        ):
            subprocess.run(["rm", "-r", str(path)], check=True)
            subprocess.run(["cp", "-a", str(origin), str(path)], check=True)
        return Trial(trial.context, trial.base, trial.text)

    return again


def test_what_a_change_misses(engine: Engine, afresh: Callable[[], Trial]) -> None:
    for kind, (change, missed) in MISSES.items():
        trial = afresh()
        change(trial)
        result = engine.build(trial.request())
        if kind == "the base":
            missed = {**missed, "FROM": was(f"FROM {trial.base}")}
        assert listed(result) == expected(STEPS, missed), kind
        if kind not in ("content of a copied file", "a variable that a RUN sees"):
            continue
        # What was made anew is in the cache now.
        again = engine.build(trial.request())
        assert listed(again) == expected(STEPS, {}), kind
        assert again.image.id == result.image.id


ADDED = {
    "USER root": ("user changed", ("user",)),
    'SHELL ["/bin/sh", "-ec"]': ("shell changed", ("shell",)),
    "WORKDIR /etc": ("workdir changed", ("workdir",)),
    "ENV NEW=1": ("variable NEW is new", ("NEW",)),
    "ARG NEW=1": ("argument NEW is new", ("NEW",)),
    "ENV NEW=1\nENV NEW=": ("variable NEW is new", ("NEW",)),
}


def test_a_new_instruction_before_a_run(engine: Engine, afresh: Callable[[], Trial]) -> None:
    place = STEPS.index("RUN")
    for added, why in ADDED.items():
        trial = afresh()
        trial.replace("ARG VERSION=1\n", f"ARG VERSION=1\n{added}\n")
        steps = listed(engine.build(trial.request()))
        names = [line.split()[0] for line in added.splitlines()]
        assert [step[:2] for step in steps[place : place + len(names)]] == [(name, "miss") for name in names]
        # /etc is there, so the step of WORKDIR makes no layer.
        assert steps[place + len(names)] == ("RUN", "miss", *why), added
        assert [step[1] for step in steps] == ["hit"] * place + ["miss"] * (len(names) + 3), added


def test_a_steps_image_removed(engine: Engine, trial: Trial, warmed: tuple[Path, Trial, str]) -> None:
    steps = engine.build(trial.request()).steps
    (of_run,) = [step for step in steps if not step.stage.startswith("tools") and step.instruction.startswith("RUN")]
    # What the image with the name holds stays: only the record's own image goes.
    engine.images.remove(of_run.image_id, force=True)
    result = engine.build(trial.request())
    assert listed(result) == expected(STEPS, {"RUN": ("its result was removed", ()), **FROM_RUN})


def test_pruned(engine: Engine, trial: Trial, warmed: tuple[Path, Trial, str]) -> None:
    # A layer of the named image stays, but nothing knows from what it was made.
    assert engine.prune_builds() > 0
    result = engine.build(trial.request())
    assert listed(result) == expected(STEPS, {name: ("not built before", ()) for name in STEPS if name != "FROM"})


def test_the_command_line_says_the_same(afresh: Callable[[], Trial], capfd: pytest.CaptureFixture[str]) -> None:
    for kind in ("an argument that a RUN sees", "--no-cache", "content of a copied file"):
        trial = afresh()
        change, missed = MISSES[kind]
        change(trial)
        (trial.context / "Dockerfile").write_text(trial.text)
        words = ["build", "-t", "ten:1", "--secret", f"id=token,src={trial.context.parent / 'token'}"]
        words += [word for name, value in trial.build_args.items() for word in ("--build-arg", f"{name}={value}")]
        words += ["--no-cache"] * ("no_cache" in trial.more)
        assert main([*words, "--format", "json", str(trial.context)]) == 0
        found = json.loads(capfd.readouterr().out)
        steps = [
            (name_of(step["stage"], step["instruction"]), step["status"], step["reason"], tuple(step["changed"]))
            for step in found["steps"]
        ]
        assert sorted(steps) == sorted(expected(STEPS, missed))
        assert found["tags"] == ["ten:1"]
    # The screen says it as well.
    (trial.context / "app.conf").write_text("colour = green\n")
    assert main([*words, str(trial.context)]) == 0
    shown = capfd.readouterr().err
    assert "[1 5/10] miss COPY app.conf /etc/app.conf\n              because file app.conf changed, " in shown
    assert "[1 4/10] hit  WORKDIR /srv\n" in shown


def test_cache_from(engine: Engine, trial: Trial, registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    """A fresh store that pulls the pushed image builds nothing anew but what isn't in it: the stage that was copied from."""
    name = registry.name("cache/ten:1")
    first = engine.build(trial.request())
    engine.images.tag(str(first.image.id), name)
    engine.images.push(name)
    other_root = Path(os.environ["CELLWALL_ROOT"]) / "other"
    monkeypatch.setenv("CELLWALL_ROOT", str(other_root))
    other = Engine()
    try:
        # The tools aren't in the image: where they come out the same, what was copied from them is a hit.
        plain = trial.text.replace("COPY --from=tools /tool /usr/bin/tool\n", "")
        trial.text = plain
        trial.more["cache_from"] = (name,)
        result = other.build(trial.request())
        made = [step for step in result.steps if step.image_id]
        assert [step.instruction.split()[0] for step in made] == ["WORKDIR", "COPY", "COPY", "RUN"]
        assert all(step.hit for step in made), made
        assert not (other_root / "build-cache/mounts").exists()
        assert [layer.diff_id for layer in result.image.layers] == [layer.diff_id for layer in first.image.layers[:-1]]
    finally:
        other.close()


def test_source_date_epoch(trial: Trial, cellwall_root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two fresh stores make the same image, to the manifest's digest; so does one whose layers with other times are in the cache."""
    digests = set()
    for number in range(3):
        monkeypatch.setenv("CELLWALL_ROOT", str(cellwall_root / f"fresh{number}"))
        if number == 2:
            monkeypatch.delenv("SOURCE_DATE_EPOCH")
            made = Engine()
            try:
                made.build(trial.request())
            finally:
                made.close()
        monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
        made = Engine()
        try:
            touch_all(trial)
            result = made.build(trial.request())
        finally:
            made.close()
        assert not [
            step for step in result.steps if step.hit and step.image_id and not step.instruction.startswith("FROM")
        ]
        assert result.image.created == "2023-11-14T22:13:20Z"
        digests.add(str(result.image.digest))
        # The files of the context are newer than that: their times are cut.
        (trial.context / "app.conf").touch()
    assert len(digests) == 1
