"""A bucket in moto's S3 server, found by the variables of the environment as any other."""

from __future__ import annotations

import os
import urllib.request
import uuid
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import s3fs
from moto.server import ThreadedMotoServer


def set_address(monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    """Let drivers of S3 ask ``address``, once."""
    values = {
        "AWS_ENDPOINT_URL": address,
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_MAX_ATTEMPTS": "1",
        "AWS_EC2_METADATA_DISABLED": "true",
    }
    for name, value in values.items():
        monkeypatch.setenv(name, value)
    s3fs.S3FileSystem.clear_instance_cache()


@contextmanager
def serve_bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Start the server and make a bucket; yields its name."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    set_address(monkeypatch, f"http://{host}:{port}")
    name = f"bucket-{uuid.uuid4().hex[:8]}"
    s3fs.S3FileSystem().mkdir(name)
    try:
        yield name
    finally:
        set_open_requests("1e12")
        server.stop()
        s3fs.S3FileSystem.clear_instance_cache()


def set_open_requests(number: str) -> None:
    """Tell moto how many requests it answers before it asks for keys that it knows."""
    url = f"{os.environ['AWS_ENDPOINT_URL']}/moto-api/reset-auth"
    urllib.request.urlopen(
        urllib.request.Request(url, data=number.encode(), method="POST", headers={"Content-Type": "text/plain"})
    )
