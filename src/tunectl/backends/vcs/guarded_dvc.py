"""DVC, with a check of what its cache and remotes name: ``python -m tunectl.backends.vcs.guarded_dvc ARGUMENTS``.

DVC writes the files of a folder wherever the folder's list says (``../../x``, too), restores whatever outputs an entry of the run
cache names, and copies entries of the run cache to where their keys in a bucket lead. All of it comes from the remote, so whoever
may write there could write any file of this account. Here a list has paths below its folder, an entry the outputs of its
stage, and a key no ``..``; another list or key ends the command, another entry is not used.

DVC also rewrites dvc.lock in place, so a kill can leave half of it, and who reads it meanwhile sees half of it. Here it is replaced whole.
"""

from __future__ import annotations

import io
import re
import sys
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from tunectl.artifacts import atomic_io
from tunectl.core.optional import import_optional

EXTRA: Final = "pipeline"
_DIGEST: Final = re.compile(r"[0-9a-f]{32}(?:\.dir)?")
_NOT_BELOW: Final = frozenset(("", ".", ".."))
"""Parts of a path that leads out of its folder, or to the folder itself."""


def find_foreign_entry(entries: Iterable[Mapping[str, Any]]) -> str | None:
    """Return the path or digest in a folder's list that names no file below the folder; None where all do."""
    for entry in entries:
        path, facts = str(entry.get("relpath", "")), [name for name in entry if name != "relpath"]
        # DVC takes the only fact besides the path for the digest, whatever its name is
        digest = entry[facts[0]] if len(facts) == 1 else entry.get("md5")
        if not _NOT_BELOW.isdisjoint(path.split("/")):
            return path
        if digest is not None and not _DIGEST.fullmatch(str(digest)):
            return str(digest)
    return None


def is_run_of_stage(entry: Mapping[str, Any], outputs: Collection[str]) -> bool:
    """Return whether an entry of the run cache names the ``outputs`` of the stage that it is for, and their digests, which are MD5."""
    items = entry.get("outs") or ()
    return {str(item.get("path")) for item in items} == set(outputs) and all(
        item.get("hash", "md5") == "md5"
        and "cloud" not in item  # facts below it replace those beside it
        and _DIGEST.fullmatch(str(item.get("md5", "0" * 32)))
        for item in items
    )


def guard_lists() -> None:
    """Make DVC refuse a folder's list that names anything but files below the folder."""
    tree = import_optional("dvc_data.hashfile.tree", extra=EXTRA).Tree
    error = import_optional("dvc.exceptions", extra=EXTRA).DvcException
    parse = tree.from_list.__func__

    def from_list(cls: Any, entries: Any, hash_name: str | None = None) -> Any:
        foreign = find_foreign_entry(entries)
        if foreign is not None:
            raise error(
                f"the list of a folder names {foreign!r}, which is no file below that folder; check who may write to the remote"
            )
        return parse(cls, entries, hash_name=hash_name)

    tree.from_list = classmethod(from_list)


def guard_runs() -> None:
    """Make DVC ignore an entry of the run cache that names other outputs than those of its stage."""
    cache = import_optional("dvc.stage.cache", extra=EXTRA).StageCache
    load = cache._load  # noqa: SLF001  # the one place where an entry is read for a stage; DVC has no public one

    def load_own(self: Any, stage: Any) -> Any:
        entry = load(self, stage)
        if entry and not is_run_of_stage(entry, {out.def_path for out in stage.outs}):
            sys.stderr.write(f"WARNING: the run cache has other outputs for {stage.addressing}; it is not used\n")
            return None
        return entry

    cache._load = load_own  # noqa: SLF001  # see above


def guard_copies() -> None:
    """Make DVC refuse to copy a run cache with a file outside of its folder, as a bucket key with ``..`` would create."""
    cache = import_optional("dvc.stage.cache", extra=EXTRA).StageCache
    error = import_optional("dvc.exceptions", extra=EXTRA).DvcException
    copy = cache.transfer

    def copy_own(self: Any, source: Any, target: Any, force: bool = True) -> Any:
        runs = source.fs.join(source.path, "runs")
        if source.fs.protocol not in ("http", "https") and source.fs.exists(runs):  # DVC copies no run cache over HTTP
            for name in source.fs.find(runs):
                if ".." in name.split("/"):
                    raise error(
                        f"the run cache has a file {name}, which leads elsewhere; check who may write to the remote"
                    )
        return copy(self, source, target, force=force)

    cache.transfer = copy_own


def guard_writes() -> None:
    """Make DVC replace its YAML files as a whole."""
    common, yaml = (import_optional(f"dvc.utils.serialize.{name}", extra=EXTRA) for name in ("_common", "_yaml"))

    def write_whole(path: Any, data: Any, dumper: Any, fs: Any = None, **options: Any) -> None:  # noqa: ARG001  all of them are local files
        stream = io.StringIO()
        dumper(data, stream, **options)
        atomic_io.write_text(Path(path), stream.getvalue())

    common._dump_data = yaml._dump_data = write_whole  # noqa: SLF001  # the one place where a file is written


def main(arguments: Sequence[str]) -> int:
    """Run DVC with ``arguments`` and all guards; return its exit code."""
    guard_lists()
    guard_runs()
    guard_copies()
    guard_writes()
    code: int = import_optional("dvc.cli", extra=EXTRA).main(list(arguments))
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
