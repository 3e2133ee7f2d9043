"""A complete CIF model with a streaming encoder, offline and in pieces."""

import itertools
import logging

import pytest
import torch
import yaml
from espnet2.bin.asr_inference import Speech2Text
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_model import CIF_CONFORMER, tiny_batch, tiny_config, tiny_model

from espnet_cif_hkd.cif.streaming import fire_piece
from espnet_cif_hkd.encoder.geometry import algorithmic_latency

RATE = 8000


def streaming(causal=False, seed=0, **changes):
    conf = {**CIF_CONFORMER["encoder_conf"], "chunk_size": 2, **changes}
    decoder = tiny_config()["decoder_conf"] | {"predictor_conf": {"causal": causal}}
    return {"encoder": "cif_conformer", "encoder_conf": conf, "decoder_conf": decoder}


def fire_stream(model, speech, lengths, cuts):
    """Features in pieces, fired vectors of each utterance."""
    encoder_cache = predictor_cache = firing_cache = None
    rows = [[] for _ in lengths]
    edges = [0, *sorted(cuts), speech.size(1)]
    for n, (begin, end) in enumerate(itertools.pairwise(edges)):
        last = n == len(cuts)
        ilens = (lengths - begin).clamp(0, end - begin)
        hs, hlens, encoder_cache = model.encoder.forward_chunk(
            speech[:, begin:end], encoder_cache, ilens, last
        )
        hs, alpha, hlens, predictor_cache = model.decoder.predictor.forward_chunk(
            hs, hlens, predictor_cache, last
        )
        fired, firing_cache = fire_piece(hs, alpha, hlens, firing_cache, last)
        for row, vectors, n_tokens in zip(
            rows, fired.embeddings, fired.lengths.tolist(), strict=True
        ):
            row.append(vectors[:n_tokens])
    return [torch.cat(row) for row in rows]


@pytest.fixture(scope="module", params=[False, True], ids=["wait", "causal"])
def model(request):
    return tiny_model(**streaming(request.param, left_chunks=1)).double().eval()


@pytest.mark.slow
@settings(max_examples=25)
@given(cuts=st.lists(st.integers(0, 24), max_size=8), seed=st.integers(0, 9))
def test_firing_from_chunks_equals_the_masked_pass(model, cuts, seed):
    batch = tiny_batch(3, seed, torch.float64)
    speech, lengths = batch["speech"], batch["speech_lengths"]
    cuts = [cut for cut in cuts if cut <= speech.size(1)]
    with torch.no_grad():
        expected = model.decoder.fire(*model.encode(speech, lengths))
        found = fire_stream(model, speech, lengths, cuts)
    assert expected.lengths.sum() > 3
    for b, vectors in enumerate(found):
        torch.testing.assert_close(
            vectors, expected.embeddings[b, : expected.lengths[b]], rtol=1e-9, atol=1e-9
        )


@pytest.mark.parametrize("model_conf", [{}, {"ctc_weight": 0.0}], ids=str)
def test_dynamic_chunks_train_every_parameter(model_conf):
    conf = streaming(chunk_size=[0, 1, 3])
    trained = tiny_model(**conf, model_conf=model_conf).train()
    for seed in range(3):
        torch.manual_seed(seed)
        trained.zero_grad()
        loss, _, _ = trained(**tiny_batch(3))
        loss.backward()
        for name, parameter in trained.named_parameters():
            used = parameter.grad is not None or name.startswith("ctc.")
            assert used and torch.isfinite(loss), name


def audio_model(encoder_conf, **changes):
    return {
        "input_size": None,
        "frontend": "default",
        "frontend_conf": {"fs": RATE, "n_fft": 256, "hop_length": 80, "n_mels": 12},
        **streaming(**encoder_conf),
        **changes,
    }


MVN = {"normalize": "utterance_mvn", "normalize_conf": {}}


@pytest.mark.parametrize(
    ("conf", "changes", "warned"),
    [
        ({}, MVN, True),
        ({"chunk_size": "dynamic"}, MVN, True),
        ({"chunk_size": None, "decoding_chunk_size": 2}, MVN, True),
        ({"chunk_size": None}, MVN, False),
        ({}, {}, False),
    ],
    ids=str,
)
def test_utterance_mvn_is_warned_of(conf, changes, warned, caplog):
    tiny_model(**audio_model(conf, **changes))
    found = [r for r in caplog.records if r.levelno >= logging.WARNING]
    found = [r.getMessage() for r in found if "utterance_mvn" in r.getMessage()]
    assert len(found) == warned
    if warned:
        assert "use global_mvn" in found[0] and "\n" not in found[0]


def test_the_latency_is_logged(caplog):
    caplog.set_level(logging.INFO)
    model = tiny_model(**audio_model({}))
    latency = algorithmic_latency(model, RATE)
    assert f"algorithmic latency {latency:.3f} s" in caplog.text
    caplog.clear()
    tiny_model(**audio_model({"chunk_size": [0, 3]}))  # decodes with full context
    assert "latency" not in caplog.text


@pytest.mark.slow
def test_asr_inference_decodes_with_a_streaming_mask(tmp_path):
    """One checkpoint, copies of config.yaml with other values."""
    conf = audio_model({"chunk_size": "dynamic"}, token_type="char")
    weights = tmp_path / "1epoch.pth"
    torch.save(tiny_model(**conf).state_dict(), weights)
    samples = torch.randn(RATE, generator=torch.Generator().manual_seed(0)).numpy()
    frames = {}
    for size in (0, 1, 4):
        conf["encoder_conf"]["decoding_chunk_size"] = size
        config = tmp_path / f"config_{size}.yaml"
        config.write_text(yaml.safe_dump(tiny_config(**conf)))
        recogniser = Speech2Text(config, weights, beam_size=2)
        assert recogniser(samples)[0][0] is not None
        frames[size], _ = recogniser.asr_model.encode(
            torch.tensor(samples)[None], torch.tensor([RATE])
        )
        assert recogniser.asr_model.encoder.decoding_chunk_size == size
    for one, other in itertools.combinations(frames.values(), 2):
        assert one.shape == other.shape and not torch.allclose(one, other, atol=1e-3)
