"""The settings of this checkout in a folder of a test."""

from __future__ import annotations

import shutil
from pathlib import Path

CONF = Path(__file__).parents[2] / "conf"


def copy_conf(folder: Path) -> None:
    """Copy ``conf/`` into ``folder``, without the overrides that a build in this checkout has recorded."""
    shutil.copytree(CONF, folder / "conf", dirs_exist_ok=True)
    (folder / "conf" / "overrides.yaml").write_text("[]\n")
