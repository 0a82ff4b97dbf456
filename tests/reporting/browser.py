"""Where a browser lies that can open the page; ``python -m tests.reporting.browser`` asks."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

NAMES = ("chromium", "chromium-browser", "google-chrome")


def find() -> str | None:
    """Return the path of a Chromium: the machine's, or else the one that playwright fetched."""
    for name in NAMES:
        if path := shutil.which(name):
            return path
    try:
        # Optional like the browser itself.
        from playwright.sync_api import sync_playwright  # noqa: PLC0415
    except ImportError:
        return None
    with sync_playwright() as playwright:
        own = playwright.chromium.executable_path
    return own if Path(own).is_file() else None


if __name__ == "__main__":
    sys.exit(find() is None)
