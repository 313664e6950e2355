"""A scene is performed: programs up, chapters one after the other, programs down, and the timeline is written."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import msgspec

from healing import page, picture, story
from healing.narrator import Narrator
from healing.people import Crowd
from healing.play import Broken, Lookout, Play
from healing.programs import Stuck, running
from healing.scene import Scene
from healing.timeline import Promise, Timeline
from tunectl.artifacts.layout import Layout
from tunectl.config import check, overrides
from tunectl.core.errors import TunectlError


def perform(scene: Scene, narrator: Narrator, *, began: datetime, observers: bool = True) -> Timeline:
    """Play every chapter. Where the story breaks, the rest is left out, and a promise says so."""
    layout = Layout(scene.project)
    model = check.load(layout, overrides.replay(layout)).root.project
    with running(scene, narrator.say, observers=observers) as stack, Lookout(stack.served) as lookout:
        crowd = Crowd(stack.ports["service"], stack.key, model, scene.town, workers=scene.workers)
        play = Play(scene, stack, crowd, narrator, lookout, began)
        try:
            for chapter in story.CHAPTERS:
                chapter(play)
        except (Broken, Stuck, TunectlError) as error:
            narrator.say(f"the story breaks off: {error}", "bad")
            narrator.promises.append(
                Promise("the story comes to its end", held=False, evidence=str(error).splitlines()[0])
            )
        except KeyboardInterrupt:
            narrator.say("stopped by hand", "bad")
            narrator.promises.append(Promise("the story comes to its end", held=False, evidence="stopped by hand"))
        found = story.timeline(play, datetime.now(UTC))
        play.command(
            "release", "log", "--page", str((scene.project / ".tunectl" / "loop" / "retrains.html").absolute())
        )
    return found


def write(timeline: Timeline, folder: Path, stories: Path) -> list[Path]:
    """The timeline as JSON, page and picture, and the stories of the retrains beside them."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / name for name in ("timeline.html", "timeline.png", "timeline.json")]
    links: tuple[tuple[str, str], ...] = ()
    if stories.is_file():
        (folder / "retrains.html").write_bytes(stories.read_bytes())
        links = (("The whole story of each retrain", "retrains.html"),)
    paths[0].write_text(page.page(timeline, links), encoding="utf-8")
    picture.write(timeline, paths[1])
    paths[2].write_bytes(msgspec.json.format(msgspec.json.encode(timeline), indent=1) + b"\n")
    return paths
