"""Networks stage by stage."""

import pytest
import torch

from nas.training import TrainOptions
from nas.training.strategies import SinglePath
from nas.training.strategies.stages import LeadingLinear, Stages
from search_spaces import Architecture
from tests.nas.training.strategies.contract import contract_space, make_batch, make_supernet


def architectures() -> list[Architecture]:
    space = contract_space()
    return [space.smallest(), space.middle(), space.largest()]


def test_stem_belongs_to_the_first_stage_and_the_head_to_none() -> None:
    space = contract_space()
    stages = Stages(space)
    assert stages.names == ("stage1", "stage2")
    assert stages.widths == {"stage1": 16, "stage2": 24}
    found = [stages.of(spec) for spec in space.blocks(space.smallest())]
    assert found == ["stage1"] * 3 + ["stage2"] * 3 + ["head"]


@pytest.mark.parametrize("architecture", architectures())
@pytest.mark.parametrize("isolated", [False, True])
def test_stages_give_what_the_plain_network_gives(architecture: Architecture, isolated: bool) -> None:
    space, batch = contract_space(), make_batch()
    supernet, strategy = make_supernet(space), SinglePath(TrainOptions(), space)
    staged = Stages(space).forward(strategy, supernet, architecture, batch.x_BCHW, isolated=isolated, drop_path=0.0)
    genotype = architecture.genotype
    assert {name: each.shape[1] for name, each in staged.features.items()} == {
        "stage1": genotype["stage1.width"],
        "stage2": genotype["stage2.width"],
    }
    torch.testing.assert_close(staged.passed.logits_BK, supernet.subnet(architecture)(batch.x_BCHW))


@pytest.mark.parametrize("isolated", [False, True])
def test_isolated_stages_get_no_gradient_from_later_ones(isolated: bool) -> None:
    space, batch = contract_space(), make_batch()
    supernet, strategy = make_supernet(space), SinglePath(TrainOptions(), space)
    stages = Stages(space)
    reached = []
    for source in ("stage1", "stage2", "head"):
        supernet.zero_grad()
        forward = stages.forward(strategy, supernet, space.largest(), batch.x_BCHW, isolated=isolated, drop_path=0.0)
        output = forward.passed.logits_BK if source == "head" else forward.features[source]
        forward.passed.learn(output.square().mean())
        used = {key.partition("/")[0].partition(".")[0] for key, p in supernet.shared.items() if p.grad is not None}
        reached.append(used)
    apart, together = [{"stem", "stage1"}, {"stage2"}, {"head"}], [{"stem", "stage1"}, {"stem", "stage1", "stage2"}]
    assert reached == (apart if isolated else [*together, {"stem", "stage1", "stage2", "head"}])


def test_narrow_input_uses_the_leading_weights() -> None:
    layer, x = LeadingLinear(6, 3), torch.randn(2, 5, 4)
    padded = torch.cat([x, torch.zeros(2, 5, 2)], dim=-1)
    torch.testing.assert_close(layer(x), layer(padded))
    layer(x).sum().backward()
    assert layer.full.weight.grad is not None
    assert layer.full.weight.grad[:, :4].all()
    assert not layer.full.weight.grad[:, 4:].any()
