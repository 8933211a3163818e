"""Stand-alone trainings are taken over from another run when nothing that decides them differs."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from nas.data import ImageData
from nas.errors import UserError
from nas.fidelity.options import FidelityOptions
from nas.fidelity.reuse import check_conditions, conditions, take_over
from nas.fidelity.rows import Rows, load_rows
from nas.fidelity.sampling import choose_members, plan_trainings
from tests.nas.training.runs import OPTIONS as RECIPE
from tests.nas.training.runs import small_space

SPACE = small_space()


def wanted(data: ImageData, **changes: Any) -> dict[str, Any]:
    return conditions(SPACE, data, replace(RECIPE, **changes), num_epochs=2)


def trained(path: Path, *, seed: int, num_architectures: int) -> None:
    """A finished file with invented accuracies."""
    options = FidelityOptions(num_architectures=num_architectures, repeats=2, num_repeated=2, seed=seed)
    rows = Rows(path, SPACE)
    for place, training in enumerate(plan_trainings(choose_members(SPACE, options), options)):
        accuracies = {"standalone_validation_pct": 50 + place, "standalone_test_pct": 51 + place}
        rows.append(training, accuracies | {"epochs": 2, "seconds": 1.5})


def test_rows_of_equal_architecture_and_seed_are_taken_over(tmp_path: Path, tiny_data: ImageData) -> None:
    trained(tmp_path / "other.csv", seed=0, num_architectures=5)
    options = FidelityOptions(num_architectures=7, repeats=2, num_repeated=3)
    plan = plan_trainings(choose_members(SPACE, options), options)
    rows = Rows(tmp_path / "fidelity.csv", SPACE)
    take_over(rows, plan, tmp_path / "other.csv")
    found, other = load_rows(tmp_path / "fidelity.csv"), load_rows(tmp_path / "other.csv")
    assert len(found) == len(other) == 5 + 2
    genes = [choice.name for choice in SPACE.choices]
    both = found.merge(other, on=[*genes, "seed"], suffixes=("", "_other"))
    assert len(both) == len(other)
    assert (both["standalone_test_pct"] == both["standalone_test_pct_other"]).all()
    take_over(rows, plan, tmp_path / "other.csv")
    assert len(load_rows(tmp_path / "fidelity.csv")) == len(other)


def test_only_what_a_stand_alone_training_uses_must_be_equal(tiny_data: ImageData) -> None:
    assert wanted(tiny_data) == wanted(tiny_data, strategy="fair", num_shards=4, num_epochs=9, seed=3)
    assert wanted(tiny_data) == wanted(tiny_data, num_random=5, size_bias=0.3, entanglement="width")
    assert wanted(tiny_data) != wanted(tiny_data, learning_rate=1e-3)


def test_trainings_with_another_recipe_are_refused_by_the_option_that_differs(
    tmp_path: Path, tiny_data: ImageData
) -> None:
    check_conditions(tmp_path, {"alone": wanted(tiny_data)}, wanted(tiny_data))
    about = {"alone": wanted(tiny_data, learning_rate=1e-3)}
    about["alone"]["options"]["of_an_earlier_version"] = 1  # what is no option any more decides nothing
    with pytest.raises(UserError, match="had learning_rate=0.001, here it is 0.003; train anew, without --alone"):
        check_conditions(tmp_path, about, wanted(tiny_data))
