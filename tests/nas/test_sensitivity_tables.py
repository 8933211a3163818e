"""`sensitivity.csv`: kept whole, refused when damaged, shown in the report and printed by the command line."""

from pathlib import Path

import pandas as pd
import pytest

from nas.cli import main
from nas.errors import UserError
from nas.report import write_report
from nas.report.sensitivity import sensitivity_figure
from nas.results import front, load_results
from nas.sensitivity_tables import CSV, NUMBERS, front_member, has_sensitivity, load_sensitivity
from search_spaces.precision import Candidate
from tests.nas.run_folders import SPACE, make_run

TINY = ("--space", "tests.tiny_space:tiny", "--data", "tests.tiny_data:load", "--epochs", "1")
RUN = ("sensitivity", "--run")


def make_tables() -> pd.DataFrame:
    """Two architectures of two blocks in up to three precisions."""
    options = [("stem", "fp32"), ("stem", "int8"), ("head", "fp32"), ("head", "int8"), ("head", "int8-dynamic")]
    rows = [
        {"architecture": name, "block": block, "precision": precision}
        | dict.fromkeys(NUMBERS, 0.0 if precision == "fp32" else 0.5 * (place + 1))
        for name in ("largest", "12")
        for place, (block, precision) in enumerate(options)
    ]
    return pd.DataFrame(rows)


def test_tables_survive_their_file(tmp_path: Path) -> None:
    assert load_sensitivity(tmp_path).empty
    make_tables().to_csv(tmp_path / CSV, index=False)
    pd.testing.assert_frame_equal(load_sensitivity(tmp_path), make_tables(), check_dtype=False)
    assert has_sensitivity(tmp_path, "12")
    assert not has_sensitivity(tmp_path, "1")


@pytest.mark.parametrize("text", ["", "block,precision\na,b\n", "none"])
def test_a_damaged_file_is_one_line(text: str, tmp_path: Path) -> None:
    whole = make_tables().to_csv(index=False)
    (tmp_path / CSV).write_text(whole.replace("0.0", "none") if text == "none" else text)
    with pytest.raises(UserError, match="is damaged .*--redo sensitivity makes it again") as error:
        load_sensitivity(tmp_path)
    assert "\n" not in str(error.value)


def test_a_member_of_the_front_is_found_by_its_index(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run", num_rows=8)
    row = front(load_results(folder)).iloc[0]
    found = front_member(folder, SPACE.space, str(row["index"]))
    genes = {choice.name: row[choice.name] for choice in SPACE.choices}
    expected: Candidate = SPACE.candidate({c.name: c.values[c.index(genes[c.name])] for c in SPACE.choices})
    assert found == expected.architecture
    assert front_member(folder, SPACE.space, "largest") is None
    with pytest.raises(UserError, match="model 999 is not on the front"):
        front_member(folder, SPACE.space, "999")


def test_a_chart_has_a_line_a_block_and_a_colour_a_precision() -> None:
    figure = sensitivity_figure(make_tables().query("architecture == 'largest'"))
    assert [(bar.name, bar.xaxis, list(bar.y)) for bar in figure.data if bar.name] == [
        ("int8", "x", ["stem", "head"]),
        ("int8-dynamic", "x", ["head"]),
    ]
    assert [list(bar.x) for bar in figure.data] == [[1.0, 2.0], [1e3, 2e3], [2.5], [2.5e3]]
    colours = {bar.legendgroup: bar.marker.color for bar in figure.data}
    assert len(set(colours.values())) == 2
    assert list(figure.layout.yaxis.categoryarray) == ["head", "stem"]


def test_the_report_shows_sensitivities_once_they_are_there(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run", num_rows=4)
    assert "Sensitivity" not in write_report(folder).read_text()
    make_tables().to_csv(folder / CSV, index=False)
    text = write_report(folder).read_text()
    assert "<h2>Sensitivity</h2>" in text
    assert text.count('id="sensitivity-') == 2
    assert "<h3>model #12</h3>" in text


def test_the_command_keeps_the_tables_of_other_architectures(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    (tmp_path / "options.yaml").write_text("budget: 1s\n")
    main([*RUN, str(run), *TINY, "--config", str(tmp_path / "options.yaml"), "--architecture", "smallest"])
    printed = capsys.readouterr().out
    assert "One block quantized at a time: smallest" in printed
    assert str(run / CSV) in printed
    first = load_sensitivity(run)
    main([*RUN, str(run)])
    both = load_sensitivity(run)
    assert list(both["architecture"].unique()) == ["smallest", "largest"]
    pd.testing.assert_frame_equal(both[: len(first)], first)
    before = (run / CSV).stat().st_mtime_ns
    main([*RUN, str(run), "--architecture", "smallest"])
    assert (run / CSV).stat().st_mtime_ns == before
    main([*RUN, str(run), "--redo", "sensitivity"])
    assert list(load_sensitivity(run)["architecture"].unique()) == ["largest"]
    assert load_sensitivity(run / "replaced" / "1").equals(both)


@pytest.mark.parametrize(
    ("architecture", "message"),
    [("huge", "unknown architecture 'huge'; give smallest"), ("3", "there is no run folder")],
)
def test_an_unknown_architecture_is_one_line_and_trains_nothing(
    architecture: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    with pytest.raises(SystemExit, match="2"):
        main([*RUN, str(run), *TINY, "--architecture", architecture])
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("nas: ")]
    assert len(lines) == 1
    assert message in lines[0]
    assert not run.exists()
