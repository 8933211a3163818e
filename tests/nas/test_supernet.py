"""Gathered sub-networks and scattered gradients against autograd through views of the shared tensors."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.func import functional_call
from torch.nn import functional as F

from nas.errors import UserError
from nas.supernet import ENTANGLEMENTS, Supernet
from search_spaces import Architecture, Network, SearchSpace, hybrid_mobile, hybrid_tiny
from search_spaces.blocks import BLOCKS
from search_spaces.hybrid import HybridSpace

NUM_ARCHITECTURES = 100
"""Random ones for each preset."""


def small_images(space: HybridSpace) -> HybridSpace:
    """The space on 64x64 images at most, for speed; weights do not depend on the size."""
    return HybridSpace(
        space.name,
        space.stages,
        image_size=min(space.image_size, 64),
        stem_stride=space.stem_stride,
        head_dim=space.head_dim,
        num_channels=space.num_channels,
        num_classes=space.num_classes,
    )


@pytest.fixture(
    scope="module",
    params=[(hybrid_tiny, "full"), (hybrid_tiny, "width"), (hybrid_mobile, "full")],
    ids=["hybrid-tiny", "hybrid-tiny-width", "hybrid-mobile"],
)
def supernet(request: pytest.FixtureRequest) -> Iterator[Supernet]:
    """In float64, so that only a wrong element can differ."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    torch.manual_seed(0)
    preset, entanglement = request.param
    yield Supernet(small_images(preset(num_classes=10)), entanglement=entanglement)
    torch.set_default_dtype(before)


@pytest.fixture
def tiny() -> Supernet:
    return Supernet(hybrid_tiny(num_channels=1))


def views(supernet: Supernet, network: Network) -> dict[str, torch.Tensor]:
    """Parameters of the network by name, as differentiable functions of the shared tensors."""
    found = {}
    for index, (spec, block) in enumerate(zip(network.specs, network.blocks, strict=True)):
        maps = block.weight_maps()
        for name, parameter in block.named_parameters():
            shared = supernet.shared[f"{supernet.weight_key(spec)}/{name}"]
            found[f"blocks.{index}.{name}"] = maps[name].gather(shared).reshape(parameter.shape)
    return found


def images(space: SearchSpace, count: int = 2) -> torch.Tensor:
    return torch.randn(count, space.num_channels, space.image_size, space.image_size)


def test_outputs_and_gradients_equal_functional_call_over_views(supernet: Supernet) -> None:
    space, rng = supernet.space, np.random.default_rng(0)
    architectures = [space.smallest(), space.middle(), space.largest()]
    architectures += [space.sample(rng) for _ in range(NUM_ARCHITECTURES)]
    shared = list(supernet.shared.values())
    x_BCHW, labels_B = images(space), torch.tensor([1, 7])
    for architecture in architectures:
        supernet.zero_grad()
        network = supernet.subnet(architecture).train()
        reference = functional_call(network, views(supernet, network), (x_BCHW,))
        loss = F.cross_entropy(reference, labels_B)
        expected = torch.autograd.grad(loss, shared, allow_unused=True)

        output = network(x_BCHW)
        F.cross_entropy(output, labels_B).backward()
        supernet.scatter(network)
        assert torch.allclose(output, reference, rtol=0, atol=1e-9)
        for (key, parameter), gradient in zip(supernet.shared.items(), expected, strict=True):
            assert (parameter.grad is None) == (gradient is None), key
            if gradient is not None:
                assert torch.allclose(parameter.grad, gradient, rtol=1e-7, atol=1e-9), key


def test_gradients_of_several_subnets_add_up(tiny: Supernet) -> None:
    space = tiny.space
    x_BCHW, labels_B = images(space, 4), torch.tensor([0, 1, 2, 3])
    alone = []
    for architecture in (space.largest(), space.smallest()):
        tiny.zero_grad()
        network = tiny.subnet(architecture).train()
        F.cross_entropy(network(x_BCHW), labels_B).backward()
        tiny.scatter(network)
        alone.append(tiny.flat_grad.clone())
    tiny.zero_grad()
    for architecture in (space.largest(), space.smallest()):
        network = tiny.subnet(architecture).train()
        F.cross_entropy(network(x_BCHW), labels_B).backward()
        tiny.scatter(network)
    assert torch.allclose(tiny.flat_grad, alone[0] + alone[1], atol=1e-6)


def test_every_kind_of_block_occurs(supernet: Supernet) -> None:
    assert {spec.kind for spec in supernet.space.block_specs()} == set(BLOCKS)


def test_scatter_is_the_adjoint_of_gather_for_every_block(supernet: Supernet) -> None:
    generator = torch.Generator().manual_seed(0)
    for spec in supernet.space.block_specs():
        block = spec.build()
        for name, weight_map in block.weight_maps().items():
            shared = torch.randn(supernet.shared[f"{supernet.weight_key(spec)}/{name}"].shape, generator=generator)
            gathered = weight_map.gather(shared)
            gradient, scattered = torch.randn(gathered.shape, generator=generator), torch.zeros_like(shared)
            weight_map.scatter(gradient, scattered)
            assert torch.allclose((gathered * gradient).sum(), (shared * scattered).sum()), f"{spec.name} {name}"


