"""sft=private: composed as it is, and refused where a fit has several processes."""

from __future__ import annotations

from pathlib import Path

import pytest
from conf_copy import copy_conf

from tunectl.artifacts.paths import ProjectPaths
from tunectl.config.loading import checks
from tunectl.core.errors import ConfigError
from tunectl.pipeline.required_extras import list_required_packages


@pytest.fixture
def layout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ProjectPaths:
    copy_conf(tmp_path)
    monkeypatch.chdir(tmp_path)
    return ProjectPaths()


def test_the_option_is_complete_and_names_its_extra(layout: ProjectPaths) -> None:
    root = checks.load_project_config(layout, ["sft=private"]).root
    assert root.sft.privacy is not None
    assert root.sft.privacy.target_epsilon == 8.0
    assert ("opacus", "private") in {(item.package, item.extra) for item in list_required_packages(root, ["sft"])}
    plain = checks.load_project_config(layout).root
    assert plain.sft.privacy is None
    assert "private" not in {item.extra for item in list_required_packages(plain, ["sft"])}


@pytest.mark.parametrize("method", ["torchrun", "ray"])
def test_several_processes_are_refused_by_name(layout: ProjectPaths, method: str) -> None:
    with pytest.raises(ConfigError) as caught:
        checks.load_project_config(layout, ["sft=private", f"launch={method}"])
    assert list(caught.value.problems) == [
        (
            f"conf/: sft.privacy is not supported with launch={method}: each unit is clipped in one process; "
            "set launch=local, or sft.privacy=null"
        )
    ]
