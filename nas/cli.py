"""The command line. Verbs import what they need when they run, so that help is quick."""

import sys
import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from cyclopts import App

from nas import __version__
from nas.errors import UserError
from nas.fidelity.options import FidelityOptions
from nas.finetuning.options import FinetuneOptions
from nas.flags import (
    QUICKSTART,
    DesignFlags,
    ElsewhereFlags,
    Flag,
    RunOptions,
    SearchFlags,
    TargetFlags,
    TrainFlags,
    merge_flags,
)
from nas.mistakes import told_in_one_line

if TYPE_CHECKING:
    import pandas as pd

    from nas.run import Run

app = App(
    name="nas",
    version=__version__,
    help="Search for the networks, and the precision of their blocks, that are best on your device.\n\n"
    "`nas search` does it all: measure the device, train a supernet, search, and hand back verified ONNX models.",
    help_format="markdown",
    result_action="return_value",
    suppress_keyboard_interrupt=False,
)


@app.command
def train(
    *, run: RunOptions = RunOptions(), training: TrainFlags = TrainFlags(), redo: Literal["train"] | None = None
) -> None:
    """Train a supernet: the shared weights of all networks of a search space.

    Parameters
    ----------
    redo
        Set the trained supernet aside and train anew.
    """
    opened = _open(run, training, redo=redo)
    opened.train()


@app.command
def profile(
    *,
    run: RunOptions = RunOptions(),
    target: TargetFlags = TargetFlags(),
    elsewhere: ElsewhereFlags = ElsewhereFlags(),
    redo: Literal["profile"] | None = None,
) -> None:
    """Measure what the blocks of a search space cost on this machine, or on a device without this project.

    Parameters
    ----------
    redo
        Set the profile aside and measure anew.
    """
    if elsewhere.given:
        from nas.elsewhere import profile_elsewhere

        profile_elsewhere(_open(run, target, redo=None), elsewhere, redo=redo is not None)
        return
    _open(run, target, redo=redo).profile()


@app.command
def search(
    *,
    run: RunOptions = RunOptions(),
    training: TrainFlags = TrainFlags(),
    target: TargetFlags = TargetFlags(),
    options: SearchFlags = SearchFlags(),
    redo: Literal["profile", "train", "search", "verify", "finetune"] | None = None,
    dry_run: Flag = False,
) -> None:
    """Search architecture and precision together, export the front and measure every exported model.

    Runs the stages that are missing (profile, train, search, verify) and reuses those that are there. A killed command
    continues when it is given again.

    Parameters
    ----------
    redo
        Set the results of a stage, and of those made from it, aside and do it anew.
    dry_run
        Print costs, which constraints can be met, and an estimate of the time; train nothing.
    """
    if dry_run:
        from nas.preview import print_preview

        print_preview(run.run, merge_flags(run, training, target, options), console=_console())
        return
    _finish(_open(run, training, target, options, redo=redo))


@app.command
def join(run: Path = QUICKSTART, /, *, architecture: str | None = None) -> None:
    """Evaluate candidates of a search that another process runs, here or on another machine, until it has them all.

    Processes share the study that the run's options name, each candidate is evaluated by one of them, and what a
    killed one had begun is done by another.

    Parameters
    ----------
    run
        Folder of the run: the same one, or on another machine a copy of the same name.
    architecture
        Of the search of this architecture's precisions instead.
    """
    if not (run / "config.yaml").is_file():
        raise UserError(f"'{run}' is no run of `nas search`; give the folder of one")
    _open(RunOptions(run=run), SearchFlags(architecture=architecture), redo=None).join()


