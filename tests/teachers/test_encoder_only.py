"""Encoders of encoder-decoder models, with and without a decoder in their files."""

import json
import re

import pytest
import torch
from tiny_teachers import HIDDEN, LAYERS, fast_tokenizer, save_teacher

from espnet_cif_hkd.distill.check import check_teacher
from espnet_cif_hkd.errors import UserError
from espnet_cif_hkd.teachers.text.files import weight_names
from espnet_cif_hkd.teachers.text.online import OnlineTeacher
from espnet_cif_hkd.teachers.text.plm import TeacherConfig

CHARS = ["<blank>", "<unk>", "<space>", *"thecas你好世界", "<sos/eos>"]
CPU = torch.device("cpu")
IDS = [[3, 4, 5, 2, 9, 10], [9]]


def build(folder, name):
    import transformers

    size = len(fast_tokenizer())
    kind = getattr(transformers, name)
    if name.startswith("Bart"):
        config = kind.config_class(
            vocab_size=size,
            d_model=HIDDEN,
            encoder_layers=LAYERS,
            decoder_layers=1,
            encoder_attention_heads=2,
            decoder_attention_heads=2,
            encoder_ffn_dim=16,
            decoder_ffn_dim=16,
            max_position_embeddings=48,
        )
    else:
        config = kind.config_class(
            vocab_size=size,
            d_model=HIDDEN,
            d_kv=6,
            d_ff=16,
            num_layers=LAYERS,
            num_decoder_layers=1,
            num_heads=2,
        )
    return save_teacher(folder, kind(config))


NAMES = ["T5EncoderModel", "MT5EncoderModel", "UMT5EncoderModel"]
NAMES += ["T5Model", "MT5Model", "UMT5Model", "BartModel"]


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_an_encoder_teaches(tmp_path, name):
    folder = build(tmp_path, name)
    conf = {"teacher": folder, "teacher_dim": HIDDEN}
    assert check_teacher(conf, None) is not None
    assert check_teacher(conf, CHARS, "char") is not None
    teacher = OnlineTeacher(TeacherConfig(folder, HIDDEN), CHARS)
    together = teacher.features(IDS, CPU)
    assert together.shape == (sum(map(len, IDS)) + len(IDS), HIDDEN)
    alone = torch.cat([teacher.features([ids], CPU) for ids in IDS])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-4)
    # Decoders are neither kept nor run.
    assert not any("decoder" in n for n, _ in teacher.open().model.named_parameters())


@pytest.mark.parametrize("name", [*NAMES, "BertModel", "RobertaModel", "XLNetModel"])
def test_a_layer_that_is_missing_is_found_without_loading(tmp_path, monkeypatch, name):
    """At check time, by the names of the weights, in both kinds of files."""
    if name in NAMES:
        folder = build(tmp_path, name)
    else:
        import transformers

        kind = getattr(transformers, name)
        config = kind.config_class(
            vocab_size=len(fast_tokenizer()),
            hidden_size=HIDDEN,
            num_hidden_layers=LAYERS,
            num_attention_heads=2,
            intermediate_size=16,
            **({"d_inner": 16, "d_head": 6} if name == "XLNetModel" else {}),
        )
        folder = save_teacher(tmp_path, kind(config))
    conf = {"teacher": folder, "teacher_dim": HIDDEN}
    monkeypatch.setattr(
        "espnet_cif_hkd.teachers.text.plm.open_teacher",
        lambda config: pytest.fail("it was loaded"),
    )
    check_teacher(conf, None)
    from safetensors.torch import load_file, save_file

    path = tmp_path / "model.safetensors"
    complete = load_file(path)
    assert weight_names(tmp_path) == set(complete)
    lost = [n for n in complete if re.match(r"(?!decoder)\D*\.1\.", n)]
    assert lost
    rest = {n: t for n, t in complete.items() if n not in lost}
    save_file(rest, path, metadata={"format": "pt"})
    with pytest.raises(UserError, match=rf"lacks {len(lost)} of them, e.g. .*\.1\."):
        check_teacher(conf, None)
    path.unlink()
    torch.save(rest, tmp_path / "pytorch_model.bin")
    with pytest.raises(UserError, match=f"lacks {len(lost)} of them"):
        check_teacher(conf, None)
    torch.save(complete, tmp_path / "pytorch_model.bin")
    check_teacher(conf, None)


def test_damaged_and_missing_files_of_weights_are_named_at_check_time(tmp_path):
    folder = build(tmp_path, "T5EncoderModel")
    conf = {"teacher": folder, "teacher_dim": HIDDEN}
    path = tmp_path / "model.safetensors"
    data = path.read_bytes()
    path.write_bytes(data[:-10])
    with pytest.raises(UserError, match=r"model.safetensors: cannot be read .*copy"):
        check_teacher(conf, None)
    shard = tmp_path / "model-00001-of-00002.safetensors"
    path.rename(shard)
    shard.write_bytes(data)
    index = {"weight_map": {"a": shard.name, "b": "model-00002-of-00002.safetensors"}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(UserError, match=r"00002-of-00002.safetensors: cannot be read"):
        check_teacher(conf, None)
    shard.unlink()
    (tmp_path / "model.safetensors.index.json").unlink()
    with pytest.raises(UserError, match=r"holds no weights \(model.safetensors or"):
        check_teacher(conf, None)


def test_a_pickle_that_runs_code_is_refused(tmp_path):
    """Files of torch are read with weights_only=True, by the check and by the model."""

    class Planted:
        def __reduce__(self):
            return print, ("it ran",)

    folder = build(tmp_path, "T5EncoderModel")
    (tmp_path / "model.safetensors").unlink()
    torch.save({"x": Planted()}, tmp_path / "pytorch_model.bin")
    with pytest.raises(UserError, match="cannot be read"):
        check_teacher({"teacher": folder, "teacher_dim": HIDDEN}, None)
    from espnet_cif_hkd.teachers.text.plm import open_teacher

    with pytest.raises(UserError, match="cannot open its weights"):
        open_teacher(TeacherConfig(folder, HIDDEN))
