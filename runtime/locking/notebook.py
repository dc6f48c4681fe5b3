"""A notebook file: its cells' texts, and its lock read and written. All of its other bytes stay as they are.

Nothing in it is run. Source: the notebook format 4 of nbformat; RFC 8259.
"""

from __future__ import annotations

import glob
import json
import os
import stat
from collections.abc import Iterator
from contextlib import suppress
from json.decoder import scanstring  # type: ignore[attr-defined]
from pathlib import Path
from typing import Any

from ..errors import LockError
from .lock import Lock

# Notebooks with pictures in them are large; nothing that is read by hand is larger.
LIMIT_BYTES = 1 << 30
_FORMAT = 4
_BLANK = " \t\r\n"
_KEY, _LOCK = "cellwall", "lock"


class NotebookFile:
    """A notebook as it is on disk now. Raises LockError where it isn't one."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._raw = _read(path)
        try:
            self._text = self._raw.decode()
            self._document = json.loads(self._text)
        except (ValueError, RecursionError):
            raise _not_one(path, "it isn't JSON") from None
        if not isinstance(self._document, dict) or not isinstance(self._document.get("cells"), list):
            raise _not_one(path, "it has no list of cells")
        if self._document.get("nbformat") != _FORMAT:
            raise _not_one(path, f"its nbformat isn't {_FORMAT}: open it in Jupyter and save it")
        if not isinstance(self._document.get("metadata"), dict):
            raise _not_one(path, "it has no metadata")

    def cells(self) -> Iterator[tuple[int, str]]:
        """``(number, text)`` of each code cell; the first cell of all is number 1."""
        for number, cell in enumerate(self._document["cells"], 1):
            if not isinstance(cell, dict) or cell.get("cell_type") != "code":
                continue
            source = cell.get("source")
            if isinstance(source, list) and all(isinstance(line, str) for line in source):
                source = "".join(source)
            if isinstance(source, str):
                yield number, source

    @property
    def lock(self) -> Lock | None:
        """Its lock, or None where it has none. Raises LockError for one that can't be read."""
        ours = self._document["metadata"].get(_KEY)
        if not isinstance(ours, dict) or _LOCK not in ours:
            return None
        return Lock.read(ours[_LOCK], str(self.path))

    def write(self, lock: Lock) -> bool:
        """Put ``lock`` into the file, whole or not at all; whether that changed it. Raises LockError."""
        data = lock.to_dict()
        ours = self._document["metadata"].get(_KEY)
        if ours is not None and not isinstance(ours, dict):
            raise LockError(f"metadata.{_KEY} of {self.path} is no object: remove it, so that the lock can stand there")
        if ours is not None and ours.get(_LOCK) == data:
            return False
        text = with_lock(self._text, data)
        self._check(text, data)
        _replace(self.path, text.encode())
        return True

    def _check(self, text: str, data: dict[str, Any]) -> None:
        """Make sure that the new text is the old document with the lock in it, before any of it is written."""
        before = json.loads(self._text, parse_constant=str, parse_float=str)
        before["metadata"].setdefault(_KEY, {})[_LOCK] = data
        if json.loads(text, parse_constant=str, parse_float=str) != before:
            raise LockError(
                f"{self.path} can't be changed without changing more than its lock: save it in Jupyter first"
            )


def with_lock(text: str, lock: dict[str, Any]) -> str:
    """The notebook ``text`` with ``lock`` at ``metadata.cellwall.lock``, in its own indentation, and no other change."""
    document = _Object(text, _start(text))
    metadata = _Object(text, document.values["metadata"][0])
    if _KEY not in metadata.values:
        return metadata.insert(_KEY, {_LOCK: lock}, document)
    ours = _Object(text, metadata.values[_KEY][0])
    if _LOCK not in ours.values:
        return ours.insert(_LOCK, lock, document)
    begin, end = ours.values[_LOCK]
    return text[:begin] + _dumped(lock, ours.margin or metadata.margin, document) + text[end:]


