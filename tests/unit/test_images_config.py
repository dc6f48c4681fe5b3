"""An image's config that isn't what the specification says: refused with the name of the field."""

from __future__ import annotations

import json
from typing import Any

import pytest

from cellwall.runtime.errors import ImageError
from cellwall.runtime.images.image import _check_fields

GOOD: dict[str, Any] = {
    "Env": ["A=1"],
    "Cmd": ["x"],
    "Entrypoint": None,
    "User": "",
    "WorkingDir": "/",
    "Labels": {"a": "b"},
    "Volumes": None,
}


def test_a_good_one() -> None:
    _check_fields(GOOD, "it")
    _check_fields({}, "it")


@pytest.mark.parametrize(
    "bad",
    [
        {"Env": [1]},
        {"Env": 5},
        {"Cmd": "sh"},
        {"Entrypoint": {}},
        {"User": 5},
        {"WorkingDir": []},
        {"Labels": ["x"]},
        {"Volumes": "x"},
    ],
    ids=json.dumps,
)
def test_a_bad_field_is_named(bad: dict[str, Any]) -> None:
    with pytest.raises(ImageError, match=next(iter(bad))):
        _check_fields(GOOD | bad, "it")
