"""RUN in a build: its mounts, its isolation and limits, how it fails, what stopping and killing leave, stages side by side.

Steps that must run at the same time wait for each other through a shared cache mount: where they don't overlap, they fail.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import signal
import subprocess
import sys
import threading
import zlib
from pathlib import Path
from typing import Any

import pytest

import cellwall
from cellwall.runtime.build.results import BuildRequest, BuildResult, Event, Output, Secret, Step
from cellwall.runtime.build.source import DockerfileError
from cellwall.runtime.build.step_failed import StepFailed
from cellwall.runtime.cli import main
from cellwall.runtime.engine import Engine
from cellwall.runtime.errors import BuildError, Cancelled, CellwallError, NotFound
from cellwall.runtime.options import RunOptions

from ..leaks import leftovers
from ..waiting import PATIENCE_S, until

pytestmark = pytest.mark.needs("root", "overlay")

SOURCE = Path(__file__).resolve().parents[2] / "src"
# Waits for a file that another step makes; ten seconds are for a machine that is busy.
MEET = "meet() { touch /meet/$1; n=0; while [ ! -e /meet/$2 ]; do n=$((n+1)); [ $n -lt 6000 ] || exit 9; sleep 0.01; done; }"


def build(engine: Engine, text: str, context: Path | None = None, **more: Any) -> BuildResult:
    on_event = more.pop("on_event", None)
    return engine.build(BuildRequest(dockerfile=text, context=context, **more), on_event=on_event)


def tree_of(engine: Engine, image: str, command: str) -> str:
    """What ``command`` prints in a container of ``image``."""
    done = cellwall.run(image, script=command, engine=engine, check=True)
    assert isinstance(done.stdout, str)
    return done.stdout


def test_bind_mounts(engine: Engine, busybox: str, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder/file").write_text("of the context\n")
    (tmp_path / "secret.log").write_text("ignored\n")
    (tmp_path / ".dockerignore").write_text("*.log\n")
    result = build(
        engine,
        f"""FROM {busybox} AS made
