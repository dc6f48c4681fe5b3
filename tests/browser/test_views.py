"""Every view in JupyterLab in a real Chromium: readable in both themes and at three widths, folding, and deaf to hostile input.

The pictures are left in the test's temporary folder for a person to look at.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from ..netns import Netns
from ..registries import busybox_image, write_layout
from ..tree import TOP
from .lab import SHOWN, THEMES, Open, browsing, notebook_of, opened, plain, serving, within

pytestmark = [pytest.mark.browser, pytest.mark.needs("root", "chromium", "nft", "bridge-links", "nftables-nat")]

# What would show that markup or script of somebody else's came to life.
EVIL = "<img src=x onerror=window.hacked=1><script>window.hacked=1</script>"
BREAKS_OUT = "\\\"'><b onmouseover=window.hacked=1>"
CONTROLS = "\\x1b[31mred\\x1b[0m\\u202eelif\\u2066\\u200f"
LONG = "x" * 10_000

SETUP = f"""%load_ext cellwall
import os, tempfile
folder = tempfile.mkdtemp(prefix="cw <b>")
os.mkdir(folder + "/<img src=x onerror=window.hacked=1>")
labels = {{"evil": {EVIL!r}, "breaks": "{BREAKS_OUT}", "controls": "{CONTROLS}", "long": {LONG!r}}}
with open(folder + "/labels", "w") as file:
    file.write("".join(f"{{key}}={{value}}\\n" for key, value in labels.items()))
"""
HOSTILE_FILES = "\n".join(
    [
        "%%container host --diff",
        "cd /root; touch '<img src=x onerror=window.hacked=1>' $'\\x1b[31mred\\xe2\\x80\\xae' \"\\\"'><b onmouseover=window.hacked=1>\"",
        "echo '<script>window.hacked=1</script>'",
    ]
)
CELLS = [
    SETUP,
    "%container run -d --name web -p 80 --label-file '{folder}/labels' -m 64m --cpus 0.5 -v '{folder}/<img src=x onerror=window.hacked=1>:/mnt/<b onclick=1>' host bash -c 'exec -a \"<b onclick=1>\" sleep 1000'",
    "%%container host\necho out",
    HOSTILE_FILES,
    "%%container host -m 64m --no-raise-error\nhead -c 200M /dev/zero | tail -n 1 > /dev/null",
    "%container ps",
    "%container stats --no-stream",
    "%container top web",
    "%container inspect web",
    "%network inspect bridge",
    "%container diff web",
    "%image ls",
    "%%layer IMAGE -t evil\n: '" + EVIL + "'; echo $A $HOME > /made",
    "%image history evil",
    "%container system df -v",
    "%container doctor",
    "%layers web",
    "%layers evil",
    "%layers web --path '/mnt/<b onclick=1>'",
    "%namespaces web",
    "%cgroups web",
    "%mounts web",
]
TAGS = {
    *("div", "span", "b", "table", "thead", "tbody", "tr", "th", "td", "details", "summary", "s", "br"),
    *("svg", "title", "desc", "rect", "text", "tspan", "polyline", "polygon", "path", "circle", "line", "g"),
}


def test_views_in_a_browser(cellwall_root: Path, tmp_path: Path) -> None:
    image = f"oci:{write_layout(tmp_path / 'image', {'latest': busybox_image()})}:latest"
    with Netns() as host:
        inside = within(host)
        with (
            serving(
                notebook_of([cell.replace("IMAGE", image) for cell in CELLS]), tmp_path / "lab", cellwall_root, inside
            ) as address,
            opened(address, width=1400, inside=inside) as lab,
        ):
            notebook = look(lab, tmp_path)
        host.run(sys.executable, "-m", "cellwall", "rm", "-f", "web")
    check_converted(notebook, tmp_path)
    check_untrusted(notebook, tmp_path, cellwall_root)


def look(lab: Open, tmp_path: Path) -> dict[str, Any]:
    """Drive and check every view; returns the notebook as it was saved."""
    for number in range(len(CELLS)):
        lab.run(number)
        assert "Error: " not in lab.outputs(number), lab.outputs(number)
    check_hostile(lab)
    check_folding(lab)
    for theme in THEMES:
        lab.theme(theme)
        for width in (1400, 700, 420):
            lab.width(width)
            assert lab.overflows(SHOWN) == [], f"{theme} at {width}"
            lab.page.locator(".jp-Notebook").screenshot(path=str(tmp_path / f"{theme.split()[1]}-{width}.png".lower()))
        worst, text = lab.contrasts(SHOWN)[0]
        assert worst >= 4.5, f"{text!r} in {theme}"
    lab.execute("docmanager:save")
    saved = tmp_path / "lab/notebooks/cells.ipynb"
    lab.page.wait_for_function("!document.querySelector('.jp-mod-dirty')")
    found: dict[str, Any] = json.loads(saved.read_text())
    return found


def check_hostile(lab: Open) -> None:
    """No script ran, no element and no attribute came to be that isn't ours; what was written is there to be read."""
    assert lab.page.evaluate("window.hacked") is None
    found = lab.page.evaluate(
        """selector => [...document.querySelectorAll(selector)].flatMap(root => [...root.querySelectorAll('*')])
            .map(element => [element.tagName.toLowerCase(), element.getAttributeNames()])""",
        SHOWN,
    )
    assert {tag for tag, _ in found} <= TAGS
    assert not {name for _, names in found for name in names if name.startswith("on") or name in ("href", "src", "id")}
    assert "<img src=x onerror=window.hacked=1>" in lab.outputs(3)
    assert "\\x1b[31mred\\u202e" in lab.outputs(3)
    assert "<script>" in lab.outputs(3)


