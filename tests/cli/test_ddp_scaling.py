"""The tables of docs/scaling.md are those that the code computes."""

from pathlib import Path

import pytest
import torch
import yaml

from espnet_cif_hkd.cli import budget
from espnet_cif_hkd.teachers.base import sequence_key
from espnet_cif_hkd.teachers.store.shard import Shard

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "scaling.md").read_text()


@pytest.mark.parametrize(
    "table",
    [
        budget.store_table(budget.CORPORA),
        budget.disk_table(budget.CORPORA),
        budget.batch_table(1911.38),
    ],
    ids=["store", "disk", "batch"],
)
def test_the_page_has_the_computed_tables(table):
    assert table in PAGE, f"write this into docs/scaling.md:\n{table}"


def test_the_store_is_as_large_as_computed(tmp_path):
    """A real shard: hashes, places, float16 rows, and little more."""
    dim, lengths = 96, [3, 7, 12, 5]
    path = tmp_path / "shard-00000.safetensors"
    vectors = [torch.randn(n, dim).half().numpy() for n in lengths]
    items = {sequence_key([n]): {"vectors": v} for n, v in enumerate(vectors)}
    Shard.write(path, items)
    computed = budget.store_bytes(sum(lengths), len(lengths), dim)
    assert 0 < path.stat().st_size - computed < 1024


def test_a_checkpoint_is_as_large_as_computed(tmp_path):
    model = torch.nn.Linear(300, 200)
    optimizer = torch.optim.Adam(model.parameters())
    model(torch.ones(1, 300)).sum().backward()
    optimizer.step()
    states = {"model": model.state_dict(), "optimizers": [optimizer.state_dict()]}
    torch.save(states, tmp_path / "checkpoint.pth")
    torch.save(model.state_dict(), tmp_path / "model.pth")
    sizes = [(tmp_path / f"{n}.pth").stat().st_size for n in ("checkpoint", "model")]
    parameters = sum(p.numel() for p in model.parameters())
    assert sizes[0] + 3 * sizes[1] == pytest.approx(
        budget.checkpoint_bytes(parameters, kept=1), rel=0.02
    )


def test_the_models_are_those_of_the_recipes():
    """The README's counts are tested against the models that ESPnet builds."""
    alone = budget.LIBRISPEECH_PARAMETERS - 2 * (512 * 768 + 768)
    readme = (ROOT / "egs2/librispeech/asr_hkd/README.md").read_text()
    assert f"| `train_asr_cif_hkd.yaml` | both | {alone:,} |" in readme
    size = budget.checkpoint_bytes(budget.LIBRISPEECH_PARAMETERS, kept=10) / 1e9
    assert f"checkpoint | {size:.1f} | {size:.1f} |" in readme
    for corpus in budget.CORPORA:
        assert f"{corpus.parameters / 1e6:.1f} M" in PAGE


def test_the_batches_of_the_page_are_those_of_the_recipe():
    path = ROOT / "egs2" / "aishell" / "asr_hkd" / "conf" / "train_asr_cif_hkd.yaml"
    config = yaml.safe_load(path.read_text())
    bins = config["batch_bins"] * config["accum_grad"]
    assert config["batch_type"] == "length" and f"`batch_bins: {bins}`" in PAGE
    table = PAGE.split("frames on each GPU at once |\n|---|---|---|---|\n")[1]
    rows = [line.split("|")[1:-1] for line in table.split("\n\n")[0].splitlines()]
    assert len(rows) == 5
    for gpus, batch_bins, accum_grad, frames in rows:
        n, samples = int(gpus.split(",")[0]), int(batch_bins.replace(",", ""))
        assert int(frames.replace(",", "")) * 160 * n == samples
        larger = 2 if "twice" in gpus else 1
        assert samples * int(accum_grad) == larger * bins


def test_a_corpus_of_ones_own(capsys):
    own = ["--hours", "10", "--utterances", "5000", "--tokens", "95e3"]
    assert budget.main([*own, "--teacher_dim", "100"]) == 0
    printed = capsys.readouterr().out
    # 100,000 tokens with </s> x 100 x 2 + 5,000 x 24 bytes
    assert "| this one | its tokens | 0.10 M | 2.0 MB | 0.0 GB |" in printed
    assert "| this one | – | 1.2 GB |" in printed
    assert budget.main(own[:2]) == 1
    assert "--hours, --utterances and --tokens" in capsys.readouterr().err
    assert budget.main(["--teacher_dim", "0"]) == 1
