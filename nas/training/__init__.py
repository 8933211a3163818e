"""Training a supernet: which sub-networks a step trains, and the loop around it."""

from nas.training.loop import train_supernet
from nas.training.options import TrainOptions
from nas.training.strategies import STRATEGIES, Sandwich, Strategy

__all__ = ["STRATEGIES", "Sandwich", "Strategy", "TrainOptions", "train_supernet"]
