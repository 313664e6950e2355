"""Settings of OpenVINO that bench_engine compares, grouped by lever, and the environment in which each one is measured."""

from __future__ import annotations

from ctypes.util import find_library
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from serve_envs import UnavailableError

OURS = "f32"
"""The server's own setting."""
THP = Path("/sys/kernel/mm/transparent_hugepage/enabled")
PACKAGES = {"jemalloc": "libjemalloc2", "tcmalloc_minimal": "libtcmalloc-minimal4t64"}
"""Allocators that are loaded before glibc's, and the Debian package of each."""


@dataclass(frozen=True)
class Setting:
    """One way to set the engine."""

    properties: dict[str, Any] = field(default_factory=dict)
    scheduler: dict[str, Any] = field(default_factory=dict)
    request: dict[str, Any] = field(default_factory=dict)
    env: dict[str, str] = field(default_factory=dict)
    preload: str = ""
    """A library with an allocator."""
    huge_pages: bool = False
    """Whether it means nothing where the kernel gives no huge pages."""
    release: str = "merged"


@dataclass(frozen=True)
class Lever:
    """Settings that are compared with ours in one run."""

    settings: tuple[str, ...]
    long_prompts: bool = False
    """Whether every tenth prompt has 2,000 tokens: in shorter ones there is nothing to divide."""


F32 = {"INFERENCE_PRECISION_HINT": "f32"}
LOOKUP = {"num_assistant_tokens": 3, "max_ngram_size": 3}
GLIBC_HUGE = {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}
DEEP = {"TBB_ENABLE_SANITIZERS": "1"}
"""oneTBB then loads hwloc without RTLD_DEEPBIND; with it hwloc frees by glibc what another allocator has given: an abort."""
SETTINGS = {
    OURS: Setting(F32),
    "bf16": Setting({"INFERENCE_PRECISION_HINT": "bf16"}),
    "f32, scales over 64": Setting({**F32, "DYNAMIC_QUANTIZATION_GROUP_SIZE": "64"}),
    "f32, activations not quantized": Setting({**F32, "DYNAMIC_QUANTIZATION_GROUP_SIZE": "0"}),
    "f32, cache in f32": Setting({**F32, "KV_CACHE_PRECISION": "f32"}),
    "f32, steps of 2048": Setting(F32, {"max_num_batched_tokens": 2048}),
    "f32, prompts not split": Setting(F32, {"max_num_batched_tokens": 2048, "dynamic_split_fuse": False}),
    "f32, threads not pinned": Setting({**F32, "ENABLE_CPU_PINNING": False}),
    "f32, no log-probabilities": Setting(F32, request={"logprobs": 0}),
    "f32, prompt lookup": Setting({**F32, "prompt_lookup": True}, request=LOOKUP),
    "f32, 1 sampler thread": Setting({**F32, "sampler_num_threads": 1}),
    "f32, 4 sampler threads": Setting({**F32, "sampler_num_threads": 4}),
    "f32, loops divided by halves": Setting({**F32, "TBB_PARTITIONER": "AUTO"}),
    "f32, huge pages": Setting(F32, env=GLIBC_HUGE, huge_pages=True),
    "f32, huge pages, weights not mapped": Setting({**F32, "ENABLE_MMAP": False}, env=GLIBC_HUGE, huge_pages=True),
    "f32, jemalloc": Setting(F32, env=DEEP, preload="jemalloc"),
    "f32, jemalloc, huge pages": Setting(
        F32, env={**DEEP, "MALLOC_CONF": "thp:always"}, preload="jemalloc", huge_pages=True
    ),
    "f32, tcmalloc": Setting(F32, env=DEEP, preload="tcmalloc_minimal"),
    "f32, steps of 128": Setting(F32, {"max_num_batched_tokens": 128}),
    "f32, steps of 256": Setting(F32, {"max_num_batched_tokens": 256}),
    "int4": Setting(F32, release="int4"),
}
LEVERS = {
    "tried": Lever(tuple(list(SETTINGS)[1:10])),
    "logprobs": Lever(("f32, no log-probabilities",)),
    "sampler": Lever(("f32, 1 sampler thread", "f32, 4 sampler threads")),
    "partitioner": Lever(("f32, loops divided by halves",)),
    "pages": Lever(("f32, huge pages", "f32, huge pages, weights not mapped")),
    "allocator": Lever(("f32, jemalloc", "f32, jemalloc, huge pages", "f32, tcmalloc")),
    "chunks": Lever(
        ("f32, steps of 128", "f32, steps of 256", "f32, steps of 2048", "f32, prompts not split"), long_prompts=True
    ),
    "int4": Lever(("int4",)),
}


def build_environment(setting: Setting) -> dict[str, str]:
    """Return the variables of a setting, its allocator among them.

    Raises  UnavailableError where its library is not installed, or the kernel gives no huge pages.
    """
    if setting.huge_pages and "[never]" in (THP.read_text() if THP.is_file() else "[never]"):
        raise UnavailableError(f"the kernel gives no huge pages: echo madvise > {THP}")
    if not setting.preload:
        return setting.env
    library = find_library(setting.preload)
    if library is None:
        raise UnavailableError(f"not installed: apt install {PACKAGES[setting.preload]}")
    return {**setting.env, "LD_PRELOAD": library}
