"""Block diagrams: a network's blocks in order as boxes, coloured by kind, bordered by precision."""

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from itertools import groupby
from typing import Any

from search_spaces.precision import PRECISIONS

COLOURS = {
    "stem": "#7c8794",
    "downsample": "#7c8794",
    "head": "#7c8794",
    "pooling": "#2a9d8f",
    "conv": "#3b82c4",
    "linear_attention": "#e0a139",
    "attention": "#e0653a",
    "mlp": "#8b6fc9",
    "gated_mlp": "#c45f9f",
}
OTHER_COLOURS = ("#5f9e4b", "#a0703c", "#3aa6b9", "#b3473f", "#6a78d1", "#9a8f2d")
"""For kinds of blocks that others bring, in order of their names."""


def diagram(blocks: Sequence[Mapping[str, Any]], colours: Mapping[str, str]) -> str:
    """HTML of one network: a row of groups, one a stage, of boxes, one a block.

    Args:
        blocks: `blocks` of an `architecture.json`.
        colours: from `colours_of`.
    """
    groups = []
    for stage, members in groupby(blocks, key=lambda block: str(block["name"]).split(".")[0]):
        boxes = "".join(_box(block, colours) for block in members)
        groups.append(f'<div class="stage"><span>{escape(stage)}</span><div class="blocks">{boxes}</div></div>')
    return f'<div class="network">{"".join(groups)}</div>'


def legend(colours: Mapping[str, str]) -> str:
    """HTML of the keys to colours and borders."""
    kinds = "".join(f'<li><i style="--k:{c}" class="kind"></i>{escape(_words(k))}</li>' for k, c in colours.items())
    borders = "".join(f'<li><i class="block {p}"></i>{p}</li>' for p in PRECISIONS)
    return f'<ul class="legend">{kinds}</ul><ul class="legend">{borders}</ul>'


def colours_of(kinds: Iterable[str]) -> dict[str, str]:
    """A colour for each kind of block, known kinds first."""
    present = set(kinds)
    others = sorted(present - set(COLOURS))
    extra = {kind: OTHER_COLOURS[place % len(OTHER_COLOURS)] for place, kind in enumerate(others)}
    return {kind: colour for kind, colour in COLOURS.items() if kind in present} | extra


def _box(block: Mapping[str, Any], colours: Mapping[str, str]) -> str:
    args, shape = dict(block["args"]), block["reads"][0]["shape"]
    channels = f"{shape[0]} → {args['channels']}" if "channels" in args else str(shape[0])
    size = "×".join(str(side) for side in shape[1:])
    precision = str(block["precision"])
    hint = f"{block['name']}: {precision}, " + ", ".join(f"{name} {value}" for name, value in args.items())
    return (
        f'<div class="block {escape(precision)}" style="--k:{colours[block["kind"]]}" title="{escape(hint)}">'
        f"<b>{escape(_title(block['kind'], args))}</b><span>{channels} ch</span><span>{size}</span></div>"
    )


def _title(kind: str, args: Mapping[str, Any]) -> str:
    if "kernel" in args:
        return f"{_words(kind)} {args['kernel']}×{args['kernel']}"
    return f"{_words(kind)} ×{args['ratio']}" if "ratio" in args else _words(kind)


def _words(kind: str) -> str:
    short = {"linear_attention": "lin. attention", "mlp": "MLP", "gated_mlp": "gated MLP"}
    return short.get(kind, kind.rpartition(":")[2].replace("_", " "))
