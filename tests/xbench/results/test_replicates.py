"""Bootstrap replicates on disk: round trips to the last bit, and damage named in one line."""

import math
from pathlib import Path

import numpy as np
import pytest

from xbench import UserError
from xbench.results.replicates import Replicates, read_replicates, sampling, write_replicates


def test_round_trip_to_the_last_bit(tmp_path: Path) -> None:
    kept = {"f1": Replicates(np.array([0.1 + 0.2, math.nan]), "s"), "f2": Replicates(np.array([1e-300, -1.0]), "t")}
    write_replicates(kept, tmp_path / "r.npz")
    back = read_replicates(tmp_path / "r.npz")
    assert list(back) == ["f1", "f2"]
    for name, one in kept.items():
        np.testing.assert_array_equal(back[name].values, one.values)
        assert back[name].sampling == one.sampling
    write_replicates(kept, tmp_path / "again.npz")
    assert (tmp_path / "r.npz").read_bytes() == (tmp_path / "again.npz").read_bytes()


def test_none(tmp_path: Path) -> None:
    assert read_replicates(tmp_path / "missing.npz") == {}
    write_replicates({}, tmp_path / "empty.npz")
    assert read_replicates(tmp_path / "empty.npz") == {}


def test_damage_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "r.npz"
    path.write_bytes(b"no archive")
    with pytest.raises(UserError, match=r"can't read .*r.npz as bootstrap replicates"):
        read_replicates(path)
    np.savez(path, schema=np.array(99), xbench_version=np.array("9.9"), fingerprints=[], samplings=[])
    with pytest.raises(UserError, match="schema 99 is newer"):
        read_replicates(path)


def test_sampling_is_of_samples_patients_and_seed() -> None:
    kinds = {sampling(*words) for words in (("ab", "pq", 0), ("ab", "pq", 1), ("ba", "pq", 0), ("ab", "pp", 0))}
    assert len(kinds) == 4
