"""How an image came to be, step by step: its history joined with its layers.

Source: image-spec config.md (``history``, ``empty_layer``).
"""

from __future__ import annotations

import re

from ..frozen import frozen
from .image import Image, Layer

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

# What docker's builders wrote before an instruction, and behind one.
_NO_OPERATION = r"^/bin/sh -c #\(nop\)\s*"
_BUILDKIT = r"\s*# buildkit$"
_ARGUMENTS = r"^\|\d+ .*?(?=/bin/sh -c )"
_INSTRUCTION = r"(?:ADD|ARG|CMD|COPY|ENTRYPOINT|ENV|EXPOSE|FROM|HEALTHCHECK|LABEL|MAINTAINER|ONBUILD|RUN|SHELL|STOPSIGNAL|USER|VOLUME|WORKDIR)\b"

# The comment of a step that cellwall built, before its cache key: what --cache-from reads.
CACHE_COMMENT = "cellwall.build "


@frozen
class Step:
    """One entry of the history. ``layer`` is None where the step changed the config alone."""

    created: str
    created_by: str
    comment: str
    author: str
    layer: Layer | None


def steps(image: Image) -> list[Step]:
    """The steps, oldest first; where the history doesn't fit the layers, one step for each layer."""
    layers = iter(image.layers)
    return [
        Step(
            _text(entry.get("created", image.created)),
            _text(entry.get("created_by")),
            _text(entry.get("comment")),
            _text(entry.get("author")),
            None if entry.get("empty_layer") else next(layers),
        )
        for entry in entries(image)
    ]


def entries(image: Image) -> list[dict[str, Any]]:
    """The history as the config has it, to be added to; one entry for each layer where it brings none that fits."""
    listed = image.config.get("history")
    found = [dict(entry) for entry in listed if isinstance(entry, dict)] if isinstance(listed, list) else []
    if sum(not entry.get("empty_layer") for entry in found) != len(image.layers):
        return [{"created_by": layer.created_by} for layer in image.layers]
    return found


def dockerfile(image: Image) -> str:
    """The history as a Dockerfile: each step's instruction; what can't be one again (a base's archive) is a comment."""
    lines = []
    for step in steps(image):
        text = instruction(step.created_by)
        if step.comment and not step.comment.startswith(CACHE_COMMENT):
            lines.append(f"# {step.comment}".replace("\n", "\n# "))
        lines.append(
            text
            if re.match(_INSTRUCTION, text)
            else f"# {text or 'a layer without a word on what made it'}".replace("\n", "\n# ")
        )
    return "\n".join(lines) + "\n"


def instruction(created_by: str) -> str:
    """What docker, buildkit, buildah or cellwall wrote of a step, as the instruction that it was."""
    text = re.sub(_BUILDKIT, "", created_by.strip())
    if re.match(_NO_OPERATION, text):
        return re.sub(_NO_OPERATION, "", text).strip()
    text = re.sub(_ARGUMENTS, "", text)
    return f"RUN {text.removeprefix('/bin/sh -c ').strip()}" if text.startswith("/bin/sh -c ") else text


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""
