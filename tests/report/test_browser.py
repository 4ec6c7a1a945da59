"""The page in a browser: as wide as a phone and as a screen, light and dark, without an error on the console."""

from __future__ import annotations

import html as escapes
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from .test_page import everything, html  # noqa: F401 - fixtures

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")

# A page in a frame of some width; the title tells how wide its content is, and how many links lead nowhere.
FRAME = """<!DOCTYPE html><title>none</title><body style="margin: 0">
<iframe style="width: WIDTHpx; height: 900px; border: 0" srcdoc="PAGE"></iframe><script>
addEventListener("load", () => {
  const page = document.querySelector("iframe").contentDocument, root = page.documentElement;
  const dead = [...page.querySelectorAll("a")].filter((a) => !page.querySelector(a.getAttribute("href")));
  const charts = [...page.querySelectorAll("figure > div svg")];
  const hidden = charts.filter((svg) => svg.getBoundingClientRect().height < 50);
  const paper = getComputedStyle(page.body).backgroundColor;
  document.title = [root.scrollWidth, dead.length, hidden.length, paper].join(" ");
});</script>"""


@pytest.mark.slow
@pytest.mark.skipif(BROWSER is None, reason="needs Chromium")
@pytest.mark.parametrize("width", [400, 1200])
@pytest.mark.parametrize("dark", [False, True])
def test_the_page_fits(html: str, width: int, dark: bool, tmp_path: Path) -> None:  # noqa: F811
    """Tables scroll by themselves: the page is never wider than what it is shown on."""
    frame = FRAME.replace("WIDTH", str(width)).replace("PAGE", escapes.escape(html))
    (tmp_path / "frame.html").write_text(frame, encoding="utf-8")
    scheme = ["--blink-settings=preferredColorScheme=0"] if dark else []
    command = [
        str(BROWSER), "--headless=new", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}",
        "--window-size=1300,1000", "--hide-scrollbars", "--virtual-time-budget=5000", "--enable-logging=stderr",
        *scheme, "--dump-dom", (tmp_path / "frame.html").as_uri(),
    ]  # fmt: skip
    run = subprocess.run(command, capture_output=True, text=True, timeout=240, check=True)
    assert ":CONSOLE" not in run.stderr
    found = re.search(r"<title>(\d+) (\d+) (\d+) rgb\((\d+)", run.stdout)
    assert found is not None
    assert [int(text) for text in found.groups()[:3]] == [width, 0, 0]
    assert (int(found[4]) < 60) == dark
