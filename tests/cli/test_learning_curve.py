"""A training beside the published one: units, definitions, and bad logs."""

import ast
import functools
import math
from pathlib import Path

import editdistance
import numpy as np
import pytest
import torch
import yaml
from espnet2.train.reporter import Reporter
from tiny_model import TOKENS, tiny_batch, tiny_model

from espnet_cif_hkd.cli.learning_curve import (
    convert,
    main,
    read_published,
    smoothing_constant,
    verdict,
)
from espnet_cif_hkd.errors import UserError
from espnet_cif_hkd.plugin.compat import LabelSmoothingLoss, add_sos_eos
from espnet_cif_hkd.recipe.training_log import group_logs, read_training

PUBLISHED = read_published()
DATA = Path(__file__).parents[1] / "data"
SPACE, UNKNOWN = TOKENS.index("<space>"), TOKENS.index("<unk>")
LINE = "[host] 2026-11-21 05:31:02,360 (trainer:394) INFO: "


def as_logged(point):
    """The statistics that our model would log for a row of the published curve."""
    nats = {k: v * math.log(2) for k, v in point.items()}
    constant = smoothing_constant(PUBLISHED.lsm_weight, PUBLISHED.vocab_size)
    smoothed = nats["train_loss"] - 0.5 * nats["train_ctc"] - nats["train_quantity"]
    train = {
        "loss_att": smoothed - constant,
        "loss_quantity": nats["train_quantity"],
        "loss_ctc": nats["train_ctc"],
        "nll": nats["train_nll"],
        "loss_acd": 6.1,  # of a distillation, which the comparison leaves out
    }
    valid = {
        "loss_quantity": nats["dev_quantity"],
        "loss_ctc": nats["dev_ctc"],
        "cer_free": point["dev_error"] / 100,
        "length_error": 0.042,
    }
    return train, valid


def write_log(path, points, accum_grad=1):
    """ESPnet's own reporter writes the lines, one batch an epoch."""
    reporter, lines = Reporter(), ["[host] a line of something else"]
    for point in points:
        number = int(point["epoch"])
        reporter.set_epoch(number)
        for key, stats in zip(("train", "valid"), as_logged(point), strict=True):
            with reporter.observe(key) as sub_reporter:
                sub_reporter.register(stats, 1)
                sub_reporter.next()
        reporter.stats[number]["train"]["total_count"] = (
            int(point["updates"]) * accum_grad
        )
        lines += [f"{LINE}{number}/50epoch started", LINE + reporter.log_message()]
    path.parent.mkdir(exist_ok=True, parents=True)
    path.write_text("\n".join(lines) + "\n")
    return path


def write_config(folder, **changes):
    config = {
        "token_list": ["a"] * PUBLISHED.vocab_size,
        "model_conf": {"lsm_weight": 0.1, "ctc_weight": 0.3},
        **changes,
    }
    (folder / "config.yaml").write_text(_yaml(repr(config)))


@functools.cache
def _yaml(config):
    """Thousands of tokens take a second to write."""
    return yaml.safe_dump(ast.literal_eval(config))


@pytest.fixture
def log(tmp_path):
    write_config(tmp_path)
    return write_log(tmp_path / "train.log", PUBLISHED.points[:10])


@pytest.mark.slow
def test_the_published_run_in_our_log_equals_itself(log, capsys):
    assert main(["--log", str(log)]) == 0
    printed = capsys.readouterr().out
    # ESPnet logs three decimals
    assert " 2.426   1.00" in printed and "22.500  22.50   +0.0" in printed
    assert "verdict: sane: after 4,836 updates (epoch 5)" in printed
    assert "note" not in printed and "in the last epoch 4.2 %." in printed
    ours = convert(read_training([log]), PUBLISHED)
    for point, row in zip(ours, PUBLISHED.points):
        for column, value in row.items():
            assert point[column] == pytest.approx(value, rel=0.03, abs=0.003), column


