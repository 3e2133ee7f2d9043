"""encoder: joined: features beside what a small encoder finds in them."""

import pytest
import torch
from tiny_model import tiny_batch, tiny_config, tiny_model

from espnet_cif_hkd.encoder.geometry import encoder_windows
from espnet_cif_hkd.encoder.joined import JoinedEncoder
from espnet_cif_hkd.errors import UserError

CONF = tiny_config()["encoder_conf"]


@pytest.mark.parametrize("kind", ["transformer", "conformer"])
def test_the_first_dimensions_are_the_features(kind):
    encoder = JoinedEncoder(6, kind, CONF).eval()
    assert encoder.output_size() == 14
    xs, lengths = torch.randn(2, 9, 6), torch.tensor([9, 5])
    found, found_lengths, _ = encoder(xs, lengths)
    alone, _, _ = encoder.encoder(xs, lengths)
    assert found_lengths.tolist() == [9, 5]
    torch.testing.assert_close(found[..., :6], xs)
    torch.testing.assert_close(found[..., 6:], alone)


def test_its_frames_have_the_times_of_the_features():
    assert encoder_windows(JoinedEncoder(6, "transformer", CONF)) == ()


def test_decoder_cif_and_hkd_read_it():
    encoder = {"encoder": "joined", "encoder_conf": {"encoder_conf": CONF}}
    conf = {"teacher_type": "random", "teacher_dim": 4}
    options = {"criterion": "hkd", "criterion_conf": conf}
    model = tiny_model(**encoder, model_conf=options)
    loss = model.train()(**tiny_batch())[0]
    loss.sum().backward()
    assert all(p.grad.isfinite().all() for p in model.encoder.parameters())


def test_another_frame_rate_is_one_line():
    conf = {**CONF, "input_layer": "conv2d"}
    encoder = JoinedEncoder(20, "transformer", conf)
    with pytest.raises(
        UserError, match=r"has 40 frames, but .* returns 9: set"
    ) as error:
        encoder(torch.randn(1, 40, 20), torch.tensor([40]))
    assert "\n" not in str(error.value)


def test_an_unknown_encoder_is_one_line():
    with pytest.raises(UserError, match=r"encoder 'x' is unknown; choose .*conformer"):
        JoinedEncoder(6, "x")
