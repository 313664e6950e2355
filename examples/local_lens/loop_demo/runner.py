"""A scene is performed: programs up, chapters one after the other, programs down, and the timeline is written."""

from __future__ import annotations

import traceback
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import msgspec

from loop_demo import chapters, timeline_html, timeline_png
from loop_demo.console_log import Narrator
from loop_demo.context import BrokenPromiseError, Lookout, Play
from loop_demo.processes import NotReadyError, running
from loop_demo.scenario import Scene
from loop_demo.simulated_users import Crowd
from loop_demo.timeline import Promise, Span, Timeline
from tunectl.artifacts.paths import ProjectPaths
from tunectl.config.loading import checks
from tunectl.core.errors import TunectlError

STORIES: Final = Path(".tunectl") / "loop" / "retrains.html"
"""In the project: the story of each retrain, as `tunectl release log --page` writes it."""


def perform(scene: Scene, narrator: Narrator, *, began: datetime, observers: bool = True) -> Timeline:
    """Play every chapter. Where the story breaks, the rest is left out, and a promise says so."""
    layout = ProjectPaths(scene.project)
    model = checks.load_project_config(layout).root.project
    ready = datetime.now(UTC)
    with running(scene, narrator.say, observers=observers) as stack, Lookout(stack.get_variants) as lookout:
        crowd = Crowd(stack.ports["service"], stack.key, model, scene.town, workers=scene.workers)
        play = Play(scene, stack, crowd, narrator, lookout, began)
        if (built := play.clock(ready)) > 1:
            play.spans.append(Span("build", "two bad challengers, built ahead", 0.0, built, "calm"))
        _play(play)
        result = chapters.timeline(play, datetime.now(UTC))
        try:
            play.command("release", "log", "--page", str((scene.project / STORIES).absolute()))
        except BrokenPromiseError as error:
            narrator.say(f"the stories of the retrains: {error}", "bad")
    return result


def _play(play: Play) -> None:
    """Every chapter; whatever ends it early is a promise that was not kept, and what was seen until then is shown all the same."""
    try:
        for chapter in chapters.CHAPTERS:
            chapter(play)
    except KeyboardInterrupt:
        _record_break(play, "stopped by hand")
    except (BrokenPromiseError, NotReadyError, TunectlError) as error:
        _record_break(play, str(error))
    except Exception as error:  # noqa: BLE001  a bug of this play must not take the timeline with it
        play.narrator.say(traceback.format_exc(), "bad")
        _record_break(play, f"{type(error).__name__}: {error}")


def _record_break(play: Play, reason: str) -> None:
    play.narrator.say(f"the story breaks off: {reason}", "bad")
    first = (reason.splitlines() or [""])[0]
    play.narrator.promises.append(Promise("the story comes to its end", held=False, evidence=first))


def write(timeline: Timeline, folder: Path, stories: Path) -> list[Path]:
    """The timeline as JSON, page and picture, and the stories of the retrains beside them."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / name for name in ("timeline.html", "timeline.png", "timeline.json")]
    links: tuple[tuple[str, str], ...] = ()
    if stories.is_file():
        (folder / "retrains.html").write_bytes(stories.read_bytes())
        links = (("The whole story of each retrain", "retrains.html"),)
    paths[0].write_text(timeline_html.page(timeline, links), encoding="utf-8")
    timeline_png.write(timeline, paths[1])
    paths[2].write_bytes(msgspec.json.format(msgspec.json.encode(timeline), indent=1) + b"\n")
    return paths
