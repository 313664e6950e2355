"""Speed of duplicate removal: a million short documents, exact and near duplicates, beside text-dedup.

    python benchmarks/bench_curate.py [--documents 1000000] [--peer-documents 200000] [--peer VENV | --no-peer] [--ray]
    make bench-curate DOCUMENTS=10000000     # local and on Ray, without the peer; records lie in files, as in the stage, from 512 MiB on

It makes a corpus with planted twins (folded exact copies, and copies with one to three changed words), runs the product's
own blocks on it in a fresh process, and compares what was removed with the truth: connected components of exact Jaccard
inside each planted family, computed with plain Python sets. The peer runs at a smaller size, with ours beside it at that
size, in the same run, with the same shingles, bands and threshold; it has two worker processes as we have two threads.
The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
import venv
from collections import defaultdict
from functools import partial
from itertools import combinations, islice
from pathlib import Path
from typing import IO

from hardware_info import machine, versions

NEAR = {
    "side": "output",
    "action": "remove",
    "keep": "first",
    "threshold": 0.7,
    "shingle": {"unit": "word", "size": 3},
    "bands": 20,
    "rows": 4,
}
PEER = "text-dedup==0.4.0"
# What its MinHash command imports; its full requirements bring Spark, which that command does not use.
PEER_NEEDS = [
    "click<9",
    "click-option-group",
    "datasets",
    "ftfy",
    "numpy",
    "regex",
    "rich",
    "scipy",
    "tqdm",
    "xxhash",
    "psutil",
    "setuptools",
    "bitarray",
    "fire",
]
LIMITS = {False: (60, 1.5), True: (None, 4.0)}
"""Seconds and GB, for up to a million documents and for more."""
MAX_TIMES_LOCAL = 3.0
"""Ray on this machine beside the engine local."""
SEED = 20261125
FEW = 20
"""The second corpus for Ray is smaller by this."""
BLOCK = 1_000_000
"""Documents that are made, shuffled and scored together; a family is inside one block."""


def make(path: Path, count: int) -> None:
    """Write ``count`` documents of about 30 words: 80 % of their own, 6 % exact copies, 14 % near copies; shuffled."""
    with path.open("w", encoding="utf-8") as stream:
        for start in range(0, count, BLOCK):
            make_block(stream, min(BLOCK, count - start), start)


def make_block(stream_out: IO[str], count: int, start: int) -> None:
    """Write one block; ``start`` is the number of its first document."""
    import numpy as np

    draw = np.random.default_rng(SEED + start // BLOCK)
    vocabulary = words(draw, 40_000)
    odds = 1 / np.arange(3, len(vocabulary) + 3)
    bases = int(count * 0.8)
    lengths = np.clip(draw.normal(30, 6, bases).astype(int), 12, 60)
    stream = draw.choice(len(vocabulary), int(lengths.sum()), p=odds / odds.sum())
    texts = [[vocabulary[word] for word in part.tolist()] for part in np.split(stream, np.cumsum(lengths)[:-1])]
    families = list(range(bases))
    for number in range(count - bases):
        family = int(draw.integers(0, bases // 2))
        copy = list(texts[family])
        if number % 10 >= 3:
            edit(copy, draw, vocabulary)
        texts.append(copy)
        families.append(family)
    for index in draw.permutation(count).tolist():
        number = start + index
        row = {"id": str(number), "text": write_sentence(texts[index], index), "family": start + families[index]}
        stream_out.write(json.dumps(row | {"source": {"file": "made", "row": number}}) + "\n")


def words(draw: object, count: int) -> list[str]:
    """Distinct invented words of one to four syllables."""
    texts: dict[str, None] = {}
    while len(texts) < count:
        syllables = draw.integers(1, 5)  # type: ignore[attr-defined]
        texts[
            "".join(
                "bdfgklmnprstvz"[i] + "aeiou"[j]
                for i, j in zip(draw.integers(0, 14, syllables), draw.integers(0, 5, syllables), strict=True)
            )
        ] = None  # type: ignore[attr-defined]
    return list(texts)


def edit(copy: list[str], draw: object, vocabulary: list[str]) -> None:
    """Replace, insert or leave out one to three words."""
    for _ in range(int(draw.integers(1, 4))):  # type: ignore[attr-defined]
        place = int(draw.integers(0, len(copy)))  # type: ignore[attr-defined]
        word = vocabulary[int(draw.integers(0, len(vocabulary)))]  # type: ignore[attr-defined]
        kind = int(draw.integers(0, 3))  # type: ignore[attr-defined]
        copy[place : place + (kind != 1)] = [] if kind == 2 else [word]


def write_sentence(copy: list[str], index: int) -> str:
    """The words as a sentence; every other one in another spelling of the same words."""
    text = " ".join(copy)
    return f"{text.capitalize()}." if index % 2 else f"{text}  !"


def ours(path: Path, ids_file: Path) -> dict[str, float]:
    """Run the product's blocks in this process; writes the ids that stay."""
    from tunectl.artifacts import atomic_io
    from tunectl.artifacts.disk_list import DiskList
    from tunectl.artifacts.records import Document, RejectedRow
    from tunectl.artifacts.row_counts import RowCounter
    from tunectl.config.schema.curate import NearDedupConfig
    from tunectl.data.dedup.exact import ExactDedup
    from tunectl.data.dedup.near import NearDedup
    from tunectl.data.transform import Pipeline
    from tunectl.pipeline.stages.curate import IN_MEMORY_BYTES

    scratch = ids_file.parent if path.stat().st_size > IN_MEMORY_BYTES else None
    rejects = [None if scratch is None else DiskList(scratch, RejectedRow) for _ in range(2)]
    started = time.perf_counter()
    rows = atomic_io.read_rows(path, Document)
    documents: list[Document] | DiskList[Document] = list(rows) if scratch is None else DiskList(scratch, Document)
    if scratch is not None:
        documents.extend(rows)
    loaded_at = time.perf_counter()
    exact = Pipeline(RowCounter("exact", rejects[0]), scratch).run([ExactDedup(loose=True)], documents)
    middle = time.perf_counter()
    near = NearDedup(NearDedupConfig.model_validate(NEAR), seed=0, threads=2)
    remaining = Pipeline(RowCounter("near", rejects[1]), scratch).run([near], exact)
    ended = time.perf_counter()
    with ids_file.open("w") as stream:
        stream.writelines(f"{document.id}\n" for document in remaining)
    return {
        "read_seconds": loaded_at - started,
        "exact_seconds": middle - loaded_at,
        "near_seconds": ended - middle,
        "seconds": ended - loaded_at,
        "peak_gb": read_peak_gb(),
        "on_disk": scratch is not None,
    }


