"""`tunectl serve image`: what it says, and what it refuses."""

import json

from tunectl.backends.export import bento_image
from tunectl.cli.main import main


def test_it_says_how_to_run_open_and_stop_what_it_built(tmp_path, monkeypatch, capsys) -> None:
    asked = []
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(
        bento_image, "containerize", lambda bento, name: asked.append((str(bento), name)) or 659_000_000
    )
    assert main(["serve", "image", "registry.example:5000/shop:2"]) == 0
    assert asked[0][1] == "registry.example:5000/shop:2"
    assert asked[0][0].endswith("artifacts/package/bento")
    assert capsys.readouterr().out.splitlines() == [
        "image: registry.example:5000/shop:2, 659 MB",
        "run    docker run -d --name shop --read-only --tmpfs /tmp --cap-drop ALL -p 127.0.0.1:3000:3000 -v shop:/data registry.example:5000/shop:2",
        "key    docker exec shop python -m tunectl serve keys add NAME",
        "stop   docker stop -t 75 shop",
    ]
    assert main(["serve", "image", "shop", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"image": "shop", "bytes": 659_000_000}


def test_two_names_and_no_bento_are_refused(tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["serve", "image", "a", "b"]) == 2
    assert (
        capsys.readouterr().err
        == "tunectl: tunectl serve image a b: takes one name\n  tunectl serve image NAME:TAG\n  more: tunectl docs tunectl-serve-takes-one-name\n"
    )
    assert main(["serve", "image", "shop"]) == 2
    assert capsys.readouterr().err.endswith(
        "artifacts/package/bento: there is no Bento\n  build one: tunectl repro\n  more: tunectl docs there-is-no-bento\n"
    )
