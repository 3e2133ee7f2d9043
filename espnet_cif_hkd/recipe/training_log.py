"""The results of each finished epoch in ESPnet's ``train.log``."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from espnet_cif_hkd.errors import UserError

_RESULTS = re.compile(r"(\d+)epoch results: (.*)")
_PHASE = re.compile(r"\[(\w+)\] ")
# Durations such as "1 hour, 2 minutes" contain commas, so the values are searched.
_VALUE = re.compile(r"(\w+)=([-+]?(?:\d[\d.]*(?:e[-+]?\d+)?|nan|inf))(?=,|\s|$)")
_DURATION = re.compile(r"([\d.]+) (day|hour|minute|second|millisecond)s?\b")
_UNITS = {"day": 86400, "hour": 3600, "minute": 60, "second": 1, "millisecond": 0.001}
_ROTATED = re.compile(r"train(?:\.(\d+))?\.log")


@dataclass(frozen=True)
class Epoch:
    """One finished epoch.

    Attributes:
        number: number of the epoch, from 1.
        updates: number of updates since the training began. With ``accum_grad`` it may
            be one too many per epoch, because left-over batches make no update.
        train, valid: the means that ESPnet reports, in ESPnet's units.
    """

    number: int
    updates: int
    train: dict[str, float]
    valid: dict[str, float]


@dataclass
class Training:
    """One training of a CIF model.

    Attributes:
        name: folder of the training.
        epochs: epochs in order.
        vocab_size: V, with ``<blank>`` and ``<sos/eos>``.
        lsm_weight: label smoothing.
        notes: remarks about the numbers.
    """

    name: str
    epochs: list[Epoch]
    vocab_size: int
    lsm_weight: float
    notes: list[str] = field(default_factory=list)


def group_logs(logs: Iterable[Path]) -> dict[Path, list[Path]]:
    """Group logs by folder; each group is in the order of writing.

    When ESPnet resumes a training, it renames ``train.1.log`` to ``train.2.log`` and
    ``train.log`` to ``train.1.log``.
    """
    groups: dict[Path, list[Path]] = {}
    for log in dict.fromkeys(logs):
        groups.setdefault(log.parent, []).append(log)

    def age(log: Path) -> int:
        match = _ROTATED.fullmatch(log.name)
        return int(match[1] or 0) if match else 0

    return {
        folder: sorted(own, key=age, reverse=True) for folder, own in groups.items()
    }


def read_training(logs: list[Path], config: Path | None = None) -> Training:
    """Read one training from its logs, oldest first.

    Args:
        logs: logs of one training.
        config: ESPnet's ``config.yaml`` of the training; None: in the folder of the
            logs.

    Raises:
        UserError: a file is missing, is no log of a CIF model, or has no epoch.
    """
    path = config or logs[-1].parent / "config.yaml"
    conf = _read_config(path)
    accum_grad = int(conf.get("accum_grad") or 1)
    notes: list[str] = []
    epochs: list[Epoch] = []
    for log in logs:
        for epoch in _read_epochs(log, accum_grad):
            again = [old for old in epochs if old.number >= epoch.number]
            if again:
                notes.append(
                    f"{log}: epoch {epoch.number} is there again: the training was "
                    f"resumed or started again; {len(again)} older results are left out"
                )
                epochs = epochs[: -len(again)]
            if epochs and epoch.updates <= epochs[-1].updates:
                raise UserError(
                    f"{log}: epoch {epoch.number} ends after {epoch.updates} updates, "
                    f"epoch {epochs[-1].number} before it after {epochs[-1].updates}: "
                    "these logs are of different trainings; give those of one"
                )
            epochs.append(epoch)
    if epochs[0].number > 1:
        notes.append(
            f"epochs before {epochs[0].number} are in older logs: give "
            f"{logs[0].parent}/train.*.log as well"
        )
    model_conf: dict[str, Any] = conf.get("model_conf") or {}
    return Training(
        name=str(logs[-1].parent),
        epochs=epochs,
        vocab_size=_vocab_size(path, conf),
        lsm_weight=float(model_conf.get("lsm_weight", 0.1)),
        notes=notes,
    )


def _read_config(path: Path) -> dict[str, Any]:
    try:
        conf = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(
            f"{path}: no such file; it has the vocabulary and the label smoothing: "
            "name the training's config.yaml by --config"
        ) from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UserError(f"{path}: cannot be read ({error})".splitlines()[0]) from None
    if not isinstance(conf, dict):
        raise UserError(f"{path}: this is no config.yaml of ESPnet")
    return conf


def _vocab_size(path: Path, conf: dict[str, Any]) -> int:
    tokens = conf.get("token_list")
    if not isinstance(tokens, list) or not tokens:
        raise UserError(
            f"{path}: there is no token_list in it; give the config.yaml that ESPnet "
            "wrote into the training's folder, not the one it was started with"
        )
    return len(tokens)


def _read_epochs(log: Path, accum_grad: int) -> list[Epoch]:
    try:
        text = log.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        raise UserError(f"{log}: cannot be read ({error.strerror})") from None
    epochs = []
    for number, phases in epoch_phases(text):
        train, valid = phases.get("train", {}), phases.get("valid", {})
        _check(log, number, train, valid)
        updates = int(train["total_count"]) // accum_grad
        epochs.append(Epoch(number, updates, train, valid))
    if not epochs:
        raise UserError(
            f"{log}: no 'epoch results' in it: either no epoch is finished yet, or it "
            "is not the train.log of stage 11"
        )
    return epochs


def epoch_phases(text: str) -> Iterator[tuple[int, dict[str, dict[str, float]]]]:
    """Yield the results of each finished epoch in a log of any ESPnet model.

    Args:
        text: content of the log.

    Yields:
        The epoch, from 1, and for each phase (``train``, ``valid``) the means that
        ESPnet reports and the duration as ``seconds``.
    """
    for line in text.splitlines():
        match = _RESULTS.search(line)
        if match is None:
            continue
        parts = _PHASE.split(match[2])[1:]
        phases = {}
        for name, values in zip(parts[::2], parts[1::2], strict=True):
            phases[name] = {k: float(value) for k, value in _VALUE.findall(values)}
            phases[name]["seconds"] = _seconds(values)
        yield int(match[1]), phases


def _seconds(values: str) -> float:
    """Convert a ``time`` such as ``1 hour, 2 minutes and 3.4 seconds`` to seconds."""
    time = values.partition(", time=")[2]
    return sum(float(n) * _UNITS[unit] for n, unit in _DURATION.findall(time))


def _check(
    log: Path, number: int, train: dict[str, float], valid: dict[str, float]
) -> None:
    if "loss_quantity" not in train or "nll" not in train:
        raise UserError(
            f"{log}: epoch {number} has no loss_quantity and nll: the log is not of a "
            "training with 'model: cif'"
        )
    if "loss_ctc" not in train:
        raise UserError(
            f"{log}: epoch {number} has no loss_ctc: without CTC (ctc_weight 0) there "
            "is no published curve to compare with"
        )
    if "total_count" not in train or "loss_quantity" not in valid:
        raise UserError(
            f"{log}: epoch {number} is incomplete: the line was cut; remove it, or "
            "wait until the next epoch ends"
        )
