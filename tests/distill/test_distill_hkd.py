"""The HKD criterion and its online teacher."""

import copy
import json
import pickle
import shutil

import pytest
import torch
from hkd_batch import CHARS, CPU, STUDENT, TEXTS, batch, encode
from tiny_bert import HIDDEN, LAYERS, POSITIONS, build_tiny_bert

from espnet_cif_hkd.distill import HKDCriterion, criterion_choices
from espnet_cif_hkd.distill.check import check_teacher
from espnet_cif_hkd.errors import UserError
from espnet_cif_hkd.losses.contrastive import token_contrastive_loss
from espnet_cif_hkd.teachers.text import online as online_module
from espnet_cif_hkd.teachers.text import plm as teacher
from espnet_cif_hkd.teachers.text.online import OnlineTeacher
from espnet_cif_hkd.teachers.text.plm import TeacherConfig


@pytest.fixture(scope="module")
def plm(tmp_path_factory):
    return build_tiny_bert(tmp_path_factory.mktemp("plm"))


@pytest.fixture
def closed(monkeypatch):
    """Opening a teacher is impossible."""

    def refuse(config):
        raise AssertionError(f"teacher {config.name} was opened")

    monkeypatch.setattr(teacher, "open_teacher", refuse)


def hkd(plm, **options):
    torch.manual_seed(1)
    return HKDCriterion(STUDENT, plm, HIDDEN, **options)


def test_losses_are_the_sums_of_the_paper(plm):
    criterion = hkd(plm, acoustic={"num_negatives": "all"}).eval()
    taps = batch(TEXTS)
    output = criterion(taps)
    embeddings, states = taps.fired.embeddings, taps.states["output"]
    lengths = taps.token_lens
    features = OnlineTeacher(TeacherConfig(plm, HIDDEN), CHARS).features(
        [encode(t) for t in TEXTS], CPU
    )
    flat = torch.cat([embeddings[b, :n] for b, n in enumerate(lengths)])
    losses, accuracy = token_contrastive_loss(
        criterion.acoustic_projection(flat), features, 0.02, None
    )
    torch.testing.assert_close(output.losses["loss_acd"], losses.sum())
    assert float(output.stats["acc_acd"]) == float(accuracy)
    flat = torch.cat([states[b, :n] for b, n in enumerate(lengths)])
    expected = (criterion.linguistic_projection(flat) - features).square().sum()
    torch.testing.assert_close(output.losses["loss_lrd"], expected)
    assert output.weights == {"loss_acd": 1.0, "loss_lrd": 0.01}
    assert all(v.dtype == torch.float32 for v in output.losses.values())


def test_padding_reaches_no_gradient(plm):
    criterion = hkd(plm)
    taps = batch(TEXTS)
    output = criterion(taps)
    sum(output.losses.values()).backward()
    leaves = (taps.fired.embeddings, taps.states["output"])
    for tensor in (*leaves, *criterion.parameters()):
        assert tensor.grad.isfinite().all() and tensor.grad.any()


def test_validation_draws_the_same_negatives_each_time(plm):
    criterion = hkd(plm, acoustic={"num_negatives": 5}, linguistic=None)
    taps = batch(TEXTS)

    def losses(count):
        results = [criterion(taps).losses["loss_acd"] for _ in range(count)]
        return {float(loss.detach()) for loss in results}

    criterion.eval()
    assert len(losses(3)) == 1
    criterion.train()
    assert len(losses(5)) > 1


@pytest.mark.parametrize(
    ("acoustic", "linguistic", "names"),
    [
        ({}, {}, {"acoustic_projection", "linguistic_projection"}),
        ({"weight": 0}, {}, {"linguistic_projection"}),
        ({}, None, {"acoustic_projection"}),
        ({"weight": None}, {"weight": 0.0}, set()),
    ],
)
def test_weight_zero_builds_nothing(plm, acoustic, linguistic, names):
    criterion = hkd(plm, acoustic=acoustic, linguistic=linguistic)
    assert {k.partition(".")[0] for k in criterion.state_dict()} == names
    output = criterion(batch(TEXTS))
    losses = {"acoustic_projection": "loss_acd", "linguistic_projection": "loss_lrd"}
    assert set(output.losses) == {losses[n] for n in names} == set(output.weights)


