"""Options that ``cif_conformer`` refuses, and its messages."""

import pytest
import torch
from tiny_conformer import padded, random_utterances, tiny_conformer

from espnet_cif_hkd.encoder.frames import fewest_frames, frames_after
from espnet_cif_hkd.errors import UserError
from espnet_cif_hkd.plugin.compat import TooShortUttError


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"pooling_layers": [0]}, r"pooling_layers \[0\].*from 1 to num_blocks 4"),
        ({"pooling_layers": [2, 5]}, r"pooling_layers \[2, 5\].*num_blocks 4"),
        ({"pooling_layers": [2, 2]}, "different block numbers"),
        ({"pooling_layers": [True]}, "different block numbers"),
        ({"pooling_layers": ["2"]}, "different block numbers"),
        ({"pooling_layers": 2}, "must be a list"),
        ({"pooling_layers": "12"}, "must be a list"),
        ({"pooling_layers": None}, "must be a list"),
        ({"attention_heads": 3}, "attention_heads 3 does not divide output_size 8"),
        ({"cnn_module_kernel": 4}, "cnn_module_kernel 4 must be an odd integer"),
        ({"cnn_module_kernel": -1}, "cnn_module_kernel -1 must be an odd integer"),
        ({"cnn_module_kernel": "15"}, "cnn_module_kernel '15' must be an odd integer"),
        ({"cnn_module_kernel": 5.0}, "cnn_module_kernel 5.0 must be an odd integer"),
        ({"attention_heads": 0}, "attention_heads 0 must be an integer >= 1"),
        ({"output_size": "8"}, "output_size '8' must be an integer >= 1"),
        ({"output_size": 9, "attention_heads": 3}, "output_size 9 must be even"),
        ({"linear_units": True}, "linear_units True must be an integer"),
        ({"num_blocks": None}, "num_blocks None must be an integer"),
        ({"input_channels": 0}, "input_channels 0 must be an integer"),
        ({"activation_type": "silu"}, "no activation_type 'silu'"),
        ({"input_layer": "embed"}, "no input_layer 'embed'.*conv2d_stride2, conv2d,"),
        ({"input_layer": "conv2d6"}, "size 9 are too small for input_layer conv2d6"),
        ({"input_layer": None}, "size 9 must be of output_size 8"),
        ({"features": 2}, "size 2 are too small"),
        ({"kernel": 3}, "no option kernel"),
        ({"rel_pos_type": "legacy"}, "supports only rel_pos_type: latest, not legacy"),
        ({"interctc_layer_idx": [2]}, r"interctc_layer_idx: \[\], not \[2\]"),
        ({"stochastic_depth_rate": 0.1}, "only stochastic_depth_rate: 0.0, not 0.1"),
        ({"use_cnn_module": False}, "use encoder: conformer"),
    ],
    ids=str,
)
def test_options_that_do_not_fit(changes, message):
    with pytest.raises(UserError, match=f"encoder_conf: .*{message}"):
        tiny_conformer(**changes)


def test_options_of_espnets_conformer_may_stay():
    tiny_conformer(rel_pos_type="latest", interctc_layer_idx=(), padding_idx=-1)


@pytest.mark.parametrize("pooling", [[], [2], [1, 2, 4]])
@pytest.mark.parametrize("input_layer", ["conv2d_stride2", "conv2d2", "linear"])
def test_too_short_is_reported_with_the_least_length(input_layer, pooling):
    encoder = tiny_conformer(input_layer=input_layer, pooling_layers=pooling).eval()
    windows = {"conv2d_stride2": ((3, 2),), "conv2d2": ((3, 2), (3, 1)), "linear": ()}
    least = fewest_frames(windows[input_layer] + ((2, 2),) * len(pooling))
    hs_pad, olens, _ = encoder(*padded(random_utterances([least])))
    assert hs_pad.shape == (1, 1, 8) and olens.tolist() == [1]
    assert hs_pad.isfinite().all()
    if least == 1:
        return
    for lengths in ([least - 1], [least - 1, least + 5]):
        with pytest.raises(TooShortUttError) as caught:
            encoder(*padded(random_utterances(lengths)))
        assert (caught.value.actual_size, caught.value.limit) == (least - 1, least)
        assert f"has {least - 1} frames and is too short" in str(caught.value)
        assert f"{len(pooling)} poolings need {least} frames" in str(caught.value)


def test_the_papers_encoder_needs_nine_frames():
    windows = ((3, 2), (2, 2), (2, 2))
    assert fewest_frames(windows) == 9
    assert (frames_after(8, windows), frames_after(9, windows)) == (0, 1)


def test_frames_of_numbers_and_tensors_agree():
    windows = ((3, 2), (5, 3), (2, 2))
    frames = torch.arange(100)
    expected = [frames_after(n, windows) for n in range(100)]
    assert frames_after(frames, windows).tolist() == expected


def test_positions_go_on_where_the_table_ends():
    lengths = [40, 33]
    outputs = [
        tiny_conformer(max_pos_emb_len=n).eval()(*padded(random_utterances(lengths)))[0]
        for n in (2, 5000)
    ]
    torch.testing.assert_close(*outputs)
