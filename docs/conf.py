"""The site's settings for Sphinx: ``make docs`` builds docs/_build/html without a warning, or fails.

The reference is made anew from the program before each build (reference.py). Notebooks are shown as they are stored; with
CELLWALL_DOCS_EXECUTE=cache they are run for the site, each once until it changes.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent / "src")]

import reference  # noqa: E402

import cellwall  # noqa: E402

project = "cellwall"
author = "the cellwall project"
version = release = cellwall.__version__
extensions = ["myst_nb"]
html_theme = "furo"
html_title = "cellwall"
# `make pictures` takes them, in a browser; without all of them the gallery isn't on the site.
_GALLERY = re.findall(r"\]\((pictures/[^)]+)\)", (HERE / "gallery.md").read_text())
PICTURES = all((HERE / path).exists() for path in _GALLERY)
exclude_patterns = ["_build", *([] if PICTURES else ["gallery.md"])]
myst_enable_extensions = ["deflist"]
myst_heading_anchors = 3
nb_execution_mode = os.environ.get("CELLWALL_DOCS_EXECUTE", "off")
nb_execution_timeout = 300
# The quickstart runs on the kernel that `make quickstart` installs.
nb_kernel_rgx_aliases = {"cellwall": "python3"}
nb_execution_raise_on_error = True
# A cell's own languages have no lexer: %%container is neither Python nor a shell.
suppress_warnings = ["misc.highlighting_failure", "mystnb.unknown_mime_type"]


def links(app: Any, page: str, source: list[str]) -> None:
    """Called by Sphinx for each page: notebooks stand beside the pages on the site, and above them in the tree."""
    source[0] = source[0].replace("](../notebooks/", "](notebooks/")
    if page == "index" and not PICTURES:
        source[0] = source[0].replace("\ngallery\n", "\n")


def setup(app: Any) -> None:
    """Called by Sphinx: write the reference, and bring the notebooks to where Sphinx looks for pages."""
    app.connect("source-read", links)
    reference.write(HERE / "reference")
    folder = HERE / "notebooks"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    shutil.copytree(HERE.parent / "notebooks/pictures", folder / "pictures")
    names = sorted(path.name for path in (HERE.parent / "notebooks").glob("*.ipynb"))
    for name in names:
        shutil.copy(HERE.parent / "notebooks" / name, folder / name)
    listed = "\n".join(names)
    text = f"# Notebooks\n\nEach runs from top to bottom in a kernel with cellwall.\n\n```{{toctree}}\n{listed}\n```\n"
    (folder / "index.md").write_text(text)