def on_ray(path: Path, ids_file: Path) -> dict[str, float]:
    """Run the same blocks on a Ray cluster that is started here; memory is that of the driver, without Ray's processes."""
    from tunectl.artifacts.disk_list import DiskList
    from tunectl.artifacts.records import Document, Example, RejectedRow
    from tunectl.artifacts.row_counts import RowCounter
    from tunectl.backends.wiring.curation import curate_on_ray
    from tunectl.config.schema.curate import CurateFilters
    from tunectl.data.curation_pipeline import CurationPipeline

    off = dict.fromkeys(("repair", "quality", "language", "pii"))
    parts = CurateFilters.model_validate({**off, "exact": {"normalize": True}, "near": NEAR, "max_rejected_share": 1.0})
    build = partial(CurationPipeline.build, parts, None, seed=0, threads=1)
    after: DiskList[Document | Example] = DiskList(ids_file.parent, Document, Example)
    started = time.perf_counter()
    total = RowCounter("ray", DiskList(ids_file.parent, RejectedRow))
    curate_on_ray(parts, build(), build, [path], total, after)
    ended = time.perf_counter()
    with ids_file.open("w") as stream:
        stream.writelines(f"{document.id}\n" for document in after)
    return {"read_seconds": 0.0, "seconds": ended - started, "driver_peak_gb": read_peak_gb()}


def read_peak_gb() -> float:
    """Most memory that this process ever had."""
    peak = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(peak.split()[1]) * 1024 / 1e9