def test_both_weights_zero_never_open_a_teacher(closed):
    criterion = HKDCriterion(STUDENT, acoustic={"weight": 0}, linguistic={"weight": 0})
    assert criterion.wants == frozenset()
    assert criterion(batch(TEXTS)).losses == {}
    assert list(criterion.parameters()) == []


def test_building_and_loading_never_open_a_teacher(closed):
    criterion = HKDCriterion(STUDENT, "no/such/folder", HIDDEN)
    criterion.load_state_dict(copy.deepcopy(criterion).state_dict())
    with pytest.raises(AssertionError, match="was opened"):
        criterion(batch(TEXTS))


def test_the_plm_is_no_part_of_the_module(plm):
    criterion = hkd(plm)
    before = set(criterion.state_dict())
    criterion(batch(TEXTS))
    assert set(criterion.state_dict()) == before
    assert len(list(criterion.parameters())) == 4
    assert len(list(criterion.modules())) == 3
    criterion.train()
    model = criterion._teacher.open().model
    assert not model.training
    assert not any(p.requires_grad for p in model.parameters())
    for twin in (copy.deepcopy(criterion), pickle.loads(pickle.dumps(criterion))):
        assert twin._teacher._opened is None
        twin.eval()
        criterion.eval()
        taps = batch(TEXTS)
        torch.testing.assert_close(twin(taps).losses, criterion(taps).losses)


@pytest.mark.parametrize("layer", range(-LAYERS - 1, LAYERS + 1))
def test_features_are_the_layers_vectors(plm, layer):
    """Against the PLM run alone on each sentence; repeats and order are kept."""
    online = OnlineTeacher(TeacherConfig(plm, HIDDEN, layer=layer), CHARS)
    texts = ["THE CAT", "IT", "THE CAT", ""]
    features = online.features([encode(t) for t in texts], CPU)
    opened = online.open()
    expected = []
    for text in texts:
        encoded = opened.tokenizer(text, return_tensors="pt")
        hidden = opened.model(
            input_ids=encoded["input_ids"], output_hidden_states=True
        ).hidden_states[layer][0]
        pieces = encoded.word_ids(0)
        for n, char in enumerate(text):
            word = text[: n + (char == " ")].count(" ")
            expected.append(hidden[pieces.index(word)])
        expected.append(hidden[-1])
    torch.testing.assert_close(features, torch.stack(expected), rtol=1e-5, atol=1e-5)
    assert not features.requires_grad and not features.is_inference()


def test_features_ignore_companions_and_autocast(plm):
    online = OnlineTeacher(TeacherConfig(plm, HIDDEN), CHARS)
    alone = online.features([encode("IT IS")], CPU)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        beside = online.features(
            [encode("THE CAT IS PLAYING IT"), encode("IT IS")], CPU
        )
    torch.testing.assert_close(beside[-6:], alone, rtol=1e-5, atol=1e-5)
    assert online.features([], CPU).shape == (0, HIDDEN)


def test_large_batches_run_in_groups(plm, monkeypatch):
    online = OnlineTeacher(TeacherConfig(plm, HIDDEN), CHARS)
    sequences = [encode("CAT " * n) for n in (3, 1, 9, 2, 5)]
    complete = online.features(sequences, CPU)
    monkeypatch.setitem(online_module._RUN_TOKENS, "cpu", 12)
    torch.testing.assert_close(
        online.features(sequences, CPU), complete, rtol=1e-5, atol=1e-5
    )