def test_tensors_that_no_subnet_used_keep_no_gradient_and_do_not_move(tiny: Supernet) -> None:
    space = tiny.space
    before = tiny.flat.clone()
    optimizer = torch.optim.AdamW(tiny.shared.values(), lr=0.1, weight_decay=0.1)
    network = tiny.subnet(space.smallest()).train()
    F.cross_entropy(network(images(space, 4)), torch.tensor([0, 1, 2, 3])).backward()
    tiny.scatter(network)
    optimizer.step()
    used = {f"{tiny.weight_key(spec)}/{name}" for spec in network.specs for name, _ in spec.build().named_parameters()}
    assert 0 < len(used) < len(tiny.shared)
    sizes = [parameter.numel() for parameter in tiny.shared.values()]
    pairs = zip(tiny.flat.split(sizes), before.split(sizes), strict=True)
    for (key, parameter), (after, earlier) in zip(tiny.shared.items(), pairs, strict=True):
        assert (parameter.grad is not None) == (key in used), key
        if key not in used:
            assert torch.equal(after, earlier), key


def test_extracted_subnet_equals_supernet_output_and_keeps_its_weights(tiny: Supernet) -> None:
    x_BCHW, architecture = images(tiny.space), tiny.space.middle()
    extracted = tiny.extract(architecture).train()
    output = extracted(x_BCHW)
    assert torch.equal(output, tiny.subnet(architecture).train()(x_BCHW))
    with torch.no_grad():
        tiny.flat.zero_()
    assert torch.equal(extracted(x_BCHW), output)


def test_saved_weights_are_loaded_bit_by_bit(tiny: Supernet, tmp_path: Path) -> None:
    tiny.save(tmp_path / "supernet.safetensors")
    other = Supernet(tiny.space)
    assert not torch.equal(other.flat, tiny.flat)
    other.load(tmp_path / "supernet.safetensors")
    assert torch.equal(other.flat, tiny.flat)
    assert [path.name for path in tmp_path.iterdir()] == ["supernet.safetensors"]


def test_entangled_by_width_alone_kernels_and_ratios_have_weights_of_their_own(tiny: Supernet) -> None:
    apart = Supernet(tiny.space, entanglement="width")
    for supernet, groups in ((tiny, 1), (apart, 3)):
        specs = [spec for spec in tiny.space.block_specs() if spec.name == "stage3.block1.token_mixer"]
        kernels = {supernet.weight_key(spec) for spec in specs if spec.kind == "conv"}
        assert len(kernels) == groups
        assert len({supernet.weight_key(spec) for spec in specs if spec.kind == "attention"}) == 1
    entrances = [spec for spec in tiny.space.block_specs() if spec.kind in ("stem", "downsample")]
    assert all(apart.weight_key(spec) == tiny.weight_key(spec) for spec in entrances)


@pytest.mark.parametrize("entanglement", ENTANGLEMENTS)
def test_a_file_says_how_its_weights_are_entangled(entanglement: str, tiny: Supernet, tmp_path: Path) -> None:
    supernet, path = Supernet(tiny.space, entanglement=entanglement), tmp_path / "supernet.safetensors"
    supernet.save(path)
    found = Supernet.read(tiny.space, path)
    assert found.entanglement == entanglement
    assert torch.equal(found.flat, supernet.flat)
    save_file(load_file(path), path)  # as before files said so
    if entanglement == "full":
        assert torch.equal(Supernet.read(tiny.space, path).flat, supernet.flat)
        return
    with pytest.raises(UserError, match="is not of the search space 'hybrid-tiny' as it is now; train again"):
        Supernet.read(tiny.space, path)


def test_unknown_entanglement_is_refused_by_name(tiny: Supernet, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="unknown entanglement 'widht'; available: full, width. Did you mean width?"):
        Supernet(tiny.space, entanglement="widht")
    path = tmp_path / "supernet.safetensors"
    tiny.save(path)
    save_file(load_file(path), path, {"entanglement": "kernel"})
    with pytest.raises(UserError, match="supernet.safetensors: unknown entanglement 'kernel'"):
        Supernet.read(tiny.space, path)


@pytest.mark.parametrize("cut", [0, 100, -1])
def test_damaged_file_is_refused(cut: int, tiny: Supernet, tmp_path: Path) -> None:
    path = tmp_path / "supernet.safetensors"
    tiny.save(path)
    path.write_bytes(path.read_bytes()[:cut])
    for read in (tiny.load, partial(Supernet.read, tiny.space)):
        with pytest.raises(UserError, match="can't be read .*; remove it and train again"):
            read(path)


def test_weights_of_another_space_are_refused(tiny: Supernet, tmp_path: Path) -> None:
    Supernet(hybrid_tiny(num_channels=3)).save(tmp_path / "supernet.safetensors")
    with pytest.raises(UserError, match="is not of the search space 'hybrid-tiny' as it is now; train again"):
        tiny.load(tmp_path / "supernet.safetensors")


def test_architecture_of_another_space_is_refused(tiny: Supernet) -> None:
    other: Architecture = hybrid_mobile().smallest()
    with pytest.raises(ValueError, match="this architecture is of 'hybrid-mobile', not of 'hybrid-tiny'"):
        tiny.subnet(other)