RUN mkdir -p /out/deep && echo stage > /out/deep/file && ln -s deep /out/link && ln -s /etc/motd /out/absolute
FROM {busybox}
WORKDIR /work
RUN --mount=type=bind,from=made,source=/out,target=/m cat /m/deep/file /m/link/file > /1; ! touch /m/new 2>/dev/null
RUN --mount=type=bind,from=made,source=/out/deep/file,target=one cat /work/one > /2; ! echo x 2>/dev/null > /work/one
RUN --mount=from={busybox},target=/m cat /m/etc/motd > /3
RUN --mount=target=/m --mount=type=bind,source=folder,target=/f cat /m/folder/file /f/file > /4; ls -A /m > /5
RUN --mount=source=folder/file,target=/etc/passwd,rw echo changed > /etc/passwd && cat /etc/passwd > /6
RUN --mount=from=made,source=/out,target=/m,rw rm -r /m/deep && echo new > /m/new && cat /m/new > /7
RUN --mount=from=made,source=/out,target=/m ls -A /m > /8
RUN cat /etc/passwd > /9; ls -A / > /10; ls -A /work >> /10
""",
        tmp_path,
    )
    found = tree_of(
        engine, str(result.image.id), "for n in 1 2 3 4 5 6 7 8 9 10; do echo \"$n $(cat /$n | tr '\\n' ' ')\"; done"
    )
    lines = dict(line.split(" ", 1) for line in found.splitlines())
    assert lines["1"] == "stage stage "
    assert lines["2"] == "stage "
    assert lines["3"] == "hello from a layer "
    assert lines["4"] == "of the context of the context "
    assert lines["5"] == ".dockerignore folder "
    assert (lines["6"], lines["7"]) == ("changed ", "new ")
    # What a step wrote into a mount went with it.
    assert lines["8"] == "absolute deep link "
    assert lines["9"].startswith("root:x:0:0:")
    # Nor are the places where things were mounted left.
    assert set(lines["10"].split()) - {str(n) for n in range(11)} == {
        "bin", "dev", "etc", "home", "proc", "root", "sys", "tmp", "work",
    }  # fmt: skip
    # No layer holds what was mounted.
    for layer in result.image.layers[3:]:
        assert layer.size_bytes < 1000


@pytest.mark.parametrize(
    ("mount", "message"),
    [
        ("from=made,source=/none,target=/m", "/none"),
        ("source=none,target=/m", "none isn't in the build context"),
        ("from=made,source=../../../../etc/shadow,target=/m", "etc/shadow"),
        ("source=../outside,target=/m", "outside"),
        ("source=link,target=/m", "link is a link to tmp/"),
        ("from=made,source=/escape,target=/m", "escape"),
        ("source=.,target=/", "nothing can be mounted on the root"),
        ("type=cache,target=/../..", "nothing can be mounted on the root"),
    ],
)
def test_bind_sources_that_are_not_there(
    engine: Engine, busybox: str, tmp_path: Path, mount: str, message: str
) -> None:
    """Nor does a source lead out of the stage or the context."""
    context = tmp_path / "context"
    context.mkdir()
    (tmp_path / "outside").write_text("outside")
    (context / "link").symlink_to(tmp_path / "outside")
    text = f"FROM {busybox} AS made\nRUN ln -s ../../../../../../{tmp_path}/outside /escape\nFROM {busybox}\nRUN --mount={mount} cat /m\n"
    with pytest.raises((BuildError, CellwallError)) as raised:
        build(engine, text, context)
    said = str(raised.value)
    assert message in said
    assert "line 4" in said or "4:" in said, said
    assert "Traceback" not in said


def test_tmpfs(engine: Engine, busybox: str) -> None:
    result = build(
        engine,
        f"FROM {busybox}\nRUN --mount=type=tmpfs,target=/t,size=1m stat -f -c %T /t > /kind; echo x > /t/x;"
        " df -k /t | tail -n 1 | tr -s ' ' | cut -d' ' -f2 > /size\n",
    )
    assert (
        tree_of(engine, str(result.image.id), "cat /kind /size; ls -d /t 2>&1 | wc -l; [ ! -e /t/x ]")
        == "tmpfs\n1024\n1\n"
    )


def stored_bytes(root: Path) -> dict[str, bytes]:
    """Every file of a state folder by its path, blobs also as they are when decompressed."""
    found = {}
    # A container that has just ended is still being cleaned up, which only this walk takes as it comes.
    for path in (Path(folder, name) for folder, _, names in os.walk(root) for name in names):
        if path.is_file() and not path.is_symlink():
            try:
                data = path.read_bytes()
            except FileNotFoundError:  # the same
                continue
            found[str(path)] = data
            if data[:2] == b"\x1f\x8b":
                try:
                    found[f"{path} (decompressed)"] = gzip.decompress(data)
                except (OSError, EOFError, zlib.error):
                    continue
    return found


def test_secrets_are_nowhere(engine: Engine, busybox: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "key").write_text("swordfish-1\n")
    monkeypatch.setenv("TOKEN", "swordfish-2")
    secrets = {"key": Secret("key", tmp_path / "key"), "TOKEN": Secret("TOKEN", None, "TOKEN")}
    seen: list[bytes] = []

    def on_event(event: Event) -> None:
        if isinstance(event, Output):
            seen.append(event.data)

    result = build(
        engine,
        f"""FROM {busybox}
