"""A one-pass model in Paraformer's layout, run by sherpa-onnx itself."""

import pytest
from test_export import CASES, OURS, noise, trained
from tiny_speech import RATE

from espnet_cif_hkd import Speech2Text, UserError
from espnet_cif_hkd.cli.export import load_source, main
from espnet_cif_hkd.inference.export.sherpa import export_sherpa

pytest.importorskip("onnxruntime")
pytest.importorskip("onnx")


@pytest.mark.slow
def test_sherpa_onnx_finds_the_tokens_of_the_model(tmp_path):
    sherpa_onnx = pytest.importorskip("sherpa_onnx")
    folder = tmp_path / "exp"
    files = trained(folder, **CASES["one pass, Kaldi"])
    main(["--model", str(folder), "--out", str(tmp_path), "--format", "sherpa"])
    recognizer = sherpa_onnx.OfflineRecognizer.from_paraformer(
        paraformer=str(tmp_path / "model.onnx"),
        tokens=str(tmp_path / "tokens.txt"),
        num_threads=1,
        sample_rate=RATE,
        feature_dim=8,
    )
    model = Speech2Text(*files, greedy=True)
    waves = [noise(seconds, seed) for seed, seconds in enumerate((1.0, 2.0, 0.5))]
    streams = []
    for wave in waves:
        stream = recognizer.create_stream()
        stream.accept_waveform(RATE, wave)
        streams.append(stream)
    recognizer.decode_streams(streams)
    texts = []
    for wave, stream in zip(waves, streams, strict=True):
        [(text, tokens, *_)] = model(wave)
        symbols = {"<space>": " ", "<unk>": "<unk>"}
        assert stream.result.tokens == [
            symbols.get(token, f"{token}@@") for token in tokens
        ]
        texts.append(text)
        if "<" not in text:
            assert stream.result.text.split() == text.split()
    assert all(texts)


@pytest.mark.slow
def test_models_that_do_not_fit(tmp_path):
    cases = {
        "train a model with 'frontend: kaldi_fbank'": OURS,
        "needs a one-pass decoder": {
            **CASES["one pass, Kaldi"],
            "decoder": "cif",
        },
        "window: hamming": {
            **CASES["one pass, Kaldi"],
            "frontend_conf": {"fs": RATE, "n_mels": 8, "window": "povey"},
        },
    }
    for number, (message, changes) in enumerate(cases.items()):
        folder = tmp_path / str(number)
        trained(folder, **changes)
        source = load_source(str(folder))
        with pytest.raises(UserError, match=message):
            export_sherpa(source, tmp_path / "out")
    assert not (tmp_path / "out").exists()
