"""What a server runs with: the resolved settings, one JSON file."""

from __future__ import annotations

import os
from pathlib import Path

from pydantic import ValidationError

from tunectl.config.schema.serve import ServeSettings
from tunectl.core.errors import ConfigError

SETTINGS, HOME = "TUNECTL_SERVE", "TUNECTL_HOME"


def settings_path() -> Path:
    """Return the file: the one that TUNECTL_SERVE names, ``serve.json`` of the working folder by default."""
    return Path(os.environ.get(SETTINGS, "serve.json"))


def settings() -> ServeSettings:
    """Return the content of the file.

    Raises  ConfigError for a file that is absent or wrong.
    """
    path = settings_path()
    try:
        return ServeSettings.model_validate_json(path.read_bytes(), strict=True)
    except FileNotFoundError as error:
        raise ConfigError(
            [f"{SETTINGS}: {path.resolve()} does not exist"], hint="start it with: tunectl serve"
        ) from error
    except ValidationError as error:
        raise ConfigError([f"{path}: {problem['loc']}: {problem['msg']}" for problem in error.errors()]) from error


def home_dir() -> Path:
    """Return where relative paths begin: TUNECTL_HOME where it is set; else the folder in which the server was started.

    ``bentoml serve BENTO`` changes into the Bento, which the next build deletes: keys, inference log and judgments must not lie
    there, so then it is the folder of whoever typed that.
    """
    named, current, typed = os.environ.get(HOME), Path.cwd(), os.environ.get("PWD")
    if named or not typed or not (current.parent / "bento.yaml").is_file():
        return Path(named or current)
    return Path(typed)
