from pathlib import Path

import numpy as np
import pytest
import torch

from xbench.runtime.mapped import MappedArray, stacked, writing


def test_an_array_written_in_parts_is_read_back_in_parts(tmp_path: Path) -> None:
    array = np.random.default_rng(0).standard_normal((7, 3, 4)).astype(np.float32)
    with writing(tmp_path / "a.npy", "<f4", array.shape) as out:
        out.append(array[:4])
        out.append(array[4])
        out.append(array[5:].astype(np.float64))
    assert np.array_equal(np.load(tmp_path / "a.npy"), array)
    mapped = MappedArray(np.load(tmp_path / "a.npy", mmap_mode="r"))
    assert (len(mapped), mapped.shape, mapped.ndim) == (7, (7, 3, 4), 3)
    for index in (3, slice(2, 6), [5, 0], np.array([True, False] * 3 + [True])):
        assert np.array_equal(mapped[index], array[index])
        assert type(mapped[index]) is np.ndarray


@pytest.mark.parametrize("total", [0, 1, 12_345])
def test_an_array_of_unknown_length_is_the_same_file_as_one_of_known_length(tmp_path: Path, total: int) -> None:
    array = np.arange(total * 3, dtype=np.float32).reshape(total, 3)
    for name, length in (("known", total), ("unknown", None)):
        with writing(tmp_path / name, "<f4", (length, 3)) as out:
            for row in array:
                out.append(row)
    assert (tmp_path / "known").read_bytes() == (tmp_path / "unknown").read_bytes()
    assert np.array_equal(np.load(tmp_path / "unknown"), array)


def test_slices_are_copies_that_outlive_their_pages(tmp_path: Path) -> None:
    array = np.arange(200_000, dtype=np.float32).reshape(50, -1)
    np.save(tmp_path / "a.npy", array)
    mapped = MappedArray(np.load(tmp_path / "a.npy", mmap_mode="r"))
    parts = [mapped[start : start + 10] for start in range(0, 50, 10)]
    assert np.array_equal(np.concatenate(parts), array)
    parts[0][:] = 0
    assert np.array_equal(mapped[:10], array[:10])


def test_absolute_values_are_taken_where_it_is_sliced(tmp_path: Path) -> None:
    array = np.array([[-1.0, 2.0], [3.0, -4.0]], dtype=np.float32)
    np.save(tmp_path / "a.npy", array)
    mapped = MappedArray(np.load(tmp_path / "a.npy", mmap_mode="r"), absolute=True)
    assert np.array_equal(mapped[:], np.abs(array))


def test_stacked_fills_one_array(tmp_path: Path) -> None:
    parts = [torch.randn(2, 3), torch.randn(4, 3, dtype=torch.float64)]
    result = stacked(iter(parts), 6)
    assert result.dtype == np.float32
    np.testing.assert_array_equal(result, torch.cat([part.float() for part in parts]).numpy())
    with pytest.raises(ValueError, match="no batches"):
        stacked([], 0)
