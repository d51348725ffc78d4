"""Signals stop a training with everything saved (R17 of docs/RELIABILITY.md)."""

from __future__ import annotations

import argparse
import multiprocessing
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import failing_training
import pytest
import small_training
import torch
from detectron2.engine import HookBase
from detectron2.utils import comm
from processes import start
from scripts import CONFIGS, ROOT
from small_configs import SMALL
from small_training import config, train
from torch import nn

from swinv2_backbone.cli import train_net
from swinv2_backbone.d2.demo.dataset import generate_demo_dataset
from swinv2_backbone.d2.engine.launch import _free_port, _run, launch
from swinv2_backbone.d2.engine.signals import SIGNALS, TIME_IS_UP, StopRequest, exit_code

FOREVER = 1_000_000


@pytest.fixture(scope="module", autouse=True)
def dataset(tmp_path_factory):
    yield small_training.register(tmp_path_factory.mktemp("images"))
    small_training.forget()


# ---- In one process


def wait_for(text: str, log: Path, alive: Callable[[], bool]) -> None:
    while alive():
        if log.exists() and text in log.read_text(encoding="utf-8"):
            return
        time.sleep(0.05)
    raise AssertionError(
        f"no {text!r} in {log.read_text(encoding='utf-8') if log.exists() else 'no log'}"
    )


@pytest.mark.parametrize(
    ("number", "workers"),
    [
        (signal.SIGTERM, 2),
        pytest.param(signal.SIGINT, 2, marks=pytest.mark.slow),
        pytest.param(signal.SIGTERM, 0, marks=pytest.mark.slow),
        pytest.param(signal.SIGINT, 0, marks=pytest.mark.slow),
    ],
)
def test_a_signal_stops_a_training_after_its_iteration_and_it_resumes(tmp_path, number, workers):
    log = tmp_path / "out.txt"
    process = start(train, config(tmp_path, FOREVER, FOREVER, workers), log=log)
    wait_for("Starting training", log, process.is_alive)
    time.sleep(0.5)
    os.kill(process.pid, number)
    process.join(60)
    text = log.read_text()
    assert process.exitcode == 128 + number, text
    (iteration,) = re.findall(rf"{number.name}: stopped after iteration (\d+)", text)
    assert "--resume continues" in text
    file = f"model_{int(iteration):07d}.pth"
    assert (tmp_path / "last_checkpoint").read_text() == file
    assert [path.name for path in tmp_path.glob("*.pth")] == [file]
    last = int(iteration) + 3
    assert list(train(config(tmp_path, last, FOREVER), resume=True)) == [last - 2, last - 1]


def slow_evaluation(folder: Path, last: bool) -> None:
    """Train until an evaluation that would take an hour."""
    from swinv2_backbone.d2.engine.trainer import Trainer

    def evaluate(cls, cfg, model, evaluators=None):
        print("Evaluating")
        for _ in range(72_000):
            time.sleep(0.05)
            model.eval()
            model([{"image": torch.zeros(3, 64, 64)}])
        return {}

    Trainer.test = classmethod(evaluate)
    cfg = config(folder, 3 if last else FOREVER, FOREVER)
    cfg.TEST.EVAL_PERIOD = 0 if last else 2
    train(cfg)


@pytest.mark.parametrize("last", [False, True])
def test_a_signal_ends_an_evaluation_at_once(tmp_path, last):
    log = tmp_path / "out.txt"
    process = start(slow_evaluation, tmp_path, last, log=log)
    wait_for("Evaluating", log, process.is_alive)
    os.kill(process.pid, signal.SIGTERM)
    process.join(30)
    text = log.read_text()
    assert process.exitcode == 143, text
    assert "The evaluation was aborted by the signal" in text
    expected = "model_final.pth" if last else "model_0000001.pth"
    assert (tmp_path / "last_checkpoint").read_text() == expected
    assert [path.name for path in tmp_path.glob("*.pth")] == [expected]


class Signal(HookBase):
    """Receive SIGTERM in an iteration; -1: before the first one."""

    def __init__(self, iteration: int):
        self.iteration = iteration

    def before_train(self) -> None:
        if self.iteration == -1:
            self.trainer._trainer.stop_request.signal = signal.SIGTERM

    def before_step(self) -> None:
        if self.trainer.iter == self.iteration:
            self.trainer._trainer.stop_request.signal = signal.SIGTERM


def test_a_signal_before_the_first_iteration_saves_nothing(tmp_path, caplog):
    from swinv2_backbone.d2.engine.trainer import Trainer

    trainer = Trainer(config(tmp_path, 2, FOREVER))
    trainer.resume_or_load(False)
    hook = Signal(-1)
    trainer.register_hooks([hook])
    trainer._hooks.insert(0, trainer._hooks.pop())
    with pytest.raises(SystemExit) as stopped:
        trainer.train()
    assert stopped.value.code == 143
    assert "SIGTERM: stopped before iteration 0; the checkpoints are unchanged" in caplog.text
    assert list(tmp_path.glob("*.pth")) == []


