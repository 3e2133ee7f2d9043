"""The complete recipe of LibriSpeech on a miniature corpus, in this process."""

import sys
from pathlib import Path
from typing import Any

import librispeech_fixture as fixture
import pytest
import yaml
from miniature.english import english
from miniature.librispeech import COUNTS, write_librispeech
from tiny_bert import HIDDEN, build_tiny_bert

from espnet_cif_hkd.io.tables import read_lines, read_table
from espnet_cif_hkd.recipe import layout
from espnet_cif_hkd.recipe.cli import main

pytestmark = pytest.mark.slow
SETS = ("test_clean", "test_other", "dev_clean", "dev_other")
EXP = "exp/asr_tiny_hkd_raw_en_{units}"
NO_CURVES = {"use_matplotlib": False, "use_tensorboard": False}


def _tiny(path: Path, teacher: str) -> None:
    """Make a configuration of the recipe small, and nothing else of it different."""
    conf: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    conf["encoder_conf"].update(
        output_size=16, attention_heads=2, linear_units=16, num_blocks=2
    )
    conf["encoder_conf"].update(pooling_layers=[1], input_channels=4)
    conf["decoder_conf"].update(attention_heads=2, linear_units=16, num_blocks=1)
    conf["model_conf"]["criterion_conf"].update(
        teacher=teacher, teacher_dim=HIDDEN, teacher_revision=None
    )
    conf.update(batch_bins=2_000_000, max_epoch=2, num_workers=0, use_amp=False)
    # From the first update at a rate that shows, so that epochs differ.
    conf["optim_conf"]["lr"], conf["scheduler_conf"]["init_lr_scale"] = 0.01, 1.0
    conf.update(num_att_plot=1, keep_nbest_models=2, **NO_CURVES)
    name = "wordpiece" if "wordpiece" in path.name else "hkd"
    path.with_name(f"tiny_{name}.yaml").write_text(yaml.safe_dump(conf))


def _tiny_lm(path: Path) -> None:
    conf: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    conf["lm_conf"].update(embed_unit=8, att_unit=8, head=2, unit=8, layer=1)
    conf.update(batch_bins=100_000, max_epoch=1, num_workers=0, use_amp=False)
    conf.update(NO_CURVES)
    path.write_text(yaml.safe_dump(conf))


