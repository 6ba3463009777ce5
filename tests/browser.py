"""A real browser for pages that edgepack writes."""

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest


def browse(page: str, folder: Path, width: int, script: str, *, dark: bool = False) -> Any:
    """Return what a script says in Chromium when it shows a page; skips where there is none.

    Args:
        page: The HTML.
        folder: Folder for the page and the browser's profile.
        width: Width of the window in pixels.
        script: JavaScript function without parameters that returns a JSON value.
        dark: Prefer dark colors.
    """
    browser = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("no Chromium on this machine: install the Debian package chromium")
    probe = f"<script>addEventListener('load', () => {{ document.title = JSON.stringify(({script})()); }});</script>"
    (folder / "page.html").write_text(page.replace("</head>", probe + "</head>"))
    process = subprocess.run(
        [
            browser, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
            "--disable-background-networking", "--disable-component-update", "--disable-sync",
            f"--user-data-dir={folder / 'profile'}", f"--window-size={width},900",
            *(["--blink-settings=preferredColorScheme=0"] if dark else []),
            "--dump-dom", (folder / "page.html").as_uri(),
        ],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    title = re.search(r"<title>(.*?)</title>", process.stdout, re.S)
    assert title is not None, process.stderr[-2000:]
    text = title.group(1)
    for name, character in (("&quot;", '"'), ("&lt;", "<"), ("&gt;", ">"), ("&amp;", "&")):
        text = text.replace(name, character)
    return json.loads(text)
