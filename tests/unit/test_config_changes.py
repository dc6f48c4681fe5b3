"""``--change``: what each instruction makes of a config, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest

from cellwall.runtime.errors import SpecError
from cellwall.runtime.images.config_changes import apply


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ('CMD ["a", "b c"]', {"Cmd": ["a", "b c"]}),
        ("cmd echo $HOME", {"Cmd": ["/bin/sh", "-c", "echo $HOME"]}),
        ('CMD ["a", 1]', {"Cmd": ["/bin/sh", "-c", '["a", 1]']}),
        ('ENTRYPOINT ["x"]', {"Entrypoint": ["x"]}),
        ("ENV A=1 B='two words'", {"Env": ["PATH=/bin", "A=1", "B=two words"]}),
        ("ENV PATH /usr/bin:/bin", {"Env": ["PATH=/usr/bin:/bin"]}),
        ("LABEL a=1 b=", {"Labels": {"old": "1", "a": "1", "b": ""}}),
        ("EXPOSE 80 53/udp", {"ExposedPorts": {"80/tcp": {}, "53/udp": {}}}),
        ("EXPOSE 80-82/udp", {"ExposedPorts": {"80/udp": {}, "81/udp": {}, "82/udp": {}}}),
        ("VOLUME /a /b", {"Volumes": {"/a": {}, "/b": {}}}),
        ('VOLUME ["/a b"]', {"Volumes": {"/a b": {}}}),
        ("USER 1000:1000", {"User": "1000:1000"}),
        ("WORKDIR /srv", {"WorkingDir": "/srv"}),
        ("WORKDIR below", {"WorkingDir": "/top/below"}),
        ("STOPSIGNAL SIGINT", {"StopSignal": "SIGINT"}),
        ("ONBUILD RUN true", {"OnBuild": ["RUN true"]}),
    ],
)
def test_a_change(change: str, expected: dict[str, Any]) -> None:
    before: dict[str, Any] = {"Env": ["PATH=/bin"], "Labels": {"old": "1"}, "WorkingDir": "/top"}
    assert apply(before, (change,)) == {**before, **expected}
    assert before == {"Env": ["PATH=/bin"], "Labels": {"old": "1"}, "WorkingDir": "/top"}


@pytest.mark.parametrize(
    "change",
    [
        "RUN true",
        "",
        "CMD",
        "ENV =1",
        "ENV A=1 B",
        "ENV 'A=1",
        "EXPOSE http",
        "EXPOSE 0",
        "EXPOSE 99999",
        "EXPOSE 82-80",
        "COPY a b",
    ],
)
def test_what_is_refused(change: str) -> None:
    with pytest.raises(SpecError, match="--change"):
        apply({}, (change,))