class _Object:
    """Where the members of one JSON object stand in a text. Of a name that comes twice the last counts, as in json.loads."""

    def __init__(self, text: str, begin: int) -> None:
        self.text, self.begin = text, begin
        # By name: begin and end of the value. By place: where the member's name begins.
        self.values: dict[str, tuple[int, int]] = {}
        self.names: list[tuple[str, int]] = []
        decoder = json.JSONDecoder()
        at = _skip(text, begin + 1)
        self.end = at
        while text[at] != "}":
            start = at
            name, at = scanstring(text, at + 1)
            at = _skip(text, _skip(text, at) + 1)
            _, end = decoder.raw_decode(text, at)
            self.values[name] = (at, end)
            self.names.append((name, start))
            self.end = end
            at = _skip(text, end)
            if text[at] == ",":
                at = _skip(text, at + 1)
        self.close = at

    @property
    def margin(self) -> str:
        """The line end and indentation before each member; empty where the object stands on one line or is empty."""
        if not self.names:
            return ""
        blank = self.text[self.begin + 1 : self.names[0][1]]
        return blank if "\n" in blank else ""

    def insert(self, name: str, value: Any, document: _Object) -> str:
        """The text with one more member: where it belongs if the members are sorted, else at the end."""
        text = self.text
        order = [known for known, _ in self.names]
        step, line_end = _step(document)
        margin = self.margin
        if not self.names and step:
            outer = text[text.rfind("\n", 0, self.begin) + 1 : self.begin]
            outer = outer[: len(outer) - len(outer.lstrip(" \t"))]
            margin = line_end + outer + step
        member = f"{json.dumps(name)}{_colon(document)}{_dumped(value, margin, document)}"
        if not order:
            closing = margin[: len(margin) - len(step)] if margin else ""
            return text[: self.begin + 1] + margin + member + closing + text[self.close :]
        after = next((at for known, at in self.names if known > name), None) if order == sorted(order) else None
        if after is not None:
            return text[:after] + member + "," + (margin or _gap(document)) + text[after:]
        return text[: self.end] + "," + (margin or _gap(document)) + member + text[self.end :]


def _start(text: str) -> int:
    return _skip(text, 0)


def _skip(text: str, at: int) -> int:
    while text[at] in _BLANK:
        at += 1
    return at


def _step(document: _Object) -> tuple[str, str]:
    """One level of indentation and the line end of a notebook; both empty where it stands on one line."""
    margin = document.margin
    line_end = margin[: margin.rfind("\n") + 1]
    return margin[len(line_end) :], line_end


def _colon(document: _Object) -> str:
    """What stands between a name and its value in this notebook."""
    name, at = document.names[0]
    _, end = scanstring(document.text, at + 1)
    return document.text[end : document.values[name][0]] if "\n" not in document.margin else ": "


def _gap(document: _Object) -> str:
    return " " if _colon(document).endswith(" ") else ""


def _dumped(value: Any, margin: str, document: _Object) -> str:
    """``value`` as JSON whose first line stands at ``margin``."""
    step, line_end = _step(document)
    if not margin or not line_end:
        return json.dumps(value, sort_keys=True, separators=(f",{_gap(document)}", _colon(document)))
    dumped = json.dumps(value, sort_keys=True, indent=step)
    return dumped.replace("\n", margin)


def _read(path: Path) -> bytes:
    try:
        # Without O_NONBLOCK a pipe would be waited for.
        with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise _not_one(path, "it isn't a regular file")
            raw = file.read(LIMIT_BYTES + 1)
    except OSError as error:
        raise LockError(
            f"{path} can't be read: {(error.strerror or str(error)).lower()}: name a notebook (.ipynb)"
        ) from None
    if len(raw) > LIMIT_BYTES:
        raise _not_one(path, f"it is larger than {LIMIT_BYTES} bytes")
    return raw


def _not_one(path: Path, why: str) -> LockError:
    return LockError(f"{path} isn't a notebook that can be locked: {why}")


def _replace(path: Path, content: bytes) -> None:
    """Write the file anew beside itself and rename it into place: it keeps its mode and owner, a link to it stays a link."""
    path = path.resolve()
    said = os.stat(path)
    # Root may write to what nobody may write to; whoever took all write bits away meant it.
    if not said.st_mode & 0o222 or not os.access(path, os.W_OK):
        raise LockError(f"{path} is read-only: make it writable (chmod u+w) to lock it")
    for left in path.parent.glob(f".tmp-{glob.escape(path.name)}-*"):
        pid = left.name.rpartition("-")[2]
        if pid.isdecimal() and not Path("/proc", pid).exists():  # killed while it wrote
            left.unlink(missing_ok=True)
    temporary = path.with_name(f".tmp-{path.name}-{os.getpid()}")
    try:
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with open(fd, "wb") as out:
            out.write(content)
            with suppress(PermissionError):  # an ordinary user's file of another group
                os.fchown(fd, said.st_uid, said.st_gid)
            os.fchmod(fd, stat.S_IMODE(said.st_mode))
            out.flush()
            os.fsync(fd)
        os.replace(temporary, path)
    except OSError as error:
        raise LockError(f"{path} can't be written: {(error.strerror or str(error)).lower()}") from None
    finally:
        temporary.unlink(missing_ok=True)
