from pathlib import Path

import pytest

from xbench import UserError
from xbench.request.config import read_config, resolve_device


def test_the_command_line_wins_over_the_file(tmp_path: Path) -> None:
    path = tmp_path / "study.toml"
    path.write_text(
        'explainer = ["gradient", {name = "vinet", alpha = 0.5}]\nseed = 3\nbatch-size = 8\nprecision = 32\n'
    )
    config = read_config(path, {"seed": 5})
    assert config.seed == 5
    assert config.batch_size == 8
    assert config.precision == "32"
    assert config.explainer == ("gradient", {"name": "vinet", "alpha": 0.5})
    assert config.metric == ("fidelity",)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("explainer = 'gradient'\nsead = 1", "no option 'sead'.*did you mean seed"),
        ("explainer = 'gradient'\nseed = -1", "seed=-1 is wrong.*greater than or equal to 0"),
        ("explainer = 'gradient'\nsign = 'either'", "sign='either'.*original"),
        ("explainer = ", "can't be read"),
        ("seed = 1", "no explainer was named"),
        ("explainer = 'gradient'\nmetric = []", "no metric was named"),
    ],
)
def test_a_wrong_file_is_one_line_that_names_it(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "study.toml"
    path.write_text(text)
    with pytest.raises(UserError, match=words):
        read_config(path, {})


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"nowhere\.toml does not exist"):
        read_config(tmp_path / "nowhere.toml", {})


@pytest.mark.parametrize("device", ["gpu", "cuda:99"])
def test_a_device_that_is_not_there_is_refused(device: str) -> None:
    with pytest.raises(UserError, match=f"device '{device}' can't be used.*--device cpu"):
        resolve_device(device)
