"""Evaluation by Ray on a cluster of several nodes, all on this machine, one of them killed."""

import os
import time
from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from nas.errors import CandidateError, UserError
from nas.search import optimize
from nas.search.ray_executor import RayExecutor
from nas.search.study import Study
from tests.nas.search.problems import evaluate_large
from tests.nas.search.sharing import NUM_EVALUATIONS, OPTIONS, VOLATILE, undisturbed

ray = pytest.importorskip("ray", reason="Ray is not installed; pip install 'hybridnas[ray]'")


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """A head without CPUs, which is where the search runs, and two nodes of two CPUs."""
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    nodes = [cluster.add_node(num_cpus=2) for _ in range(2)]
    ray.init(address=cluster.address, logging_level="error", log_to_driver=False)
    yield cluster, nodes
    ray.shutdown()
    cluster.shutdown()


class Logged:
    """Measures like `evaluate_large`, and writes down when an evaluation begins and ends, and where."""

    def __init__(self, log: Path, *, seconds: float) -> None:
        self.log, self.seconds = log, seconds

    def __call__(self, genotype: Any) -> dict[str, float]:
        self._write("begin", genotype)
        time.sleep(self.seconds)
        values = evaluate_large(genotype)
        self._write("end", genotype)
        return values

    def _write(self, what: str, genotype: Any) -> None:
        node = ray.get_runtime_context().get_node_id()
        line = f"{what} {node} {os.getpid()} {''.join(str(value) for value in genotype.values())}\n"
        with self.log.open("ab", buffering=0) as file:
            file.write(line.encode())

    def lines(self, what: str) -> list[tuple[str, str, str]]:
        """(node, process, genotype) of each line of a kind."""
        lines = [line.split() for line in self.log.read_text().splitlines()] if self.log.exists() else []
        return [(line[1], line[2], line[3]) for line in lines if line[0] == what]


def same_rows(frame: pd.DataFrame) -> None:
    pd.testing.assert_frame_equal(frame.drop(columns=VOLATILE), undisturbed().drop(columns=VOLATILE))


def test_four_workers_give_the_rows_of_one_process(cluster: Any, tmp_path: Path) -> None:
    evaluate = Logged(tmp_path / "log", seconds=0.2)
    frame = optimize(evaluate, **OPTIONS, num_evaluations=NUM_EVALUATIONS, executor=partial(RayExecutor, num_workers=4))
    same_rows(frame)
    assert len(evaluate.lines("end")) == NUM_EVALUATIONS
    assert len({process for _, process, _ in evaluate.lines("end")}) > 1


def test_error_of_a_candidate_is_its_row_and_a_users_mistake_ends_the_search(cluster: Any) -> None:
    def impossible(genotype: Any) -> dict[str, float]:
        if genotype["gene.1"] == 0:
            raise CandidateError("block 'stem' was always zero")
        if genotype["gene.1"] == 1:
            raise RuntimeError("no memory")
        return evaluate_large(genotype)

    def broken(genotype: Any) -> dict[str, float]:
        raise UserError("weights are not finite; train again")

    executor = partial(RayExecutor, num_workers=2)
    frame = optimize(impossible, **OPTIONS, num_evaluations=6, executor=executor)
    reasons = frame.set_index("gene.1")["reason"]
    assert set(reasons.loc[[0]]) == {"block 'stem' was always zero"}
    assert set(reasons.loc[[1]]) == {"RuntimeError: no memory"}
    assert set(reasons.loc[[2]]) == {""}
    with pytest.raises(UserError, match="^weights are not finite; train again$"):
        optimize(broken, **OPTIONS, num_evaluations=12, executor=executor)


def test_killed_node_costs_only_its_own_unfinished_candidates(cluster: Any, tmp_path: Path) -> None:
    evaluate = Logged(tmp_path / "log", seconds=0.5)
    ray_cluster, nodes = cluster
    victim = nodes[-1]
    killed: list[int] = []

    def kill_in_the_middle(done: float, total: float, message: str = "") -> None:
        if not killed and done >= 8:
            ray_cluster.remove_node(victim, allow_graceful=False)
            killed.append(len(evaluate.lines("end")))

    frame = optimize(
        evaluate,
        **OPTIONS,
        num_evaluations=NUM_EVALUATIONS,
        study=tmp_path / "study.db",
        executor=partial(RayExecutor, num_workers=4),
        progress=kill_in_the_middle,
    )
    assert killed
    same_rows(frame)
    assert Study.load(tmp_path / "study.db").running() == []
    begun = Counter(genotype for _, _, genotype in evaluate.lines("begin"))
    again = [genotype for genotype, count in begun.items() if count > 1]
    assert len(again) <= 2  # what two workers of the node were at
    nodes_of_again = {genotype: [n for n, _, g in evaluate.lines("begin") if g == genotype] for genotype in again}
    assert all(first == victim.node_id for first, *_ in nodes_of_again.values())