RUN --mount=type=secret,id=key --mount=type=secret,id=TOKEN,env=TOKEN \\
    --mount=type=secret,id=key,target=/root/.key,mode=0440,uid=5,gid=6 --mount=type=secret,id=absent,target=/absent \\
    md5sum < /run/secrets/key; stat -c '%a %u %g' /run/secrets/key /root/.key; echo ${{#TOKEN}}; ls /absent 2>&1 | wc -l
RUN ls -A /root; ls -d /run /absent 2>/dev/null; echo "${{TOKEN-unset}}"
""",
        secrets=secrets,
        tags=("secret:1",),
        on_event=on_event,
    )
    said = b"".join(seen).decode().split()
    assert said[0] == hashlib.md5(b"swordfish-1\n").hexdigest()
    assert said[2:10] == ["400", "0", "0", "440", "5", "6", "11", "1"]
    # Nor are the places where they were left.
    assert said[10:] == ["unset"], said
    assert b"swordfish" not in b"".join(seen)
    with pytest.raises(DockerfileError, match="the secret 'needed' is needed"):
        build(engine, f"FROM {busybox}\nRUN --mount=type=secret,id=needed,required=true true\n", secrets=secrets)
    with pytest.raises(StepFailed):
        build(engine, f"FROM {busybox}\nRUN --mount=type=secret,id=key exit 3\n", secrets=secrets)
    for path, data in stored_bytes(engine.paths.data).items():
        assert b"swordfish" not in data, path
    assert "swordfish" not in json.dumps(result.to_dict())


def two_builds(engine: Engine, texts: list[str], **more: Any) -> list[BuildResult | BaseException]:
    """The builds at the same time, each in a thread; what came of each."""
    found: list[BuildResult | BaseException] = [NotFound()] * len(texts)

    def one(number: int) -> None:
        try:
            found[number] = build(engine, texts[number], **more)
        except BaseException as error:
            found[number] = error

    threads = [threading.Thread(target=one, args=(number,)) for number in range(len(texts))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found


SHARING = {
    # Both are in it at once and see each other's files.
    "shared": "meet {0} {1}; echo {0} > /c/{0}; meet {0}b {1}b; [ -e /c/{1} ]",
    # Each has its own.
    "private": "echo {0} > /c/{0}; meet {0} {1}; [ ! -e /c/{1} ]",
    # Never both: mkdir fails where the other is within.
    "locked": "mkdir /c/busy || exit 8; sleep 0.3; touch /c/{0}; rmdir /c/busy",
}


@pytest.mark.parametrize("sharing", SHARING)
def test_cache_mounts_of_two_builds_at_once(engine: Engine, busybox: str, sharing: str) -> None:
    texts = [
        f"FROM {busybox}\nRUN --mount=type=cache,id=meet-{sharing},target=/meet --mount=type=cache,target=/c,sharing={sharing} "
        f"{MEET}; {SHARING[sharing].format(one, other)}\n"
        for one, other in (("a", "b"), ("b", "a"))
    ]
    for found in two_builds(engine, texts):
        assert isinstance(found, BuildResult), found
    # A later build finds what they left.
    result = build(
        engine,
        f"FROM {busybox}\nRUN --mount=type=cache,target=/c,sharing={sharing} ls /c > /found; stat -c %a:%u /c >> /found\n",
    )
    names = tree_of(engine, str(result.image.id), "cat /found").split()
    assert names[:-1] in ([["a", "b"]] if sharing != "private" else [["a"], ["b"]])
    assert names[-1] == "755:0"
    assert tree_of(engine, str(result.image.id), "ls -A /c 2>/dev/null | wc -l") == "0\n"


def test_stages_run_at_the_same_time(engine: Engine, busybox: str) -> None:
    """Two stages that don't need each other meet; the third waits for both."""
    events: list[tuple[str, str]] = []

    def on_event(event: Event) -> None:
        if isinstance(event, Step) and event.instruction.startswith("RUN"):
            events.append((event.stage, event.status))

    mount = "--mount=type=cache,target=/meet"
    result = build(
        engine,
        f"FROM {busybox} AS one\nRUN {mount} {MEET}; meet one two; echo 1 > /1\n"
        f"FROM {busybox} AS two\nRUN {mount} {MEET}; meet two one; echo 2 > /2\n"
        f"FROM {busybox} AS unused\nRUN exit 7\n"
        f"FROM {busybox}\nCOPY --from=one /1 /\nCOPY --from=two /2 /\nRUN cat /1 /2 > /3\n",
        on_event=on_event,
    )
    assert tree_of(engine, str(result.image.id), "cat /3") == "1\n2\n"
    assert sorted(events[:2]) == [("one", "miss"), ("two", "miss")]
    assert [stage for stage, _ in events[2:]] == ["3"]


def test_one_stage_fails_and_the_other_stops(engine: Engine, busybox: str) -> None:
    mount = "--mount=type=cache,target=/meet"
    with pytest.raises(StepFailed) as raised:
        build(
            engine,
            f"FROM {busybox} AS one\nRUN {mount} {MEET}; meet one two; echo why >&2; exit 5\n"
            f"FROM {busybox} AS two\nRUN {mount} {MEET}; meet two one; sleep 1000\n"
            f"FROM {busybox}\nCOPY --from=one / /\nCOPY --from=two / /\n",
        )
    assert raised.value.status == 5
    assert raised.value.output == b"why\n"


def test_isolation_is_that_of_run(engine: Engine, busybox: str) -> None:
    # The shell itself counts the processes: of a pipe's two ends the second may not be there yet when the first looks.
    facts = (
        "grep -E '^(Cap|NoNewPrivs|Seccomp)' /proc/self/status; cat /proc/self/uid_map | wc -l; id -u; ls /dev; ls /sys/class/net;"
        "cat /proc/self/limits | grep -E 'processes|files'; set -- /proc/[0-9]*; echo $#; cat /proc/self/oom_score_adj"
    )
    result = build(
        engine, f"FROM {busybox}\nRUN ({facts}) > /facts; readlink /proc/self/ns/* > /ns; hostname > /name\n"
    )
    of_run = cellwall.run(
        busybox, ["sh", "-c", f"({facts}) > /facts; cat /facts"], engine=engine, network="none"
    ).stdout
    assert tree_of(engine, str(result.image.id), "cat /facts") == of_run
    inside = tree_of(engine, str(result.image.id), "cat /ns").split()
    outside = {os.readlink(f"/proc/self/ns/{name}") for name in os.listdir("/proc/self/ns")}
    kept = {name.partition(":")[0] for name in inside if name in outside}
    # The time namespace is as `run` has it.
    assert kept <= {"time"}, kept
    assert tree_of(engine, str(result.image.id), "cat /name") == "build\n"
    # The files that a container gets of its own are in no layer.
    assert tree_of(engine, str(result.image.id), "grep -c build /etc/hosts /etc/hostname; true") == (
        "/etc/hosts:0\n/etc/hostname:0\n"
    )


def test_networks(engine: Engine, busybox: str) -> None:
    text = "RUN --network={0} readlink /proc/self/ns/net > /ns-{0}; ls /sys/class/net > /links-{0}\n"
    result = build(
        engine,
        f"FROM {busybox}\n{text.format('none')}{text.format('host')}RUN readlink /proc/self/ns/net > /ns-default\n",
    )
    found = tree_of(engine, str(result.image.id), "cat /ns-none /ns-host /ns-default /links-none").split()
    host = os.readlink("/proc/self/ns/net")
    assert found[1] == host
    assert host not in (found[0], found[2])
    assert found[3:] == ["lo"]
    # --network of the build is that of steps that say nothing; another one is another step.
    result = build(
        engine, f"FROM {busybox}\nRUN readlink /proc/self/ns/net > /ns\n", run=RunOptions(image="", network="host")
    )
    assert tree_of(engine, str(result.image.id), "cat /ns") == f"{host}\n"


def test_limits(engine: Engine, busybox: str) -> None:
    with pytest.raises(StepFailed, match="out of memory") as raised:
        build(
            engine,
            f"FROM {busybox}\nRUN tail /dev/zero\n",
            run=RunOptions(image="", memory_bytes=32 << 20, memory_swap_bytes=32 << 20),
        )
    assert raised.value.status == 137


def test_a_step_that_fails(engine: Engine, busybox: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    text = f"FROM {busybox}\nENV A=1\nRUN echo one > /one\nRUN echo so far; \\\n    echo it failed >&2; exit 42\nRUN echo never > /never\n"
    build(engine, f"FROM {busybox}\nLABEL old=1\n", tags=("t:1",))
    old = engine.images.find("t:1").id
    with pytest.raises(StepFailed) as raised:
        build(engine, text, tags=("t:1",))
    error = raised.value
    assert isinstance(error, subprocess.CalledProcessError)
    assert (error.line, error.status, error.returncode) == (4, 42, 42)
    assert sorted(error.output.splitlines()) == [b"it failed", b"so far"]
    assert "exit status 42" in str(error)
    assert error.image_id[:19] in str(error)
    assert "\n" not in str(error)
    # The image so far has the config so far.
    assert tree_of(engine, error.image_id, "cat /one; echo $A; ls /never 2>&1 | wc -l") == "one\n1\n1\n"
    # No name has changed.
    assert engine.images.find("t:1").id == old
    # The step that was done is in the cache.
    fixed = build(engine, text.replace("exit 42", "exit 0"), tags=("t:1",))
    assert [(step.status) for step in fixed.steps] == ["hit", "hit", "hit", "miss", "miss"]
    assert engine.images.find("t:1").id == fixed.image.id
    # The same on the command line: what it wrote, one line, a status.
    (tmp_path / "Dockerfile").write_text(text)
    assert main(["build", "-t", "t:2", str(tmp_path)]) == 1
    out, err = capfd.readouterr()
    assert out == ""
    assert "4 | it failed\n" in err
    assert err.splitlines()[-1].startswith("cellwall: line 4: RUN echo so far;")
    with pytest.raises(NotFound):
        engine.images.find("t:2")


def test_a_command_that_cannot_start(engine: Engine, busybox: str) -> None:
    with pytest.raises(CellwallError, match="nothing-here") as raised:
        build(engine, f'FROM {busybox}\nRUN ["nothing-here"]\n')
    assert "line 2" in str(raised.value)
    with pytest.raises(CellwallError, match="nobody-here") as raised:
        build(engine, f"FROM {busybox}\nUSER nobody-here\nRUN true\n")
    assert "line 3" in str(raised.value)


def test_a_name_comes_last(engine: Engine, busybox: str) -> None:
    """While the last step runs there is no name, and nobody sees its container."""
    seen: list[Any] = []

    def on_event(event: Event) -> None:
        if isinstance(event, Output):
            seen.append([container.name for container in engine.containers(all=True)])
            seen.append([image.reference for image in engine.images.list() if "t:1" in image.reference])
            other = Engine()
            try:
                seen.append([container.name for container in other.containers(all=True)])
            finally:
                other.close()

    build(engine, f"FROM {busybox}\nRUN echo running; sleep 0.5\n", tags=("t:1", "t:2"), on_event=on_event)
    assert seen == [[], [], []]
    assert engine.images.find("t:1").id == engine.images.find("t:2").id


def test_two_builds_of_one_dockerfile_at_once(engine: Engine, busybox: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("content")
    text = f"FROM {busybox}\nCOPY file /\nRUN cat /file > /1\nRUN cat /1 > /2\nWORKDIR /w\n"
    found = two_builds(engine, [text, text, text], context=tmp_path, tags=("t:1",))
    for result in found:
        assert isinstance(result, BuildResult), result
        assert tree_of(engine, str(result.image.id), "cat /2") == "content"
    again = build(engine, text, tmp_path, tags=("t:1",))
    assert again.hits == len(again.steps)
    # One of them has the name; nothing else stands among the images.
    assert engine.images.find("t:1").id == again.image.id


STOPPED = """
import sys
from cellwall.runtime.cli import main
sys.exit(main(["build", "-t", "t:killed", sys.argv[1]]))
"""


def victim(folder: Path, busybox: str, inner: str) -> subprocess.Popen[str]:
    """A build of its own process that has come to its last RUN."""
    (folder / "Dockerfile").write_text(
        f"FROM {busybox}\nRUN echo done > /done\nRUN --mount=type=bind,from={busybox},target=/m echo begun; {inner}\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", STOPPED, str(folder)],
        env={**os.environ, "PYTHONPATH": str(SOURCE)},
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    for line in process.stderr:
        if line.endswith("| begun\n"):
            return process
    raise AssertionError("the build ended before its RUN began")


def left(engine: Engine) -> list[str]:
    """What of a build is still there, beside the cache."""
    data = engine.paths.data
    found = leftovers(data)
    found += [str(path) for path in (data / "containers").glob("*") if path.is_dir()]
    return found + [path.name for path in (data / "run/containers").glob("*")]


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_stopped_and_killed(cellwall_root: Path, busybox: str, tmp_path: Path, how: signal.Signals) -> None:
    process = victim(tmp_path, busybox, "echo half > /half; sleep 1000")
    process.send_signal(how)
    _, rest = process.communicate(timeout=60)
    statuses = {signal.SIGINT: (130,), signal.SIGTERM: (143, -15), signal.SIGKILL: (-9,)}
    assert process.returncode in statuses[how], rest
    assert "Traceback" not in rest
    # The launcher outlives its client by as long as its cleaning takes.
    until(lambda: os.listdir(cellwall_root / "run/containers") == [], "the end of its launcher")
    engine = Engine()
    try:
        assert engine.containers(all=True) == []
        assert [path for path in left(engine) if "/build-cache/" not in path and "/images/" not in path] == []
        # What was half made in the cache's folders is removed by the next build.
        result = build(engine, (tmp_path / "Dockerfile").read_text().replace("sleep 1000", "true"), tmp_path)
        until(lambda: left(engine) == [], lambda: left(engine))
        with pytest.raises(NotFound):
            engine.images.find("t:killed")
        assert [step.status for step in result.steps] == ["hit", "hit", "miss"]
    finally:
        engine.close()


def test_cancelled_from_a_thread(engine: Engine, busybox: str) -> None:
    begun = threading.Event()

    def on_event(event: Event) -> None:
        if isinstance(event, Output):
            begun.set()

    with pytest.raises(Cancelled):
        engine.build(
            BuildRequest(dockerfile=f"FROM {busybox}\nRUN echo begun; sleep 1000\n"),
            on_event=on_event,
            cancelled=begun.is_set,
        )
    until(lambda: left(engine) == [], lambda: left(engine))


def test_a_callback_that_raises_ends_the_build(engine: Engine, busybox: str) -> None:
    def on_event(event: Event) -> None:
        if isinstance(event, Output):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build(engine, f"FROM {busybox}\nRUN echo begun; sleep 1000\n", on_event=on_event)
    until(lambda: left(engine) == [], lambda: left(engine))


def test_steps_that_share_a_new_cache_mount_have_one_folder(engine: Engine) -> None:
    """Both hold its lock, and both find no folder: the later one's would take the place of the first one's, or not come into it."""
    from types import SimpleNamespace

    from cellwall.runtime.build.cache_mounts import cache_mount
    from cellwall.runtime.build.instructions import Mount

    stage: Any = SimpleNamespace(build_=SimpleNamespace(engine=engine, check=lambda: None))
    together = threading.Barrier(4)
    found: list[list[int]] = []

    def step(number: int) -> None:
        inodes = []
        for name in map(str, range(5)):
            together.wait(PATIENCE_S)
            with cache_mount(stage, Mount("cache", target=f"/{name}"), f"/{name}") as path:
                (path / f"of-{number}").touch()
                inodes.append(path.stat().st_ino)
                together.wait(PATIENCE_S)
                assert len(os.listdir(path)) == 4
                together.wait(PATIENCE_S)
        found.append(inodes)

    threads = [threading.Thread(target=step, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [found[0]] * 4
