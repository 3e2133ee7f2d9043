"""ESPnet's trainer, with a checkpoint that survives a kill while it is written.

ESPnet overwrites ``checkpoint.pth`` after every epoch. Here the old one is
``checkpoint.previous.pth`` until the new one is complete. ESPnet's tasks take their
trainer from the class attribute ``trainer``, which :func:`install` sets.
"""

import importlib.util
import logging
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from espnet2.train.trainer import Trainer

from espnet_cif_hkd.io.torch_file import is_complete

CHECKPOINT, PREVIOUS = "checkpoint.pth", "checkpoint.previous.pth"


def install(task: Any) -> None:
    """Set :class:`SafeTrainer` as the trainer of an ESPnet task.

    With DeepSpeed installed it does nothing: ESPnet uses DeepSpeed only with ESPnet's
    own trainer.
    """
    if task.trainer is Trainer and importlib.util.find_spec("deepspeed") is None:
        task.trainer = SafeTrainer


class SafeTrainer(Trainer):  # type: ignore[misc]
    """Keeps the previous checkpoint until the next one is complete."""

    @classmethod
    def run(cls, **arguments: Any) -> None:
        """Train; replace an incomplete checkpoint and prepare our models first."""
        begin = getattr(arguments["model"], "begin_training", None)
        if begin is not None:
            begin(arguments["optimizers"])
        options = arguments["trainer_options"]
        folder = Path(options.output_dir)
        if options.resume and _is_first_rank():
            recover(folder, arguments["optimizers"], arguments["schedulers"])
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            torch.distributed.barrier()
        super().run(**arguments)
        if _is_first_rank():
            (folder / PREVIOUS).unlink(missing_ok=True)

    @staticmethod
    def resume(checkpoint: Any, model: Any, reporter: Any, **arguments: Any) -> None:
        """Resume from a checkpoint; write the parameters of its epoch if missing."""
        Trainer.resume(
            checkpoint=checkpoint, model=model, reporter=reporter, **arguments
        )
        path = Path(checkpoint).with_name(f"{reporter.get_epoch()}epoch.pth")
        if _is_first_rank() and not is_complete(path):
            logging.warning("checkpoint: %s is written again", path)
            torch.save(model.state_dict(), path)
            latest = path.with_name("latest.pth")
            latest.unlink(missing_ok=True)
            latest.symlink_to(path.name)

    @classmethod
    def train_one_epoch(cls, **arguments: Any) -> bool:
        """Train for one epoch; at this point the last checkpoint is complete."""
        if _is_first_rank():
            folder = Path(arguments["options"].output_dir)
            (folder / PREVIOUS).unlink(missing_ok=True)
        trained: bool = super().train_one_epoch(**arguments)
        return trained

    @classmethod
    def validate_one_epoch(cls, **arguments: Any) -> None:
        """Validate; move the old checkpoint away, because ESPnet saves next."""
        super().validate_one_epoch(**arguments)
        checkpoint = Path(arguments["options"].output_dir) / CHECKPOINT
        if _is_first_rank() and checkpoint.is_file():
            os.replace(checkpoint, checkpoint.with_name(PREVIOUS))


def _is_first_rank() -> bool:
    distributed = torch.distributed
    if not (distributed.is_available() and distributed.is_initialized()):
        return True
    return distributed.get_rank() == 0


def recover(folder: Path, optimizers: Sequence[Any], schedulers: Sequence[Any]) -> None:
    """Replace an incomplete ``checkpoint.pth``, or remove it.

    Sources, in this order: the previous checkpoint; the parameters of the last complete
    epoch, with new optimizers and schedulers; none.
    """
    checkpoint, previous = folder / CHECKPOINT, folder / PREVIOUS
    if is_complete(checkpoint):
        previous.unlink(missing_ok=True)
        return
    if is_complete(previous):
        logging.warning(
            "checkpoint: %s was not written to its end; the training continues from "
            "the one before it and repeats an epoch",
            checkpoint,
        )
        os.replace(previous, checkpoint)
        return
    if not checkpoint.exists():
        return
    epochs = {
        int(path.name.removesuffix("epoch.pth")): path
        for path in folder.glob("*epoch.pth")
        if path.name.removesuffix("epoch.pth").isdigit() and is_complete(path)
    }
    if not epochs:
        logging.warning(
            "checkpoint: %s is damaged, and no epoch is complete; the training starts "
            "from the beginning",
            checkpoint,
        )
        checkpoint.unlink()
        return
    last, kept = max(epochs), folder / "before_damage"
    logging.warning(
        "checkpoint: %s is damaged; the training continues from the parameters in "
        "%s. The states of optimizer and scheduler are lost and start again; so are "
        "the results of earlier epochs: the best models are chosen from epoch %d on. "
        "Copies of the earlier models are in %s",
        *(checkpoint, epochs[last], last + 1, kept),
    )
    # ESPnet removes models that are not among the best of the epochs with results.
    kept.mkdir(exist_ok=True)
    for path in epochs.values():
        shutil.copy2(path, kept / path.name)
    state = torch.load(epochs[last], map_location="cpu", weights_only=True)
    torch.save(
        {
            "model": state,
            "reporter": {"epoch": last, "stats": {}},
            "optimizers": [one.state_dict() for one in optimizers],
            "schedulers": [one and one.state_dict() for one in schedulers],
            "scaler": None,
        },
        previous,
    )
    os.replace(previous, checkpoint)
