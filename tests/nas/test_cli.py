"""The command line: help that is quick, mistakes told in one line."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from nas import cli
from nas.cli import main

SPACE = ("--space", "tests.tiny_space:tiny")
TINY = (*SPACE, "--data", "tests.tiny_data:load")


def fail(arguments: list[str], capsys: pytest.CaptureFixture[str], *, code: str = "2") -> str:
    """The one line that a mistaken command prints."""
    with pytest.raises(SystemExit, match=code):
        main(arguments)
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("nas: ")]
    assert len(lines) == 1
    return lines[0]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ("--space", "hybird-tiny"),
            "unknown search space 'hybird-tiny'; available: hybrid-mobile, hybrid-small, hybrid-tiny",
        ),
        ((*SPACE, "--data", "fashion-mnits"), "unknown data set 'fashion-mnits'"),
        ((*TINY, "--hardware", "toaster"), "unknown hardware 'toaster'"),
        ((*TINY, "--hardware", "no/profile.json"), "no hardware profile 'no/profile.json'"),
        ((*TINY, "--from", "toaster"), "unknown hardware 'toaster'"),
        (("--from", "a,b", "--hardware", "c"), "--from transfers profiles to this machine; leave --hardware c out"),
        (("--samples", "20"), "samples 20 are of a transferred profile; name its sources with --from"),
        ((*TINY, "--runtime", "onnx"), "unknown runtime 'onnx'; available: "),
        ((*TINY, "--searcher", "nsga9"), "unknown searcher 'nsga9'"),
        ((*TINY, "--architecture", "huge"), "unknown architecture 'huge'"),
        (("--objectives", "error_pct,speed"), "unknown objective 'speed'"),
        (("--objectives", "error_pct"), "must be two or more"),
        (("--constraints", "latency_ms<2"), "constraint 'latency_ms<2' must be a name"),
        (("--constraints", "latency<=2"), "unknown objective 'latency'"),
        ((*TINY, "--constraints", "macs<=1000"), "no candidate meets macs<=1000: the lowest macs found is"),
        (("--epochs", "0"), "epochs is 0; it must be a whole number, 1 or more"),
        (("--finetune-epochs", "-1"), "finetune_epochs is -1; it must be a whole number, 0 or more"),
        (("--epochs", "many"), "Invalid value for --epochs"),
        (("--budget", "never"), "budget 'never' must be a positive time"),
        (("--config", "no.yaml"), "can't read the options in no.yaml"),
        (("--epoch", "3"), "Unknown option: --epoch. Did you mean --epochs?"),
    ],
)
def test_a_mistake_is_one_line_and_leaves_nothing(
    arguments: tuple[str, ...], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    assert message in fail(["search", "--run", str(run), *arguments], capsys)
    assert not run.exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["serch"], 'Unknown command "serch". Did you mean "search"?'),
        (["results", "nowhere"], "there is no run folder 'nowhere'"),
        (["join", "nowhere"], "'nowhere' is no run of `nas search`"),
        (["export", "nowhere"], "there is no run folder 'nowhere'"),
        (["predict", "nowhere", "a.png"], "'nowhere' holds no exported model"),
        (["spaces", "hybird"], "unknown search space 'hybird'"),
    ],
)
def test_other_verbs_tell_mistakes_in_one_line(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert message in fail(arguments, capsys)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--bands", "1,x"), "bands '1,x' must be numbers of MMACs with commas, such as 1.0,2.0,4.0."),
        (("--bands", "1.0,1.05"), "bands 1 and 1.05 overlap at a width of 5%"),
        (("--num-architectures", "2"), "num_architectures is 2; it must be 3 or more"),
        ((*TINY, "--bands", "7"), "the band of 7 MMACs within 5% got 0 of 20 architectures"),
    ],
)
def test_a_mistaken_measurement_of_fidelity_is_one_line_and_trains_nothing(
    arguments: tuple[str, ...],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("nas.fidelity.sampling.MAX_DRAWS", 100)
    run = tmp_path / "run"
    assert message in fail(["fidelity", "--run", str(run), *arguments], capsys)
    assert not run.exists()


def test_trainings_of_another_recipe_are_refused_before_a_supernet_is_trained(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = ["fidelity", *TINY, "--run", str(tmp_path / "run"), "--alone", str(tmp_path)]
    assert f"{tmp_path} has no fidelity.json" in fail(asked, capsys)
    (tmp_path / "fidelity.json").write_text('{"figures": {}}')
    assert f"stand-alone trainings in {tmp_path} had space=None" in fail(asked, capsys)
    assert not (tmp_path / "run" / "supernet.safetensors").exists()


def test_fidelity_trains_what_is_missing_once_and_refuses_other_bands(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    asked = ["--epochs-alone", "1", "--repeats", "1", "--workers", "1"]
    few = ["fidelity", "--run", str(run), "--num-architectures", "3", *asked]
    main([*few, *TINY, "--epochs", "1"])
    printed = capsys.readouterr().out
    assert "Fidelity: 3 architectures ranked, 3 trained alone" in printed
    assert str(run / "fidelity.csv") in printed
    before = {path.name: path.stat().st_mtime_ns for path in run.iterdir()}
    main(few)
    assert {path.name: path.stat().st_mtime_ns for path in run.iterdir()} == before
    assert capsys.readouterr().out == printed
    assert "changed since stage 'fidelity': bands was none, now 0.1" in fail([*few, "--bands", "0.1"], capsys)


def test_a_damaged_profile_is_one_line_and_kept(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "profile.json").write_text("{")
    message = fail(["profile", "--run", str(tmp_path), *TINY], capsys)
    assert "has no stamp" in message
    assert "--redo profile" in message
    assert (tmp_path / "profile.json").read_text() == "{"


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "study.db"), "2", "study.db: No space left on device"),
        (KeyboardInterrupt(), "130", "the same command continues where it stopped"),
    ],
)
def test_a_full_disk_and_an_interrupt_are_one_line(
    error: BaseException,
    code: str,
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def stop(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(cli, "_open", stop)
    assert message in fail(["train"], capsys, code=code)


def test_a_bug_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*_: object, **__: object) -> None:
        raise ValueError("a bug")

    monkeypatch.setattr(cli, "_open", stop)
    with pytest.raises(ValueError, match="a bug"):
        main(["train"])


@pytest.mark.parametrize(
    "verb",
    [
        "train",
        "profile",
        "search",
        "verify",
        "finetune",
        "fidelity",
        "join",
        "sensitivity",
        "results",
        "export",
        "predict",
        "spaces",
        "hardware",
    ],
)
def test_every_verb_says_what_it_does(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    main([verb, "--help"])
    printed = capsys.readouterr().out
    assert f"nas {verb}" in printed
    assert len(printed.splitlines()) > 2


def test_help_and_predict_do_not_import_torch() -> None:
    script = (
        "import sys, nas.predict\n"
        "from nas.cli import main\n"
        "main(['search', '--help'])\n"
        "assert 'torch' not in sys.modules and 'pandas' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, timeout=60)


def test_the_module_is_the_command() -> None:
    done = subprocess.run([sys.executable, "-m", "nas", "--version"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0
    assert done.stdout.strip()


def test_spaces_prints_genes_and_the_number_of_architectures(capsys: pytest.CaptureFixture[str]) -> None:
    main(["spaces", "hybrid-tiny"])
    printed = capsys.readouterr().out
    assert "stage1.width" in printed
    assert "93467520000 distinct architectures" in printed
    assert "largest" in printed


def test_hardware_describes_this_machine(capsys: pytest.CaptureFixture[str]) -> None:
    main(["hardware"])
    assert capsys.readouterr().out.startswith("local: ")


def test_a_dry_run_trains_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = tmp_path / "run"
    main(["search", "--run", str(run), *TINY, "--dry-run", "--constraints", "macs<=1e9,latency_ms<=1,macs<=1"])
    printed = capsys.readouterr().out
    assert "middle" in printed
    assert "constraint macs<=1e9: can be met" in printed
    assert "constraint latency_ms<=1: known when there is a profile" in printed
    assert "constraint macs<=1: no candidate meets macs<=1" in printed
    assert "Estimated time" in printed
    assert not run.exists()
