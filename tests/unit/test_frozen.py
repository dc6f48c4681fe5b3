"""``frozen`` makes what ``dataclass(frozen=True, slots=True)`` makes."""

from __future__ import annotations

import copy
import dataclasses
import pickle
from dataclasses import field
from typing import Any, ClassVar

import pytest

from cellwall.runtime.frozen import changed, frozen


@frozen
class Ours:
    """As below."""

    kind: ClassVar[str] = "k"
    a: int
    b: str = "x"
    c: list[int] = field(default_factory=list, compare=False)
    d: int = field(default=4, repr=False)

    def twice(self) -> int:
        return 2 * self.a


@dataclasses.dataclass(frozen=True, slots=True)
class Theirs:
    """As above."""

    kind: ClassVar[str] = "k"
    a: int
    b: str = "x"
    c: list[int] = field(default_factory=list, compare=False)
    d: int = field(default=4, repr=False)

    def twice(self) -> int:
        return 2 * self.a


@frozen(kw_only=True)
class OursBelow(Ours):
    """With one more."""

    e: int = 5


@pytest.mark.parametrize("cls", [Ours, Theirs])
def test_it_is_a_dataclass(cls: Any) -> None:
    one = cls(1, d=9)
    assert (one.a, one.b, one.c, one.d, one.twice()) == (1, "x", [], 9, 2)
    assert one == cls(1, "x", [7], 9)
    assert one != cls(1, "y", [], 9)
    assert one != (1, "x", 9)
    assert hash(one) == hash(cls(1, "x", [7], 9))
    assert repr(one) == f"{cls.__name__}(a=1, b='x', c=[])"
    assert [item.name for item in dataclasses.fields(one)] == ["a", "b", "c", "d"]
    assert dataclasses.asdict(one) == {"a": 1, "b": "x", "c": [], "d": 9}
    assert dataclasses.replace(one, b="z").b == "z"
    assert cls.__match_args__ == ("a", "b", "c", "d")
    assert cls(1).c is not cls(1).c
    with pytest.raises(dataclasses.FrozenInstanceError):
        one.a = 2
    with pytest.raises(dataclasses.FrozenInstanceError):
        del one.a
    with pytest.raises((AttributeError, TypeError)):
        one.other = 2
    assert not hasattr(one, "__dict__")
    assert copy.deepcopy(one) == one
    assert pickle.loads(pickle.dumps(one)) == one


@pytest.mark.parametrize("cls", [Ours, Theirs])
@pytest.mark.parametrize(("args", "said"), [((), {}), ((1, "x", [], 4, 5), {}), ((1,), {"a": 1}), ((1,), {"other": 1})])
def test_wrong_values_are_refused(cls: Any, args: tuple[Any, ...], said: dict[str, Any]) -> None:
    with pytest.raises(TypeError):
        cls(*args, **said)


def test_a_class_below_has_the_fields_of_both() -> None:
    one = OursBelow(1, e=6)
    assert (one.a, one.d, one.e) == (1, 4, 6)
    assert one != Ours(1)
    with pytest.raises(TypeError):
        OursBelow(1, "x", [], 4, 6)  # type: ignore[call-arg]


def test_a_changed_copy_is_what_replace_makes() -> None:
    one = Ours(1, d=9, c=[3])
    for said in ({}, {"a": 2}, {"c": [], "d": 0}):
        assert repr(changed(one, **said)) == repr(dataclasses.replace(one, **said))
        assert changed(one, **said) == dataclasses.replace(one, **said)
    assert changed(one).c is one.c
    below = OursBelow(1, e=6)
    assert changed(below, a=2) == dataclasses.replace(below, a=2)
    assert changed(below, a=2).e == 6
    with pytest.raises(TypeError, match="has no 'z'"):
        changed(one, z=1)
