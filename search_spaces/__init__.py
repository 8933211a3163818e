"""What may be built: search spaces, the blocks they choose from, precisions and costs."""

from collections.abc import Callable

from search_spaces.errors import SpaceError, unknown_name
from search_spaces.hybrid import HybridSpace, hybrid_mobile, hybrid_small, hybrid_tiny
from search_spaces.network import BlockSpec, Network, build_network
from search_spaces.plugins import named
from search_spaces.space import Architecture, Choice, Genotype, SearchSpace

SPACES: dict[str, Callable[..., SearchSpace]] = {
    "hybrid-tiny": hybrid_tiny,
    "hybrid-small": hybrid_small,
    "hybrid-mobile": hybrid_mobile,
}

__all__ = [
    "SPACES",
    "Architecture",
    "BlockSpec",
    "Choice",
    "Genotype",
    "HybridSpace",
    "Network",
    "SearchSpace",
    "SpaceError",
    "build_network",
    "get_space",
    "hybrid_mobile",
    "hybrid_small",
    "hybrid_tiny",
    "unknown_name",
]


def get_space(name: str, *, num_channels: int = 3, num_classes: int | None = None) -> SearchSpace:
    """A space by name, or by dotted path `my_package.spaces:phone` to a function with the same keywords."""
    options: dict[str, int] = {"num_channels": num_channels} | (
        {} if num_classes is None else {"num_classes": num_classes}
    )
    return named("search space", name, SPACES)(**options)
