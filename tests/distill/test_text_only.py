"""``text_only`` against a plain loop, and what it depends on."""

import pytest
import torch
from tiny_bert import HIDDEN, build_tiny_bert
from tiny_model import TOKENS, gradients, tiny_batch, tiny_config, tiny_model
from unpaired import criteria, text_file

from espnet_cif_hkd.distill import text_only
from espnet_cif_hkd.distill.filling import fill_stores
from espnet_cif_hkd.teachers.store.reader import StoredTeacher

EOS = len(TOKENS) - 1
SMOOTHING = 0.1
WINDOW = {"decoder_conf": {**tiny_config()["decoder_conf"], "frame_window": 1}}


def model_of(folder, changes=None, **options):
    conf = criteria(folder, **options) if folder else {}
    model = tiny_model(**(changes or {}), model_conf=conf).double().train()
    attention = model.decoder.frame_attention
    if attention is not None:  # it begins with zeros
        torch.nn.init.normal_(attention.output.weight)
    return model


def step(model, batch):
    model.zero_grad(set_to_none=True)
    loss, stats, _ = model(**batch)
    loss.sum().backward()
    return {name: float(value) for name, value in stats.items() if value is not None}


def normed(vector):
    centred = vector - vector.mean()
    return centred / (centred.square().mean() + 1e-5).sqrt()


def given_vectors(model, ids):
    """Input of the map for each token of a sentence and for ``<eos>``."""
    criterion = model.criteria["text"]
    if criterion._teacher is not None:
        return criterion._teacher.features([ids], torch.device("cpu")).double()
    return model.decoder.embed.weight.detach()[torch.tensor([*ids, EOS])]


def loop(model, batch, number):
    """Both losses of a training step, token by token; ``number`` of the batch."""
    criterion = model.criteria["text"]
    with torch.no_grad():
        hs, lens = model.encode(batch["speech"], batch["speech_lengths"])
        fired = model.decoder.fire(hs, lens, batch["text_lengths"] + 1).embeddings
    real, loss_map = [], 0.0
    for b, size in enumerate(batch["text_lengths"].tolist()):
        ids = batch["text"][b, :size].tolist()
        for place, given in enumerate(given_vectors(model, ids)):
            made = criterion.map(normed(given))
            real.append(fired[b, place])
            loss_map = loss_map + (made - fired[b, place]).square().mean()
    real = torch.stack(real)
    mean, deviation = real.mean(0), real.std(0, unbiased=False)
    sentences = criterion.text.draw(3 * number, 3, criterion.seed)
    n_text = sum(len(ids) + 1 for ids in sentences)
    seed = text_only._seed(criterion.seed, number)
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.rand(n_text, 1, generator=generator)
    noise = torch.randn(n_text, 8, generator=generator, dtype=torch.float64)
    loss_text, row = 0.0, 0
    for ids in sentences:
        vectors = []
        for given in given_vectors(model, ids):
            masked = float(drawn[row]) < criterion.mask
            vector = mean if masked else criterion.map(normed(given)).detach()
            vectors.append(vector + criterion.noise * deviation * noise[row])
            row += 1
        before = torch.tensor([[EOS, *ids]])
        logits, _ = model.decoder.decode(torch.stack(vectors)[None], before)
        for logp, token in zip(logits[0].log_softmax(-1), [*ids, EOS], strict=True):
            target = torch.full_like(logp, SMOOTHING / (len(TOKENS) - 1))
            target[token] = 1 - SMOOTHING
            loss_text = loss_text + (target * (target.log() - logp)).sum()
    return loss_map, loss_text, n_text


@pytest.mark.parametrize(
    ("options", "changes"),
    [
        ({"mask": 0.0, "noise": 0.0}, {}),
        ({"mask": 0.5, "noise": 0.7, "weight": 1.3}, {}),
        ({"mask": 1.0, "noise": 2}, WINDOW),
        ({"source": "teacher"}, {}),
    ],
    ids=["plain", "masked", "window", "teacher"],
)
def test_losses_and_gradients_are_those_of_a_loop(tmp_path, options, changes):
    if options.get("source"):
        bert = build_tiny_bert(tmp_path / "bert")
        options = {**options, "teacher": bert, "teacher_dim": HIDDEN}
    model, batch = model_of(tmp_path, changes, **options), tiny_batch(4)
    batch["speech"] = batch["speech"].double()
    for number in range(2):  # the second step has other sentences
        stats = step(model, batch)
        found = gradients(model)
        loss_map, loss_text, n_text = loop(model, batch, number)
        n_tokens = int((batch["text_lengths"] + 1).sum())
        assert stats["text.loss_map"] == pytest.approx(loss_map.item() / n_tokens)
        assert stats["text.loss_text"] == pytest.approx(loss_text.item() / n_text)
        alone = model_of(None, changes)
        alone.load_state_dict(model.state_dict(), strict=False)
        step(alone, batch)
        weight = model.criteria["text"].weight
        model.zero_grad(set_to_none=True)
        (loss_map / n_tokens + weight * loss_text / n_text).backward()
        own, without = gradients(model), gradients(alone)
        assert set(found) == {name for name, _ in model.named_parameters()}
        for name, value in found.items():
            parts = [part[name] for part in (own, without) if name in part]
            torch.testing.assert_close(value, sum(parts), rtol=1e-5, atol=1e-8)
        assert not [n for n in own if n.startswith(("encoder", "decoder.predictor"))]


