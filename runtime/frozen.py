"""``frozen`` and ``slotted``: dataclasses with slots, whose methods aren't made for them alone.

``dataclasses`` imports ``inspect`` and compiles six functions for each class, which is most of what importing a module of small classes
costs. Here all classes share them, and ``dataclasses`` is imported when somebody else asks a class for its fields. What comes out is a
dataclass for whoever looks: ``dataclasses.fields``, ``replace``, ``asdict`` and ``match`` work as ever; annotations have to be text, as
``from __future__ import annotations`` makes them. Imports nothing. Source: PEP 557, PEP 681.
"""

from __future__ import annotations

__all__ = ["asdict", "field", "fields", "frozen", "has_fields", "replace", "slotted"]

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from dataclasses import asdict, field, fields, replace
    from typing import Any, TypeVar, dataclass_transform, overload

    T = TypeVar("T")

    @overload
    def frozen(cls: type[T], /) -> type[T]: ...
    @overload
    def frozen(*, kw_only: bool = False, eq: bool = True) -> Callable[[type[T]], type[T]]: ...
    @dataclass_transform(frozen_default=True, field_specifiers=(field,))
    def frozen(cls: Any = None, /, *, kw_only: bool = False, eq: bool = True) -> Any: ...

    @dataclass_transform(field_specifiers=(field,))
    def slotted(cls: type[T], /) -> type[T]: ...

else:

    def frozen(cls=None, /, *, kw_only=False, eq=True):
        """Make ``cls`` what ``dataclass(frozen=True, slots=True)`` makes of it. ``kw_only`` and ``eq`` as there."""

        def make(cls):
            return _made(cls, {**_METHODS, **_FROZEN, **(_BY_VALUE if eq else {})}, kw_only)

        return make if cls is None else make(cls)

    def slotted(cls, /):
        """Make ``cls`` what ``dataclass(slots=True)`` makes of it: its values may be set, and it has no hash."""
        return _made(cls, {**_METHODS, **_BY_VALUE, "__hash__": None}, False)

    def field(*, default=..., default_factory=..., init=True, repr=True, compare=True):
        """Say more of a field than its default, as ``dataclasses.field``. Its default can't be the ellipsis."""
        return _Field(default, default_factory, init, repr, compare)

    def fields(one):
        """The fields of a class or an object of these kinds, in order; each has a ``name`` and its ``default``."""
        return one.__fields__

    def replace(one, /, **said):
        """``one`` again, with other values. Raises TypeError for a name that it doesn't have."""
        made = object.__new__(type(one))
        put = object.__setattr__
        for known in one.__fields__:
            name = known.name
            if known.init:
                put(made, name, said.pop(name) if name in said else getattr(one, name))
            elif known.default is not ...:
                put(made, name, known.default)
            elif known.default_factory is not ...:
                put(made, name, known.default_factory())
        if said:
            raise TypeError(f"{type(one).__name__} has no {', '.join(map(repr, said))}")
        if (after := getattr(made, "__post_init__", None)) is not None:
            after()
        return made

    def asdict(one):
        """The values by the names of their fields, also within lists, tuples and mappings; what is none of these stays as it is."""
        return {known.name: _plain(getattr(one, known.name)) for known in one.__fields__}


def has_fields(one: object) -> bool:
    """Whether ``one`` is an object of these kinds."""
    return hasattr(one, "__fields__") and not isinstance(one, type)


def _plain(value: Any) -> Any:
    if has_fields(value):
        return asdict(value)
    if isinstance(value, (list, tuple)):
        return type(value)(map(_plain, value))
    if isinstance(value, dict):
        return {_plain(key): _plain(one) for key, one in value.items()}
    return value


class _Field:
    """What is known of a field; ``...``: there is no default, or nothing that makes one."""

    __slots__ = ("compare", "default", "default_factory", "init", "kw_only", "name", "repr", "type")
    name: str
    type: str
    kw_only: bool

    def __init__(self, default: Any, default_factory: Any, init: bool, repr: bool, compare: bool) -> None:
        self.default = default
        self.default_factory = default_factory
        self.init = init
        self.repr = repr
        self.compare = compare


