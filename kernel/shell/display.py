"""What a container may show besides text: pictures, Markdown, JSON; nothing that could run in the notebook's page.

A page of JupyterLab may do all that its user may, so HTML and scripts of a container are never passed on. A picture is told by
its own first bytes, not by what it is called. SVG is shown as an image, in which browsers run no script.
Source: Jupyter messaging protocol, "display_data"; HTML standard, "The img element" (SVG images run no scripts).
"""

from __future__ import annotations

import base64
import json
import re
from typing import Any

_SVG = re.compile(rb"\s*(?:<\?xml[^>]*>\s*|<!--.*?-->\s*|<!DOCTYPE[^>]*>\s*)*<svg[\s>]", re.DOTALL)
_TEXTS = {"text/plain", "text/markdown"}
# Markdown and JSON are drawn by the page, element by element.
_MOST_TEXT = 1 << 20


def bundle(kind: str, data: bytes) -> dict[str, Any] | str:
    """The MIME bundle of ``data``, which is said to be of MIME type ``kind`` (``auto``: look), or why it isn't shown."""
    found = _picture(data)
    size = f"{len(data):,} bytes"
    if found == "image/svg+xml":
        source = base64.b64encode(data).decode()
        image = f'<img alt="SVG picture, {size}" src="data:image/svg+xml;base64,{source}">'
        return {"text/plain": f"[{found}, {size}]", "text/html": image}
    if found:
        return {"text/plain": f"[{found}, {size}]", found: base64.b64encode(data).decode()}
    if kind in _TEXTS or kind == "application/json":
        if len(data) > _MOST_TEXT:
            return f"{kind} of {size} isn't shown: 1 MiB is the most"
        text = data.decode("utf-8", "replace")
        if kind == "application/json":
            try:
                return {"text/plain": text, kind: json.loads(text)}
            except (ValueError, RecursionError):
                return {"text/plain": text}
        return {"text/plain": text} if kind == "text/plain" else {"text/plain": text, kind: text}
    if kind in ("auto", "") or kind.startswith("image/"):
        return f"what was to be shown ({size}) is no picture that is known: PNG, JPEG, GIF, WebP and SVG are"
    return f"{printed(kind)} isn't shown: a container's pictures, text/markdown, text/plain and application/json are"


def _picture(data: bytes) -> str:
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return "image/png"
    if data.startswith(b"\xff\xd8\xff"):
        return "image/jpeg"
    if data.startswith((b"GIF87a", b"GIF89a")):
        return "image/gif"
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "image/webp"
    return "image/svg+xml" if _SVG.match(data[:4096]) else ""


def printed(text: str) -> str:
    """A word of the container's, short and without control characters."""
    from ...runtime.cli.table import printable

    return printable(text[:60])