def test_the_constant_is_what_label_smoothing_leaves_out():
    """The original's criterion on its own numbers, against ESPnet's class."""
    ref = np.load(DATA / "label_smoothing.npz")
    target, logits = torch.from_numpy(ref["target"]), torch.from_numpy(ref["logits"])
    epsilon = float(ref["epsilon"])
    batch, _, n_classes = logits.shape
    ours = float(LabelSmoothingLoss(n_classes, -1, epsilon)(logits, target)) * batch
    left_out = int((target >= 0).sum()) * smoothing_constant(epsilon, n_classes)
    assert ours + left_out == pytest.approx(float(ref["loss_sum"]), rel=1e-6)
    assert smoothing_constant(0.0, n_classes) == 0


@pytest.mark.parametrize("seed", range(3))
def test_the_dev_error_counts_as_the_published_one(seed):
    """What the original's criterion counts in validation (arXiv 2301.13003), in a loop.

    It also counts predictions after the place of ``<eos>``, up to the longest text of
    the batch.
    """
    model, batch = tiny_model(seed).eval(), tiny_batch(seed=seed)
    # ESPnet's counter skips spaces and takes <unk> for five characters: neither
    # occurs here.
    batch["text"][(batch["text"] == SPACE) | (batch["text"] == UNKNOWN)] = SPACE + 1
    never = torch.tensor([SPACE, UNKNOWN])
    model.decoder.output_layer.register_forward_hook(
        lambda module, inputs, logits: logits.index_fill(-1, never, -100.0)
    )
    with torch.no_grad():
        _, stats, _ = model(**batch)
        hs_pad, hlens = model.encode(batch["speech"], batch["speech_lengths"])
        ys_in, _ = add_sos_eos(batch["text"], model.sos, model.eos, -1)
        fired = model.decoder.fire(hs_pad, hlens)
        steps = min(ys_in.size(1), fired.embeddings.size(1))
        logits, _ = model.decoder.decode(fired.embeddings[:, :steps], ys_in[:, :steps])
    published = ours = after = 0
    for guess, count, target in zip(logits.argmax(-1), fired.lengths, batch["text"]):
        correct = target[target >= 0].tolist()
        kept = [n for n in guess[:count].tolist() if n not in (0, model.eos)]
        published += editdistance.eval(kept, correct)
        known = guess[: min(int(count), len(correct) + 1)].tolist()
        kept = [n for n in known if n not in (0, model.eos)]
        ours += editdistance.eval(kept, correct)
        after += max(0, min(int(count), steps) - len(correct) - 1)
    n_tokens = int(batch["text_lengths"].sum())
    assert float(stats["cer_free"]) == pytest.approx(ours / n_tokens)
    assert abs(published - ours) <= after


def test_no_published_loss_is_below_its_constant():
    floor = smoothing_constant(0.1, 4234) / math.log(2)
    for row in PUBLISHED.points:
        smoothed = row["train_loss"] - 0.5 * row["train_ctc"] - row["train_quantity"]
        assert floor < smoothed
    assert smoothed - floor < 0.25


def test_between_rows_the_curve_is_read_off(log):
    row, following = PUBLISHED.points[10:12]
    for axis in ("updates", "epoch"):
        assert PUBLISHED.at("dev_error", axis, row[axis]) == row["dev_error"]
        between = PUBLISHED.at("dev_error", axis, row[axis] + 1)
        assert following["dev_error"] < between < row["dev_error"]
    assert PUBLISHED.at("dev_error", "updates", 500) is None
    assert PUBLISHED.at("dev_error", "epoch", 249) is None


def test_updates_are_batches_divided_by_accum_grad(tmp_path):
    write_config(tmp_path, accum_grad=4)
    log = write_log(tmp_path / "train.log", PUBLISHED.points[:3], accum_grad=4)
    assert [e.updates for e in read_training([log]).epochs] == [965, 1933, 2901]


@pytest.mark.filterwarnings("ignore:The stats of the previous epoch:UserWarning")
def test_the_logs_of_a_resumed_training_are_one_curve(tmp_path):
    """ESPnet renames the older log; epoch 3 was started again."""
    write_config(tmp_path)
    old = write_log(tmp_path / "train.1.log", PUBLISHED.points[:3])
    new = write_log(tmp_path / "train.log", PUBLISHED.points[2:6])
    older = write_log(tmp_path / "train.10.log", PUBLISHED.points[:1])
    (logs,) = group_logs([new, old, older, new]).values()
    assert logs == [older, old, new]
    training = read_training(logs)
    assert [epoch.number for epoch in training.epochs] == [1, 2, 3, 4, 5, 6]
    assert len(training.notes) == 2 and "epoch 3 is there again" in training.notes[1]
    alone = read_training([new])
    assert alone.epochs[0].number == 3 and "train.*.log" in alone.notes[0]


