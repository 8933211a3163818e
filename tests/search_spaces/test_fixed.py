"""The space of one architecture describes that network and no other."""

import numpy as np

from search_spaces import hybrid_tiny
from search_spaces.fixed import FixedSpace


def test_smallest_largest_and_every_sample_are_the_one_architecture() -> None:
    space = hybrid_tiny()
    rng = np.random.default_rng(0)
    architecture = space.sample(rng)
    fixed = FixedSpace(space, architecture)
    assert {fixed.smallest(), fixed.middle(), fixed.largest(), fixed.sample(rng)} == {architecture}
    assert fixed.blocks(architecture) == space.blocks(architecture)
    assert tuple(fixed.block_specs()) == space.blocks(architecture)
    assert (fixed.num_architectures(), fixed.neighbours(architecture)) == (1, [])
    assert fixed.fingerprint != space.fingerprint