def test_a_long_sentence_is_read_in_windows(plm, caplog):
    online = OnlineTeacher(TeacherConfig(plm, HIDDEN), CHARS)
    text = "CAT " * (POSITIONS + 5)
    features = online.features([encode(text), encode(text + "IT")], CPU)
    assert features.isfinite().all() and len(features) == 2 * len(text) + 2 + 2
    assert caplog.text.count("longer than the 48 positions") == 1


def test_unknown_words_are_counted_and_reported_once(plm, caplog):
    token_list = ["<blank>", "<unk>", "☃", "C", "<sos/eos>"]
    online = OnlineTeacher(TeacherConfig(plm, HIDDEN), token_list, "char")
    online.features([[2, 3], [3, 1]], CPU)
    online.features([[2]], CPU)
    assert online.n_unknown == 2 and online.n_unk == 1
    assert caplog.text.count("does not know") == 1


def test_bfloat16_is_close(plm):
    sequences = [encode("THE CAT IS PLAYING")]
    full = OnlineTeacher(TeacherConfig(plm, HIDDEN), CHARS).features(sequences, CPU)
    config = TeacherConfig(plm, HIDDEN, dtype="bfloat16")
    low = OnlineTeacher(config, CHARS).features(sequences, CPU)
    assert low.dtype == torch.float32
    torch.testing.assert_close(low, full, rtol=0.1, atol=0.1)
    assert not torch.equal(low, full)


def test_choices_tolerate_strings_for_null():
    for name in (None, "none", "None", "null", "nil"):
        assert criterion_choices.get_class(name) is None
    assert criterion_choices.get_class("HKD") is HKDCriterion
    with pytest.raises(ValueError, match="criterion must be one of"):
        criterion_choices.get_class("other")


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"teacher": None}, "criterion_conf.teacher is not set"),
        ({"teacher_dim": None}, "teacher_dim is None"),
        ({"acoustic": {"temprature": 1}}, "acoustic: unknown option 'temprature'"),
        ({"acoustic": {"temperature": 0}}, "acoustic.temperature is 0"),
        ({"acoustic": {"num_negatives": 0}}, "num_negatives is 0"),
        ({"acoustic": {"num_negatives": True}}, "num_negatives is True"),
        ({"acoustic": {"weight": -1}}, "acoustic.weight is -1"),
        ({"acoustic": {"weight": False}}, "acoustic.weight is False"),
        ({"acoustic": {"temperature": True}}, "acoustic.temperature is True"),
        ({"acoustic": []}, r"acoustic is \[\]; it must hold options"),
        ({"linguistic": 5}, "linguistic is 5; it must hold options"),
        ({"linguistic": {"weight": "x"}}, "linguistic.weight is 'x'"),
        ({"linguistic": {"reduction": "max"}}, "linguistic.reduction is 'max'"),
        (
            {"linguistic": {"states": "before"}},
            "'before'; use output or joined",
        ),
        ({"linguistic": {"states": None}}, "linguistic.states is None"),
        ({"acoustic": {"share_negatives": "yes"}}, "share_negatives is 'yes'"),
        ({"teacher_dtype": "int8"}, "teacher_dtype: 'int8'"),
        ({"tacher": "x"}, "tacher"),
        ({"case": "upper"}, "case: 'upper'"),
        ({"token_type": "phn"}, "token_type phn"),
        ({"token_type": "word"}, "but the model's tokens are char"),
        ({"teacher": "/no/such/folder"}, "/no/such/folder: this folder does not exist"),
        ({"teacher": "./plm"}, "./plm: this folder does not exist"),
        (
            {"teacher": "pkg://no-such-dist/m"},
            "package 'no-such-dist' is not installed",
        ),
        ({"teacher": "pkg://numpy/no/model"}, "has no folder 'no/model'"),
        ({"teacher_dim": 13}, "have 12 dimensions, but teacher_dim is 13"),
        ({"layer": 3}, "there is no layer 3"),
        ({"layer": -4}, "there is no layer -4"),
    ],
)
def test_check_refuses_and_says_why(plm, options, match):
    conf = {"teacher": plm, "teacher_dim": HIDDEN, **options}
    with pytest.raises(UserError, match=match) as caught:
        check_teacher(conf, CHARS, "char")
    assert "\n" not in str(caught.value)