def test_a_request_to_stop_ends_with_its_training():
    """So that train() can be called again, as in a notebook."""
    request = StopRequest()
    for _ in range(2):
        with request:
            assert not request.signal
            request.signal = signal.SIGINT


def test_a_signal_in_the_last_iteration_leaves_the_final_checkpoint(tmp_path):
    from swinv2_backbone.d2.engine.trainer import Trainer

    cfg = config(tmp_path, 2, FOREVER)
    trainer = Trainer(cfg)
    trainer.resume_or_load(False)
    trainer.register_hooks([Signal(1)])
    with pytest.raises(SystemExit) as stopped:
        trainer.train()
    assert stopped.value.code == 143
    assert [path.name for path in tmp_path.glob("*.pth")] == ["model_final.pth"]


def test_the_second_signal_acts_at_once():
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # it may be ignored
    request = StopRequest()
    with pytest.raises(KeyboardInterrupt), request:
        os.kill(os.getpid(), signal.SIGINT)
        assert request.signal == signal.SIGINT
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(1)
    signal.signal(signal.SIGINT, before)


def test_a_process_that_a_library_forks_ends_by_a_signal():
    """As the workers of panopticapi, for whose end its evaluation waits."""
    with StopRequest() as request:
        ready, started = os.pipe()
        child = os.fork()
        if not child:
            os.write(started, b"1")
            time.sleep(20)
            os._exit(0)
        os.read(ready, 1)  # a signal during the fork would be lost
        os.kill(child, signal.SIGTERM)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGTERM
    assert not request.signal


def test_a_signal_after_a_time_limit_takes_precedence():
    with StopRequest() as request:
        request.signal = TIME_IS_UP
        os.kill(os.getpid(), signal.SIGINT)
        assert request.signal == signal.SIGINT
    assert all(number > TIME_IS_UP for number in SIGNALS)  # also among processes


def test_signals_have_their_old_handlers_afterward():
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    with StopRequest():
        assert all(signal.getsignal(number) != old for number, old in before.items())
    assert {number: signal.getsignal(number) for number in before} == before


def test_exit_codes_are_those_of_shells():
    assert (exit_code(signal.SIGTERM), exit_code(signal.SIGINT)) == (143, 130)


# ---- The tool, in one process and in two


@pytest.fixture(scope="module")
def opts(tmp_path_factory) -> list[str]:
    demo = generate_demo_dataset(
        tmp_path_factory.mktemp("data") / "demo", num_train=6, num_val=2, image_size=64
    )
    return [
        *("MODEL.DEVICE", "cpu", *SMALL, "DATASETS.TEST", "()", "TEST.EVAL_PERIOD", "0"),
        *("INPUT.MASK_FORMAT", "bitmask", "MODEL.ROI_HEADS.NUM_CLASSES", "5"),
        *("DATASETS.CUSTOM.TRAIN.JSON", str(demo.train_json)),
        *("DATASETS.CUSTOM.TRAIN.IMAGES", str(demo.train_images)),
    ]


def command(opts: list[str], output: Path, *flags: str, iterations: int = FOREVER) -> list[str]:
    return [
        str(ROOT / "tools" / "train_net.py"),
        *("--config-file", str(CONFIGS / "mask_rcnn_swinv2.yaml"), *flags, *opts),
        *("OUTPUT_DIR", str(output), "SOLVER.MAX_ITER", str(iterations)),
    ]


