"""A speech teacher without a model: weighted sums of |samples| in 25 ms."""

import argparse

import numpy as np
import torch
from espnet2.tasks.asr import ASRTask
from tiny_model import tiny_config
from tiny_speech import CHANGES, RATE, noise

from espnet_cif_hkd.cif.times import FrameTimes
from espnet_cif_hkd.teachers.payload import Payload
from espnet_cif_hkd.teachers.speech.base import Recording, SpeechTeacher
from espnet_cif_hkd.teachers.speech.registry import speech_teacher_choices
from espnet_cif_hkd.teachers.store.writer import dump_store

DEVICE = torch.device("cpu")


class ToneTeacher(SpeechTeacher):
    """Frame j sees the samples from 20j ms to 20j + 25 ms; ``tone`` in YAML.

    ``teacher_conf`` has ``seed``, and ``scale``, a factor of the vectors' first half.
    """

    def __init__(self, conf):
        self.payload = Payload(
            "frames", conf.get("teacher_dim") or 6, conf.get("store_coding", "float16")
        )
        self.rate = conf.get("rate") or 16000
        self.conf = dict(conf.get("teacher_conf") or {})

    @classmethod
    def from_conf(cls, conf):
        return cls(conf)

    @property
    def times(self):
        return FrameTimes(0.0125, 0.02 * self.conf.get("slower", 1))

    def open(self):
        return self

    def features(self, recordings, device):
        size, step = self.rate // 40, round(self.rate * self.times.stride)
        generator = torch.Generator().manual_seed(self.conf.get("seed", 1))
        weight = torch.rand(size, self.payload.width, generator=generator)
        weight[:, : self.payload.width // 2] *= self.conf.get("scale", 1.0)
        found = []
        for one in recordings:
            samples = torch.from_numpy(np.array(one.samples))
            if len(samples) < size:
                found.append(torch.zeros(0, self.payload.width, device=device))
            else:
                windows = samples.unfold(0, size, step)
                found.append((windows.abs() @ weight + 0.5).to(device))
        return found

    def describe(self):
        return {"type": "tone", "name": "tone", "rate": self.rate, **self.conf}

    def fingerprint(self, cache=None):
        return "tone"


speech_teacher_choices.classes["tone"] = ToneTeacher


def tone(**changes):
    """Options of a teacher without a store."""
    return {"teacher_type": "tone", "rate": RATE, "normalize": False, **changes}


def stored(folder, recordings, **changes):
    """Options of a teacher whose store has these recordings."""
    conf = tone(normalize=True, teacher_store=str(folder), **changes)
    dump_store(folder, lambda: recordings, ToneTeacher(conf), DEVICE)
    return conf


def speech_batch(seconds=(1.0, 0.7, 0.9), seed=0, quiet=False, **more):
    """Noise that swells twice a second, as ESPnet's trainer gives it.

    With ``quiet`` it ends in silence: the spectrum at the end of an utterance depends
    on its companions, because ESPnet pads with zeros and reflects the longest one.
    """
    waves = [noise(length, seed + n) for n, length in enumerate(seconds)]
    for n, wave in enumerate(waves):
        wave *= 0.6 + 0.4 * np.sin(np.arange(len(wave)) * 4 * np.pi / RATE + n)
        wave[len(wave) - 256 * quiet :] = 0.0
    lengths = torch.tensor([len(wave) for wave in waves])
    speech = torch.zeros(len(waves), int(lengths.max()))
    for row, wave in zip(speech, waves, strict=True):
        row[: len(wave)] = torch.from_numpy(wave)
    batch = {"speech": speech, "speech_lengths": lengths}
    return {**batch, "utt_id": [f"utterance{n}" for n in range(len(waves))], **more}


def texts_of(count=3):
    """Texts for :func:`speech_batch`."""
    text = torch.full((count, 4), -1)
    lengths = torch.arange(count) % 3 + 2
    for row, length in zip(text, lengths, strict=True):
        row[:length] = torch.arange(3, 3 + length)
    return {"text": text, "text_lengths": lengths}


def recordings_of(batch):
    """The recordings of a batch."""
    pairs = zip(batch["speech"], batch["speech_lengths"], strict=True)
    return [Recording(row[:count].numpy(), RATE) for row, count in pairs]


def pretrain_model(teachers, changes=(), **options):
    """``model: pretrain`` with one criterion ``frames``; no dropout, conv2d."""
    criteria = {"frames": {"type": "frames", "teachers": teachers, **options}}
    return host_model("pretrain", criteria, changes)


# Frames that do not depend on the companions of a batch; a hop of 20 ms.
ALONE = {
    "frontend_conf": {**CHANGES["frontend_conf"], "hop_length": 160},
    "encoder_conf": tiny_config()["encoder_conf"],
}
HOSTS = {
    "pretrain": {"decoder": None, "decoder_conf": {}, "ctc_conf": {}},
    "cif": {},
}


def host_model(host, criteria, changes=()):
    """A tiny model with a frontend and criteria."""
    conf = tiny_config()
    encoder = {**conf["encoder_conf"], "input_layer": "conv2d"}
    wanted = {**CHANGES, "encoder_conf": encoder, "model": host}
    wanted |= HOSTS.get(host, {})
    wanted |= dict(changes)
    config = tiny_config(**wanted)
    config["model_conf"] = {"criteria": criteria}
    config["model_conf"] |= dict(changes).get("model_conf", {})
    torch.manual_seed(0)
    return ASRTask.build_model(argparse.Namespace(**config))
