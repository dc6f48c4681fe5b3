"""What a kernelspec of cellwall's says: the image, the kernel's command in it, and docker's run options.

The words are the same in the kernelspec's ``argv`` (launch.py) and in the provisioner's config, and one parser reads them: what a
client starts doesn't depend on how it starts it.
"""

from __future__ import annotations

import argparse
import fnmatch
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..runtime.cli import values
from ..runtime.cli.parser import Parser
from ..runtime.cli.run_options import OPTIONS, add_run_options, run_options_of
from ..runtime.errors import SpecError, UnsupportedError

if TYPE_CHECKING:
    from ..runtime.options import RunOptions

FOLDER_MODES = ("rw", "ro", "none")
# Each holds the memory of a kernel that has done nothing.
MOST_SPARES = 8
TRANSPORTS = ("ipc", "tcp")
# Images that were given an ipykernel (python_layer.py) have this name; no registry has them.
REPOSITORY = "localhost/cellwall-kernel"
# Run options that say what a kernel's container is by its nature: one that ends with the kernel, without a terminal.
NOT_FOR_KERNELS = (
    "--name", "--user", "-i", "--interactive", "-t", "--tty", "-d", "--detach", "--rm", "--restart", "--cidfile", "--timeout", "--entrypoint",
    "--log-driver", "--log-opt", "--health-cmd", "--health-interval", "--health-timeout", "--health-retries", "--health-start-period",
    "--health-start-interval", "--no-healthcheck", "--init", "--stop-signal", "--stop-timeout", "-a", "--attach", "--detach-keys", "--sig-proxy",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class KernelWords:
    """``run`` are the run options as words; ``command`` is the kernel's in the image, with the connection file's place in it.

    ``folder`` is how the notebook's folder is mounted: rw, ro, none. ``ids`` are the numbers of the kernel's user in the image.
    ``allow_images`` are patterns of images that a client may ask for instead. ``transport`` is how the kernel itself listens: ipc, tcp.
    ``warm`` is how many spare containers wait (spares.py).
    """

    image: str
    command: tuple[str, ...] = ()
    run: tuple[str, ...] = ()
    folder: str = "rw"
    ids: tuple[int, int] = (0, 0)
    allow_images: tuple[str, ...] = ()
    transport: str = "ipc"
    warm: int = 0

    def words(self) -> list[str]:
        """The words that ``read_words`` makes this of."""
        own = [f"--image={self.image}", f"--folder={self.folder}", f"--ids={self.ids[0]}:{self.ids[1]}"]
        own += [f"--allow-image={pattern}" for pattern in self.allow_images]
        own += [f"--transport={self.transport}"] if self.transport != "ipc" else []
        own += [f"--warm={self.warm}"] if self.warm else []
        return [*own, *self.run, "--", *self.command]

    def options(self, environment: Mapping[str, str] | None = None) -> RunOptions:
        """The run options alone, read. ``environment`` is where a bare ``-e NAME`` looks. Raises SpecError, UnsupportedError."""
        parser = Parser("cellwall kernel")
        add_run_options(parser, omit=NOT_FOR_KERNELS)
        said, _ = parser.parse(self.run)
        return run_options_of(said, self.image, self.command, environment=environment)

    def check_user(self, rootless: bool) -> None:
        """Raise UnsupportedError for a kernel whose sockets its client couldn't reach."""
        if rootless and self.ids[0]:
            raise UnsupportedError(
                f"a kernel that isn't root in its container (it is user {self.ids[0]}), for an ordinary user of this machine",
                "install it with -u 0: that root is you, and has no more rights here than you",
            )

    @property
    def asked_flags(self) -> list[str]:
        """The flags of ``run``, for warnings about what isn't in force."""
        return [word.partition("=")[0] for word in self.run]

    def allows_image(self, reference: str) -> bool:
        return reference == self.image or any(fnmatch.fnmatchcase(reference, one) for one in self.allow_images)


def add_words(parser: Parser) -> None:
    """Put the options that ``words_of`` reads on ``parser``."""
    parser.value("--image", metavar="IMAGE", help="the image that the kernel runs in")
    parser.value(
        "--folder",
        metavar="rw|ro|none",
        read=values.choice(*FOLDER_MODES),
        default="rw",
        help="how the notebook's folder is mounted, at the same path",
    )
    parser.value("--ids", metavar="UID:GID", read=_ids, help="numbers of the kernel's user; install finds them")
    parser.value(
        "--allow-image",
        metavar="PATTERN",
        repeated=True,
        help="an image that clients may ask for by KERNEL_IMAGE, such as 'python:3.*'",
    )
    parser.value(
        "--transport",
        metavar="ipc|tcp",
        read=values.choice(*TRANSPORTS),
        help="how the kernel itself listens in its container: ipc where it is Python, else tcp",
    )
    parser.value(
        "--warm",
        metavar="N",
        read=values.integer(0, MOST_SPARES),
        default=0,
        help="containers that a notebook server keeps ready for its next kernels (0)",
    )
    add_run_options(parser, omit=NOT_FOR_KERNELS)


def words_of(parser: Parser, words: Sequence[str], said: argparse.Namespace, command: Sequence[str]) -> KernelWords:
    """What was said, checked. Raises SpecError, UnsupportedError."""
    if not said.image:
        raise SpecError("--image", f"{parser.command} needs an image, such as --image python:3.12")
    flags = {option.flag for option in OPTIONS} - set(NOT_FOR_KERNELS)
    run = tuple(word for word in parser.options_of(words) if word.partition("=")[0] in flags or word[:2] in ("-u",))
    made = KernelWords(
        said.image,
        tuple(command),
        run,
        said.folder,
        said.ids or (0, 0),
        tuple(said.allow_image),
        said.transport or "ipc",
        said.warm,
    )
    made.options()
    return made


def read_words(words: Sequence[str]) -> KernelWords:
    """The KernelWords that ``KernelWords.words`` wrote. Raises SpecError."""
    parser = Parser("cellwall kernel launch")
    add_words(parser)
    said, command = parser.parse(words)
    return words_of(parser, words, said, command)


def of_config(config: Mapping[str, Any]) -> KernelWords:
    """The KernelWords of the provisioner's config in a kernelspec. Raises SpecError."""
    words = config.get("words")
    if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
        raise SpecError(
            "kernelspec", "its provisioner's config has no words: install it again with cellwall kernel install"
        )
    return read_words(words)


def _ids(flag: str, text: str) -> tuple[int, int]:
    uid, _, gid = text.partition(":")
    if not (uid.isdecimal() and gid.isdecimal() and len(text) < 24):
        raise SpecError(flag, f"{text!r} is no pair of numbers: write 1000:1000")
    return int(uid), int(gid)
