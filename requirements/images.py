"""Base images by one list, ``images.lock``: ``python requirements/images.py check [--digests] | fill``.

check   every file that names a base image has the tag of the list; ``--digests``: and the list has its digest
fill    ask the registries for the digests (docker buildx), write them into the list, and pin them in those files
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
LOCK = ROOT / "requirements" / "images.lock"
FILES = ("bentofile.yaml", "monitoring/worker.dockerfile", "monitoring/compose.yaml", ".github/workflows/nightly.yml")
"""Files that name base images. Images of our own have a variable or no registry."""
IMAGE = re.compile(
    r"^(?P<before>\s*(?:FROM|base_image:|image:)\s+\"?)(?P<image>[a-z][\w./-]*:[\w.-]+(?:@sha256:[0-9a-f]{64})?)",
    re.MULTILINE,
)
DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


class Image(NamedTuple):
    """One line of the list."""

    name: str
    tag: str
    digest: str
    """Empty where it is not known."""

    @property
    def reference(self) -> str:
        """What a file names: with the digest where there is one."""
        return f"{self.name}:{self.tag}" + (f"@{self.digest}" if self.digest else "")


def read_lock(path: Path = LOCK) -> dict[str, Image]:
    """Read the list; by name.

    Raises  ValueError naming file and line of what is no image
    """
    found = {}
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        if not line or line.startswith("#"):
            continue
        words = line.split()
        if len(words) != 3 or not (words[2] == "-" or DIGEST.fullmatch(words[2])):
            raise ValueError(
                f"{path}:{number}: {line!r} is not NAME TAG DIGEST; write - for a digest that is not known"
            )
        found[words[0]] = Image(words[0], words[1], words[2].removeprefix("-"))
    return found


def list_references(root: Path = ROOT) -> Iterator[tuple[str, str]]:
    """Yield file and reference of every base image that the project names."""
    for name in FILES:
        for match in IMAGE.finditer((root / name).read_text(encoding="utf-8")):
            yield name, match["image"]


def find_problems(*, digests: bool = False, root: Path = ROOT) -> list[str]:
    """Return what is wrong, a sentence each."""
    lock = read_lock(root / "requirements" / "images.lock")
    wrong, seen = [], set()
    for file, reference in list_references(root):
        image = lock.get(reference.partition(":")[0])
        seen.add(reference.partition(":")[0])
        if image is None:
            wrong.append(f"{file}: {reference} is not in requirements/images.lock")
        elif reference != image.reference:
            wrong.append(f"{file}: {reference} is {image.reference} in requirements/images.lock")
    wrong += [f"requirements/images.lock: nothing uses {name}" for name in lock if name not in seen]
    if digests:
        wrong += [
            f"requirements/images.lock: {one.name}:{one.tag} has no digest" for one in lock.values() if not one.digest
        ]
    return wrong


def fill(root: Path = ROOT) -> None:
    """Write the digests of today into the list and the files; the tags stay.

    Raises  subprocess.CalledProcessError where a registry does not answer
    """
    path = root / "requirements" / "images.lock"
    images = [image._replace(digest=fetch_digest(f"{image.name}:{image.tag}")) for image in read_lock(path).values()]
    notes = [line for line in path.read_text(encoding="utf-8").splitlines() if line.startswith("#")]
    path.write_text(
        "\n".join([*notes, *(f"{one.name} {one.tag} {one.digest}" for one in images)]) + "\n", encoding="utf-8"
    )
    pinned = {image.name: image.reference for image in images}
    for name in FILES:
        file = root / name
        text = file.read_text(encoding="utf-8")
        file.write_text(
            IMAGE.sub(lambda match: match["before"] + pinned[match["image"].partition(":")[0]], text), encoding="utf-8"
        )


def fetch_digest(reference: str) -> str:
    """Ask a registry for the digest of an image, of all its platforms."""
    words = ["docker", "buildx", "imagetools", "inspect", reference, "--format", "{{.Manifest.Digest}}"]
    return subprocess.run(words, check=True, capture_output=True, text=True).stdout.strip()


def main(words: Sequence[str]) -> int:
    """Check or fill; the exit code is 1 where something is wrong."""
    if list(words[:1]) == ["fill"]:
        fill()
    problems = find_problems(digests="--digests" in words)
    for problem in problems:
        print(problem)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
