"""Training on two machines; one of them is lost, and the training continues later.

The machines are network namespaces with a cable between them: see ``two_hosts``.
"""

import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from tiny_training import training_words, write_training
from two_hosts import INTERFACE, Hosts, two_hosts

from espnet_cif_hkd import UserError
from espnet_cif_hkd.distill.filling import fill_stores
from espnet_cif_hkd.recipe.commands import train_model
from espnet_cif_hkd.recipe.machines import Machines, require_machines
from espnet_cif_hkd.recipe.stages.train import MODULE

pytestmark = pytest.mark.slow

LOG = Path("exp/train.log")


@pytest.fixture(scope="module")
def hosts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hosts]:
    with two_hosts(tmp_path_factory.mktemp("hosts") / "bin") as made:
        yield made


@pytest.fixture
def recipe(
    tmp_path: Path, hosts: Hosts, forked_python: str, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """A folder that both machines share; our commands use their ssh and srun."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", str(hosts.programs), prepend=":")
    monkeypatch.setattr(sys, "executable", forked_python)
    # gloo must not take the loopback of a machine.
    setting = f"GLOO_SOCKET_IFNAME={INTERFACE}"
    Path("local").mkdir()
    Path("local/path.sh").write_text(f"export {setting} OMP_NUM_THREADS=1\n")
    monkeypatch.setenv(*setting.split("="))
    return tmp_path


def train(machines: Machines, epochs: int, *more: str, shards: str = "") -> None:
    words = [*training_words(shards), "--max_epoch", str(epochs), "--ngpu", "0", *more]
    train_model(MODULE, words, LOG, "stage 11", 0, machines)


def both_worked(log: str, epoch: int) -> bool:
    return ":0/2]" in log and f"{epoch}epoch results: [train]" in log


def test_ssh_lost_machine_and_resume_with_shards_and_a_store(
    recipe: Path, hosts: Hosts
) -> None:
    from espnet2.bin.split_scps import split_scps

    config = write_training(recipe, teacher_store="store")
    texts = [Path("train.text"), Path("valid.text")]
    tokens = {"token_list": "tokens.txt", "token_type": "char"}
    fill_stores(config, "train.yaml", tokens, texts, "store", "cpu", 64)
    names = [f"train.{kind}" for kind in ("speech", "text", "shape")]
    split_scps(names, num_splits=2, names=None, output_dir="splits2", log_level="INFO")
    options = ["--multiple_iterator", "true", "--resume", "true"]
    machines = Machines(2, hosts.names)
    require_machines(machines)
    failures: list[BaseException] = []

    def first_run() -> None:
        try:
            train(machines, 1000, *options, shards="splits2/")
        except UserError as error:
            failures.append(error)

    running = threading.Thread(target=first_run)
    running.start()
    checkpoint = Path("exp/checkpoint.pth")
    while running.is_alive() and not checkpoint.exists():
        time.sleep(0.05)
    assert hosts.processes(0) and hosts.processes(1)
    hosts.kill(1)
    killed = time.monotonic()
    running.join(timeout=300)
    assert not running.is_alive(), LOG.read_text()[-3000:]
    assert time.monotonic() - killed < 290  # gloo gives up after 30 minutes
    (failure,) = failures
    assert str(failure).startswith("stage 11 failed"), failure
    assert both_worked(LOG.read_text(), 1)
    assert not hosts.processes(0), "the machine that was left still trains"
    assert not list(Path("exp").glob(".dist_init*"))

    done = torch.load(checkpoint, weights_only=False)["reporter"]["epoch"]
    train(machines, done + 1, *options, shards="splits2/")
    log = LOG.read_text()
    assert "The training was resumed using" in log
    assert both_worked(log, done + 1) and not both_worked(log, done)
    assert "loss_acd=" in log and "Building 1th iter-factory" in log
    state = torch.load(f"exp/{done + 1}epoch.pth", weights_only=True)
    assert all(torch.isfinite(value).all() for value in state.values())


def test_a_job_of_slurm(
    recipe: Path, hosts: Hosts, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_training(recipe)
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    monkeypatch.setenv("SLURM_JOB_NUM_NODES", "2")
    require_machines(Machines(2))
    train(Machines(2), 1)
    assert both_worked(LOG.read_text(), 1)
    called = Path("srun.called").read_text()
    assert "--nodes 2 --ntasks 2 --ntasks-per-node 1" in called
    assert Path("exp/1epoch.pth").is_file()


def test_a_machine_that_cannot_be_reached(hosts: Hosts, recipe: Path) -> None:
    wanted = Machines(2, (hosts.names[0], "elsewhere"))
    with pytest.raises(UserError, match=r"elsewhere cannot be reached .*no host else"):
        require_machines(wanted)


def test_a_machine_without_the_interpreter(
    hosts: Hosts, recipe: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", "/no/python3")
    with pytest.raises(UserError, match=r"10\.213\.7\.1 lacks .* or /no/python3"):
        require_machines(Machines(2, hosts.names))
