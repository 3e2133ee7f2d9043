"""whisper_decoder: the files that it writes, keeps and refuses."""

from pathlib import Path

import pytest
import torch
import yaml
from bpe_whisper import build_bpe_whisper
from error_line import error_line

from espnet_cif_hkd.cli.whisper_decoder import main
from espnet_cif_hkd.decoder.cif_whisper import CIFWhisperDecoder

TEXTS = ["THE OTHER BROTHER", "THE BROTHER BOTHERS"]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Whisper with a tokenizer of bytes, whose special tokens come last."""
    texts = [*(text.lower() for text in TEXTS), "these horses hire hobos"] * 2
    return build_bpe_whisper(tmp_path_factory.mktemp("model"), texts, 300)


@pytest.fixture
def words(model: Path, tmp_path: Path) -> list[str]:
    text = tmp_path / "text"
    text.write_text("".join(f"u{n} {one}\n" for n, one in enumerate(TEXTS)))
    given = (model, tmp_path / "made", "--language", "en", "--text", text)
    return [str(one) for one in (*given, "--pieces", 24)]


def test_the_decoder_has_the_files(words: list[str]) -> None:
    main(words)
    made = Path(words[1])
    tokens = (made / "tokens.txt").read_text().splitlines()
    conf = yaml.safe_load((made / "config.yaml").read_text())
    assert len(tokens) == 27 and "▁THE" in tokens
    decoder = CIFWhisperDecoder(len(tokens), 8, **conf["decoder_conf"])
    state = torch.load(made / "decoder.pth", weights_only=True)
    found = decoder.load_state_dict(
        {name.removeprefix("decoder."): value for name, value in state.items()},
        strict=False,
    )
    assert not found.unexpected_keys
    assert {name.split(".")[0] for name in found.missing_keys} == {
        *("predictor", "fired_in", "fired_out", "fired_norm"),
    }


def test_a_second_command_keeps_them_and_other_options_replace_them(
    words: list[str], capfd: pytest.CaptureFixture[str]
) -> None:
    main(words)
    made = Path(words[1])
    before = (made / "decoder.pth").stat().st_mtime_ns
    main(words)
    assert "is up to date" in capfd.readouterr().out
    assert (made / "decoder.pth").stat().st_mtime_ns == before
    (made / "bpe.model").unlink()
    main([*words[:-1], "25"])
    assert len((made / "tokens.txt").read_text().splitlines()) == 28


def test_wrong_input_is_one_line(
    words: list[str], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    def refused(*changed: str) -> str:
        return error_line(main, capfd, *changed)

    assert "the text needs" in refused(*words[:-1], "5")
    assert "there is no such file" in refused(*words[:5], "nowhere", *words[6:])
    assert "is no folder with a Whisper model" in refused(str(tmp_path), *words[1:])