def test_a_perfect_map_explains_everything(tmp_path):
    """And a map that always gives the mean explains nothing."""
    model, batch = model_of(tmp_path), tiny_batch(4)
    batch["speech"] = batch["speech"].double()
    hs, lens = model.encode(batch["speech"], batch["speech_lengths"])
    fired = model.decoder.fire(hs, lens, batch["text_lengths"] + 1).embeddings
    real = torch.cat(
        [row[: n + 1] for row, n in zip(fired, batch["text_lengths"], strict=True)]
    )
    criterion = model.criteria["text"]
    with torch.no_grad():
        criterion.map.weight.zero_()
        criterion.map.bias.copy_(real.mean(0))
    assert step(model, batch)["text.explained"] == pytest.approx(0, abs=1e-9)
    criterion._vectors = lambda sentences, decoder: criterion.map.bias * 0 + real
    assert step(model.eval(), batch)["text.explained"] == pytest.approx(1)


def test_padding_and_companions_change_nothing(tmp_path):
    """Without noise: each token of the text has the same loss in any batch."""
    batch, found = tiny_batch(4), []
    batch["speech"] = batch["speech"].double()
    for size in (7, 1):
        options = {"batch_size": size, "mask": 0.0, "noise": 0.0, "seed": 3}
        model = model_of(tmp_path, **options)
        total = n_text = 0
        for _ in range(7 // size):  # one pass
            with torch.no_grad():
                stats = model(**batch)[1]
            place = model.criteria["text"].batches.updates * size
            sentences = model.criteria["text"].text.draw(place - size, size, 3)
            n = sum(len(ids) + 1 for ids in sentences)
            total += float(stats["text.nll_text"]) * n
            n_text += n
        found.append(total / n_text)
    assert found[0] == pytest.approx(found[1], rel=1e-9)


def test_validation_has_no_text_and_draws_nothing(tmp_path):
    model, batch = model_of(tmp_path).float(), tiny_batch(4)
    text = {"text.loss_text", "text.acc_text", "text.nll_text"}
    first = step(model.eval(), batch)
    assert not text & set(first) and "text.loss_map" in first
    assert first == step(model, batch) and model.criteria["text"].batches.updates == 0
    assert text < set(step(model.train(), batch))


def test_the_same_seed_draws_the_same_after_a_checkpoint(tmp_path):
    def logged(model):
        return [step(model, tiny_batch(4))["text.loss_text"] for _ in range(3)]

    model = model_of(tmp_path).float()
    first = logged(model)
    assert first == logged(model_of(tmp_path).float()) and len(set(first)) == 3
    assert first != logged(model_of(tmp_path, seed=2).float())
    resumed = model_of(tmp_path).float()
    resumed.load_state_dict(model.state_dict())
    assert logged(resumed) == logged(model)


def test_the_text_starts_later_than_the_map(tmp_path):
    """Its first sentences are the same."""
    batch = tiny_batch(4)
    model = model_of(tmp_path, start=2).float()
    logged = [step(model, batch) for _ in range(3)]
    assert [("text.loss_text" in one) for one in logged] == [False, False, True]
    assert all("text.loss_map" in one for one in logged)
    at_once = model_of(tmp_path).float()
    at_once.load_state_dict(model.state_dict())
    at_once.criteria["text"].batches.updates = 0
    model.criteria["text"].batches.updates = 2
    assert (
        step(at_once, batch)["text.loss_text"] == step(model, batch)["text.loss_text"]
    )


def test_losses_are_float32_under_autocast(tmp_path):
    model, batch = model_of(tmp_path).float(), tiny_batch(4)
    exact = step(model_of(tmp_path).float(), batch)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss, stats, _ = model(**batch)
    loss.sum().backward()
    for name in ("text.loss_map", "text.loss_text"):
        assert stats[name].dtype == torch.float32
        assert float(stats[name]) == pytest.approx(exact[name], rel=0.05)
    assert all(p.grad.isfinite().all() for p in model.parameters())


def test_the_store_has_the_vectors_of_the_text_too(tmp_path, monkeypatch):
    """With them a training does not open the language model."""
    bert, store = build_tiny_bert(tmp_path / "bert"), tmp_path / "store"
    options = {"source": "teacher", "teacher": bert, "teacher_dim": HIDDEN}
    conf = criteria(tmp_path, teacher_store=str(store), **options)
    batch = tiny_batch(4)
    transcripts = tmp_path / "text"
    transcripts.write_text(
        "".join(
            f"u{n} {''.join(TOKENS[i] for i in ids if i >= 0)}\n".replace(
                "<space>", " "
            )
            for n, ids in enumerate(batch["text"].tolist())
        )
    )
    tokens = {"token_list": TOKENS, "token_type": "char"}
    fill_stores({"model_conf": conf}, "a.yaml", tokens, [transcripts], None, "cpu")
    stored = tiny_model(model_conf=conf).train()
    teacher = stored.criteria["text"]._teacher
    assert isinstance(teacher, StoredTeacher)
    text = stored.criteria["text"].text
    rows = teacher.features(list(text.sequences()), torch.device("cpu"))
    assert len(rows) == len(text.ids) + len(text)
    online = tiny_model(model_conf=criteria(tmp_path, **options)).train()
    expected = online.criteria["text"]._teacher.features(
        list(text.sequences()), torch.device("cpu")
    )
    torch.testing.assert_close(rows, expected, rtol=1e-2, atol=1e-2)  # float16


def test_text_of_one_sentence_and_one_token(tmp_path):
    conf = criteria(tmp_path, ["A"], batch_size=5)
    model = tiny_model(model_conf=conf).train()
    batch = tiny_batch(1)
    batch["text"], batch["text_lengths"] = batch["text"][:, :0], torch.tensor([0])
    stats = step(model, batch)  # also: an utterance without text
    assert all(v == v for k, v in stats.items() if k.startswith("text."))
    assert text_file(tmp_path, ["A"])
