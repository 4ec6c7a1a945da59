"""The site in a browser without a window: no page says anything on the console, and the search answers.

Needs Chromium (Debian: ``apt-get install chromium``).
"""

from __future__ import annotations

import functools
import shutil
import subprocess
import threading
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from .site import site as site

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed: apt-get install chromium"),
]
# One of each kind: start, blocks of code, formulas, wide tables, the reference, another tab.
PAGES = (
    "",
    "quickstart/",
    "tutorials/one_kernel/",
    "methods/amr/",
    "results/",
    "api/fastamr.ops/",
    "api/",
    "contributing/",
)


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *arguments: object) -> None:
        """Requests are of no interest."""


@pytest.fixture(scope="module")
def address(site: Path) -> Iterator[str]:
    """The site behind an address of this machine."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(_Quiet, directory=str(site)))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()
    server.server_close()


def opened(url: str, profile: Path) -> tuple[str, list[str]]:
    """Open a page; return the document after its scripts ran, and the lines of the console.

    No name but this machine's is resolved, as without a network.
    """
    assert CHROMIUM is not None
    done = subprocess.run(
        [
            CHROMIUM,
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
            f"--user-data-dir={profile}",
            "--enable-logging=stderr",
            "--timeout=8000",
            "--virtual-time-budget=8000",
            "--dump-dom",
            url,
        ],
        capture_output=True,
        text=True,
        timeout=240,
        check=True,
    )
    return done.stdout, [line for line in done.stderr.splitlines() if "CONSOLE" in line]


@pytest.mark.parametrize("page", PAGES)
def test_no_page_complains(address: str, page: str, tmp_path: Path) -> None:
    document, console = opened(address + page, tmp_path)
    assert "md-content" in document
    # A script of the theme has run.
    assert 'class="js ' in document or "js-" in document
    assert console == []


def test_an_error_on_the_console_would_be_found(tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    page.write_text("<script>undefined_name()</script>", encoding="utf-8")
    _, console = opened(page.as_uri(), tmp_path / "profile")
    assert any("undefined_name" in line for line in console)


def test_the_search_answers(address: str, tmp_path: Path) -> None:
    document, console = opened(f"{address}?q=sinkhorn", tmp_path)
    assert console == []
    results = document.split("md-search-result__list", 1)[1]
    assert "methods/slim/" in results
