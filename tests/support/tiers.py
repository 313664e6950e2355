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
"""Folders, or single files, of the rest that `.ci/run` takes: about 40 minutes on two cores, an estimate.

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
    "retraining/test_retrain_controller.py::test_kill_nine_of_each_party[guard]",  # faults/test_retrain.py has it
    "retraining/test_retrain_controller.py::test_kill_nine_of_each_party[repro]",  # the same
    "retraining/test_retrain_controller.py::test_kill_nine_of_each_party[dvc]",  # the same
    "retraining/test_retrain_controller.py::test_kill_nine_of_each_party[trainer]",  # the same; [watcher] stays
    "retraining/test_retrain_controller.py::test_two_watchers_on_one_project",  # test_two_loops in faults/test_retrain.py
    "faults/test_retrain.py::test_trouble_in_training[stage]",  # retraining/test_retrain_controller.py has one that fails
    "serving/test_lifecycle.py::test_when_the_worker_is_killed_the_program_ends",  # faults/test_http.py kills it too
    "serving/test_lifecycle.py::test_sigterm_finishes_streams_then_ends",  # faults/test_http.py stops one with eight streams, too
    # faults/test_http.py promotes nine broken releases beside the old one; in test_unready.py a file was changed
    "serving/test_lifecycle.py::test_a_broken_release_leaves_the_old_one_serving",
    # test_compose.py promotes for a running container; without a dropped request, and back: serving/test_lifecycle.py
    "container/test_container.py::test_a_promotion_reaches_a_running_container",
    # the quick tests have that of the other rank
    "backends/test_torchrun_launch.py::test_a_loss_that_is_no_number_on_one_rank_stops_all_with_one_message[0]",
)
"""What `make test-all` runs alone, and why: folders, files, and single tests (``FILE::TEST``, or ``FILE::TEST[PARAMETER]``)."""


def is_below(nodeid: str, names: tuple[str, ...]) -> bool:
    """Whether a test lies in one of the folders or files, or is one of the tests, named from ``tests/`` on."""
    inside = nodeid.removeprefix("tests/")
    path = PurePosixPath(inside.partition("::")[0])
    return any(is_one_of(inside, name) if "::" in name else path.is_relative_to(name) for name in names)


def is_one_of(inside: str, test: str) -> bool:
    """Whether a test is ``test`` itself, or ``test`` with some parameter."""
    return inside == test or inside.startswith(f"{test}[")


def find_tier(nodeid: str, *, slow: bool) -> str | None:
    """The marker of a test: ``quick``, ``ci``, or None for what only `make test-all` runs."""
    if not slow and is_below(nodeid, QUICK):
        return "quick"
    return "ci" if is_below(nodeid, CI) and not is_below(nodeid, TEST_ALL) else None