def in_child(path: Path, ids_file: Path, engine: str = "local") -> dict[str, float]:
    """``ours`` in a fresh process, so that its memory is its own."""
    line = [sys.executable, __file__, "--ours", str(path), str(ids_file), engine]
    result: dict[str, float] = json.loads(subprocess.run(line, check=True, capture_output=True, text=True).stdout)
    return result


def peer_python(folder: Path | None, scratch: Path) -> Path:
    """The interpreter of an environment with the peer, made under ``scratch`` unless given."""
    home = folder or scratch / "peer"
    python = home / "bin" / "python"
    if not python.exists():
        venv.create(home, with_pip=True)
        install = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-warn-conflicts"]
        subprocess.run([*install, "--no-deps", PEER], check=True)
        subprocess.run([*install, *PEER_NEEDS], check=True)
    return python


def peer(python: Path, path: Path, ids_file: Path, scratch: Path) -> dict[str, float]:
    """Run the peer's MinHash command from reading to the saved result, as one would use it."""
    line = [str(python), "-m", "text_dedup.minhash", "--path", "json", "--data_files", str(path), "--split", "train"]
    line += ["--cache_dir", str(scratch / "cache"), "--output", str(scratch / "peer_out"), "--column", "text"]
    line += ["--batch_size", "10000", "--num_proc", "2", "--min_length", "1", "--threshold", str(NEAR["threshold"])]
    line += ["--ngram", "3", "--num_perm", "80", "--b", "20", "--r", "4"]
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "HF_DATASETS_CACHE": str(scratch / "cache")}
    started = time.perf_counter()
    subprocess.run(line, check=True, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    seconds = time.perf_counter() - started
    dump = "import datasets,sys;print('\\n'.join(datasets.load_from_disk(sys.argv[1])['id']))"
    line = [str(python), "-c", dump, str(scratch / "peer_out")]
    ids_file.write_text(
        subprocess.run(line, check=True, capture_output=True, text=True, env=environment).stdout.strip()
    )
    return {"seconds": seconds}


def score(path: Path, ids_file: Path) -> dict[str, float]:
    """Precision and recall of what was removed, against exact Jaccard inside each planted family."""
    stayed = set(ids_file.read_text().split())
    removed = right = duplicates = 0
    with path.open(encoding="utf-8") as stream:
        while block := list(islice(stream, BLOCK)):
            families: dict[int, list[tuple[str, str]]] = defaultdict(list)
            for line in block:
                row = json.loads(line)
                families[row["family"]].append((row["id"], row["text"]))
            for members in families.values():
                removed += sum(name not in stayed for name, _ in members)
                if len(members) > 1:
                    for component in components(members):
                        duplicates += len(component) - 1
                        right += min(len(component) - 1, sum(name not in stayed for name in component))
    return {
        "planted": duplicates,
        "removed": removed,
        "precision": right / max(1, removed),
        "recall": right / max(1, duplicates),
    }


def find_rates(documents: int, figures: dict[str, object], few: int, few_seconds: float) -> dict[str, float]:
    """What ``tunectl estimate`` extrapolates from: Ray on two sizes is a line, whose height at no documents is its start."""
    mine, ray = figures["ours"], figures["ray"]
    slope = (ray["seconds"] - few_seconds) / (documents - few)
    return {
        "local_seconds": float(f"{(mine['read_seconds'] + mine['seconds']) / documents:.3g}"),
        "ray_start_seconds": round(few_seconds - slope * few, 1),
        "ray_cpu_seconds": float(f"{slope * len(os.sched_getaffinity(0)):.3g}"),
    }


def is_within_limits(documents: int, figures: dict[str, object]) -> bool:
    """Whether memory, seconds, and where it was measured Ray, are what we allow."""
    mine, (seconds, memory) = figures["ours"], LIMITS[documents > BLOCK]
    if "ray" in figures and figures["ray"]["times_local"] >= MAX_TIMES_LOCAL:
        return False
    return mine["peak_gb"] < memory and (seconds is None or mine["seconds"] < seconds)


def components(members: list[tuple[str, str]]) -> list[set[str]]:
    """Members of a family that are linked by a Jaccard similarity of at least the threshold."""
    sets = {name: shingles(text) for name, text in members}
    groups = {name: {name} for name in sets}
    for item, other in combinations(sets, 2):
        shared = len(sets[item] & sets[other])
        if (
            shared / (len(sets[item]) + len(sets[other]) - shared) >= NEAR["threshold"]
            and groups[item] is not groups[other]
        ):
            groups[item] |= groups[other]
            for name in groups[other]:
                groups[name] = groups[item]
    return list({id(group): group for group in groups.values()}.values())


def shingles(text: str) -> set[tuple[str, ...]]:
    """Runs of three words, in plain Python."""
    result = "".join(sign if sign.isalnum() else " " for sign in text.lower()).split()
    return {tuple(result[start : start + 3]) for start in range(max(1, len(result) - 2))}


def measure(options: argparse.Namespace, scratch: Path) -> dict[str, object]:
    """All runs; figures of ours, of the peer, and their ratio at equal size."""
    corpus, small, ids_file = scratch / "all.jsonl", scratch / "part.jsonl", scratch / "kept.txt"
    print(f"making {options.documents:,} documents", flush=True)
    subprocess.run([sys.executable, __file__, "--make", str(corpus), str(options.documents)], check=True)
    figures: dict[str, object] = {}
    print("ours, exact then near", flush=True)
    figures["ours"] = in_child(corpus, ids_file) | {"documents": options.documents} | score(corpus, ids_file)
    print(f"  {figures['ours']}", flush=True)
    if options.ray:
        kept_there = ids_file.read_text()
        print("ours on Ray", flush=True)
        figures["ray"] = in_child(corpus, ids_file, "ray")
        figures["ray"]["same_records"] = ids_file.read_text() == kept_there
        figures["ray"]["times_local"] = round(
            figures["ray"]["seconds"] / sum(figures["ours"][name] for name in ("read_seconds", "seconds")), 2
        )
        print(f"  {figures['ray']}", flush=True)
        few = options.documents // FEW
        subprocess.run([sys.executable, __file__, "--make", str(small), str(few)], check=True)
        figures["rates"] = find_rates(options.documents, figures, few, in_child(small, ids_file, "ray")["seconds"])
        print(f"  for pipeline/curation_rates.py: {figures['rates']}", flush=True)
    if options.no_peer:
        return figures
    python = peer_python(options.peer, scratch)
    subprocess.run([sys.executable, __file__, "--make", str(small), str(options.peer_documents)], check=True)
    mine = in_child(small, ids_file)
    mine |= {"total_seconds": mine["read_seconds"] + mine["seconds"], "documents": options.peer_documents}
    figures["ours_at_peer_size"] = mine | score(small, ids_file)
    print(f"ours at the peer's size\n  {figures['ours_at_peer_size']}\n{PEER}", flush=True)
    theirs = peer(python, small, ids_file, scratch)
    figures["peer"] = theirs | {"name": PEER, "documents": options.peer_documents} | score(small, ids_file)
    print(f"  {figures['peer']}", flush=True)
    figures["times_faster_than_peer"] = round(theirs["seconds"] / mine["total_seconds"], 2)
    return figures


def main() -> None:
    """Make the documents, run both, print a line a step and the JSON line last."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--documents", type=int, default=1_000_000)
    parser.add_argument("--peer-documents", type=int, default=200_000)
    parser.add_argument("--peer", type=Path, help="an environment with text-dedup; one is made when this is left out")
    parser.add_argument("--no-peer", action="store_true")
    parser.add_argument("--ray", action="store_true", help="run it on Ray, too")
    parser.add_argument("--make", nargs=2, help=argparse.SUPPRESS)
    parser.add_argument("--ours", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.make:
        make(Path(options.make[0]), int(options.make[1]))
    elif options.ours:
        run = on_ray if options.ours[2] == "ray" else ours
        print(json.dumps(run(Path(options.ours[0]), Path(options.ours[1]))))
    else:
        with tempfile.TemporaryDirectory() as folder:
            figures = measure(options, Path(folder))
        figures["within_limits"] = is_within_limits(options.documents, figures)
        print(
            json.dumps(
                {
                    "benchmark": "curate",
                    "machine": machine(),
                    "versions": versions("tunectl-lm", "numpy", "scipy", "msgspec"),
                    "near": NEAR,
                    **figures,
                }
            )
        )


if __name__ == "__main__":
    main()
