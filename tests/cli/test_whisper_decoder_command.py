"""whisper_decoder: the files that it writes, keeps and refuses."""

from pathlib import Path

import pytest
import torch
import yaml
from bpe_whisper import build_bpe_whisper
from error_line import error_line

from espnet_cif_hkd.cli.whisper_decoder import main
from espnet_cif_hkd.decoder.cif_whisper import CIFWhisperDecoder
from espnet_cif_hkd.teachers.speech.whisper_text import WhisperText

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


def test_units_of_a_token_list_stay(
    words: list[str], model: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    listed = tmp_path / "listed.txt"
    units = ["<blank>", "<unk>", "<space>", "T", "THE", "OTHER", "水", "<sos/eos>"]
    listed.write_text("\n".join(units) + "\n")
    command = [*words[:4], "--token_list", str(listed)]
    main(command)
    assert "8 units, 1 of several tokens" in capfd.readouterr().out
    made = Path(words[1])
    assert not (made / "bpe.model").exists()
    state = torch.load(made / "decoder.pth", weights_only=True)
    rows, output = (state[f"decoder.{n}.weight"] for n in ("embed", "output_layer"))
    whisper = WhisperText(model, language="en")
    table = whisper.model.model.decoder.embed_tokens.weight.detach()
    for unit, text in ((2, " "), (3, "t"), (4, "the"), (5, "other"), (6, "水")):
        ids = whisper.tokenizer.encode(text, add_special_tokens=False)
        torch.testing.assert_close(rows[unit], table[ids].mean(dim=0))
        torch.testing.assert_close(output[unit], table[ids[0]])
    assert len(ids) == 3
    for found in (rows, output):
        for unit in (0, 1):
            torch.testing.assert_close(found[unit], found[2:7].mean(dim=0))
        torch.testing.assert_close(found[7], table[whisper.model.config.eos_token_id])
    main(command)
    assert "is up to date" in capfd.readouterr().out
    listed.write_text("\n".join([*units[:2], *units[3:]]) + "\n")
    main(command)
    state = torch.load(made / "decoder.pth", weights_only=True)
    assert len(state["decoder.embed.weight"]) == 7


def test_wrong_input_is_one_line(
    words: list[str], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    def refused(*changed: str) -> str:
        return error_line(main, capfd, *changed)

    assert "the text needs" in refused(*words[:-1], "5")
    assert "there is no such file" in refused(*words[:5], "nowhere", *words[6:])
    assert "is no folder with a Whisper model" in refused(str(tmp_path), *words[1:])
    listed = tmp_path / "listed.txt"
    both = [*words, "--token_list", str(listed)]
    assert "give --text for pieces" in refused(*both)
    assert "give --text for pieces" in refused(*words[:4])
    given = [*words[:4], *both[-2:]]
    assert "listed.txt is missing" in refused(*given)
    assert "leave --pieces out" in refused(*given, "--pieces", "9")
    listed.write_text("a\nb\nc\nd\n")
    assert "is from a to d" in refused(*given)
