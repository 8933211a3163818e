"""The front is judged by what was measured, never by what was predicted."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from hardware_profiles.measure import LatencyStats, Sampler
from hardware_profiles.profile import HardwareProfile
from hardware_profiles.runtimes import get_runtime
from nas.candidates import run_search
from nas.data import ImageData
from nas.error_estimate import ErrorEstimate
from nas.errors import UserError
from nas.export import FILES
from nas.front_models import MEASURED, FrontModels, Outputs
from nas.supernet import Supernet
from nas.tables import describe_verified
from nas.verify import MORE_MOMENTS, FileResult, export_unmeasured, record_front, run_file, verify_front
from tests.tiny_space import tiny


@pytest.fixture(scope="module")
def supernet() -> Supernet:
    torch.manual_seed(0)
    return Supernet(tiny())


@pytest.fixture(scope="module")
def frame(supernet: Supernet, tiny_data: ImageData, tiny_profile: HardwareProfile) -> pd.DataFrame:
    return run_search(supernet, tiny_data, tiny_profile, num_evaluations=12, searcher="random")


COUNTED = ("error_pct", "latency_ms", "size_bytes")
"""Objectives of tests that change a frame's errors, which an estimate would no longer fit."""


def where_larger_is_better(frame: pd.DataFrame) -> pd.DataFrame:
    """The frame with errors that fall as sizes rise, so that all are on the front, whatever was timed."""
    estimate = ErrorEstimate(constant=5.0, per_error=0.5, per_nat=10.0)
    frame = frame.assign(error_pct=50.0, cross_entropy=5.0 - 0.1 * frame["size_bytes"].rank(method="first"))
    return frame.assign(estimated_error_pct=estimate(frame["error_pct"], frame["cross_entropy"]))


def dominated(row: dict[str, Any], rows: list[dict[str, Any]]) -> bool:
    """Is another row at least as good in every measured objective, and better in one?"""
    error = "error_pct" if "measured_estimated_error_pct" not in row else "estimated_error_pct"
    columns = [MEASURED[name] for name in (error, *COUNTED[1:])]
    values = [row[column] for column in columns]
    others = [[other[column] for column in columns] for other in rows]
    return any(all(a <= b for a, b in zip(other, values, strict=True)) and other != values for other in others)


def test_measured_values_decide_who_is_on_the_front(
    supernet: Supernet, tiny_data: ImageData, tiny_profile: HardwareProfile, frame: pd.DataFrame, tmp_path: Path
) -> None:
    promised = frame.copy()
    slow = int(frame.sort_values("size_bytes")["index"].iloc[-1])
    promised.loc[promised["index"] == slow, "latency_ms"] = 1e-6  # a promise that no measurement can keep
    promised.loc[promised["index"] == slow, "error_pct"] = 0.0
    runtime = get_runtime("onnxruntime")
    verified = verify_front(
        supernet, tiny_data, runtime, tiny_profile, promised, tmp_path, objectives=COUNTED, max_models=4
    )
    written = json.loads((tmp_path / "verified.json").read_text())
    rows = written["rows"]
    assert slow in set(verified["index"])
    assert 1 < len(rows) <= 4
    assert len({row["index"] for row in rows}) == len(rows)
    for row in rows:
        folder = tmp_path / "front" / str(row["index"])
        assert {path.name for path in folder.iterdir()} == set(FILES)
        assert row["measured_size_bytes"] == (folder / "model.onnx").stat().st_size
        assert row["measured_latency_ms"] > 1e-3
        assert row["agreement_pct"] >= 95
        assert row["on_front"] != dominated(row, rows)
        assert bool(row["reason"]) != row["on_front"]
        assert ("test_error_pct" in row) == row["on_front"]
    told = frame.set_index("index")
    assert all(row["measured_error_pct"] == pytest.approx(told["error_pct"][row["index"]], abs=5) for row in rows)
    assert all(
        row["measured_cross_entropy"] == pytest.approx(told["cross_entropy"][row["index"]], 0.02) for row in rows
    )
    assert written["device"]["processor"] == tiny_profile.device.processor
    assert written["runtime"].startswith("onnxruntime ")


def test_a_front_of_estimated_errors_is_judged_by_those_of_the_files(
    supernet: Supernet, tiny_data: ImageData, tiny_profile: HardwareProfile, frame: pd.DataFrame, tmp_path: Path
) -> None:
    frame = where_larger_is_better(frame)
    options = {"objectives": ("estimated_error_pct", "size_bytes"), "max_models": 3}
    models = FrontModels(supernet, tiny_data, tiny_profile, frame, tmp_path, **options)
    names, latency = models.waiting(), LatencyStats(latency_ms=1.0, spread_pct=2.0, num_runs=3)
    worst = frame.set_index("index").loc[names, "size_bytes"].idxmax()
    for index in names:
        models.export(index)
        classes = np.zeros(len(tiny_data.validation), int)  # all files have one error
        found = Outputs(classes=classes, cross_entropy=9.0 if index == worst else 1.0)
        models.add(index, found, classes, latency)
    assert {row["index"]: row["on_front"] for row in models.judge()}[worst] is False


