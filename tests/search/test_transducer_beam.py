"""ESPnet's searches decode what a transducer has learned."""

import pytest
import torch
import yaml
from espnet2.bin.asr_inference import Speech2Text
from tiny_model import TOKENS, tiny_batch
from transducer_parts import tiny_transducer, transducer_config

from espnet_cif_hkd import Speech2Text as OurSpeech2Text

pytestmark = pytest.mark.slow
WIDE = {
    "encoder_conf": {
        "input_layer": "linear",
        "output_size": 16,
        "attention_heads": 2,
        "linear_units": 32,
        "num_blocks": 1,
        "dropout_rate": 0.0,
        "positional_dropout_rate": 0.0,
        "attention_dropout_rate": 0.0,
    },
    "decoder_conf": {"hidden_size": 16},
    "joint_net_conf": {"joint_space_size": 32},
}
# These emit any number of tokens at one frame; the others a limited number.
UNLIMITED = ("default", "alsd")


@pytest.fixture(scope="module")
def learned(tmp_path_factory):
    """A transducer that knows the three utterances of a batch; its files."""
    model, batch = tiny_transducer(**WIDE), tiny_batch(3)
    optimiser = torch.optim.Adam(model.parameters(), lr=0.02)
    losses = []
    for _ in range(80):
        loss, stats, _ = model(**batch)
        optimiser.zero_grad()
        loss.sum().backward()
        optimiser.step()
        losses.append(float(stats["loss_transducer"]))
        if losses[-1] < 0.04:
            break
    assert losses[-1] < 0.05 < 0.05 * losses[0]
    folder = tmp_path_factory.mktemp("exp")
    config, parameters = folder / "config.yaml", folder / "1epoch.pth"
    config.write_text(yaml.safe_dump(transducer_config(token_type="char", **WIDE)))
    torch.save(model.state_dict(), parameters)
    return (str(config), str(parameters)), batch


def utterances(batch):
    for b, n in enumerate(batch["speech_lengths"].tolist()):
        yield batch["speech"][b, :n], batch["text"][b, : batch["text_lengths"][b]]


@pytest.mark.parametrize("search", ["default", "tsd", "alsd", "nsc", "maes", "mbg"])
def test_all_searches_of_espnet(learned, search):
    files, batch = learned
    conf = {"search_type": search}
    speech2text = Speech2Text(*files, beam_size=3, transducer_conf=conf)
    found = [(speech2text(x)[0], text.tolist()) for x, text in utterances(batch)]
    for (text, tokens, ids, hypothesis), expected in found:
        assert hypothesis.yseq[0] == 0 and ids == list(hypothesis.yseq[1:])
        assert text == "".join(tokens).replace("<space>", " ")
        assert tokens == [TOKENS[n] for n in ids]
        assert ids == expected or search not in UNLIMITED
    assert any(found[n][0][2] == found[n][1] for n in range(3))


def test_a_list_is_decoded_with_both_releases(learned):
    files, batch = learned
    features = [x for x, _ in utterances(batch)]
    for options in ({"beam_size": 1}, {"greedy": True}):
        speech2text = OurSpeech2Text(*files, **options)
        together = speech2text(features)
        alone = [speech2text(one) for one in features]
        assert [one[0][2] for one in together] == [one[0][2] for one in alone]
