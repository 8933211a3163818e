"""Weight-only precisions of an ONNX model: matrix multiplications whose weights are stored in blocks of few bits."""

import logging

import onnx

from nas.quantization import WEIGHT_ONLY_BLOCK

FP32_COMPUTE = 1
"""MatMulNBits' `accuracy_level` that computes in fp32. At 4 it rounds activations to int8, in blocks of its own."""


def weights_in_blocks(model: onnx.ModelProto, bits: int) -> onnx.ModelProto:
    """The model, changed in place, with each matrix multiplication by a weight as ONNX Runtime's MatMulNBits."""
    guard = logging.NullHandler()  # the quantizer's module configures the root logger unless that has a handler
    logging.getLogger().addHandler(guard)
    try:
        from onnxruntime.quantization.matmul_nbits_quantizer import DefaultWeightOnlyQuantConfig, MatMulNBitsQuantizer
    finally:
        logging.getLogger().removeHandler(guard)
    config = DefaultWeightOnlyQuantConfig(
        block_size=WEIGHT_ONLY_BLOCK, is_symmetric=False, accuracy_level=FP32_COMPUTE, bits=bits
    )
    quantizer = MatMulNBitsQuantizer(model, bits=bits, algo_config=config)
    quantizer.process()
    return quantizer.model.model