def begin(command: list[str], log: Path) -> subprocess.Popen:
    with log.open("w", encoding="utf-8") as out:
        return subprocess.Popen(
            command,
            stdout=out,
            stderr=subprocess.STDOUT,
            env=os.environ | {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"},
        )


def forked(command: list[str], log: Path, **environment: str) -> multiprocessing.Process:
    """Run the tool in a process that need not import anything."""

    def run_tool() -> None:
        os.environ.update(environment)
        sys.argv = command
        train_net.run()

    return start(run_tool, log=log)


STARTS = {
    "one": ([sys.executable], []),
    "two": ([sys.executable], ["--num-gpus", "2"]),
    "torchrun": ([sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"], []),
}


@pytest.mark.parametrize(
    ("kind", "number"),
    [
        ("one", signal.SIGTERM),
        pytest.param("two", signal.SIGTERM, marks=pytest.mark.slow),
        pytest.param("two", signal.SIGINT, marks=pytest.mark.slow),
        pytest.param("torchrun", signal.SIGTERM, marks=pytest.mark.slow),
    ],
)
def test_a_signal_stops_the_tool_and_it_resumes(kind, number, opts, tmp_path):
    (python, flags), output, log = STARTS[kind], tmp_path / "run", tmp_path / "log.txt"
    if kind == "torchrun":
        python = [*python, "--master-port", "29417"]
    process = begin([*python, *command(opts, output, *flags)], log)
    wait_for("Starting training", log, lambda: process.poll() is None)
    time.sleep(1.0)
    process.send_signal(number)
    process.wait(60)
    text = log.read_text()
    if kind != "torchrun":  # it has its own exit code
        assert process.returncode == 128 + number, text[-3000:]
    # The launcher sends SIGTERM to its processes, whichever signal it received.
    (iteration,) = set(re.findall(r"SIGTERM: stopped after iteration (\d+)", text))
    assert (output / "last_checkpoint").read_text() == f"model_{int(iteration):07d}.pth"
    last = int(iteration) + 3
    process = forked(command(opts, output, "--resume", iterations=last), log)
    process.join(60)
    assert process.exitcode == 0, log.read_text()[-3000:]
    assert f"Starting training from iteration {last - 2}" in log.read_text()
    assert (output / "last_checkpoint").read_text() == "model_final.pth"


def threads() -> list[str]:
    return [path.read_text().strip() for path in Path("/proc/self/task").glob("*/comm")]


def communicate(args: argparse.Namespace) -> None:
    model = nn.parallel.DistributedDataParallel(nn.Linear(3, 3))
    model(torch.ones(2, 3)).sum().backward()
    model.itself = [model]  # a reference cycle, as a trainer and its hooks have
    assert comm.all_gather(1) == [1]
    assert any("gloo" in name for name in threads())


def train_and_leave() -> None:
    url = f"tcp://127.0.0.1:{_free_port()}"
    _run(0, communicate, argparse.Namespace(), 0, 1, 1, url)
    assert not [name for name in threads() if "gloo" in name]


def test_a_process_ends_without_threads_of_its_groups(tmp_path):
    """They could abort it while Python ends, after a complete training."""
    process = start(train_and_leave, log=tmp_path / "log.txt")
    process.join(60)
    assert process.exitcode == 0, (tmp_path / "log.txt").read_text()


@pytest.mark.slow
def test_processes_whose_launcher_is_killed_save_and_end(opts, tmp_path):
    output, log = tmp_path / "run", tmp_path / "log.txt"
    process = begin([sys.executable, *command(opts, output, "--num-gpus", "2")], log)
    wait_for("Starting training", log, lambda: process.poll() is None)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    process.kill()
    process.wait()
    end = time.monotonic() + 60
    while any(Path(f"/proc/{child}").exists() for child in children) and time.monotonic() < end:
        time.sleep(0.1)
    assert not [child for child in children if Path(f"/proc/{child}").exists()]
    assert "SIGINT: stopped after iteration" in log.read_text()
    assert (output / "last_checkpoint").exists() and not (output / "training.lock").exists()


@pytest.mark.slow
def test_several_machines_train_together(opts, tmp_path):
    """Run two machines of two processes each, both of them this machine."""
    url = "tcp://127.0.0.1:29431"
    flags = ["--num-gpus", "2", "--num-machines", "2", "--dist-url", url, "--machine-rank"]
    opts = [*opts, "SOLVER.IMS_PER_BATCH", "4"]
    running = [
        begin(
            [sys.executable, *command(opts, tmp_path / "run", *flags, rank, iterations=3)],
            tmp_path / f"log{rank}.txt",
        )
        for rank in "01"
    ]
    for rank, process in enumerate(running):
        assert process.wait(200) == 0, (tmp_path / f"log{rank}.txt").read_text()[-3000:]
    assert (tmp_path / "run" / "last_checkpoint").read_text() == "model_final.pth"
    assert "World size: 4" in (tmp_path / "log0.txt").read_text()


@pytest.mark.slow
def test_a_failing_process_ends_the_others(opts, tmp_path):
    log = tmp_path / "log.txt"
    _, *flags = command(opts, tmp_path / "run", "--num-gpus", "2")
    process = start(launch, failing_training.main, train_net.parser().parse_args(flags), log=log)
    process.join(120)
    text = log.read_text()
    assert process.exitcode == 1, text
    assert "a disk of one machine failed" in text
    pids = re.findall(r"trains in process (\d+)", text)
    assert len(pids) == 2 and not any(Path(f"/proc/{pid}").exists() for pid in pids)


def test_an_error_of_the_user_is_one_line_in_several_processes(opts, tmp_path):
    line = [*command(opts, tmp_path / "run"), "SOLVER.IMS_PER_BATCH", "3"]
    logs = [tmp_path / f"log{rank}.txt" for rank in range(2)]
    common = {"TORCHELASTIC_RUN_ID": "tests", "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
    common |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(_free_port())}
    running = [
        forked(line, log, RANK=str(rank), LOCAL_RANK=str(rank), **common)
        for rank, log in enumerate(logs)
    ]
    for process, log in zip(running, logs):
        process.join(60)
        assert process.exitcode == 1
        text = log.read_text()
        assert "ValueError: the 2 processes must have equally many of the 3 images" in text
        assert "Traceback" not in text
