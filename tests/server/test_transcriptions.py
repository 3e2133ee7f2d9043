"""Transcriptions: every format, read by OpenAI's client; additions; limits."""

import io
import json

import numpy as np
import pytest
from level_recogniser import RATE, audio_file, levels

from espnet_cif_hkd.inference.recognition import Recognition
from espnet_cif_hkd.inference.writers import verbose_json

WAV = audio_file(levels(1, 2, 3))
TEXT = "one two three"


@pytest.fixture
def audio(client):
    """The part of OpenAI's client that transcribes, connected to the server."""
    openai = pytest.importorskip("openai")
    official = openai.OpenAI(
        base_url="http://127.0.0.1:8000/v1", api_key="none", http_client=client
    )
    return official.audio.transcriptions


@pytest.mark.parametrize("form", ["json", "text", "srt", "vtt", "verbose_json"])
def test_openai_client_reads_every_format(audio, form):
    found = audio.create(file=("a.wav", WAV), model="levels", response_format=form)

    if form == "text":
        assert found == TEXT + "\n"
    elif form in ("json", "verbose_json"):
        assert found.text == TEXT
        assert found.usage.seconds == 1
    else:
        first, times, text = found.strip().replace("\n\n", "\n").split("\n")
        assert first == {"srt": "1", "vtt": "WEBVTT"}[form]
        point = {"srt": ",", "vtt": "."}[form]
        assert times == f"00:00:00{point}000 --> 00:00:00{point}750"
        assert text == TEXT


def test_openai_client_reads_words_and_segments(audio):
    found = audio.create(
        file=("a.wav", WAV),
        model="levels",
        language="en",
        response_format="verbose_json",
        timestamp_granularities=["word", "segment"],
    )

    assert found.duration == 0.75 and found.language == "en"
    words = [(one.word, one.start, one.end) for one in found.words]
    assert words == [("one", 0, 0.25), ("two", 0.25, 0.5), ("three", 0.5, 0.75)]
    (segment,) = found.segments
    assert (segment.id, segment.start, segment.end) == (0, 0.0, 0.75)
    assert segment.text == TEXT and segment.tokens == [1, 2, 3]
    assert segment.avg_logprob == pytest.approx(np.log([0.1, 0.2, 0.3]).mean())
    assert segment.temperature == segment.no_speech_prob == 0
    # Not in OpenAI's format.
    assert found.words[0].confidence == 0.1 and len(found.tokens) == 3


@pytest.mark.parametrize(
    ("granularities", "present"),
    [([], {"segments"}), (["word"], {"words"}), (["word", "segment"], None)],
    ids=["default", "word", "both"],
)
def test_granularities_choose_words_and_segments(send, granularities, present):
    fields = {"timestamp_granularities[]": granularities} if granularities else {}
    found = send(WAV, response_format="verbose_json", **fields).json()

    assert {"words", "segments"} & set(found) == (present or {"words", "segments"})


def test_verbose_json_gives_the_recognition_back(send, model):
    both = {"timestamp_granularities[]": ["word", "segment"]}
    found = send(WAV, response_format="verbose_json", **both).json()
    del found["usage"], found["notes"]

    expected = model.recognise(levels(1, 2, 3).astype(np.float32))
    assert verbose_json.recognition_of(found) == expected


def test_included_are_alphas_and_other_formats(send):
    fields = {"include[]": ["alphas", "srt", "textgrid"]}
    found = send(WAV, response_format="verbose_json", **fields).json()

    assert found["alphas"] == {
        "edges": [0, 0.25, 0.5, 0.75],
        "alpha": [0.5, 1.0, 0.5],
        "firings": [0.2, 0.45, 0.7],
    }
    assert found["outputs"]["srt"] == send(WAV, response_format="srt").text
    assert "IntervalTier" in found["outputs"]["textgrid"]


def test_alphas_of_longer_audio_are_left_out(send, model):
    fields = {"include[]": "alphas", "response_format": "verbose_json"}
    found = send(audio_file(levels(*[1] * 9)), **fields).json()

    assert model.started == 1 and found["alphas"] is None and found["duration"] == 2.25