def test_without_its_cross_entropy_a_file_is_estimated_by_what_it_misses_beyond_its_candidate(
    supernet: Supernet, tiny_data: ImageData, tiny_profile: HardwareProfile, frame: pd.DataFrame, tmp_path: Path
) -> None:
    frame = where_larger_is_better(frame)
    models = FrontModels(supernet, tiny_data, tiny_profile, frame, tmp_path, max_models=2)
    searched = frame.set_index("index")["estimated_error_pct"]
    right = tiny_data.validation.labels_B.numpy()
    for index, num_missed in zip(models.waiting(), (0, 6), strict=True):
        models.export(index)
        classes = np.where(np.arange(len(right)) < num_missed, -1, right)
        models.add(index, Outputs(classes=classes), right, LatencyStats(latency_ms=1.0, spread_pct=2.0, num_runs=3))
        found = models.measured[index]["measured_estimated_error_pct"]
        assert found == pytest.approx(searched[index] + 100 * num_missed / len(right))


class BusyTiming:
    """In place of `InterleavedTiming`: every model takes 1 ms once `num_busy` moments are over, and 1.5 before."""

    num_busy = 0
    made: list["BusyTiming"]

    def __init__(self, samplers: Sequence[Sampler]) -> None:
        self.num_models, self.num_taken = len(samplers), 0
        self.made.append(self)

    def take(self, budget_s: float) -> None:
        self.num_taken += 1

    def stats(self) -> list[LatencyStats]:
        latency_ms = 1.5 if self.num_taken <= self.num_busy else 1.0
        return [LatencyStats(latency_ms=latency_ms, spread_pct=0.0, num_runs=1)] * self.num_models


@pytest.mark.parametrize(("num_busy", "num_moments"), [(0, 2), (1, 2), (3, 4), (100, 2 + MORE_MOMENTS)])
def test_what_is_slower_than_predicted_is_timed_at_more_moments(
    supernet: Supernet,
    tiny_data: ImageData,
    tiny_profile: HardwareProfile,
    frame: pd.DataFrame,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    num_busy: int,
    num_moments: int,
) -> None:
    monkeypatch.setattr("nas.verify.InterleavedTiming", BusyTiming)
    monkeypatch.setattr("nas.verify.TIMING_S_PER_MODEL", 0.0)
    monkeypatch.setattr(BusyTiming, "num_busy", num_busy)
    monkeypatch.setattr(BusyTiming, "made", [], raising=False)
    promised = frame.assign(latency_ms=1.0)
    rows = verify_front(supernet, tiny_data, get_runtime("onnxruntime"), tiny_profile, promised, tmp_path, max_models=2)
    assert BusyTiming.made[0].num_taken == num_moments
    assert set(rows["measured_latency_ms"]) == {1.5 if num_busy == 100 else 1.0}


def test_a_front_that_is_slower_throughout_is_called_so() -> None:
    frame = pd.DataFrame(
        {
            "latency_ms": [1.0, 2.0, 4.0, 8.0],
            "measured_latency_ms": [1.0, 2.1, 4.8, np.nan],
            "agreement_pct": [100.0, 99.97, 100.0, np.nan],
        }
    )
    line = describe_verified(frame)
    assert "3 models measured, latency 1.05 times the predicted (1.00 to 1.20), at least 99.97% of classes" in line
    assert "warning" not in line
    slower = frame.assign(measured_latency_ms=1.5 * frame["latency_ms"])
    assert "warning: all are slower than predicted" in describe_verified(slower)
    assert describe_verified(frame.iloc[3:]) == ""


def test_constraints_are_judged_by_measured_values(
    supernet: Supernet, tiny_data: ImageData, tiny_profile: HardwareProfile, frame: pd.DataFrame, tmp_path: Path
) -> None:
    promised = frame.assign(latency_ms=1e-6)
    runtime = get_runtime("onnxruntime")
    limits = ("latency_ms<=0.0001",)
    verified = verify_front(
        supernet, tiny_data, runtime, tiny_profile, promised, tmp_path, constraints=limits, max_models=2
    )
    assert len(verified) == 2
    assert not verified["on_front"].any()
    assert set(verified["reason"]) == {"measured values break latency_ms<=0.0001"}


def test_members_that_fall_out_are_replaced(
    supernet: Supernet, tiny_data: ImageData, tiny_profile: HardwareProfile, frame: pd.DataFrame, tmp_path: Path
) -> None:
    best = frame.sort_values("size_bytes").head(3)
    promised = pd.concat([best, frame[~frame["index"].isin(best["index"])]])
    liar = int(frame.sort_values("size_bytes")["index"].iloc[-1])
    for column in COUNTED:
        promised.loc[promised["index"] == liar, column] = 1e-6  # alone on the predicted front
    runtime = get_runtime("onnxruntime")
    options = {"objectives": COUNTED, "max_models": 3}
    verified = verify_front(supernet, tiny_data, runtime, tiny_profile, promised, tmp_path, **options)
    assert verified["index"].iloc[0] == liar
    assert len(verified) > 1


