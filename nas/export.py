"""Models in folders of their own: ONNX file, weights, architecture with its policy, and how to prepare an image."""

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import onnx
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from nas.calibration import OperatorRange, operators
from nas.errors import UserError
from nas.evaluator import Evaluator
from nas.finetuning.loop import Finetuned
from nas.onnx_model import export_network
from nas.quantization import simulate
from nas.results import load_finetuned, load_results
from nas.results import select as selected
from nas.training.pretrained import TRAINED
from search_spaces import BlockSpec, Network, build_network
from search_spaces.precision import Candidate, QuantizationPolicy

FILES = ("model.onnx", "weights.safetensors", "architecture.json", "preprocess.json", TRAINED)

UNPACKED = {"expand": ("expand.gate", "expand.value"), "key_value": ("key", "value")}
"""Layers of deployed blocks that are one, with one range, in folders of earlier versions."""


def export_model(
    evaluator: Evaluator,
    candidate: Candidate,
    folder: Path,
    *,
    objectives: Mapping[str, float] | None = None,
    finetuned: Finetuned | None = None,
) -> Path:
    """Write one candidate to `folder`, whole or not at all; returns the folder.

    With `finetuned`, file and weights are those after finetuning, and `architecture.json` says so; weights with norms
    of their own are the supernet's all the same, since finetuning trains what has none.
    """
    evaluator.check_precisions(candidate)
    network, ranges = evaluator.deployed(candidate.architecture)
    if finetuned is not None:
        network, ranges = finetuned.network, finetuned.ranges
    policy, data = candidate.policy, evaluator.data
    model = export_network(network, policy, ranges, batch_size=evaluator.batch_size, weight_bits=evaluator.bits)
    onnx.checker.check_model(model)
    part = folder.with_name(folder.name + ".part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    onnx.save(model, part / "model.onnx")
    trained = evaluator.recalibrated(candidate.architecture)
    for name, module in (("weights.safetensors", network), (TRAINED, trained)):
        save_file({key: tensor.contiguous() for key, tensor in module.state_dict().items()}, part / name)
    description = {
        **candidate.to_json(),
        "blocks": [{**spec.to_json(), "precision": policy[spec.name]} for spec in network.specs],
        "objectives": dict(objectives or {}),
        "finetuned": None if finetuned is None else {"epochs": len(finetuned.history), "history": finetuned.history},
        "batch_size": evaluator.batch_size,
        "weight_bits": evaluator.bits,
        "convolutions": list(evaluator.convolutions),
        "calibration": evaluator.calibration,
        "ranges": {
            name: {path: asdict(found) for path, found in operators.items()}
            for name, operators in ranges.items()
            if policy[name] == "int8"
        },
    }
    (part / "architecture.json").write_text(json.dumps(description, indent=1))
    preprocess = {
        "image_size": data.image_size,
        "num_channels": data.num_channels,
        "content_size": data.content_size,
        "mean": list(data.mean),
        "std": list(data.std),
        "class_names": list(data.class_names),
    }
    (part / "preprocess.json").write_text(json.dumps(preprocess, indent=1))
    shutil.rmtree(folder, ignore_errors=True)
    part.rename(folder)
    return folder


def load_model(folder: str | Path) -> nn.Module:
    """An exported model as a torch module in eval mode, its policy simulated: (B, C, H, W) normalised to logits."""
    folder = Path(folder)
    try:
        description = json.loads((folder / "architecture.json").read_text())
        weights = load_file(folder / "weights.safetensors")
        specs = tuple(BlockSpec.from_json(block) for block in description["blocks"])
        policy = QuantizationPolicy(precisions=tuple(description["precisions"].items()))
        ranges = {
            name: {path: OperatorRange(**found) for path, found in saved.items()}
            for name, saved in description["ranges"].items()
        }
    except (OSError, KeyError, TypeError, json.JSONDecodeError) as error:
        raise UserError(f"'{folder}' is not an exported model ({error}); export one with `nas export`") from None
    convolutions = [
        (kind, precision) for kind, precision in description.get("convolutions", ())
    ]  # older folders have none
    network: Network = build_network(specs).deploy(convolutions)
    network.load_state_dict(_unpacked(weights, network))
    older = {part: packed for packed, parts in UNPACKED.items() for part in parts}
    for spec, block in zip(specs, network.blocks, strict=True):
        if saved := ranges.get(spec.name):
            ranges[spec.name] = {path: saved.get(path) or saved[older[path]] for path in operators(block)}
    batch_size, bits = description["batch_size"], description["weight_bits"]
    return simulate(network, policy, ranges, batch_size=batch_size, weight_bits=bits).eval()


def _unpacked(weights: Mapping[str, torch.Tensor], network: Network) -> dict[str, torch.Tensor]:
    """Weights of an older folder by the names of now."""
    known, found = network.state_dict(), {}
    for name, tensor in weights.items():
        packed = next((layer for layer in UNPACKED if f".{layer}." in name), None)
        if packed is None or name in known:
            found[name] = tensor
        else:
            names = [name.replace(f".{packed}.", f".{part}.") for part in UNPACKED[packed]]
            found |= dict(zip(names, tensor.chunk(len(names)), strict=True))
    return found


def export_front(run: str | Path, *, select: str = "all", output: str | Path) -> list[Path]:
    """Copy verified models of a run: `select` is `knee`, a constraint such as `latency_ms<=2`, an index, or `all`.

    Of a model that was finetuned, what finetuning gave is copied; `select` judges it by that as well.

    Raises:
        UserError: nothing is selected, or a folder is there already.
    """
    run, output = Path(run), Path(output)
    indices: Sequence[Any] = selected(load_results(run), select)
    targets = [(_latest(run, index), output / str(index)) for index in indices]
    for source, target in targets:
        if not source.is_dir():
            raise UserError(f"model {source.name} of '{run}' was not exported; only verified members of the front are")
        if target.exists():
            raise UserError(f"'{target}' exists; nothing was overwritten, give another --output")
    for source, target in targets:
        shutil.copytree(source, target)
    return [target for _, target in targets]


def _latest(run: Path, index: int) -> Path:
    """The folder of a model: after finetuning where it was finetuned and measured."""
    finetuned = {row["index"] for row in (load_finetuned(run) or {"rows": []})["rows"]}
    return run / ("finetuned" if index in finetuned else "front") / str(index)