@pytest.mark.parametrize(
    ("form", "subtype", "rate", "channels"),
    [
        ("WAV", "PCM_24", 44100, 2),
        ("WAV", "FLOAT", 16000, 1),
        ("WAV", "PCM_U8", 8000, 1),
        ("FLAC", "PCM_16", 11025, 3),
        ("OGG", "VORBIS", 16000, 1),
        ("MP3", "MPEG_LAYER_III", 16000, 1),
    ],
)
def test_formats_rates_and_channels_are_converted(send, form, subtype, rate, channels):
    samples = np.stack([levels(4, 2, rate=rate)] * channels, axis=1)
    # A tone passes through lossy codecs, a constant does not.
    tone = np.sin(2 * np.pi * 440 / rate * np.arange(len(samples)))
    content = audio_file(np.sqrt(2) * samples * tone[:, None], rate, form, subtype)

    assert send(content).json()["text"].startswith("four two")


def test_silence_has_no_subtitles(send, model, monkeypatch):
    monkeypatch.setattr(model, "recognise", lambda samples: Recognition(duration=1.0))
    both = {"timestamp_granularities[]": ["word", "segment"]}
    found = send(WAV, response_format="verbose_json", **both).json()

    assert found["text"] == "" and found["words"] == found["segments"] == []
    assert send(WAV, response_format="text").text == "\n"
    assert send(WAV, response_format="srt").text == ""
    assert send(WAV, response_format="vtt").text.strip() == "WEBVTT"


def test_long_audio_is_recognised_in_passages(send, model):
    found = send(
        audio_file(levels(1, 2, 3, 4, 5, 6, 7, 8, 9, 1, 2, 3, 4)),
        response_format="verbose_json",
        **{"timestamp_granularities[]": "word", "include[]": "alphas"},
    ).json()

    assert model.started == 0 and model.passages == 4
    assert found["text"].startswith("one two three four") and len(found["words"]) == 13
    assert found["words"][-1]["end"] == found["duration"] == 3.25
    assert found["alphas"] is None


def test_conversions_are_named(send):
    stereo = audio_file(np.stack([levels(1, rate=16000)] * 2, 1), 16000)
    found = send(stereo, response_format="verbose_json").json()

    assert len(found["notes"]) == 2 and "2 channels" in found["notes"][0]


@pytest.mark.parametrize("blocks", [4, 14], ids=["short", "long"])
@pytest.mark.parametrize(
    ("signs", "doubt"), [([0], "is silent"), ([1, -1], "cancel each other out")]
)
def test_doubts_about_audio_of_any_length_are_named(send, model, blocks, signs, doubt):
    samples = np.stack([sign * levels(*[3] * blocks) for sign in signs], 1)
    found = send(audio_file(samples), response_format="verbose_json").json()

    assert bool(model.passages) is (blocks == 14)
    assert doubt in found["notes"][-1]


def test_fields_without_effect_are_named(send):
    answer = send(WAV, prompt="numbers", temperature="0.2", keywords="x", **{"a\n": 1})

    assert answer.json()["text"] == TEXT
    names = answer.headers["x-ignored-fields"].split(", ")
    assert sorted(names) == ["keywords", "prompt", "temperature"]
    assert "x-ignored-fields" not in send(WAV, language="en").headers


def test_the_model_may_be_left_out(client):
    answer = client.post("/v1/audio/transcriptions", files={"file": ("a.wav", WAV)})

    assert answer.json()["text"] == TEXT


def test_models_and_health(client):
    listed = client.get("/v1/models").json()["data"]
    health = client.get("/health").json()

    assert [one["id"] for one in listed] == ["levels", "deaf"]
    assert listed[0] == client.get("/v1/models/levels").json()
    assert client.get("/v1/models/").json()["data"] == listed
    assert listed[0]["sampling_rate"] == RATE
    assert health["status"] == "ok" and health["requests"] == {"now": 0, "most": 2}
    assert client.get("/v1/models/other").json()["error"]["code"] == "model_not_found"


def test_openai_client_lists_the_models(client):
    openai = pytest.importorskip("openai")
    official = openai.OpenAI(
        base_url="http://127.0.0.1:8000/v1", api_key="none", http_client=client
    )

    assert [one.id for one in official.models.list()] == ["levels", "deaf"]


def test_the_description_of_the_interface_is_served(client):
    described = json.loads(client.get("/openapi.json").text)

    form = described["paths"]["/v1/audio/transcriptions"]["post"]["requestBody"]
    fields = form["content"]["multipart/form-data"]["schema"]["properties"]
    assert {"model", "response_format", "include"} <= set(fields)


def test_names_of_uploads_are_not_used(send, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    victim = tmp_path / "victim.wav"
    victim.write_text("mine")

    for name in (str(victim), "../victim.wav", "victim.wav"):
        assert send(io.BytesIO(WAV), name).json()["text"] == TEXT
    assert victim.read_text() == "mine" and list(tmp_path.iterdir()) == [victim]