class _Asked:
    """What ``dataclasses`` looks for in a class, made when somebody looks."""

    __slots__ = ("_name",)

    def __init__(self, name: str) -> None:
        self._name = name

    def __get__(self, one: object, cls: type) -> Any:
        import dataclasses

        said: list[tuple[str, Any, Any]] = []
        for known in cls.__fields__:  # type: ignore[attr-defined]
            keywords = {name: getattr(known, name) for name in ("init", "repr", "compare", "kw_only")}
            for name in ("default", "default_factory"):
                if (value := getattr(known, name)) is not ...:
                    keywords[name] = value
            said.append((known.name, known.type, dataclasses.field(**keywords)))
        still: Any = cls.__setattr__
        twin = dataclasses.make_dataclass(
            cls.__name__, said, init=False, repr=False, eq=False, frozen=still is _setattr
        )
        found = getattr(twin, self._name)
        setattr(cls, self._name, found)
        return found


def _made(cls: Any, methods: dict[str, Any], kw_only: bool) -> Any:
    space = dict(vars(cls))
    known: dict[str, _Field] = {}
    taken: set[str] = set()
    for above in cls.__mro__[-2:0:-1]:
        known.update((one.name, one) for one in getattr(above, "__fields__", ()))
        taken.update(above.__dict__.get("__slots__", ()))
    for name, text in cls.__annotations__.items():
        if text.startswith("ClassVar"):
            continue
        one = space.pop(name, ...)
        if type(one) is not _Field:
            if type(one).__hash__ is None or type(one).__module__ == "dataclasses":
                raise TypeError(
                    f"{cls.__name__}.{name}: a default that can change, or isn't made by field of frozen.py"
                )
            one = _Field(one, ..., True, True, True)
        one.name, one.type, one.kw_only = name, text, kw_only
        known[name] = one
    for name, method in methods.items():
        space.setdefault(name, method)
    for name in ("__dict__", "__weakref__"):
        space.pop(name, None)
    space["__slots__"] = tuple(name for name in known if name not in taken)
    space["__match_args__"] = tuple(name for name, one in known.items() if one.init and not one.kw_only)
    space["__fields__"] = tuple(known.values())
    return type(cls)(cls.__name__, cls.__bases__, space)


def _init(self: Any, /, *args: Any, **said: Any) -> None:
    cls = type(self)
    if args:
        names = cls.__match_args__
        if len(args) > len(names):
            raise TypeError(f"{cls.__name__} takes at most {len(names)} values by position, and got {len(args)}")
        for name, one in zip(names, args, strict=False):
            if name in said:
                raise TypeError(f"{cls.__name__} got {name!r} twice")
            said[name] = one
    put = object.__setattr__
    for known in cls.__fields__:
        name = known.name
        if known.init and name in said:
            put(self, name, said.pop(name))
        elif known.default is not ...:
            put(self, name, known.default)
        elif known.default_factory is not ...:
            put(self, name, known.default_factory())
        elif known.init:
            raise TypeError(f"{cls.__name__} needs {name!r}")
    if said:
        raise TypeError(f"{cls.__name__} has no {', '.join(map(repr, said))}")
    if (after := getattr(self, "__post_init__", None)) is not None:
        after()


def _repr(self: Any) -> str:
    shown = ", ".join(f"{one.name}={getattr(self, one.name)!r}" for one in self.__fields__ if one.repr)
    return f"{type(self).__qualname__}({shown})"


def _compared(self: Any) -> tuple[Any, ...]:
    return tuple([getattr(self, one.name) for one in self.__fields__ if one.compare])


def _eq(self: Any, other: object) -> Any:
    return _compared(self) == _compared(other) if other.__class__ is self.__class__ else NotImplemented


def _hash(self: Any) -> int:
    return hash(_compared(self))


def _setattr(self: Any, name: str, _: object) -> None:
    from dataclasses import FrozenInstanceError

    raise FrozenInstanceError(f"cannot assign to field {name!r}")


def _delattr(self: Any, name: str) -> None:
    from dataclasses import FrozenInstanceError

    raise FrozenInstanceError(f"cannot delete field {name!r}")


def _getstate(self: Any) -> list[Any]:
    return [getattr(self, one.name) for one in self.__fields__]


def _setstate(self: Any, state: list[Any]) -> None:
    for one, said in zip(self.__fields__, state, strict=True):
        object.__setattr__(self, one.name, said)


_METHODS = {
    "__init__": _init,
    "__repr__": _repr,
    "__replace__": replace,  # what copy.replace asks for, from Python 3.13 on
    "__dataclass_fields__": _Asked("__dataclass_fields__"),
    "__dataclass_params__": _Asked("__dataclass_params__"),
}
_BY_VALUE = {"__eq__": _eq, "__hash__": _hash}
_FROZEN = {"__setattr__": _setattr, "__delattr__": _delattr, "__getstate__": _getstate, "__setstate__": _setstate}
