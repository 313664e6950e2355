"""Values that never change: they decide splits, held-out questions, canary assignments and ids."""

from __future__ import annotations

from tunectl.core.hashing import hash_to_bytes, hash_to_id, hash_to_unit


def test_values_of_version_0_1() -> None:
    assert [hash_to_bytes(text).hex() for text in ("17 é", "b a", "3 n")] == [
        "d4f27d2cf8797006", "95cd4249730e3172", "70e16b7b8dca4214",
    ]  # fmt: skip
    assert [hash_to_unit(text) for text in ("17\0é", "held q")] == [0.8509374145402703, 0.9255522946537926]
    assert [hash_to_id("x", [1, "ü"]), hash_to_id("a", 1, None), hash_to_id("a", "b", size=16)] == [
        "3c8b8829c86502a8", "153c46a9588fd9b6", "d8f141e4ef8a533b1994f88d4ca33b0f",
    ]  # fmt: skip
