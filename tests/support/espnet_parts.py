"""Configurations of ESPnet's own encoders and decoders, each tiny."""

SMALL = {
    "output_size": 8,
    "attention_heads": 2,
    "linear_units": 16,
    "num_blocks": 3,
    "input_layer": "linear",
    "dropout_rate": 0.0,
    "positional_dropout_rate": 0.0,
}


ATTENTION = {"attention_dropout_rate": 0.0}


GATES = {"cgmlp_linear_units": 16, "cgmlp_conv_kernel": 3}


ENCODERS = {
    "transformer": SMALL | ATTENTION,
    "conformer": SMALL | ATTENTION | {"cnn_module_kernel": 3},
    "branchformer": {k: v for k, v in SMALL.items() if k != "linear_units"}
    | ATTENTION
    | GATES,
    "e_branchformer": SMALL | ATTENTION | GATES,
}


HYBRID = {
    "model": "hybrid",
    "decoder": "transformer",
    "decoder_conf": {
        "attention_heads": 2,
        "linear_units": 16,
        "num_blocks": 1,
        "dropout_rate": 0.0,
        "positional_dropout_rate": 0.0,
        "self_attention_dropout_rate": 0.0,
        "src_attention_dropout_rate": 0.0,
    },
}


RNN = {"decoder": "rnn", "decoder_conf": {"hidden_size": 8}, "model": "hybrid"}
