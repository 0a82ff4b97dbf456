"""Imported first by commands that want the extra ``train``: without it, ends them with one line."""

from __future__ import annotations

import sys

from cnmc.extras import absent

if missing := absent():
    sys.stderr.write(
        f"error: {', '.join(missing)} not installed, which this command needs: "
        "pip install 'cnmc[train]'\n"
    )
    sys.exit(2)
