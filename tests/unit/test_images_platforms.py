from __future__ import annotations

import pytest

from cellwall.runtime.errors import SpecError
from cellwall.runtime.images.platforms import Platform


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        ("linux/amd64", "linux/amd64"),
        ("linux/x86_64", "linux/amd64"),
        ("aarch64", "linux/arm64"),
        ("linux/arm64/v8", "linux/arm64"),
        ("linux/arm64/8", "linux/arm64"),
        ("linux/arm", "linux/arm/v7"),
        ("linux/arm/v6", "linux/arm/v6"),
        ("armhf", "linux/arm/v7"),
        ("linux/amd64/v3", "linux/amd64/v3"),
        ("Linux/S390X", "linux/s390x"),
    ],
)
def test_normal_form(text: str, normal: str) -> None:
    assert str(Platform.parse(text)) == normal


@pytest.mark.parametrize("text", ["", "/", "linux/", "linux//v7", "a/b/c/d", "linux/\u0430md64"])
def test_what_isn_t_a_platform(text: str) -> None:
    with pytest.raises(SpecError, match="--platform"):
        Platform.parse(text)


@pytest.mark.parametrize(
    ("wanted", "offered", "chosen"),
    [
        ("linux/arm/v7", ["linux/arm/v5", "linux/arm/v6", "linux/arm64"], 1),
        ("linux/arm/v6", ["linux/arm/v7"], None),
        ("linux/amd64", ["linux/amd64/v3"], None),
        ("linux/amd64/v3", ["linux/amd64", "linux/amd64/v2"], 1),
        ("linux/arm64", ["linux/amd64", "linux/arm64/v8"], 1),
        ("linux/amd64", ["windows/amd64"], None),
    ],
)
def test_the_best_that_fits(wanted: str, offered: list[str], chosen: int | None) -> None:
    assert Platform.parse(wanted).best_of([Platform.parse(each) for each in offered]) == chosen


def test_an_entry_without_a_platform_never_fits() -> None:
    assert Platform.here().best_of([None]) is None
    assert Platform.of({"os": "linux"}) is None
    assert Platform.of({"os": "linux", "architecture": 7}) is None