@app.command
def verify(
    folder: Path | None = None,
    /,
    *,
    run: RunOptions = RunOptions(),
    options: SearchFlags = SearchFlags(),
    elsewhere: ElsewhereFlags = ElsewhereFlags(),
    max_images: int | None = None,
    redo: Literal["verify"] | None = None,
) -> None:
    """Export the front of a search and measure every exported model; `nas search` ends with it.

    Parameters
    ----------
    folder
        Folder of the run, as --run.
    max_images
        Validation and test images that go to another device, at most so many each. [default: all]
    redo
        Set the verified models aside and measure anew.
    """
    run = run if folder is None else replace(run, run=folder)
    if not elsewhere.given:
        _finish(_open(run, options, redo=redo))
        return
    from nas.elsewhere import verify_elsewhere

    opened = _open(run, options, redo=None)
    if (frame := verify_elsewhere(opened, elsewhere, num_images=max_images, redo=redo is not None)) is not None:
        _show(opened, frame)


@app.command
def finetune(
    run: Path = QUICKSTART,
    /,
    *models: str,
    options: FinetuneOptions = FinetuneOptions(),
    all: Flag = False,
    architecture: str | None = None,
    redo: Literal["finetune"] | None = None,
) -> None:
    """Train models of a run's front as they are deployed, under their own quantization policy, and measure them again.

    The models that were there stay as they are; `nas results` shows both, `nas export` copies the finetuned ones. A
    killed command continues after its last whole epoch when it is given again.

    Parameters
    ----------
    run
        Folder of the run.
    models
        Numbers of models, knee, or limits such as 'latency_ms<=2'.
    all
        Every model of the front.
    architecture
        Of the search of this architecture's precisions instead.
    redo
        Set the finetuned models aside and train anew.
    """
    if all == bool(models):
        raise UserError("name models of the front, such as knee or 12, or give --all alone for every one of them")
    if not (run / "config.yaml").is_file():
        raise UserError(f"'{run}' is no run of `nas search`; give the folder of one")
    opened = _open(RunOptions(run=run), SearchFlags(architecture=architecture), redo=redo)
    _show(opened, opened.finetune(models or ("all",), options))


@app.command
def fidelity(
    *,
    run: RunOptions = RunOptions(),
    training: TrainFlags = TrainFlags(),
    options: FidelityOptions = FidelityOptions(),
    redo: Literal["train", "fidelity"] | None = None,
) -> None:
    """Train networks alone and see how well the accuracy they inherit from the supernet ranks them.

    Trains the supernet when it is missing. More architectures or repeats than before are added to those that are there.

    Parameters
    ----------
    redo
        Set the results of a stage, and of those made from it, aside and do it anew.
    """
    from nas.tables import fidelity_tables

    opened = _open(run, training, redo=redo)
    _console().print(fidelity_tables(opened.fidelity(options)))
    print(f"table: {opened.folder / 'fidelity.csv'}\nfigures: {opened.folder / 'fidelity.json'}")


@app.command
def sensitivity(
    *,
    run: RunOptions = RunOptions(),
    training: TrainFlags = TrainFlags(),
    architecture: str = "largest",
    redo: Literal["train", "profile", "sensitivity"] | None = None,
) -> None:
    """Quantize one block at a time and see what it does to the network, beside what it gains on the device.

    Trains the supernet and measures the device when they are missing. Tables of other architectures are kept.

    Parameters
    ----------
    architecture
        smallest, middle, largest, the number of a model of the front, or an architecture.json.
    redo
        Set the tables aside and measure anew.
    """
    from nas.tables import sensitivity_table

    opened = _open(run, training, redo=redo)
    _console().print(sensitivity_table(opened.sensitivity(architecture)))
    print(f"table: {opened.folder / 'sensitivity.csv'}")


