"""Makes the pictures of docs/gallery.md: runs a notebook in JupyterLab in a real Chromium and takes each output in light and dark.

To be run as root from the checkout (`make pictures`). Names of pictures as arguments: those alone. Everything that it starts lives in a
network namespace and a state folder of its own, which go with it. CELLWALL_PICTURES names a state folder that stays: the next run finds its
base image there, which is otherwise built from Debian's archive.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

TOP = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(TOP))

from scripts.shrink_png import shrink  # noqa: E402
from tests.browser.lab import THEMES, Open, notebook_of, opened, serving, within  # noqa: E402
from tests.netns import Netns  # noqa: E402

PICTURES = TOP / "docs/pictures"
# So wide is a picture; a README's column is about that.
WIDTH = 860
MOST_PIXELS = 900
LARGE = 60_000

# What has to stand before the pictures are taken.
SETUP = [
    "%load_ext cellwall",
    "%%layer debian:bookworm -t lab:1\nmkdir -p /opt/site && seq 20000 > /opt/site/data.csv && echo '<h1>hello</h1>' > /opt/site/index.html",
    "%%layer lab:1 -t lab:2\nrm /opt/site/data.csv && seq 3000 > /opt/site/small.csv",
    "%network create demo",
    "%container run -d --name web --network demo -p 8080:80 -m 64m --cpus 0.5 --pids-limit 20 lab:2 "
    "sh -c 'seq 900 > /opt/site/new.csv; rm /opt/site/small.csv; exec sleep 1000'",
    "%container run -d --name db --network demo -v data:/var/lib/db -m 128m lab:1 sleep 1000",
]
# Name: the cell, and whether all that folds is unfolded at its first level.
CELLS: dict[str, tuple[str, bool]] = {
    "cell": ("%%container lab:2 -m 64m --diff\necho hello | tee /opt/site/index.html\nrm /opt/site/small.csv", False),
    "out-of-memory": (
        "%%container debian:bookworm -m 64m --no-raise-error\nhead -c 200M /dev/zero | tail -n 1 > /dev/null",
        True,
    ),
    "layers": ("%layers web", False),
    "layers-path": ("%layers web --path /opt/site/small.csv", False),
    "namespaces": ("%namespaces web", False),
    "cgroups": ("%cgroups web", False),
    "mounts": ("%mounts web", False),
    "trace": ("%container trace -m 64m lab:2 true", False),
    "network": ("%network inspect demo", False),
    "ps": ("%container ps", False),
    "stats": ("%container stats --no-stream", False),
    "history": ("%image history lab:2", False),
    "doctor": ("%container doctor", False),
}


def main(wanted: list[str]) -> int:
    """Make all pictures, or those ``wanted``; returns how many are too large."""
    chosen = {name: CELLS[name] for name in wanted or CELLS}
    PICTURES.mkdir(exist_ok=True)
    cells = [*SETUP, *(text for text, _ in chosen.values())]
    folder = Path(tempfile.mkdtemp(prefix="cw-lab-"))
    kept = os.environ.get("CELLWALL_PICTURES")
    root = Path(kept or tempfile.mkdtemp(prefix="cw-root-"))
    try:
        cellwall(root, "bootstrap", "--missing", "debian")
        with Netns() as host:
            inside = within(host)
            with (
                serving(notebook_of(cells), folder / "lab", root, inside) as address,
                opened(address, width=WIDTH + 140, height=MOST_PIXELS, inside=inside) as lab,
            ):
                for number in range(len(cells)):
                    lab.run(number)
                    print(cells[number].splitlines()[0], flush=True)
                for theme in THEMES:
                    lab.theme(theme)
                    for number, (name, (_, unfold)) in enumerate(chosen.items(), len(SETUP)):
                        picture(lab, number, PICTURES / f"{name}-{theme.split()[1].lower()}.png", unfold)
            clean(host, root)
    finally:
        shutil.rmtree(folder)
        if not kept:
            shutil.rmtree(root)
    return optimised(chosen)


def picture(lab: Open, number: int, path: Path, unfold: bool) -> None:
    cell = lab.cell(number)
    if unfold:
        cell.evaluate("cell => cell.querySelectorAll('.jp-OutputArea details').forEach(one => one.open = true)")
    cell.scroll_into_view_if_needed()
    lab.page.set_viewport_size({"width": WIDTH + 140, "height": MOST_PIXELS})
    area = cell.locator(".jp-Cell-outputWrapper, .jp-OutputArea").first
    lab.page.evaluate("() => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")
    box: dict[str, Any] = area.bounding_box()
    area.evaluate("area => area.scrollIntoView({block: 'start'})")
    box = area.bounding_box()
    height = min(box["height"], MOST_PIXELS - box["y"] - 30)
    lab.page.screenshot(
        path=str(path), clip={"x": box["x"], "y": box["y"], "width": box["width"], "height": max(height, 20)}
    )


def clean(host: Netns, root: Path) -> None:
    for words in (("rm", "-f", "-v", "web", "db"), ("network", "prune", "-f"), ("volume", "prune", "-af")):
        cellwall(root, *words, inside=within(host))
    cellwall(root, "rmi", "-f", "lab:1", "lab:2")


def cellwall(root: Path, *words: str, inside: Sequence[str] = ()) -> None:
    environment = os.environ | {"CELLWALL_ROOT": str(root), "PYTHONPATH": str(TOP / "src")}
    subprocess.run([*inside, sys.executable, "-m", "cellwall", *words], env=environment, check=True)


def optimised(chosen: dict[str, Any]) -> int:
    """Shrink the files, and say which are too large for the repository all the same."""
    large = 0
    for name in chosen:
        for theme in ("light", "dark"):
            path = PICTURES / f"{name}-{theme}.png"
            size = shrink(path)
            print(f"{path.name}: {size / 1000:.0f} kB")
            large += size > LARGE
    return large


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
