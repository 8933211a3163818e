"""Which sub-networks one step of training trains, on which images and with which targets: one file a family."""

from nas.errors import UserError
from nas.training.options import TrainOptions
from nas.training.strategies.base import Batch, Passed, Strategy
from nas.training.strategies.block_wise import BlockWise
from nas.training.strategies.bootstrap import Bootstrap
from nas.training.strategies.conflict_free import ConflictFree
from nas.training.strategies.fair import Fair
from nas.training.strategies.multi_architecture import MultiArchitecture
from nas.training.strategies.progressive_shrinking import ProgressiveShrinking
from nas.training.strategies.sandwich import Sandwich
from nas.training.strategies.single_path import SinglePath
from nas.training.strategies.teacher import Teacher
from search_spaces import SearchSpace
from search_spaces.plugins import named

STRATEGIES: dict[str, type[Strategy]] = {
    "block-wise": BlockWise,
    "bootstrap": Bootstrap,
    "conflict-free": ConflictFree,
    "fair": Fair,
    "multi-architecture": MultiArchitecture,
    "progressive-shrinking": ProgressiveShrinking,
    "sandwich": Sandwich,
    "single-path": SinglePath,
    "teacher": Teacher,
}

__all__ = [
    "STRATEGIES",
    "Batch",
    "BlockWise",
    "Bootstrap",
    "ConflictFree",
    "Fair",
    "MultiArchitecture",
    "Passed",
    "ProgressiveShrinking",
    "Sandwich",
    "SinglePath",
    "Strategy",
    "Teacher",
    "get_strategy",
]


def get_strategy(options: TrainOptions, space: SearchSpace) -> Strategy:
    """The strategy that the options name; UserError when there is none."""
    name = options.strategy
    found = named("strategy", name, STRATEGIES, error=UserError)
    if not (isinstance(found, type) and issubclass(found, Strategy)):
        raise UserError(f"strategy '{name}' is not a nas.training.Strategy; make it a subclass")
    return found(options, space)
