import json
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from nas.errors import UserError
from nas.fidelity.ranking import fidelity_figures
from nas.report import write_report
from nas.report.diagram import COLOURS, colours_of, diagram
from nas.report.figures import front_figure, hypervolume_curve, predictor_errors
from nas.report.labels import describe_candidate, label, number
from nas.results import LEFT_OUT, front, load_results, objectives_of
from nas.search.objectives import Objective, parse_constraint
from tests.nas.fidelity.tables import make_rows
from tests.nas.run_folders import MAX_MODELS, make_run, make_study

COSTS = [Objective("error_pct"), Objective("latency_ms")]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = make_run(tmp_path_factory.mktemp("report") / "run", num_rows=14)
    write_report(folder)
    return folder


OTHERS = "other candidates, as searched"


def _legend(frame: pd.DataFrame) -> dict[str, int]:
    """Points of each part of the front's chart that its legend names."""
    traces = front_figure(frame, objectives_of(frame)).data
    return {trace.name: len(trace.x) for trace in traces if trace.showlegend is not False}


class _Page(HTMLParser):
    """Text, charts and external references of a page."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.text, self.external, self.open = "", [], []
        self.charts: dict[str, dict[str, object]] = {}
        self.placed: list[str] = []
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        if tag not in ("meta", "br"):
            self.open.append((values.get("id") == "charts" and "charts") or tag)
        self.external += [values[name] for name in ("src", "href") if name in values]
        if values.get("class") == "chart":
            self.placed.append(str(values["id"]))

    def handle_endtag(self, tag: str) -> None:
        self.open.pop()

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] == "charts":
            self.charts = json.loads(data)
        elif self.open and self.open[-1] not in ("script", "style"):
            self.text += data + "\n"


def test_the_page_shows_every_part_of_a_verified_run_and_loads_nothing(run: Path) -> None:
    page = _Page(run / "report.html")
    assert page.external == []
    assert list(page.charts) == page.placed
    assert set(page.placed) == {
        *("front", "predicted-latency", "predicted-error", "hypervolume", "predictor", "training")
    }
    for text in ("Test CPU", "onnxruntime 1.0", "fashion-mnist", "hybridnas", "10 classes", "smallest", "82.10"):
        assert text in page.text
    assert page.open == []


def test_every_front_model_has_a_table_row_and_a_diagram(run: Path) -> None:
    text = (run / "report.html").read_text(encoding="utf-8")
    members = front(load_results(run))
    assert text.count('class="network"') == len(members)
    for index in members["index"]:
        assert f"<td>{index}</td>" in text
        assert f"<h3>#{index}<small>" in text


def test_what_a_simulation_gave_is_called_simulated(run: Path) -> None:
    text = (run / "report.html").read_text()
    for name in ("error_pct", "estimated_error_pct", "cross_entropy"):
        assert f"{label(name)}<small>simulated</small>" in text


def test_charts_hold_all_complete_candidates(run: Path) -> None:
    traces = _Page(run / "report.html").charts["front"]["data"]
    assert isinstance(traces, list)
    assert sum(len(trace["text"]) for trace in traces) == 13


def test_members_of_the_front_that_were_not_exported_have_marks_of_their_own(run: Path) -> None:
    frame = load_results(run)
    assert (frame["front_reason"] == LEFT_OUT).sum() == 1
    others = int((~frame["on_front"] & frame["error_pct"].notna()).sum())
    assert _legend(frame) == {"front, not exported, as searched": 1, OTHERS: others - 1, "front, measured": MAX_MODELS}


def test_a_front_measured_nowhere_names_the_target_that_should(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run", num_rows=6, verified=False)
    (folder / "exported.json").write_text(json.dumps({"target": "Board with openvino 1", "rows": []}))
    text = _Page(write_report(folder)).text
    assert "its files are not verified on Board with openvino 1, run nas verify there." in text
    assert "candidates evaluated, 1 of them failed; not verified on Board with openvino 1." in text


def test_missing_stages_are_said_in_words(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run", num_rows=6, trained=False, profiled=False, verified=False)
    (folder / "config.yaml").unlink()
    page = _Page(write_report(folder))
    assert page.placed == list(page.charts) == ["front", "hypervolume"]
    for text in (
        "The front is by searched values: no exported file has been measured yet.",
        "No batch has been predicted before it was measured",
        "This run has no trained supernet.",
        "No model has been exported yet.",
        "no profile in this run yet",
    ):
        assert text in page.text


@pytest.mark.parametrize("num_rows", [0, 1])
def test_a_search_without_a_complete_candidate_has_a_page_without_charts(tmp_path: Path, num_rows: int) -> None:
    make_study(tmp_path / "study.db", num_rows=num_rows, constraints=[parse_constraint("latency_ms<=1")])
    page = _Page(write_report(tmp_path))
    assert (page.placed, page.charts) == ([], {})
    assert "No candidate has been measured yet." in page.text
    assert "No model is on the front yet." in page.text


def test_a_policy_study_has_its_own_page(tmp_path: Path) -> None:
    make_study(tmp_path / "study-largest.db", num_rows=4)
    assert write_report(tmp_path, study="study-largest.db") == tmp_path / "report-largest.html"


def test_fidelity_is_shown_once_it_was_measured(tmp_path: Path) -> None:
    make_study(tmp_path / "study.db", num_rows=1)  # a failed one, so that there are no other charts
    rows = make_rows(range(50, 58), range(40, 48), bands=[np.nan, np.nan, *[1.0] * 3, *[2.0] * 3])
    rows.loc[0, "role"], rows.loc[1, "role"] = "smallest", "largest"
    rows.to_csv(tmp_path / "fidelity.csv", index=False)
    figures = {name: figure.to_json() for name, figure in fidelity_figures(rows, num_resamples=20).items()}
    content = {"figures": figures, "num_ranked": 6, "num_seeds_averaged": 3, "options": {"epochs_alone": 4}}
    (tmp_path / "fidelity.json").write_text(json.dumps(content))
    page = _Page(write_report(tmp_path))
    assert page.placed == ["fidelity"]
    traces = page.charts["fidelity"]["data"]
    assert isinstance(traces, list)
    assert [trace["name"] for trace in traces] == ["equal", "1 MMACs", "2 MMACs", "outside bands"]
    assert [len(trace["text"]) for trace in traces[1:]] == [3, 3, 2]
    for text in (
        "Fidelity",
        "6 sub-networks ranked",
        "for 4 epochs (mean of 3 seeds)",
        "inherited accuracy\n1.00 (1.00 to 1.00)",
        "10.00",
    ):
        assert text in page.text


def test_damaged_files_are_told_in_one_line(tmp_path: Path) -> None:
    make_study(tmp_path / "study.db", num_rows=2)
    for name, content in (("supernet.json", "[]"), ("supernet.json", "{"), ("config.yaml", "a: [\nb: }")):
        (tmp_path / name).write_text(content)
        with pytest.raises(UserError, match=name) as error:
            write_report(tmp_path)
        assert "\n" not in str(error.value)
        (tmp_path / name).unlink()
    assert not (tmp_path / "report.html").exists()


def test_text_of_a_run_cannot_become_markup(tmp_path: Path) -> None:
    make_study(tmp_path / "study.db", num_rows=2)
    (tmp_path / "config.yaml").write_text('data: "</script><b onload=x>"\nspace: "<i>"\n')
    text = write_report(tmp_path).read_text(encoding="utf-8")
    assert "<b onload" not in text
    assert "<i>" not in re.sub(r"<script.*?</script>", "", text, flags=re.DOTALL)


def test_hypervolume_grows_with_points_that_dominate_and_counts_only_feasible_ones() -> None:
    frame = pd.DataFrame({"error_pct": [20.0, np.nan, 10.0, 15.0], "latency_ms": [1.0, 1.0, 2.0, 1.5]})
    evaluations, shares = hypervolume_curve(frame, COSTS)
    assert evaluations == [1, 2, 3, 4]
    np.testing.assert_allclose(shares, [0, 0, 0, 25], atol=1e-5)
    _, kept = hypervolume_curve(frame, COSTS, [parse_constraint("latency_ms<=1.2")])
    np.testing.assert_allclose(kept, 0, atol=1e-5)


def test_predictor_errors_are_means_of_batches() -> None:
    frame = pd.DataFrame(
        {"batch": [0, 1, 1, 2], "error_pct": [1.0, 2.0, 4.0, np.nan], "predicted_error_pct": [np.nan, 3.0, 4.0, 5.0]}
    )
    assert predictor_errors(frame, "error_pct").to_dict() == {1: 0.5}
    assert predictor_errors(frame, "latency_ms").empty


def test_a_diagram_keeps_order_and_shows_kind_size_and_precision() -> None:
    blocks = [
        {"name": "stem", "kind": "stem", "args": {"channels": 16, "stride": 2}, "precision": "fp32"},
        {"name": "stage1.block1.token_mixer", "kind": "conv", "args": {"kernel": 5}, "precision": "int8"},
        {"name": "stage1.block1.channel_mixer", "kind": "mine:My_Block", "args": {}, "precision": "int8-dynamic"},
    ]
    blocks = [{**block, "reads": [{"stream": "x", "layout": "BCHW", "shape": [16, 8, 8]}]} for block in blocks]
    html = diagram(blocks, colours_of(str(block["kind"]) for block in blocks))
    words = [r'block fp32".*stem.*16 → 16 ch.*8×8', r'block int8".*conv 5×5.*16 ch', r'block int8-dynamic".*My Block']
    assert re.search(".*".join(words), html)
    assert html.count('class="stage"') == 2


def test_kinds_of_others_get_colours_of_their_own() -> None:
    colours = colours_of(["b", "a", "conv"])
    assert list(colours) == ["conv", "a", "b"]
    assert len(set(colours.values()) | set(COLOURS.values())) == len(set(COLOURS.values())) + 2


def test_numbers_are_short_and_missing_ones_a_dash() -> None:
    assert [number(0.39, "latency_ms"), number(1_151_300, "size_bytes"), number(0.0, "macs")] == ["0.390", "1,151", "0"]
    assert (number(9.0, "error_pct"), number(float("nan"), "macs")) == ("9.00", "–")


def test_axes_have_units_where_there_is_one() -> None:
    titles = {name: label(name) for name in ("latency_ms", "effectiveness", "own_column")}
    assert list(titles.values()) == ["latency (ms)", "depth over width", "own_column"]


def test_a_hover_names_values_and_architecture(run: Path) -> None:
    row = front(load_results(run)).iloc[0]
    text = describe_candidate(row)
    assert f"<b>#{row['index']}</b>" in text
    assert f"latency {number(row['measured_latency_ms'], 'latency_ms')} ms" in text
    assert "widths " in text
