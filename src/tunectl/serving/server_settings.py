"""Read the resolved settings of a server from its JSON file."""

from __future__ import annotations

import os
import ssl
from pathlib import Path

from pydantic import ValidationError

from tunectl.config.schema.serve import Serve, ServeSettings
from tunectl.core.errors import ConfigError, UsageError

START = "start the server with: tunectl serve, which writes this file"

SETTINGS, HOME = "TUNECTL_SERVE", "TUNECTL_HOME"


def settings_path() -> Path:
    """Return the path of the settings file: the environment variable TUNECTL_SERVE, by default ``serve.json`` in the working folder."""
    return Path(os.environ.get(SETTINGS, "serve.json"))


def settings() -> ServeSettings:
    """Return the settings of this server from its file.

    Raises  ConfigError for a file that is absent or wrong.
    """
    path = settings_path()
    try:
        return ServeSettings.model_validate_json(path.read_bytes(), strict=True)
    except FileNotFoundError as error:
        raise ConfigError(
            [
                f"the server's settings file {path.resolve()} does not exist (the variable {SETTINGS} names it, default serve.json)"
            ],
            hint=START,
        ) from error
    except ValidationError as error:
        raise ConfigError(
            [f"{path}: {problem['loc']}: {problem['msg']}" for problem in error.errors()], hint=START
        ) from error


def build_tls_arguments(serve: Serve, home: Path) -> list[str]:
    """Return the command-line arguments that make BentoML's server speak HTTPS; empty if ``serve.tls`` is null.

    Raises  UsageError for files that are not a certificate and its key, before BentoML ends with a traceback.
    """
    if serve.tls is None:
        return []
    certificate, key = home / serve.tls.certificate_file, home / serve.tls.private_key_file
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, key, password="")
    except OSError as error:  # an SSLError is one
        reason = error.strerror or type(error).__name__
        raise UsageError(
            f"serve.tls: {certificate} and {key} cannot be used: {reason}",
            hint="give PEM files: in certificate_file the certificate and its chain, in private_key_file its key without a password",
        ) from error
    return ["--ssl-certfile", str(certificate), "--ssl-keyfile", str(key)]


def home_dir() -> Path:
    """Return the base folder of relative paths: the environment variable TUNECTL_HOME, or else the folder in which the server was started.

    ``bentoml serve BENTO`` changes into the folder of the Bento, which the next build deletes; then the folder in which the command was
    typed is returned, so that keys, inference log and judgments are kept there.
    """
    named, current, typed = os.environ.get(HOME), Path.cwd(), os.environ.get("PWD")
    if named or not typed or not (current.parent / "bento.yaml").is_file():
        return Path(named or current)
    return Path(typed)
