"""How many bits int8 weights may have on a device, found out by running models whose exact result is known."""

from collections.abc import Iterator, Sequence
from itertools import chain

import torch
from torch import nn

from hardware_profiles.probes import Probe, exact_weight_bits
from hardware_profiles.runtimes import Runtime
from nas.calibration import calibrate
from nas.errors import UserError
from nas.onnx_model import export_block, quantize_block
from nas.quantization import simulate
from search_spaces import BlockSpec, Network
from search_spaces.blocks import Port
from search_spaces.precision import uniform_policy

FORMS = (8, 7)
"""Bits of signed weights, with unsigned 8-bit activations; the first exact one is taken."""

NUM_CHANNELS = 64
INT8 = ("int8", "int8-dynamic")
"""Precisions whose products are of 8-bit integers."""


def find_weight_bits(runtime: Runtime) -> int:
    """The most bits of int8 weights that every int8 precision of the runtime computes exactly here.

    x86 processors without VNNI add pairs of products in 16 bits: 2 x 255 x 127 saturates, 2 x 255 x 64 doesn't. Both
    forms run in the same kernels, so fewer bits are never faster.

    Raises:
        UserError: no form is exact.
    """
    precisions = [precision for precision in INT8 if precision in runtime.precisions]
    signs = (False, True) if runtime.signed_activations else (False,)
    probes = ((bits, chain.from_iterable(make_probes(precisions, bits, signed=s) for s in signs)) for bits in FORMS)
    found = exact_weight_bits(runtime, probes)
    if found is not None:
        return found
    raise UserError(
        f"runtime '{runtime.name}' {runtime.version} computes int8 wrongly here, even with {FORMS[-1]}-bit weights; "
        "use another one, or take int8 out of its `precisions`"
    )


def make_probes(precisions: Sequence[str], bits: int, *, signed: bool = False) -> Iterator[Probe]:
    """A matrix multiplication and convolutions with the largest products there are, in each of `precisions`.

    With `signed` activations, too: kernels for unsigned ones may add 128 to them first.
    """
    for spec, module in _layers():
        x = torch.ones(1, *spec.reads[0].shape)
        network = Network([spec], [module])
        ranges = calibrate(network, torch.cat([x, -x]) if signed else x, signed=signed)
        for precision in precisions:
            with torch.no_grad():  # sums are below 2^24, where fp32 is exact
                expected = simulate(network, uniform_policy((spec,), precision), ranges, weight_bits=bits)(x)
            model = quantize_block(export_block(module, spec), precision, ranges[spec.name], weight_bits=bits)
            source, name = model.SerializeToString(), model.graph.input[0].name
            yield Probe(source, (name, tuple(x.shape)), expected.numpy())


def _layers() -> Iterator[tuple[BlockSpec, nn.Module]]:
    tokens, image = Port(layout="BTC", shape=(4, NUM_CHANNELS)), Port(shape=(NUM_CHANNELS, 4, 4))
    linear = nn.Linear(NUM_CHANNELS, NUM_CHANNELS, bias=False)
    yield _spec(tokens), _extreme(linear)
    for kernel, groups in ((1, 1), (3, 1), (3, NUM_CHANNELS)):
        conv = nn.Conv2d(NUM_CHANNELS, NUM_CHANNELS, kernel, padding=kernel // 2, groups=groups, bias=False)
        yield _spec(image), _extreme(conv)


def _extreme(layer: nn.Linear | nn.Conv2d) -> nn.Module:
    """The layer with weights of 1 in the even and -1 in the odd output channels."""
    signs_O = 1.0 - 2.0 * (torch.arange(NUM_CHANNELS) % 2)
    layer.weight = nn.Parameter(signs_O.view(-1, *[1] * (layer.weight.ndim - 1)).expand_as(layer.weight).clone())
    return layer.eval()


def _spec(port: Port) -> BlockSpec:
    """Says of a bare layer that it writes what it reads, in any precision; it is never built."""
    return BlockSpec(name="probe", kind="mlp", reads=(port,))
