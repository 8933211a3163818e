"""The kinds of blocks. A new one takes a file and a line here; a user's own is a dotted path, `package.module:Own`."""

from functools import cache

from search_spaces.blocks.attention import Attention, LinearAttention
from search_spaces.blocks.base import Block, Port, WeightMap
from search_spaces.blocks.convolution import Conv
from search_spaces.blocks.downsample import Downsample
from search_spaces.blocks.head import Head
from search_spaces.blocks.mlp import GatedMlp, Mlp
from search_spaces.blocks.pooling import Pooling
from search_spaces.blocks.stem import Stem
from search_spaces.errors import SpaceError
from search_spaces.plugins import named

BLOCKS: dict[str, type[Block]] = {
    "attention": Attention,
    "conv": Conv,
    "downsample": Downsample,
    "gated_mlp": GatedMlp,
    "head": Head,
    "linear_attention": LinearAttention,
    "mlp": Mlp,
    "pooling": Pooling,
    "stem": Stem,
}

__all__ = ["BLOCKS", "Block", "Port", "WeightMap", "block_class"]


@cache
def block_class(kind: str) -> type[Block]:
    """The class of a kind, or of a dotted path."""
    found = named("block kind", kind, BLOCKS)
    if not (isinstance(found, type) and issubclass(found, Block)):
        raise SpaceError(
            f"'{kind}' is not a Block; name a subclass of search_spaces.blocks.Block as `package.module:Class`"
        )
    return found
