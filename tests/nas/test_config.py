"""The options of a run: defaults, layers, YAML and back, and what is refused."""

from pathlib import Path
from typing import Any

import pytest

from nas.config import RunConfig, load_options, merge_options, parse_seconds, write_text
from nas.errors import UserError


def test_yaml_gives_the_configuration_back(tmp_path: Path) -> None:
    config = RunConfig(
        data="some/folder",
        constraints=("latency_ms<=2.5",),
        focus=("latency_ms=1..2",),
        training={"seed": 3},
        budget=90.0,
        architecture="largest",
    )
    config.save(tmp_path / "config.yaml")
    assert merge_options(load_options(tmp_path / "config.yaml")) == config


def test_later_layers_win_and_none_overrides_nothing() -> None:
    config = merge_options({"seed": 1, "batch": 4}, {"seed": 2, "batch": None})
    assert (config.seed, config.batch) == (2, 4)


def test_training_options_of_two_layers_are_joined() -> None:
    config = merge_options({"training": {"seed": 1, "batch_size": 8}}, {"training": {"seed": 2}})
    assert config.training == {"seed": 2, "batch_size": 8}


def test_keys_may_have_dashes_and_lists_may_have_commas(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("num-evaluations: 7\nobjectives: error_pct, macs\nbudget: 5m\n")
    config = merge_options(load_options(tmp_path / "a.yaml"))
    assert (config.num_evaluations, config.objectives, config.budget) == (7, ("error_pct", "macs"), 300.0)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("num_evaluation: 7", "unknown option 'num_evaluation'"),
        ("- 7", "holds list; options are lines such as"),
        ("a: [", "is not YAML"),
    ],
)
def test_a_bad_file_is_refused_in_one_line(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(text)
    with pytest.raises(UserError, match=message) as caught:
        load_options(tmp_path / "a.yaml")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"threads": 0}, "threads is 0; it must be a whole number, 1 or more"),
        ({"epochs": True}, "epochs is True"),
        ({"seed": 1.5}, "seed is 1.5"),
        ({"data": ""}, "data is ''; it must be a name or a path"),
        ({"training": [1]}, "training is \\[1\\]"),
        ({"calibration": "minmax"}, "unknown calibration 'minmax'.*Did you mean min-max"),
        ({"objectives": 3}, "objectives is 3; it must be a list of texts"),
        ({"objectives": ["macs", "macs"]}, "two or more different ones"),
        ({"constraints": ["macs=3"]}, "constraint 'macs=3' must be"),
        (
            {"constraints": ["error_pct<=1"]},
            "limits error_pct, .* add --objectives error_pct,latency_ms,size_bytes",
        ),
        ({"focus": ["latency_ms=3"]}, "focus 'latency_ms=3' must be"),
        ({"focus": ["macs=1..2"]}, "unknown objective 'macs'; available: estimated_error_pct, latency_ms"),
    ],
)
def test_bad_values_are_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        merge_options(values)


def test_times_are_read_with_their_units() -> None:
    assert [parse_seconds(text) for text in (60, "60", "60s", "5m", "1.5min", "1h")] == [60, 60, 60, 300, 90, 3600]
    for text in ("", "-3", "0", "1d", "1.2.3s"):
        with pytest.raises(UserError, match="must be a positive time"):
            parse_seconds(text)


def test_a_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "config.yaml"
    write_text(path, "old")

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(OSError, match="No space"):
        write_text(path, "new")
    assert path.read_text() == "old"
    assert [file.name for file in tmp_path.iterdir()] == ["config.yaml"]
