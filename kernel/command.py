"""``cellwall kernel install, list, remove``; ``launch`` is in launch.py.

The command line's table (runtime/cli/command.py) names this module; it is loaded when one of its commands is called.
"""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..runtime.cli.progress import Progress
from ..runtime.cli.table import add_format, listing, printable
from ..runtime.errors import SpecError, UnsupportedError
from . import image_kernel, kernelspec, python_layer, spare
from .image_kernel import Choice
from .words import KernelWords, add_words, words_of

if TYPE_CHECKING:
    from argparse import Namespace

    from ..runtime.cli.command import Context
    from ..runtime.images.image import Image

USAGE = "--image IMAGE --name NAME [OPTIONS] [-- COMMAND… {connection_file} …]"


def install(context: Context, words: list[str]) -> int:
    """Write a kernelspec, after asking the image what it has to run."""
    parser = context.parser(USAGE)
    parser.value("--name", metavar="NAME", help="name of the kernel, for jupyter commands")
    parser.value("--display-name", metavar="TEXT", help="name of the kernel in launchers")
    parser.value(
        "--language", metavar="LANGUAGE", help="which kernel of the image's (python where there is one), or which shell"
    )
    parser.flag("--shell", help="a shell kernel: any image with a shell, no kernel in it")
    parser.flag("--user", dest="per_user", help="for this user (the default)")
    parser.flag("--sys-prefix", help="for this Python environment")
    parser.value("--prefix", metavar="DIR", help="below DIR/share/jupyter")
    parser.value("--wheels", metavar="DIR", help="take ipykernel from wheels there, not from the package index")
    parser.flag("--dry-run", help="print the kernelspec, and write and make nothing")
    add_words(parser)
    said, command = parser.parse(words)
    if sum((said.per_user, said.sys_prefix, said.prefix is not None)) > 1:
        raise SpecError("--prefix", "--user, --sys-prefix and --prefix are different places: take one of them")
    name = kernelspec.check_name(said.name)
    made = words_of(parser, words, said, command)
    if said.shell:
        if command:
            raise SpecError("--shell", "a shell kernel finds the image's shell itself: say no command")
        if made.warm:
            raise SpecError("--warm", "is for isolated kernels: a shell is there at once; leave it out")
        if not _has_shell_kernel():
            raise UnsupportedError("--shell", "this build of cellwall has no shell kernel")
        spec = kernelspec.shell(made, said.display_name or f"Shell ({made.image})", said.language or "")
        _image(context, made, said)
    else:
        made, choice = _isolated(context, said, made, command)
        if made.warm:
            spare.check(made.command, made.options())
        display_name = said.display_name or f"{choice.title} ({said.image})"
        spec = kernelspec.isolated(made, choice, display_name, said.image)
    parent = kernelspec.parent_of(sys_prefix=said.sys_prefix, prefix=said.prefix)
    if said.dry_run:
        sys.stdout.write(json.dumps(spec, indent=1) + "\n")
        _say(f"not written: {parent / name / 'kernel.json'}")
        return 0
    print(kernelspec.write(parent, name, spec))
    return 0


def _has_shell_kernel() -> bool:
    from importlib.util import find_spec

    return find_spec(f"{__package__}.shell") is not None


def _image(context: Context, made: KernelWords, said: Namespace) -> Image:
    options = made.options()
    with Progress(sys.stderr, quiet=False) as progress:
        return context.engine.image(
            made.image,
            # A rehearsal downloads nothing.
            pull="never" if said.dry_run else options.pull,
            platform=options.platform,
            storage_driver=options.storage_driver,
            progress=progress,
        )


def _isolated(context: Context, said: Namespace, made: KernelWords, command: list[str]) -> tuple[KernelWords, Choice]:
    """What runs as the kernel, in which image: the one that was said, or that with ipykernel added."""
    engine = context.engine
    image = _image(context, made, said)
    if command:
        choice = image_kernel.of_command(command, said.language or "")
        return replace(made, command=choice.command, transport=said.transport or choice.transport), choice
    found = image_kernel.look(engine, replace(made.options(), pull="never"))
    choice = image_kernel.choose(found, made.image, said.language or "")
    made = replace(
        made, command=choice.command, ids=said.ids or found.ids, transport=said.transport or choice.transport
    )
    made.check_user(engine.identity.rootless)
    made = replace(made, run=(*(f"--env={key}={value}" for key, value in choice.env.items()), *made.run))
    wheels = None if said.wheels is None else Path(said.wheels).absolute()
    if not choice.needs_ipykernel:
        if wheels is not None:
            _say(f"--wheels isn't needed: image {made.image} has a kernel")
        return made, choice
    assert found.python is not None
    tag = python_layer.tag_of(image, wheels)
    source = f"from the wheels in {wheels}" if wheels else "from the package index"
    if python_layer.is_made(engine, tag):
        _say(f"image {made.image} has Python without ipykernel: the layer with it was made before")
    elif said.dry_run:
        _say(f"image {made.image} has Python without ipykernel: it would be added as a layer, {source}")
    else:
        _say(f"image {made.image} has Python without ipykernel: adding it as a layer, {source}")
        python_layer.make(engine, image, made.image, found.python, tag, wheels)
    return replace(made, image=tag), choice


def list_(context: Context, words: list[str]) -> int:
    """List cellwall's kernels."""
    parser = context.parser("[OPTIONS]")
    parser.flag("-q", "--quiet", help="print names only")
    add_format(parser)
    said, names = parser.parse(words)
    if names:
        raise SpecError(parser.command, f"takes no name: {parser.command} [OPTIONS]")
    found = kernelspec.installed()
    if said.quiet:
        sys.stdout.write("".join(f"{one.name}\n" for one in found))
        return 0
    rows: list[dict[str, Any]] = [
        {
            "Name": one.name,
            "DisplayName": one.display_name,
            "Image": one.image,
            "Kind": one.kind,
            "Language": one.language,
            "Folder": one.folder,
        }
        for one in found
    ]
    columns = (
        ("NAME", "Name"),
        ("DISPLAY NAME", "DisplayName"),
        ("IMAGE", "Image"),
        ("KIND", "Kind"),
        ("FOLDER", "Folder"),
    )
    sys.stdout.write(listing(rows, columns, said.format))
    return 0


def remove(context: Context, words: list[str]) -> int:
    """Remove kernels; their images stay."""
    parser = context.parser("NAME…")
    _, names = parser.parse(words)
    if not names:
        raise SpecError(parser.command, f"needs the name of a kernel: {parser.command} NAME…")
    for name in names:
        print(kernelspec.remove(name).folder)
    return 0


def _say(text: str) -> None:
    sys.stderr.write(f"cellwall: {printable(text)}\n")


__all__ = ["install", "list_", "remove"]
