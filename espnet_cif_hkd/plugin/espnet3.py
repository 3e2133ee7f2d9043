"""The parts of a training with ESPnet 3: the task, the batches and a callback.

ESPnet 3 takes a task by its dotted path and trains with Lightning. Unlike ESPnet 2's
trainer, its own does not pass the names of utterances to the model, and with several
processes it does not weight their losses by their target tokens.
:class:`CollateFn` and :class:`TrainingCallback` add both. Needs ESPnet 202611.
"""

from collections.abc import Collection
from typing import Any

import torch
from espnet2.tasks.asr import ASRTask as ESPnet2ASRTask
from espnet2.train.collate_fn import CommonCollateFn
from espnet3.components.callbacks.default_callbacks import AverageCheckpointsCallback
from lightning.pytorch.callbacks import Callback

from espnet_cif_hkd.plugin.registration import register

register()

NAME = "utt_id"


class ASRTask(ESPnet2ASRTask):
    """ESPnet's ASR task with our classes, for the key ``task`` of a training.

    It is the task of ESPnet 2, because the inference of ESPnet 3 builds its models with
    that one, too: both use one table of classes. The task of ESPnet 3 is a copy with
    tables of its own.
    """


class CollateFn(CommonCollateFn):
    """Makes batches of samples that have names, as :class:`.KaldiDataset` gives.

    Args:
        names: Whether the batch has the names as ``utt_id``, a list that the model
            receives; not for ESPnet's statistics, which take tensors only.
        float_pad_value, int_pad_value, not_sequence: As in ESPnet.
    """

    def __init__(
        self,
        names: bool = True,
        float_pad_value: float = 0.0,
        int_pad_value: int = -1,
        not_sequence: Collection[str] = (),
    ) -> None:
        super().__init__(float_pad_value, int_pad_value, not_sequence)
        self.names = names

    def __call__(self, data: Any) -> tuple[list[str], dict[str, Any]]:
        """Return the identifiers of the samples in ESPnet's dataset, and the batch."""
        names = [sample.get(NAME, uid) for uid, sample in data]
        rest = [
            (uid, {key: value for key, value in sample.items() if key != NAME})
            for uid, sample in data
        ]
        uids, batch = super().__call__(rest)
        return uids, {**batch, NAME: names} if self.names else batch


class TrainingCallback(Callback):
    """Prepares our models, weights batches as ESPnet 2, and averages epochs."""

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Called after the optimizers and a checkpoint have been loaded."""
        begin = getattr(pl_module.model, "begin_training", None)
        if begin is not None:
            begin(trainer.optimizers)
        if trainer.world_size > 1:
            pl_module.model.register_forward_hook(weighted_by_batch)

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        """Average the best epochs again: ESPnet does so before the last is saved."""
        for callback in trainer.callbacks:
            if isinstance(callback, AverageCheckpointsCallback):
                callback.on_validation_end(trainer, pl_module)


def weighted_by_batch(model: Any, _: Any, output: Any) -> Any:
    """Scale the loss of a process by its share of the weights of all processes.

    ``DistributedDataParallel`` averages the gradients of the processes. With the factor
    ``weight * processes / sum of weights`` this is the gradient of the loss per target
    token of the complete batch, as with ESPnet 2's trainer.

    Args:
        model: The model; only in training the loss is changed.
        output: Loss, statistics and weight of the batch.
    """
    distributed = torch.distributed
    if not model.training or not distributed.is_initialized():
        return output
    loss, stats, weight = output
    total = weight.detach().clone().to(loss)
    distributed.all_reduce(total)
    factor = weight.to(loss) * distributed.get_world_size() / total
    return loss * factor, stats, weight
