"""One epoch of ESPnet's own trainer, by one process or by several."""

import argparse
import itertools

import torch
from espnet2.train.distributed_utils import DistributedOption
from espnet2.train.reporter import Reporter
from espnet2.train.trainer import Trainer
from tiny_model import slice_batch, tiny_batch, tiny_config, tiny_model

TEACHER_DIM = 10


LEARNING_RATE = 1.0


# Rank 0 has fewer and shorter utterances, so that no two numbers are equal.
SHARES = ([0, 1], [2, 3, 4, 5])


SYSTEMS = {
    "cif": {"criterion": None},
    "acd": {"criterion": "hkd", "linguistic": {"weight": 0.0}},
    "lrd": {"criterion": "hkd", "acoustic": {"weight": 0.0, "share_negatives": True}},
    "hkd": {"criterion": "hkd"},
}


class TableTeacher:
    """A vector for each pair of neighbouring tokens: no PLM is needed here."""

    def __init__(self, vocab_size):
        generator = torch.Generator().manual_seed(7)
        shape = (vocab_size, vocab_size, TEACHER_DIM)
        self.table = torch.randn(shape, generator=generator)

    def features(self, sequences, device):
        rows = []
        for ids in sequences:
            path = [0, *ids, len(self.table) - 1]
            rows += [self.table[a, b] for a, b in itertools.pairwise(path)]
        return torch.stack(rows).to(device)


def model_of(system, acoustic=None, **changes):
    conf = dict(SYSTEMS[system])
    criterion = conf.pop("criterion")
    if criterion is None:
        return tiny_model(**changes).double()
    conf |= {"teacher": "replaced", "teacher_dim": TEACHER_DIM}
    if acoustic:
        conf["acoustic"] = {"temperature": 0.1, **acoustic}
    model_conf = {"criterion": criterion, "criterion_conf": conf}
    model = tiny_model(model_conf=model_conf, **changes).double()
    model.criterion._teacher = TableTeacher(model.vocab_size)
    return model


def batch_of(share=None, seed=0):
    batch = tiny_batch(6, seed=seed, dtype=torch.float64)
    return batch if share is None else slice_batch(batch, share)


def seeded(batches, seed):
    """Batches as ESPnet's iterators give them; draws depend on ``seed`` alone."""
    for batch in batches:
        torch.manual_seed(seed)
        names = [str(n) for n in range(len(batch["speech"]))]
        yield batch.get("utt_id", names), batch


def train(model, batches, seed, distributed):
    """One epoch of ESPnet's own trainer; how the parameters moved, and the log."""
    before = {k: p.detach().clone() for k, p in model.named_parameters()}
    wrapped = model
    if distributed:
        wrapped = torch.nn.parallel.DistributedDataParallel(
            model, find_unused_parameters=False, gradient_as_bucket_view=True
        )
    options = Trainer.build_options(
        argparse.Namespace(**{**tiny_config(), "ngpu": 0, "grad_clip": 1e9})
    )
    reporter = Reporter()
    reporter.set_epoch(1)
    with reporter.observe("train") as sub_reporter:
        Trainer.train_one_epoch(
            model=wrapped,
            iterator=seeded(batches, seed),
            optimizers=[torch.optim.SGD(model.parameters(), lr=LEARNING_RATE)],
            schedulers=[None],
            scaler=None,
            reporter=sub_reporter,
            summary_writer=None,
            options=options,
            distributed_option=DistributedOption(distributed=distributed),
        )
    moved = {
        k: (before[k] - p.detach()) / LEARNING_RATE for k, p in model.named_parameters()
    }
    return moved, reporter.stats[1]["train"]


def assert_close(ours, expected, **tolerance):
    assert ours.keys() == expected.keys()
    for key, value in expected.items():
        torch.testing.assert_close(
            ours[key], value, msg=lambda m, k=key: f"{k}: {m}", **tolerance
        )
