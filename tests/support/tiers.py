"""Which tests `make test` runs, and which of the others `.ci/run` takes: markers that follow from where a test lies.

``quick`` is every test of the folders below that is not slow. Of the rest, ``ci`` is a fixed selection. Both lists are
committed, so that two runs of one commit run the same tests, whatever a clock says.
"""

from __future__ import annotations

from pathlib import PurePosixPath

QUICK = ("unit", "conf", "contract", "stages", "backends")
"""Folders whose tests need no program beside them, and models of a few thousand weights at most."""
CI = (
    "backends",  # the slow ones: real engines and exports
    "retraining",
    "monitoring",
    "inference_log",
    "serving",
    "sweeps",
    "faults",
    "stack",
    "container",
    "e2e",
)
"""Folders, or single files, of the rest that `.ci/run` takes: 41 to 45 minutes on two cores.

Whoever leaves one out to save time names the reason in ``TEST_ALL``; `make test-all` goes on to run it.
"""

TEST_ALL = (
    "cluster",  # several nodes of Ray or SLURM on one machine: minutes, and most of its memory
    "federated",  # a real Flower in an environment of its own (240 MB), and a dozen fits
    "serving/test_https_server.py",  # one more whole server; its words, header and cookies have cases among the quick tests
    "rollouts",  # a real vLLM in an environment of its own (2 GB)
    "sweeps/test_project_kills.py",  # minutes of killed workers; their claims are killed in test_worker_kills.py, without stages
    "tracking",  # a real MLflow server in an environment of its own (600 MB)
    "backends/test_ray_align.py",  # minutes; the Ray file that `.ci/run` takes has the same launcher with fits of sft
    "backends/test_ray_curation.py",  # `.ci/run` takes one Ray file; the partitions have cases without Ray among the quick tests
    "backends/test_ray_ports.py",  # one more cluster, most of a minute
    "backends/test_launch_errors.py",  # a minute; the loss that is no number on one rank is in test_torchrun_launch.py
    "backends/test_torchrun_kills.py",  # most of a minute; each rank is killed at each point in test_torchrun_launch.py
    "backends/test_reader_fuzz.py",  # thousands of damaged files; each kind has cases of its own among the quick tests
    "e2e/test_console_loop.py",  # the loop in a browser; what it waits for has cases of its own among the quick tests
    "e2e/test_console_looks.py",  # two more looks of every screen, minutes; the style sheet has one set of colors a scheme
    "e2e/test_own_data.py",  # the tutorial with a build; its commands run without one among the quick tests
)
"""Folders and files that `make test-all` runs alone, and why."""


def is_below(nodeid: str, places: tuple[str, ...]) -> bool:
    """Whether a test lies in one of the folders or files, named from ``tests/`` on."""
    path = PurePosixPath(nodeid.partition("::")[0])
    inside = path.relative_to("tests") if path.parts[:1] == ("tests",) else path
    return any(inside.is_relative_to(place) for place in places)


def find_tier(nodeid: str, *, slow: bool) -> str | None:
    """The marker of a test: ``quick``, ``ci``, or None for what only `make test-all` runs."""
    if not slow and is_below(nodeid, QUICK):
        return "quick"
    return "ci" if is_below(nodeid, CI) and not is_below(nodeid, TEST_ALL) else None
