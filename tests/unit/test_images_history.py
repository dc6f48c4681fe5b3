"""The history as steps and as a Dockerfile, for what docker, buildkit, buildah and cellwall write."""

from __future__ import annotations

from typing import Any

import pytest

from cellwall.runtime.images.digest import Digest
from cellwall.runtime.images.history import dockerfile, instruction, steps
from cellwall.runtime.images.image import Image, Layer


def image(history: Any, layers: int) -> Image:
    digest = Digest.of(b"")
    made = tuple(
        Layer(Digest.of(b"%d" % at), at, "", Digest.of(b"%d" % at), Digest.of(b"%d" % at), f"by {at}")
        for at in range(layers)
    )
    return Image("lab:1", digest, digest, {"history": history}, made, "linux/amd64", 0, "now", digest)


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ('/bin/sh -c #(nop)  CMD ["bash"]', 'CMD ["bash"]'),
        ("/bin/sh -c apt-get update", "RUN apt-get update"),
        ("RUN /bin/sh -c apt-get update # buildkit", "RUN /bin/sh -c apt-get update"),
        ("|1 VERSION=2 /bin/sh -c echo $VERSION", "RUN echo $VERSION"),
        ("COPY a b # buildkit", "COPY a b"),
        ("ENV A=b", "ENV A=b"),
    ],
)
def test_an_instruction(written: str, read: str) -> None:
    assert instruction(written) == read


def test_steps_and_layers_are_joined() -> None:
    history = [
        {"created_by": "ADD base"},
        {"created_by": "ENV A=b", "empty_layer": True},
        {"created_by": "RUN x", "comment": "why"},
    ]
    found = steps(image(history, 2))
    assert [step.layer and step.layer.size_bytes for step in found] == [0, None, 1]
    assert dockerfile(image(history, 2)) == "ADD base\nENV A=b\n# why\nRUN x\n"


@pytest.mark.parametrize("history", [None, [], "nonsense", [{"created_by": "one"}], [{"empty_layer": True}], [1, 2]])
def test_a_history_that_does_not_fit(history: Any) -> None:
    assert [step.created_by for step in steps(image(history, 2))] == ["by 0", "by 1"]