@pytest.fixture(scope="module")
def laid_out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The recipe with a miniature corpus and small configurations."""
    folder = tmp_path_factory.mktemp("librispeech") / "recipe"
    layout.init(["librispeech", str(folder)])
    write_librispeech(folder / "downloads", english(sum(COUNTS.values())))
    teacher = build_tiny_bert(folder / "teacher")
    for name in ("hkd", "hkd_wordpiece"):
        _tiny(folder / f"conf/train_asr_cif_{name}.yaml", teacher)
    _tiny_lm(folder / "conf/train_lm.yaml")
    text = folder / "data/local/other_text/text"
    text.parent.mkdir(parents=True)
    text.write_text("librispeech_lng_00000001 A BANK CHECK\n")
    return folder


def _run(folder: Path, *arguments: str) -> None:
    """What ``./run.sh`` would do with these arguments, in this process."""
    words = fixture.words_of(
        folder, "run.sh", "--incomplete", "true", *arguments, recipe=folder
    )
    assert words[:2] == ["-m", "espnet_cif_hkd.recipe"]
    few = [*("--ngpu", "0", "--nj", "1", "--inference_nj", "1")]
    few += ["--inference_args", "--maxlenratio -4 --beam_size 2"]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("PYTHON", sys.executable)
        assert main([*words[2:], *few, "--inference_tag", "decoded"]) == 0


@pytest.fixture(scope="module")
def finished(laid_out: Path) -> Path:
    """The recipe after stages 1 to 14 with BPE units and a language model."""
    _run(
        laid_out,
        *("--asr_config", "conf/tiny_hkd.yaml", "--nbpe", "40"),
        *("--use_lm", "true", "--skip_packing", "false"),
    )
    return laid_out


def test_every_stage_leaves_its_files(
    finished: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(finished)
    exp = Path(EXP.format(units="bpe40"))
    tokens = read_lines("data/en_token_list/bpe_unigram40/tokens.txt")
    assert (tokens[0], tokens[1], tokens[-1]) == ("<blank>", "<unk>", "<sos/eos>")
    assert "A BANK CHECK" in Path("dump/raw/lm_train.txt").read_text()
    assert len(read_table("dump/raw/train_960/text")) == sum(
        count for part, count in COUNTS.items() if part.startswith("train")
    )
    stats = Path("exp/asr_stats_raw_en_bpe40")
    assert (stats / "train/text_shape.bpe").is_file()
    assert (exp / "train.total_count.ave.pth").is_file()
    results = (exp / "RESULTS.md").read_text()
    for name in SETS:
        decoded = exp / "decoded" / name
        assert set(read_table(decoded / "text")) == set(read_table(f"data/{name}/text"))
        assert f"|decoded/{name}|" in results
        for kind in ("cer", "wer", "ter"):
            assert (decoded / f"score_{kind}/result.txt").is_file()
    assert len(list(exp.glob("*.zip"))) == 1
    log = (exp / "train.log").read_text()
    assert "loss_acd=" in log and "loss_lrd=" in log


def test_the_model_is_the_average_of_the_last_epochs(
    finished: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    monkeypatch.chdir(finished)
    exp = Path(EXP.format(units="bpe40"))
    epochs = [torch.load(exp / f"{n}epoch.pth", weights_only=True) for n in (1, 2)]
    mean = torch.load(exp / "train.total_count.ave.pth", weights_only=True)
    key = "decoder.output_layer.weight"
    first, last = (epoch[key] for epoch in epochs)
    assert (first - last).abs().max() > 0.001
    torch.testing.assert_close(mean[key], (first + last) / 2)


def test_wordpieces_are_decoded_to_plain_words(
    finished: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(finished)
    _run(
        finished,
        *("--units", "wordpiece", "--asr_config", "conf/tiny_wordpiece.yaml"),
        *("--skip_stages", "2 3 4", "--skip_packing", "false"),
        *("--asr_tag", "tiny_hkd_raw_en_wordpiece"),
    )
    exp = Path(EXP.format(units="wordpiece"))
    listed = Path("data/en_token_list/hugging_face_data-wordpiece/tokens.txt")
    tokens = read_lines(listed)
    assert (tokens[0], tokens[1], tokens[-1]) == ("<blank>", "<unk>", "<sos/eos>")
    assert {"'", "##'", "the", "##ing"} <= set(tokens)
    stats = Path("exp/asr_stats_raw_en_hugging_face_data-wordpiece")
    assert (stats / "train/text_shape.hugging_face").is_file()
    special = {"<blank>", "<unk>", "<sos/eos>"}
    seen = 0
    for name in SETS:
        pieces = read_table(exp / "decoded" / name / "token")
        for utterance, text in read_table(exp / "decoded" / name / "text").items():
            kept = [p for p in pieces[utterance].split() if p not in special]
            assert text == " ".join(kept).replace(" ##", "").removeprefix("##")
            seen += len(kept)
        assert (exp / f"decoded/{name}/score_wer/result.txt").is_file()
        assert not (exp / f"decoded/{name}/score_ter").exists()
    assert seen > 0
    _tokenizer_travels(exp, finished.parent / "unpacked")


def _tokenizer_travels(exp: Path, target: Path) -> None:
    """An unpacked model knows where its tokenizer is now."""
    from espnet2.main_funcs.pack_funcs import unpack
    from espnet2.text.hugging_face_tokenizer import HuggingFaceTokenizer

    (archive,) = exp.glob("*.zip")
    named = unpack(archive, target)
    conf = yaml.safe_load(Path(named["asr_train_config"]).read_text())
    assert Path(conf["bpemodel"]) == target / "data/wordpiece"
    tokenizer = HuggingFaceTokenizer(conf["bpemodel"])
    text = "the boys' toys don't"
    assert tokenizer.tokens2text(tokenizer.text2tokens(text.upper())) == text
