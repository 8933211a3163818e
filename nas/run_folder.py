"""A run's folder: what its options name, and where each result of it is."""

from dataclasses import replace
from pathlib import Path

from rich.console import Console

from nas.config import RunConfig
from nas.results import beside
from nas.run_inputs import find_architecture, load_inputs, train_options
from nas.search.searchers import get_searcher


class RunFolder:
    """A folder of results and the options that they are of.

    Raises:
        UserError, SpaceError: an option can't be.
    """

    def __init__(self, folder: Path, config: RunConfig, *, console: Console | None = None) -> None:
        self.folder = folder
        get_searcher(config.searcher)
        self.train_options = train_options(config)
        recipe = self.train_options.to_json()  # written out whole: defaults may change with the next release
        self.config = replace(config, epochs=recipe.pop("num_epochs"), training=recipe)
        self.data, self.space = load_inputs(config, console=console)
        self.fixed = None if config.architecture is None else find_architecture(self.space, config.architecture)
        self.suffix = "" if config.architecture is None else f"-{Path(config.architecture).stem}"
        """Tells the study of one architecture's precisions, and what is made from it, from the joint search's."""

    @property
    def study_path(self) -> Path:
        """Of the joint search, or of the search of one architecture's precisions."""
        return self.folder / f"study{self.suffix}.db"

    @property
    def models_path(self) -> Path:
        """Folders of the verified models."""
        return self.folder / f"front{self.suffix}"

    @property
    def exported_path(self) -> Path:
        """Which models are exported and not measured."""
        return self.beside("exported.json")

    @property
    def finetuned_path(self) -> Path:
        """Folders of the finetuned models."""
        return self.folder / f"finetuned{self.suffix}"

    @property
    def csv_path(self) -> Path:
        """The front as a table."""
        return self.folder / f"pareto{self.suffix}.csv"

    @property
    def report_path(self) -> Path:
        """The page to look at."""
        return self.folder / f"report{self.suffix}.html"

    def beside(self, name: str) -> Path:
        """A file of this name that belongs to the study."""
        return beside(self.folder, self.study_path.name, name)
