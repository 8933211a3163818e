"""What finetuning is asked for."""

import pytest

from nas.errors import UserError
from nas.finetuning.loop import finetune_recipe
from nas.finetuning.options import FinetuneOptions
from nas.training import TrainOptions


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"epochs": 0}, "epochs is 0; it must be 1 or more"),
        ({"epochs": -3}, "epochs is -3; it must be 1 or more"),
        ({"learning_rate": 0.0}, "learning_rate is 0; it must be above 0"),
        ({"learning_rate": float("nan")}, "learning_rate is nan; it must be above 0"),
        ({"learning_rate": float("inf")}, "learning_rate is inf; it must be above 0"),
    ],
)
def test_values_out_of_range_are_refused(values: dict[str, float], message: str) -> None:
    with pytest.raises(UserError, match=message):
        FinetuneOptions(**values)


def test_the_recipe_is_the_supernets_but_for_length_rate_and_clipping() -> None:
    supernet = TrainOptions(num_epochs=9, batch_size=48, num_shards=2, seed=5, mixup=0.2)
    recipe = finetune_recipe(supernet, FinetuneOptions(epochs=3, learning_rate=1e-4))
    assert (recipe.num_epochs, recipe.learning_rate, recipe.num_shards) == (3, 1e-4, 1)
    assert recipe.max_grad_norm > 0
    assert (recipe.batch_size, recipe.seed, recipe.mixup) == (48, 5, 0.2)
    clipped = TrainOptions(max_grad_norm=0.3)
    assert finetune_recipe(clipped, FinetuneOptions()).max_grad_norm == 0.3
