"""``frozen`` and ``slotted`` make what ``dataclass(slots=True)`` makes, frozen and not, without ``dataclasses``."""

from __future__ import annotations

import copy
import dataclasses
import pickle
import subprocess
import sys
from typing import Any, ClassVar

import pytest

from cellwall.runtime.frozen import asdict, field, fields, frozen, has_fields, replace, slotted


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
    c: list[int] = dataclasses.field(default_factory=list, compare=False)
    d: int = dataclasses.field(default=4, repr=False)

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
        assert repr(replace(one, **said)) == repr(dataclasses.replace(one, **said))
        assert replace(one, **said) == dataclasses.replace(one, **said)
    assert replace(one).c is one.c
    below = OursBelow(1, e=6)
    assert replace(below, a=2) == dataclasses.replace(below, a=2)
    assert replace(below, a=2).e == 6
    with pytest.raises(TypeError, match="has no 'z'"):
        replace(one, z=1)  # type: ignore[call-arg]


@slotted
class Set:
    """Its values may be set."""

    inner: list[Ours]
    names: dict[str, Ours] = field(default_factory=dict)


def test_what_may_be_set_has_no_hash() -> None:
    one = Set([Ours(1)])
    one.names = {"a": Ours(2)}
    assert one == Set([Ours(1)], {"a": Ours(2)})
    assert repr(one) == "Set(inner=[Ours(a=1, b='x', c=[])], names={'a': Ours(a=2, b='x', c=[])})"
    assert not hasattr(one, "__dict__")
    with pytest.raises(TypeError):
        hash(one)
    assert copy.deepcopy(one) == pickle.loads(pickle.dumps(one)) == one


def test_helpers_answer_as_those_of_dataclasses_do() -> None:
    one = Set([Ours(1, "z")], {"k": OursBelow(2, e=3)})
    assert asdict(one) == dataclasses.asdict(one)
    for item in (one, one.inner[0], one.names["k"]):
        assert has_fields(item)
        assert not has_fields(type(item))
        assert [known.name for known in fields(item)] == [known.name for known in dataclasses.fields(item)]
    assert not has_fields(3)
    assert replace(one.names["k"], b="y") == dataclasses.replace(one.names["k"], b="y")
    if sys.version_info >= (3, 13):
        assert copy.replace(one.inner[0], b="y") == Ours(1, "y")
    with pytest.raises(TypeError):
        replace(one.inner[0], other=1)  # type: ignore[call-arg]


def test_eq_may_be_left_to_identity() -> None:
    @frozen(eq=False)
    class Alone:
        a: int

    one = Alone(1)
    assert one == one
    assert one != Alone(1)
    assert len({one, Alone(1)}) == 2


def test_a_default_that_can_change_is_refused() -> None:
    with pytest.raises(TypeError):

        @frozen
        class Shared:
            a: list[int] = []

    with pytest.raises(TypeError):

        @slotted
        class Other:
            a: int = dataclasses.field(default=1)


def test_it_doesnt_import_dataclasses_until_somebody_asks() -> None:
    script = (
        "from __future__ import annotations\n"
        "import sys\n"
        "from cellwall.runtime.frozen import frozen\n"
        "@frozen\n"
        "class One:\n"
        "    a: int\n"
        "assert One(1) == One(1) and 'dataclasses' not in sys.modules and 'inspect' not in sys.modules\n"
        "import dataclasses\n"
        "assert [item.name for item in dataclasses.fields(One)] == ['a']\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True)