@pytest.mark.parametrize("room", [1, 2, 3, 5])
def test_the_best_of_each_objective_is_exported_first(
    supernet: Supernet,
    tiny_data: ImageData,
    tiny_profile: HardwareProfile,
    frame: pd.DataFrame,
    tmp_path: Path,
    room: int,
) -> None:
    front = frame.copy()
    number = np.arange(len(front))
    front["latency_ms"] = 1.0 + number
    front["size_bytes"] = 1000.0 - number
    front["size_bytes"] -= np.where(number == 5, 500, 0)
    front["error_pct"] = np.where(number == 3, 1.0, 50.0 - number)  # in the midst of the latencies
    options = {"objectives": COUNTED, "max_models": room}
    models = FrontModels(supernet, tiny_data, tiny_profile, front, tmp_path, **options)
    waiting = models.waiting()
    expected = front["index"].iloc[[3, 0, 5]].tolist()
    assert waiting[:3] == expected[:room]
    assert len(set(waiting)) == room


def test_a_front_with_little_room_drops_what_costs_least_hypervolume(
    supernet: Supernet, tiny_data: ImageData, tiny_profile: HardwareProfile, frame: pd.DataFrame, tmp_path: Path
) -> None:
    front = frame.head(6).copy()
    front["latency_ms"] = [1.0, 2.0, 2.1, 2.2, 3.0, 4.0]
    front["estimated_error_pct"] = [0.9, 0.8, 0.3, 0.29, 0.28, 0.1]  # the second adds least, then the fifth
    options = {"objectives": ("estimated_error_pct", "latency_ms"), "max_models": 4}
    models = FrontModels(supernet, tiny_data, tiny_profile, front, tmp_path, **options)
    assert sorted(models.waiting()) == front["index"].iloc[[0, 2, 3, 5]].tolist()


def test_failed_rows_are_never_exported(
    supernet: Supernet, tiny_data: ImageData, tiny_profile: HardwareProfile, frame: pd.DataFrame, tmp_path: Path
) -> None:
    failed = frame.copy()
    failed.loc[failed.index[1:], "state"] = "failed"
    runtime = get_runtime("onnxruntime")
    verified = verify_front(supernet, tiny_data, runtime, tiny_profile, failed, tmp_path, max_models=4)
    assert list(verified["index"]) == [int(frame["index"].iloc[0])]
    assert verified["on_front"].all()


def test_a_runtime_without_a_precision_of_the_profile_is_refused_before_anything_is_written(
    supernet: Supernet, tiny_data: ImageData, tiny_profile: HardwareProfile, frame: pd.DataFrame, tmp_path: Path
) -> None:
    older = get_runtime("onnxruntime")
    older.precisions = ("fp32", "int8")
    with pytest.raises(UserError, match="runtime 'onnxruntime' .* lacks int8-dynamic, w8, w4 of profile 'here'"):
        verify_front(supernet, tiny_data, older, tiny_profile, frame, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_front_is_exported_unmeasured_and_judged_by_results_from_elsewhere(
    supernet: Supernet, tiny_data: ImageData, tiny_profile: HardwareProfile, frame: pd.DataFrame, tmp_path: Path
) -> None:
    def models() -> FrontModels:
        return FrontModels(supernet, tiny_data, tiny_profile, frame, tmp_path / "front", max_models=3)

    exported = export_unmeasured(models(), tiny_profile, tmp_path / "exported.json", reason="elsewhere")
    written = json.loads((tmp_path / "exported.json").read_text())
    assert written["target"].endswith(f"with onnxruntime {tiny_profile.runtime_version}")
    assert written["rows"] == [{"index": index, "policy": "searched"} for index in exported["index"]]
    runtime, results = get_runtime("onnxruntime"), {}
    for place, index in enumerate(exported["index"]):
        session = runtime.load(models().path(index))
        results[index] = FileResult(
            validation=run_file(session, tiny_data.validation, tiny_data, 1).classes,
            test=run_file(session, tiny_data.test, tiny_data, 1).classes,
            latency=LatencyStats(latency_ms=1.0 + place, spread_pct=2.0, num_runs=3),
        )
    recorded = record_front(models(), results, {"device": {"processor": "there"}}, tmp_path / "verified.json")
    rows = json.loads((tmp_path / "verified.json").read_text())["rows"]
    assert [row["measured_latency_ms"] for row in rows] == [1.0 + place for place in range(len(exported))]
    told = frame.set_index("index")["error_pct"]
    for row in rows:
        assert row["measured_error_pct"] == pytest.approx(told[row["index"]], abs=5)
        assert "measured_cross_entropy" not in row
        assert row["agreement_pct"] >= 95
        assert row["on_front"] != dominated(row, rows)
        assert ("test_error_pct" in row) == row["on_front"]
    assert list(recorded["index"]) == list(exported["index"])