def test_check_reports_tokens_the_plm_lacks(plm, caplog):
    conf = {"teacher": plm, "teacher_dim": HIDDEN}
    report = check_teacher(conf, [*CHARS[:-1], "☃", "<noise>", "<sos/eos>"], "char")
    assert report.unknown_tokens == ["☃"] and report.store == "none"
    assert "does not know 1 of" in caplog.text
    with pytest.raises(UserError, match="knows none of the 2 tokens"):
        check_teacher(conf, ["<blank>", "<unk>", "☃", "☁", "<sos/eos>"])
    assert check_teacher(conf, None, "bpe").unknown_tokens == []
    with pytest.raises(UserError, match="teacher_dim is 13"):
        check_teacher({**conf, "teacher_dim": 13}, None, "bpe")
    off = {"teacher": None, "acoustic": None, "linguistic": {"weight": 0}}
    assert check_teacher(off, CHARS) is None


def damaged(plm, folder, what):
    shutil.copytree(plm, folder)
    if what == "config":
        (folder / "config.json").unlink()
    elif what == "tokenizer":
        for path in folder.glob("tokenizer*"):
            path.unlink()
    elif what == "slow":
        (folder / "tokenizer.json").rename(folder / "vocab.json")
        (folder / "tokenizer_config.json").write_text(
            json.dumps({"tokenizer_class": "CanineTokenizer"})
        )
    elif what == "no weights":
        (folder / "model.safetensors").unlink()
    elif what == "cut weights":
        data = (folder / "model.safetensors").read_bytes()
        (folder / "model.safetensors").write_bytes(data[: len(data) // 2])
    return str(folder)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("what", "match"),
    [
        ("config", "cannot open its config.json"),
        ("tokenizer", "holds no tokenizer"),
        ("slow", "has no fast tokenizer"),
        ("no weights", "holds no weights"),
    ],
)
def test_check_finds_what_a_folder_lacks(plm, tmp_path, what, match):
    name = damaged(plm, tmp_path / "plm", what)
    with pytest.raises(UserError, match=match):
        check_teacher({"teacher": name, "teacher_dim": HIDDEN}, CHARS)


def test_damaged_weights_are_refused(plm, tmp_path):
    name = damaged(plm, tmp_path / "plm", "cut weights")
    with pytest.raises(UserError, match="cannot open its weights"):
        hkd(name)(batch(TEXTS))


def test_weights_that_are_missing_are_not_random(plm, tmp_path):
    from safetensors.torch import load_file, save_file

    name = damaged(plm, tmp_path / "plm", "none")
    path = tmp_path / "plm" / "model.safetensors"
    weights = load_file(path)
    del weights[next(k for k in weights if "layer.1.output.dense.weight" in k)]
    save_file(weights, path, metadata={"format": "pt"})
    with pytest.raises(UserError, match=r"lacks 1 of them, e\.g\. .*layer\.1"):
        hkd(name)(batch(TEXTS))


@pytest.mark.slow
def test_real_plm_teaches(minilm):
    """MiniLM from its pip package: no path in the configuration."""
    conf = {"teacher": minilm, "teacher_dim": 384}
    assert check_teacher(conf, CHARS).unknown_tokens == []
    online = OnlineTeacher(TeacherConfig(minilm, 384), CHARS)
    features = online.features([encode("THE BIG DOG"), encode("A LARGE HOUND")], CPU)
    # Synonyms of two sentences are nearer than two words of one.
    big, dog, hound = features[4], features[8], features[12 + 8]
    cosine = torch.nn.functional.cosine_similarity
    assert cosine(dog, hound, dim=0) > cosine(dog, big, dim=0)
    assert online.n_unknown == 0
