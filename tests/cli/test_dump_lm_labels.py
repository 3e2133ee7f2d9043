"""The command that stores a language model's labels, on files as a recipe has them."""

import re
from pathlib import Path

import pytest
import torch
from tiny_lm import TOKENS, build_tiny_lm, encode, train_tiny_lm

from espnet_cif_hkd.cli.dump_lm_labels import main
from espnet_cif_hkd.teachers.lm.registry import build_lm_teacher

CPU = torch.device("cpu")
TEXTS = ["abcdefgabcde", "bcdefgabcdef", "", "a", "cdefgab?defg"]


@pytest.fixture(scope="module")
def lm(tmp_path_factory):
    texts = [encode(("abcdefg" * 3)[n : n + 12]) for n in range(7)]
    return train_tiny_lm(tmp_path_factory.mktemp("lm"), texts)


@pytest.fixture
def recipe(tmp_path, lm, monkeypatch):
    """A recipe folder with an LM, a token list, a text and a data folder."""
    monkeypatch.chdir(tmp_path)
    Path("lm").symlink_to(lm)
    Path("tokens.txt").write_text("\n".join(TOKENS) + "\n")
    Path("text").write_text("".join(f"u{n} {t}\n" for n, t in enumerate(TEXTS[:3])))
    Path("dev").mkdir()
    Path("dev/text").write_text("".join(f"v{n} {t}\n" for n, t in enumerate(TEXTS)))
    return [
        *("--store", "store", "--text", "text", "dev"),
        *("--token_list", "tokens.txt", "--token_type", "char"),
    ]


def failure(capsys, *words):
    with pytest.raises(SystemExit):
        main(words)
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith("error: ")
    return line


def test_the_training_reads_what_the_command_stores(recipe, caplog):
    caplog.set_level("INFO")
    main([*recipe, "--lm", "lm", "--top_k", "2", "--temperature", "2"])
    assert "labels of 5 sentences (37 units) added" in caplog.text
    for text, n_units in (("text", 24), ("dev/text", 36)):
        line = rf"temperature 2, on {text}: perplexity .* top-2 .* of {n_units} units"
        assert re.search(line, caplog.text)
    conf = {"lm": "lm", "top_k": 2, "temperature": 2.0, "label_store": "store"}
    items = [encode(text) for text in TEXTS]
    found = build_lm_teacher(conf, TOKENS).targets(items, CPU)
    expected = build_lm_teacher(conf, TOKENS, stored=False).targets(items, CPU)
    assert torch.equal(found.tensors["ids"], expected.tensors["ids"])
    caplog.clear()
    main([*recipe, "--lm", "lm", "--top_k", "2", "--temperature", "2"])
    assert "labels of 0 sentences" in caplog.text


def test_labels_of_another_unit_have_its_keys(recipe):
    """The keys are the units of the recogniser's tokens, which spell the text."""
    words = ["<blank>", "<unk>", "AB", "CD", "<sos/eos>"]
    Path("words.txt").write_text("\n".join(words) + "\n")
    Path("text").write_text(f"u1 {'ab cd ' * 5}\nu2 cd zz\nu3\n")
    unit = ["--unit", "word", "--unit_token_list", "words.txt", "--top_k", "9"]
    command = [*recipe[:3], "text", *recipe[5:], *unit]
    main([*command, "--lm_type", "uniform", "--lm_conf", "seed=3"])
    conf = {"lm_type": "uniform", "top_k": 9, "lm_conf": {"seed": 3}}
    made = build_lm_teacher({**conf, "label_store": "store"}, words)
    found = made.targets([[2, 3] * 5, [3, 1], []], CPU)
    assert found.sizes == [10, 2, 0] and made.payload.width == 2


def test_the_unigram_control_counts_a_text(recipe):
    Path("train").write_text("w1 aab\n")
    counts = ["--lm_type", "unigram", "--lm", "counts", "--count_text", "train"]
    main([*recipe, *counts])
    assert Path("counts").read_text() == "a 2\nb 1\n"


def test_wrong_input_is_refused_in_one_line(recipe, tmp_path, capsys):
    other = build_tiny_lm(tmp_path / "other", tokens=[*TOKENS[:2], "x", *TOKENS[3:]])
    assert "token 3 is 'x' in the LM and 'a' in" in failure(
        capsys, *recipe, "--lm", other
    )
    worse = build_tiny_lm(tmp_path / "worse")
    assert "its perplexity on text is" in failure(capsys, *recipe, "--lm", worse)
    assert not Path("store/header.json").exists()
    assert "lm is not set; name a folder" in failure(capsys, *recipe)
    missing = [*recipe[:3], "none", *recipe[5:]]
    assert "none: this text file does not" in failure(capsys, *missing, "--lm", "lm")
    wrong = failure(capsys, *recipe, "--lm", "lm", "--lm_conf", "seed")
    assert "--lm_conf seed: write NAME=VALUE" in wrong
    wrong = failure(capsys, *recipe, "--lm", "lm", "--unit", "syllable")
    assert "unit: 'syllable' is unknown" in wrong
    wrong = failure(capsys, *recipe, "--lm", "lm", "--unit", "aligned")
    assert (
        "--unit aligned: a text has no labels of an alignment; store them by" in wrong
    )


@pytest.mark.slow
def test_an_lm_of_espnets_lm_train(recipe, run_python, caplog):
    """Trained by ``espnet2.bin.lm_train``, read by its folder."""
    caplog.set_level("INFO")
    texts = [("abcdefg" * 3)[n : n + 12] for n in range(7)] * 8
    Path("lm_text").write_text("".join(f"u{n} {t}\n" for n, t in enumerate(texts)))
    Path("shape").write_text("".join(f"u{n} 13,10\n" for n in range(len(texts))))
    data = "lm_text,text,text"
    done = run_python(
        *("-m", "espnet2.bin.lm_train", "--ngpu", "0"),
        *("--token_type", "char", "--token_list", "tokens.txt"),
        *("--train_data_path_and_name_and_type", data),
        *("--valid_data_path_and_name_and_type", data),
        *("--train_shape_file", "shape", "--valid_shape_file", "shape"),
        *("--lm", "transformer", "--lm_conf", "embed_unit=16", "--lm_conf"),
        *("att_unit=16", "--lm_conf", "unit=32", "--lm_conf", "layer=1"),
        *("--optim", "adam", "--optim_conf", "lr=0.01", "--max_epoch", "6"),
        *("--batch_type", "unsorted", "--batch_size", "8", "--num_workers", "0"),
        *("--keep_nbest_models", "2", "--output_dir", "exp/lm"),
        *("--use_matplotlib", "false", "--use_tensorboard", "false"),
    )
    assert done.returncode == 0, done.stderr[-2000:]
    main([*recipe, "--lm", "exp/lm", "--top_k", "3"])
    assert "labels of 5 sentences (37 units) added" in caplog.text