@app.command
def results(
    run: Path = QUICKSTART, /, *, all: Flag = False, csv: Path | None = None, architecture: str | None = None
) -> None:
    """Print the front of a run: what the search saw beside what was measured on the exported models.

    Parameters
    ----------
    run
        Folder of the run.
    all
        Every candidate, not the front alone.
    csv
        Write the rows there, with all columns; an existing file is left alone.
    architecture
        Show the search of this architecture's precisions instead.
    """
    from nas.results import compare_policies, front, load_results
    from nas.tables import policies_table, results_table

    frame = load_results(run, study=_study(architecture))
    _console().print(results_table(frame, everything=all))
    policies = compare_policies(run, study=_study(architecture))
    if not policies.empty:
        _console().print(policies_table(policies))
    if csv is not None:
        rows = frame if all else front(frame)
        try:
            with csv.open("x", encoding="utf-8") as file:
                rows.to_csv(file, index=False)
        except FileExistsError:
            raise UserError(f"{csv} exists; nothing was overwritten, give another file") from None


@app.command
def export(run: Path = QUICKSTART, /, *, select: str = "all", output: Path = Path("models")) -> None:
    """Copy verified models of a run's front, each into a folder with all that is needed to run it.

    Parameters
    ----------
    run
        Folder of the run.
    select
        knee (the best compromise), a limit such as 'latency_ms<=2', the number of a model, or all.
    output
        Folder to copy to; models that are there are not overwritten.
    """
    from nas.export import export_front

    for folder in export_front(run, select=select, output=output):
        print(folder)


@app.command
def predict(folder: Path, /, *images: Path) -> None:
    """Classify pictures with an exported model, by ONNX Runtime alone.

    Parameters
    ----------
    folder
        Folder of an exported model.
    images
        Picture files of any size.
    """
    from nas.predict import predict

    if not images:
        raise UserError("no picture is given; name one or more files after the model's folder")
    for path, class_name, probability in predict(folder, list(images)):
        print(f"{path}: {class_name} ({100 * probability:.1f}%)")


@app.command
def design(*, options: DesignFlags = DesignFlags()) -> None:
    """Design the architecture of highest entropy within budgets (DeepMAD), without data, training or search.

    Stages weigh 1 each, the last one 8. `nas search --architecture FILE` then searches the precisions of its blocks.
    """
    from nas.design import print_design

    print_design(options, console=_console())


@app.command
def spaces(name: str | None = None, /) -> None:
    """List the search spaces, or print one: genes, number of architectures, smallest and largest network.

    Parameters
    ----------
    name
        A name of the list, or my_package.spaces:phone.
    """
    from nas.tables import print_space, print_spaces

    if name is None:
        print_spaces()
    else:
        print_space(name, _console())


@app.command
def hardware() -> None:
    """List the shipped hardware profiles and describe this machine."""
    from nas.tables import print_hardware

    print_hardware(_console())


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit: 0, 2 after a mistake told in one line, 130 when interrupted."""
    warnings.filterwarnings("ignore", category=FutureWarning, module="torch")  # of libraries, about their own code
    if str(Path.cwd()) not in sys.path:
        sys.path.append(str(Path.cwd()))  # so that my_package.spaces:phone is found where it is written
    with told_in_one_line():
        app(sys.argv[1:] if arguments is None else list(arguments), exit_on_error=False, print_error=False)


def _console() -> Any:
    from rich.console import Console

    console = Console()
    return console if console.is_terminal else Console(width=160)


def _open(run: RunOptions, *flags: Any, redo: str | None) -> "Run":
    config = merge_flags(run, *flags)
    from nas.run import Run

    opened = Run(run.run, config)
    if redo is not None:
        opened.redo(redo)
    return opened


def _finish(run: "Run") -> None:
    """Run all stages."""
    frame, num_epochs = run.verify(), run.config.finetune_epochs
    if num_epochs:
        frame = run.finetune(("all",), FinetuneOptions(epochs=num_epochs))
    _show(run, frame)


def _show(run: "Run", frame: "pd.DataFrame") -> None:
    from nas.tables import print_results

    print_results(run, frame, _console())


def _study(architecture: str | None) -> str:
    return "study.db" if architecture is None else f"study-{Path(architecture).stem}.db"
