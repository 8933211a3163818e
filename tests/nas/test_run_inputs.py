"""What options name: found, or refused in one line."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from nas.config import RunConfig
from nas.errors import UserError
from nas.run_inputs import find_architecture, train_options
from search_spaces.errors import SpaceError
from tests.tiny_space import tiny

CONFIG = RunConfig(space="tests.tiny_space:tiny", data="tests.tiny_data:load", training={"seed": 3})


def test_architectures_are_found_by_name_and_in_files(tmp_path: Path) -> None:
    space = tiny()
    assert find_architecture(space, "middle") == space.middle()
    path = tmp_path / "architecture.json"
    path.write_text(json.dumps({"architecture": space.largest().to_json(), "precisions": {}}))
    assert find_architecture(space, str(path)) == space.largest()


def test_files_that_describe_no_architecture_of_the_space_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "architecture.json"
    for text in ("{", "[]", '{"architecture": 3}'):
        path.write_text(text)
        with pytest.raises(UserError, match="describes no architecture"):
            find_architecture(tiny(), str(path))
    path.write_text(json.dumps({"space": "hybrid-tiny", "genes": {}}))
    with pytest.raises(UserError, match="is an architecture of space 'hybrid-tiny', not of 'tiny'"):
        find_architecture(tiny(), str(path))
    path.write_text(json.dumps({"space": "tiny", "genes": {"stage1.width": 16}}))
    with pytest.raises(SpaceError, match="has no value"):
        find_architecture(tiny(), str(path))


def test_epochs_and_other_options_of_training_are_joined() -> None:
    options = train_options(replace(CONFIG, epochs=7))
    assert (options.num_epochs, options.seed) == (7, 3)
    with pytest.raises(UserError, match="'sed' is not an option of training"):
        train_options(replace(CONFIG, training={"sed": 3}))
    with pytest.raises(UserError, match="can't be used"):
        train_options(replace(CONFIG, training={"learning_rate": "high"}))
