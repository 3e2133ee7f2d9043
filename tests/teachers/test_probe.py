"""Positions that a PLM has, and PLMs whose vectors depend on padding."""

import pytest
import torch
from tiny_bert import build_tiny_bert
from tiny_teachers import HIDDEN, LAYERS, fast_tokenizer, save_teacher

from espnet_cif_hkd.distill.check import check_teacher
from espnet_cif_hkd.errors import UserError
from espnet_cif_hkd.teachers.text.online import OnlineTeacher
from espnet_cif_hkd.teachers.text.plm import TeacherConfig, open_teacher
from espnet_cif_hkd.teachers.text.probe import max_length

CHARS = ["<blank>", "<unk>", "<space>", *"thecas你好世界", "<sos/eos>"]
CPU = torch.device("cpu")
POSITIONS = 24


def build(folder, name, kind="xlmr", limit=None, **options):
    import transformers

    model = getattr(transformers, name)
    tokenizer = fast_tokenizer(kind, limit)
    sizes = {
        "vocab_size": len(tokenizer),
        "hidden_size": HIDDEN,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": 2,
    }
    if name != "XLNetModel":  # has any number of positions
        sizes |= {"intermediate_size": 16, "max_position_embeddings": POSITIONS}
        sizes["pad_token_id"] = 1
    return save_teacher(
        folder, model(model.config_class(**sizes, **options)), tokenizer
    )


# Models that count positions from the padding's id + 1.
SHIFTED = {
    "RobertaModel": {},
    "XLMRobertaModel": {},
    "XLMRobertaXLModel": {},
    "RobertaPreLayerNormModel": {},
    "CamembertModel": {},
    "Data2VecTextModel": {},
    "MPNetModel": {},
    "LongformerModel": {"attention_window": 4},
    "IBertModel": {},
    "LukeModel": {"entity_vocab_size": 5, "entity_emb_size": 4},
    "LiltModel": {"channel_shrink_ratio": 2, "max_2d_position_embeddings": 16},
    "EsmModel": {"position_embedding_type": "absolute", "mask_token_id": 3},
}
OTHERS = {
    "BertModel": (POSITIONS, {}),
    "ElectraModel": (POSITIONS, {"embedding_size": HIDDEN}),
    "GPT2Model": (POSITIONS, {"n_inner": 16}),
    "XLNetModel": (1 << 20, {"d_inner": 16, "d_head": 6}),
    "DebertaV2Model": (POSITIONS, {}),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", [*SHIFTED, *OTHERS])
def test_a_long_sentence_is_read_in_windows_of_all_positions(tmp_path, name):
    positions, options = OTHERS.get(name) or (POSITIONS - 2, SHIFTED[name])
    folder = build(tmp_path, name, **options)
    config = TeacherConfig(folder, HIDDEN)
    assert max_length(*open_teacher(config)) == positions
    teacher = OnlineTeacher(config, CHARS)
    sentences = [[9, 10, 11, 12] * 20, [3, 4, 5], []]
    together = teacher.features(sentences, CPU)
    alone = torch.cat([teacher.features([ids], CPU) for ids in sentences])
    assert together.shape == (86, HIDDEN)
    torch.testing.assert_close(together, alone, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("FNetModel", {}),
        ("ConvBertModel", {"embedding_size": HIDDEN, "conv_kernel_size": 3}),
    ],
)
def test_vectors_that_depend_on_padding_are_refused(tmp_path, name, options):
    folder = build(tmp_path, name, **options)
    match = rf"{name}\): its vectors depend on padding \(.*%.*choose another"
    with pytest.raises(UserError, match=match):
        open_teacher(TeacherConfig(folder, HIDDEN))
    # Also in bfloat16, whose rounding would hide small changes, and at check time.
    with pytest.raises(UserError, match=match):
        open_teacher(TeacherConfig(folder, HIDDEN, dtype="bfloat16"))
    with pytest.raises(UserError, match=match):
        check_teacher({"teacher": folder, "teacher_dim": HIDDEN}, CHARS, "char")


def test_a_model_that_fails_at_its_own_limit_is_refused(tmp_path, monkeypatch):
    """In one line, whatever the model raises."""
    folder = build_tiny_bert(tmp_path)
    monkeypatch.setattr(
        "espnet_cif_hkd.teachers.text.probe.max_length", lambda *args: 100
    )
    with pytest.raises(UserError, match=r"fails on a sentence of 100 .*smaller") as e:
        open_teacher(TeacherConfig(folder, HIDDEN))
    assert "\n" not in str(e.value)


def test_a_limit_that_leaves_no_room_is_refused(tmp_path):
    folder = build(tmp_path, "BertModel", limit=2)
    with pytest.raises(UserError, match="takes 2 tokens at once"):
        open_teacher(TeacherConfig(folder, HIDDEN))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_probe_accepts_bert_in_any_dtype(tmp_path, dtype):
    folder = build_tiny_bert(tmp_path)
    _, model = open_teacher(TeacherConfig(folder, HIDDEN, dtype=dtype))
    assert str(model.dtype) == f"torch.{dtype}"