@pytest.mark.slow
def test_trainings_in_two_folders_are_two_curves(tmp_path, capsys):
    logs = []
    for name in ("first", "second"):
        logs.append(str(write_log(tmp_path / name / "train.log", PUBLISHED.points[:6])))
        write_config(tmp_path / name)
    picture = tmp_path / "curves.png"
    assert main(["--log", *logs, "--by", "epoch", "--out", str(picture)]) == 0
    assert capsys.readouterr().out.count("verdict: sane") == 2
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert not list(tmp_path.glob(".*"))
    assert main(["--log", *logs, "--config", "x"]) == 1


@pytest.mark.parametrize(
    ("rows", "loss", "error", "expected"),
    [
        (slice(0, 3), 1.0, 1.0, "too early to say: after 2,901 updates"),
        (slice(0, 5), 1.0, 1.0, "sane: after 4,836"),
        (slice(0, 10), 1.05, 1.0, "sane: after 5,804"),
        (slice(0, 10), 1.0, 1.5, "late: after 6,772"),
        (slice(0, 10), 2.0, 1.0, "not sane: after 9,675"),
        (slice(0, 10), math.nan, 1.0, "not sane: after 9,675"),
        (slice(0, 5), 1.0, math.nan, "sane: after 4,836"),
    ],
)
def test_verdict(rows, loss, error, expected):
    points = [
        {
            **row,
            "train_loss": loss * row["train_loss"],
            "dev_error": error * row["dev_error"],
        }
        for row in PUBLISHED.points[rows]
    ]
    assert verdict(points, PUBLISHED).startswith(expected)


def test_another_task_gets_no_verdict(log, capsys):
    write_config(log.parent, token_list=["a"] * 31, model_conf={"lsm_weight": 0.0})
    main(["--log", str(log)])
    printed = capsys.readouterr().out
    assert "note: 31 tokens here, 4,234 there" in printed
    assert "note: label smoothing 0 here, 0.1 there" in printed
    assert "verdict: none: its marks are for AISHELL-1" in printed


RESULTS = f"{LINE}1epoch results: [train] "


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("", "no 'epoch results' in it"),
        (f"{RESULTS}loss=1.0, total_count=3, [valid] loss=1.0", "'model: cif'"),
        (f"{RESULTS}nll=1.0, loss_quantity=1.0", "no loss_ctc"),
        (f"{RESULTS}nll=1.0, loss_quantity=1.0, loss_ctc=1.0, tot", "was cut"),
    ],
)
def test_a_log_of_something_else_is_refused(log, text, match):
    log.write_text(text)
    with pytest.raises(UserError, match=match) as caught:
        read_training([log])
    assert str(log) in str(caught.value)


@pytest.mark.filterwarnings("ignore:The stats of the previous epoch:UserWarning")
def test_logs_of_different_trainings_are_refused(log):
    fast = [{**row, "updates": 10 * row["updates"]} for row in PUBLISHED.points[:2]]
    other = write_log(log.parent / "train.1.log", fast)
    rest = write_log(log.parent / "train.2.log", PUBLISHED.points[2:4])
    with pytest.raises(UserError, match="of different trainings"):
        read_training([other, rest])


@pytest.mark.parametrize(
    ("config", "match"),
    [
        (None, "no such file; .* --config"),
        ("a: [", "cannot be read"),
        ("text", "no config.yaml of ESPnet"),
        ("token_list: data/tokens.txt", "there is no token_list"),
    ],
)
def test_a_config_that_does_not_tell_is_refused(log, config, match, capsys):
    path = log.parent / "config.yaml"
    path.unlink() if config is None else path.write_text(config)
    with pytest.raises(UserError, match=match):
        read_training([log])
    assert main(["--log", str(log)]) == 1
    assert capsys.readouterr().err.startswith(f"error: {path}: ")


def test_a_log_that_is_not_there(tmp_path):
    write_config(tmp_path)
    with pytest.raises(UserError, match=r"train\.log: cannot be read"):
        read_training([tmp_path / "train.log"])
