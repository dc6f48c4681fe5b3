"""Which instruction made which layer, and which of them changed the config alone. Source: image-spec config.md (history)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..images.history import instruction, steps

if TYPE_CHECKING:
    from ..images.image import Image


@dataclass(frozen=True, slots=True)
class MadeBy:
    """The instruction behind a layer, when that was, and the instructions without a layer that followed it."""

    instruction: str
    created: str
    config_steps: tuple[str, ...]


def instructions(image: Image | None) -> dict[int, MadeBy]:
    """By the layer's number from the base, 1. What comes before the first layer counts as the first one's."""
    if image is None:
        return {}
    made: dict[int, tuple[str, str]] = {}
    after: dict[int, list[str]] = {}
    number = 0
    for step in steps(image):
        told = instruction(step.created_by)
        if step.layer is not None:
            number += 1
            made[number] = (told, step.created)
        elif told:
            after.setdefault(max(number, 1), []).append(told)
    return {at: MadeBy(*told, tuple(after.get(at, ()))) for at, told in made.items()}
