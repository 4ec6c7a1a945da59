import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

import fastamr
from fastamr import cli
from fastamr.cli import main

ROOT = Path(__file__).resolve().parents[2]
SMALL = ["--model.width", "16", "--model.depth", "1", "--model.heads", "2"]
SMALL += ["--model.frames=24", "--model.decoder-width", "16", "--model.decoder-depth=1"]
SMALL += ["--model.decoder-heads", "2", "--device", "cpu"]


def fastamr_process(*arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "fastamr", *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        cwd=ROOT,
        **options,
    )


@pytest.fixture
def trained_with(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Collects the configurations that the command would train with."""
    import fastamr.training

    configs: list[Any] = []
    monkeypatch.setattr(fastamr.training, "pretrain", configs.append)
    return configs


def test_help_and_version_are_quick_and_load_no_torch() -> None:
    code = "import sys; from fastamr.cli import main; main(['--help']); assert 'torch' not in sys.modules"
    command = [sys.executable, "-c", code]
    shown = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT).stdout
    assert all(f"  {name} " in shown for name in ("pretrain", "evaluate", "import", "info", "demo"))
    result = fastamr_process("--version")
    assert (result.returncode, result.stdout) == (0, f"fastamr {fastamr.__version__}\n")


def test_no_command_and_a_wrong_one(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([]) == 2
    assert cli.main(["pretain"]) == 2
    assert "did you mean 'pretrain'" in capsys.readouterr().err


def test_options_reach_the_configuration(trained_with: list[Any]) -> None:
    arguments = (
        "--model skeleton_mae --data a.st b.st --out runs/x --epochs 3 --crop 0.6 0.9 --betas 0.9 0.99"
    )
    arguments += " --clip-grad 1 --model.width 64 --model.masking frame --no-tensorboard --resume"
    arguments += " --preprocess center align_body --probe-every 2.5 --lr 2e-3"
    assert cli.main(["pretrain", *arguments.split()]) == 0
    (config,) = trained_with
    assert (config.model, config.data, config.out, config.epochs) == (
        "skeleton_mae",
        ["a.st", "b.st"],
        "runs/x",
        3.0,
    )
    assert (config.crop, config.betas, config.clip_grad, config.lr) == ((0.6, 0.9), (0.9, 0.99), 1.0, 2e-3)
    assert config.architecture == {"width": 64, "masking": "frame"}
    assert (config.tensorboard, config.resume, config.progress) == (False, True, True)
    assert (config.preprocess, config.probe_every) == (["center", "align_body"], 2.5)


def test_command_line_wins_over_yaml_and_later_yaml_over_earlier(
    tmp_path: Path, trained_with: list[Any]
) -> None:
    (tmp_path / "a.yaml").write_text(
        "model: skeleton_mae\nlr: 2e-3\nseed: 1\narchitecture: {width: 64, depth: 2}\n"
    )
    (tmp_path / "b.yaml").write_text("seed: 2\nupdates: 7\n")
    files = [str(tmp_path / name) for name in ("a.yaml", "b.yaml")]
    options = ["--model.depth", "3", "--epochs", "9", "--data", "synthetic", "--out", "x"]
    assert cli.main(["pretrain", "--config", *files, *options]) == 0
    (config,) = trained_with
    assert (config.model, config.lr, config.seed, config.epochs) == ("skeleton_mae", 2e-3, 2, 9.0)
    assert config.architecture == {"width": 64, "depth": 3}


def test_resume_takes_the_configuration_of_the_run(tmp_path: Path, trained_with: list[Any]) -> None:
    (tmp_path / "config.yaml").write_text(
        "model: skeleton_mae\nepochs: 4\ndata: [synthetic]\narchitecture: {width: 64}"
    )
    assert cli.main(["pretrain", "--resume", "--out", str(tmp_path), "--epochs", "8"]) == 0
    (config,) = trained_with
    assert (config.model, config.epochs, config.data) == ("skeleton_mae", 8.0, ["synthetic"])
    assert config.architecture == {"width": 64}
    assert config.resume


def test_resume_has_four_forms(tmp_path: Path, trained_with: list[Any]) -> None:
    (tmp_path / "config.yaml").write_text("model: gfp\nsteps: [bone]\n")
    for words, resume, model in (
        ([], False, "amr"),
        (["--resume"], True, "gfp"),
        (["--resume", "yes"], True, "gfp"),
        (["--resume", "auto"], "auto", "gfp"),
        (["--resume=no"], False, "amr"),
    ):
        assert cli.main(["pretrain", "--out", str(tmp_path), *words]) == 0
        config = trained_with.pop()
        assert (config.resume, config.model) == (resume, model), words
        assert config.preprocess == (["bone"] if resume else ["center"])


@pytest.mark.parametrize(
    ("words", "complaint", "command"),
    [
        ("evaluate runs/amr", "no option takes 'runs/amr'", "evaluate --checkpoint RUN --data FILE..."),
        ("evaluate a b", "no option takes 'a b'", "evaluate --checkpoint RUN --data FILE..."),
        ("evaluate", "--checkpoint is missing", "evaluate --checkpoint RUN --data FILE..."),
        ("evaluate --checkpoint x", "--data is missing", "evaluate --checkpoint RUN --data FILE..."),
        ("finetune runs/amr", "no option takes 'runs/amr'", "finetune --model MODEL --data FILE..."),
        ("finetune", "--checkpoint/--model is missing", "finetune --model MODEL --data FILE..."),
        ("predict a b --model c", "no option takes 'b'", "predict INPUT --model MODEL"),
        ("predict", "INPUT and --model are missing", "predict INPUT --model MODEL"),
        ("info -x", "no option takes '-x'", "info"),
    ],
)
def test_words_too_many_or_too_few_are_answered_with_the_whole_command(
    words: str, complaint: str, command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    name = words.split()[0]
    assert cli.main(words.split()) == 2
    expected = f"error: {complaint}: type fastamr {command} [options]; see fastamr {name} --help\n"
    assert capsys.readouterr().err == expected


class TestSettingsOfAnotherModel:
    @pytest.fixture
    def file(self, tmp_path: Path) -> Path:
        (tmp_path / "amr.yaml").write_text(
            "model: amr\narchitecture: {width: 64, guidance_k: 0.1, target_patches: 2}\nseed: 5\n"
        )
        return tmp_path / "amr.yaml"

    def test_are_left_out_with_a_notice(
        self, file: Path, trained_with: list[Any], capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert cli.main(["pretrain", "--config", str(file), "--model", "mamp"]) == 0
        config = trained_with.pop()
        assert (config.model, config.architecture, config.seed) == ("mamp", {"width": 64}, 5)
        assert capsys.readouterr().err == (
            f"notice: {file}: left out, not settings of mamp, but of the models in brackets: guidance_k (amr), "
            "target_patches (amr)\n"
        )

    def test_are_taken_by_their_own(
        self, file: Path, trained_with: list[Any], capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert cli.main(["pretrain", "--config", str(file)]) == 0
        assert trained_with.pop().architecture == {"width": 64, "guidance_k": 0.1, "target_patches": 2}
        assert capsys.readouterr().err == ""

    def test_what_no_model_knows_stays_an_error(
        self, file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        file.write_text("architecture: {widht: 64}\n", encoding="utf-8")
        words = ["--model", "mamp", "--data", "synthetic", "--out", str(tmp_path / "out")]
        assert cli.main(["pretrain", "--config", str(file), *words]) == 1
        assert "unknown option of MAMPConfig 'widht'" in capsys.readouterr().err
        assert not (tmp_path / "out").exists()

    def test_on_the_command_line_are_unknown(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert cli.main(["pretrain", "--model", "mamp", "--model.guidance-k", "3"]) == 2
        assert "unknown option --model.guidance-k" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--epoch 3", "unknown option --epoch; did you mean --epochs?"),
        ("--model.widht 3", "unknown option --model.widht; did you mean --model.width?"),
        ("--model amrr", "unknown model 'amrr': expected one of .*did you mean 'amr'"),
        ("--precision bf16", "unknown precision 'bf16'.*did you mean 'bfloat16'"),
        ("--lr fast", "--lr.*float.*fast"),
        ("--model.width wide", "--model.width.*int.*wide"),
        ("--batch-size -3", "batch_size must be a positive number, got -3"),
        ("--epochs 3 --updates 3", "give one of the two"),
        ("--crop 0.5", "--crop: expected 2 arguments"),
        ("stray", "no option takes 'stray': type fastamr pretrain --data FILE"),
        ("--config nowhere.yaml", "config 'nowhere.yaml' does not exist"),
    ],
)
def test_usage_errors(arguments: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["pretrain", *arguments.split()]) == 2
    shown = capsys.readouterr().err
    assert shown.startswith("error: ")
    assert shown.count("\n") == 1
    assert re.search(message, shown)


def test_unknown_key_in_yaml(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "c.yaml").write_text("epoch: 3\n")
    assert cli.main(["pretrain", "--config", str(tmp_path / "c.yaml")]) == 2
    assert re.search(r"c\.yaml: unknown option 'epoch'.*did you mean 'epochs'", capsys.readouterr().err)


def test_a_known_error_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["pretrain", "--data", str(tmp_path / "no.safetensors"), "--out", str(tmp_path / "run")]
    assert cli.main(arguments) == 1
    shown = capsys.readouterr().err
    assert shown.startswith("error: ")
    assert "no.safetensors" in shown
    assert "Traceback" not in shown
    assert not (tmp_path / "run").exists()


def test_debug_shows_the_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FASTAMR_DEBUG", "1")
    with pytest.raises(ValueError, match="out is missing"):
        cli.main(["pretrain", "--data", "synthetic"])


def test_interrupt_before_the_loop(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import fastamr.training

    def interrupted(config: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(fastamr.training, "pretrain", interrupted)
    assert cli.main(["pretrain", "--data", "synthetic", "--out", "x"]) == 130
    assert capsys.readouterr().err == "interrupted\n"


@pytest.mark.parametrize("command", ["import_swallows", "runs"])
def test_interrupt_inside_and_outside_of_an_import(tmp_path: Path, command: str) -> None:
    strike = "import os, signal\nos.kill(os.getpid(), signal.SIGINT)\n"
    (tmp_path / "swallows.py").write_text(
        f"try:\n    exec({strike!r})\nexcept BaseException as error:\n    raise RuntimeError('recursion') from None\n"
    )
    code = (
        "import signal, sys, types\n"
        "from fastamr import cli\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "def import_swallows(arguments): import swallows\n"
        f"def runs(arguments): exec({strike!r})\n"
        f"sys.modules['fastamr.commands.{command}'] = types.SimpleNamespace(run={command})\n"
        f"cli._COMMANDS['data'][{command!r}] = ({command!r}, '')\n"
        f"code = cli.main([{command!r}])\n"
        "assert signal.getsignal(signal.SIGINT) is signal.default_int_handler\n"
        "raise SystemExit(code)\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert (run.returncode, run.stderr) == (130, "interrupted\n")


def wait_for(condition: Any, process: subprocess.Popen[str]) -> None:
    for _ in range(600):
        if condition():
            return
        if process.poll() is not None:
            raise AssertionError(process.communicate()[1])
        time.sleep(0.1)
    raise AssertionError("nothing happened for a minute")


def test_pretrain_stops_on_ctrl_c_and_resumes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "run"
    command = [sys.executable, "-m", "fastamr", "pretrain", "--data", str(tmp_path / "data.safetensors")]
    command += ["--out", str(out), *SMALL, "--batch-size", "8", "--min-frames", "8", "--log-every", "1"]
    command += ["--preprocess", "center", "--seed", "3", "--warmup-epochs", "0", "--no-tensorboard"]
    write_data(tmp_path / "data.safetensors")
    log = out / "metrics.jsonl"
    process = subprocess.Popen([*command, "--updates", "100000"], stderr=subprocess.PIPE, text=True, cwd=ROOT)
    wait_for(lambda: log.exists() and log.read_text().count('"train"') >= 3, process)
    process.send_signal(signal.SIGINT)
    _, shown = process.communicate(timeout=60)
    assert process.returncode == 130, shown
    assert re.search(r"interrupted: stopped after update \d+; continue with --resume", shown)
    assert "Traceback" not in shown
    done = [json.loads(line) for line in log.read_text().splitlines()][-1]["update"]
    assert cli.main(["pretrain", "--resume", "--out", str(out), "--updates", str(done + 2)]) == 0
    assert json.loads(log.read_text().splitlines()[-1])["updates"] == done + 2
    assert "sequences/s" in capsys.readouterr().err
    model = fastamr.AMRModel.from_pretrained(out)
    assert (model.config.width, model.config.frames, model.config.decoder_depth) == (16, 24, 1)
    assert cli.main(["pretrain", "--data", str(tmp_path / "data.safetensors"), "--out", str(out)]) == 1
    assert "already holds a run" in capsys.readouterr().err


def write_data(path: Path) -> None:
    import numpy as np

    from fastamr.data import PackedSkeletons

    generator = np.random.default_rng(0)
    motion = [generator.normal(size=(20, 1, 25, 3)).cumsum(0).astype(np.float32) for _ in range(12)]
    PackedSkeletons.from_clips(motion, layout="ntu25").save(path)


def test_other_commands_get_their_dataclass(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("fastamr.evaluation.evaluate")
    module = sys.modules["fastamr.evaluation.evaluate"]
    configs: list[Any] = []
    monkeypatch.setattr(module, "evaluate", configs.append)
    assert (
        cli.main(
            ["evaluate", "--checkpoint", "runs/x", "--data", "d.st", "--protocol", "knn", "--split", "dedup"]
        )
        == 0
    )
    (config,) = configs
    assert isinstance(config, module.EvaluateConfig)
    assert str(config.checkpoint) == "runs/x"
    assert config.split == "dedup"


def test_environment_is_clean_in_a_subprocess() -> None:
    result = fastamr_process("info", "--nonsense", env={**os.environ, "FASTAMR_DEBUG": ""})
    assert result.returncode == 2
    assert "--nonsense" in result.stderr


@pytest.mark.parametrize(
    "words",
    [
        ["pretrain", "--data", "synthetic"],
        ["finetune", "--checkpoint", "run", "--data", "a.safetensors"],
        ["distill", "--teacher", "run", "--data", "a.safetensors"],
    ],
)
def test_several_processes_are_refused(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert main([*words, "--out", str(tmp_path / "out")]) == 1
    said = capsys.readouterr().err
    assert said.startswith("error: WORLD_SIZE=2")
    assert "torchrun" in said
    assert said.count("\n") == 1
    assert not (tmp_path / "out").exists()