def check_folding(lab: Open) -> None:
    """What is folded unfolds by mouse and by keyboard, and its text can be selected."""
    line = lab.cell(2).locator("summary")
    assert "exit 0" in line.inner_text()
    digest = lab.cell(2).get_by_text("sha256:")
    assert not digest.is_visible()
    line.click()
    assert digest.is_visible()
    line.focus()
    lab.page.keyboard.press("Enter")
    assert not digest.is_visible()
    lab.page.keyboard.press("Enter")
    digest.click(click_count=3)
    assert "sha256:" in lab.page.evaluate("getSelection().toString()")


def texts(notebook: dict[str, Any]) -> list[str]:
    """The text twin of each view of a notebook."""
    outputs = [
        output for cell in notebook["cells"] for output in cell["outputs"] if "text/html" in output.get("data", {})
    ]
    return ["".join(output["data"]["text/plain"]) for output in outputs]


def check_converted(notebook: dict[str, Any], tmp_path: Path) -> None:
    """nbconvert's page shows the same in light and dark."""
    source = tmp_path / "saved.ipynb"
    source.write_text(json.dumps(notebook))
    with browsing() as browser:
        for theme in ("light", "dark"):
            command = [sys.executable, "-m", "nbconvert", "--to", "html", "--theme", theme, "--output", f"{theme}.html"]
            subprocess.run([*command, str(source)], check=True, capture_output=True, cwd=tmp_path)
            page = browser.new_page(viewport={"width": 1000, "height": 900})
            # Nothing of the page is fetched: nbconvert's own links to scripts aren't needed to see it.
            page.route("http*://**", lambda route: route.abort())
            page.goto(f"file://{tmp_path}/{theme}.html")
            shown = Open(page)
            assert page.evaluate("window.hacked") is None
            selector = ".jp-RenderedHTMLCommon.jp-OutputArea-output"
            assert page.locator(selector).count() == len(texts(notebook))
            worst, text = shown.contrasts(selector)[0]
            assert worst >= 4.5, f"{text!r} in nbconvert's {theme}"
            for width in (1400, 700):
                page.set_viewport_size({"width": width, "height": 900})
                assert shown.overflows(selector) == []
            page.screenshot(path=str(tmp_path / f"converted-{theme}.png"), full_page=True)


def check_untrusted(notebook: dict[str, Any], tmp_path: Path, root: Path) -> None:
    """A notebook that somebody sent loses pictures and colours, and no fact."""
    with serving(notebook, tmp_path / "untrusted", root) as address, opened(address, kernel=False) as lab:
        lab.page.wait_for_selector(SHOWN)
        assert lab.page.locator(f"{SHOWN} svg").count() == 0
        lab.page.evaluate("document.querySelectorAll('details').forEach(one => one.open = true)")
        found = plain(lab.page.locator(".jp-Notebook").inner_text())
        for fact in ("exit 0", "out of memory", "peak 64 MiB", "sha256:", "cw-", "0.0.0.0:", "80/tcp", "✓ ok", "eth0"):
            assert fact in found, fact
        assert lab.page.evaluate("window.hacked") is None
        lab.page.locator(".jp-Notebook").screenshot(path=str(tmp_path / "untrusted.png"))


def test_a_terminal_shows_the_text_twin(cellwall_root: Path, tmp_path: Path) -> None:
    """IPython in a terminal prints what the command line prints."""
    script = "%load_ext cellwall\n%container doctor\nexit\n"
    environment = {"PYTHONPATH": str(TOP / "src"), "IPYTHONDIR": str(tmp_path), "CELLWALL_ROOT": str(cellwall_root)}
    command = [sys.executable, "-m", "IPython", "--simple-prompt", "--no-banner", "--colors=NoColor"]
    shell = subprocess.run(
        command,
        input=script,
        capture_output=True,
        text=True,
        env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", **environment},
    )
    assert "overlay-userns" in shell.stdout
    assert max(map(len, shell.stdout.splitlines())) < 200
