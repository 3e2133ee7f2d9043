"""The command that stores a speech teacher's features, on Kaldi data folders."""

import errno
import multiprocessing
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
import yaml
from tiny_whisper import RATE, WIDTH, build_tiny_whisper, padded, speech

from espnet_cif_hkd.cli.dump_speech_teacher import main
from espnet_cif_hkd.encoder.speech_teacher import SpeechTeacherFrontend
from espnet_cif_hkd.errors import UserError
from espnet_cif_hkd.teachers.payload import Payload
from espnet_cif_hkd.teachers.speech import dump, hf
from espnet_cif_hkd.teachers.speech.base import recording_key
from espnet_cif_hkd.teachers.speech.recordings import data_folder
from espnet_cif_hkd.teachers.store import shard
from espnet_cif_hkd.teachers.store.reader import StoreReader, shard_paths

SECONDS = (1.0, 0.5, 0.8)
TEACHER = ("--teacher", "whisper", "--teacher_dim", str(WIDTH), "--store", "store")
DATA = ("--data_dir", "dump/a")


@pytest.fixture(scope="module")
def whisper(tmp_path_factory):
    return build_tiny_whisper(tmp_path_factory.mktemp("whisper"))


@pytest.fixture
def recipe(tmp_path, whisper, monkeypatch):
    """A folder with a teacher, a configuration and two data folders."""
    monkeypatch.chdir(tmp_path)
    Path("whisper").symlink_to(whisper)
    write_folder("a", SECONDS)
    write_folder("b", (0.6,), first=3)
    conf = {"teacher": "whisper", "teacher_dim": WIDTH, "teacher_store": "store"}
    config = {"frontend": "speech_teacher", "frontend_conf": conf}
    Path("train.yaml").write_text(yaml.safe_dump(config))
    return tmp_path


def write_folder(name, seconds, first=0, rate=RATE, kind="flac"):
    folder = Path("dump") / name
    folder.mkdir(parents=True)
    lines = []
    for n, duration in enumerate(seconds, first):
        path = Path(f"{name}-{n}.{kind}").absolute()
        soundfile.write(path, speech(duration, n, rate), rate)
        lines.append(f"utt{n} {path}\n")
    (folder / "wav.scp").write_text("".join(lines))


def stored(coding="float16"):
    return StoreReader(Path("store"), Payload("frames", WIDTH, coding))


def failure(capsys, *words):
    with pytest.raises(SystemExit):
        main(words)
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith("error: ")
    return line


@pytest.mark.parametrize("coding", ["float16", "int8"])
def test_the_training_reads_what_the_command_stores(recipe, caplog, coding):
    caplog.set_level("INFO")
    config = yaml.safe_load(Path("train.yaml").read_text())
    config["frontend_conf"]["store_coding"] = coding
    Path("train.yaml").write_text(yaml.safe_dump(config))
    main(["--asr_config", "train.yaml", "--data_dir", "dump/a", "dump/b"])
    hour = (WIDTH * 2 if coding == "float16" else WIDTH + 4) * 50 * 3600 / 1e6
    assert f"store: {hour:.0f} MB per hour of speech ({coding}); about 4" in caplog.text
    assert len(stored(coding)) == 4
    from espnet2.train.dataset import ESPnetDataset

    data = ESPnetDataset([("dump/a/wav.scp", "speech", "sound")], float_dtype="float32")
    waves = [data[f"utt{n}"][1]["speech"] for n in range(3)]
    frontend = SpeechTeacherFrontend(**config["frontend_conf"]).train()
    found, lengths = frontend(*padded(waves))
    exact = {**config["frontend_conf"], "teacher_store": None}
    expected, n_expected = SpeechTeacherFrontend(**exact)(*padded(waves))
    assert torch.equal(lengths, n_expected)
    close = 1e-3 if coding == "float16" else 1 / 127
    scale = float(expected.abs().max())
    assert float((found - expected).abs().max()) < close * scale


def test_a_second_run_adds_what_is_missing(recipe, caplog):
    main([*TEACHER, *DATA])
    before = [path.stat().st_mtime_ns for path in shard_paths(Path("store"))]
    caplog.set_level("INFO")
    main([*TEACHER, "--data_dir", "dump/a", "dump/b"])
    assert "1 recordings (0.00 hours) added" in caplog.text
    assert len(stored()) == 4
    after = [path.stat().st_mtime_ns for path in shard_paths(Path("store"))]
    assert after[: len(before)] == before and len(after) == len(before) + 1


def test_nothing_is_computed_twice(recipe, monkeypatch):
    main([*TEACHER, *DATA])
    monkeypatch.setattr(hf, "open_encoder", None)
    main([*TEACHER, *DATA])
    assert len(stored()) == 3


@pytest.mark.slow
def test_several_processes_store_the_same(recipe, monkeypatch):
    monkeypatch.setattr(dump, "_SECONDS_A_WORKER", 0.5)
    main([*TEACHER, *DATA, "--num_workers", "2"])
    shutil.move("store", "parallel")
    main([*TEACHER, *DATA])
    payload = Payload("frames", WIDTH)
    both = [StoreReader(Path(name), payload) for name in ("parallel", "store")]
    keys = [one.key for one in data_folder(Path("dump/a"), RATE)]
    (sizes, first), (other_sizes, second) = (one.read(one.find(keys)) for one in both)
    assert sizes == other_sizes
    np.testing.assert_allclose(
        first["vectors"].astype(float), second["vectors"].astype(float), atol=2e-3
    )
    assert not multiprocessing.active_children()


@pytest.mark.slow
def test_a_process_that_dies(recipe, monkeypatch, capsys):
    """As the system ends one that needs too much memory."""
    monkeypatch.setattr(dump, "_SECONDS_A_WORKER", 0.5)
    monkeypatch.setattr(dump, "_begin", _ends)
    line = failure(capsys, *TEACHER, *DATA, "--num_workers", "2")
    assert "lack of memory" in line and "smaller --num_workers" in line


def _ends(*_):
    os._exit(9)


@pytest.mark.parametrize("kind", ["wav", "flac"])
def test_the_key_is_that_of_the_training(recipe, kind):
    """Samples of any format, as ESPnet's reader returns them."""
    write_folder("c", (0.5,), kind=kind)
    (recording,) = data_folder(Path("dump/c"), RATE)
    samples = soundfile.read(f"c-0.{kind}", dtype="float32")[0]
    assert recording.key == recording_key(samples) == recording_key(speech(0.5, 0))
    assert recording.seconds == 0.5


def test_archives_of_kaldi(recipe):
    """``audio_format: flac.ark``, of which ESPnet's asr.sh leaves a note."""
    kaldiio = pytest.importorskip("kaldiio")
    folder = Path("dump/ark")
    folder.mkdir()
    coded = np.rint(speech(0.5, 0) * 32768).astype(np.int16)
    kaldiio.save_ark(
        f"{folder}/x.ark",
        {"utt0": (coded, RATE)},
        scp=f"{folder}/wav.scp",
        write_function="soundfile",
        write_kwargs={"format": "flac"},
    )
    (folder / "audio_format").write_text("flac.ark\n")
    (recording,) = data_folder(folder, RATE)
    assert recording.key == recording_key(speech(0.5, 0))


def test_segments_of_long_recordings(recipe):
    folder = Path("dump/cut")
    folder.mkdir()
    (folder / "wav.scp").write_text(f"long {Path('a-0.flac').absolute()}\n")
    (folder / "segments").write_text("x long 0.25 0.75\ny long 0.5 -1\n")
    first, second = data_folder(folder, RATE)
    assert first.key == recording_key(speech(1.0, 0)[RATE // 4 : 3 * RATE // 4])
    assert second.key == recording_key(speech(1.0, 0)[RATE // 2 :])
    main([*TEACHER, "--data_dir", "dump/cut"])
    assert len(stored()) == 2


def bad(name, samples, rate=RATE, **options):
    """A data folder with a good utterance and a bad one."""
    folder = Path("dump") / name
    folder.mkdir()
    soundfile.write("bad.wav", samples, rate, **options)
    lines = [
        f"{n} {Path(p).absolute()}"
        for n, p in (("good", "a-0.flac"), ("bad", "bad.wav"))
    ]
    (folder / "wav.scp").write_text("\n".join(lines) + "\n")
    return folder


@pytest.mark.parametrize(
    ("samples", "rate", "message"),
    [
        (speech(0.5), 8000, "audio of bad has 8000 Hz, but.*16000 Hz"),
        (np.zeros((8000, 2)), RATE, "audio of bad has 2 channels"),
        (np.zeros(0), RATE, "audio of bad is empty"),
        (np.full(8000, np.nan), RATE, "audio of bad contains NaN"),
        (np.full(8000, 3000.0), RATE, "audio of bad has samples up to 3000"),
        (np.full(8000, 10.1), RATE, "audio of bad has samples up to 10.1"),
        (speech(0.5)[:100], RATE, "bad .*shorter than one frame"),
    ],
)
def test_bad_audio_is_named(recipe, capsys, samples, rate, message):
    bad("x", samples, rate, subtype="FLOAT")
    line = failure(capsys, *TEACHER, "--data_dir", "dump/x")
    assert re.search(message, line)


def test_missing_and_damaged_audio_is_named(recipe, capsys):
    Path("a-1.flac").write_bytes(b"fLaC no more")
    assert "audio of utt1 cannot be read" in failure(capsys, *TEACHER, *DATA)
    Path("a-1.flac").unlink()
    assert "audio of utt1 cannot be read" in failure(capsys, *TEACHER, *DATA)


def test_commands_in_wav_scp(recipe, capsys):
    Path("dump/a/wav.scp").write_text("utt0 sox a.wav -t wav - |\n")
    line = failure(capsys, *TEACHER, *DATA)
    assert "utt0 is a command" in line and "dump/raw" in line


def test_no_data_folder(recipe, capsys):
    line = failure(capsys, *TEACHER, "--data_dir", "dump/none")
    assert "dump/none: has no wav.scp" in line


@pytest.mark.parametrize(
    ("words", "field"),
    [
        (("--layer", "1"), "layer"),
        (("--layer", "0", "1"), "teacher_dim"),
        (("--fs", "8k"), "rate"),
        (("--pad", "full"), "pad"),
        (("--store_coding", "int8"), "targets"),
    ],
)
def test_a_store_for_other_options(recipe, capsys, words, field):
    main([*TEACHER, *DATA])
    assert f"store: made for {field} " in failure(capsys, *TEACHER, *DATA, *words)
    assert len(stored()) == 3


def test_a_store_of_another_teacher(recipe, capsys):
    main([*TEACHER, *DATA])
    Path("whisper").unlink()
    build_tiny_whisper(Path("whisper"), seed=1)
    assert "made with other weights" in failure(capsys, *TEACHER, *DATA)


@pytest.mark.slow
def test_features_that_are_not_finite(recipe, capsys, monkeypatch):
    """The utterance is named; those before it are kept."""
    compute = hf.HFSpeechTeacher.features

    def broken(self, recordings, device):
        found = compute(self, recordings, device)
        for recording, one in zip(recordings, found, strict=True):
            if recording.name == "utt2":
                one[3] = torch.inf
        return found

    monkeypatch.setattr(hf.HFSpeechTeacher, "features", broken)
    line = failure(capsys, *TEACHER, *DATA)
    assert "vectors of utt2 (0.80 s) contain NaN or infinity" in line


def test_a_full_disk_keeps_what_is_written(recipe, capsys, monkeypatch):
    write = shard.Shard.write
    written = []

    def full(path, rows):
        if written:
            raise OSError(errno.ENOSPC, "No space left on device")
        written.append(path)
        write(path, rows)

    small = (*TEACHER, *DATA, "--shard_mib", "0.0005")
    with monkeypatch.context() as patch:
        patch.setattr(shard.Shard, "write", full)
        line = failure(capsys, *small)
    assert "the disk is full; the written part is kept" in line
    kept = len(stored())
    assert 0 < kept < 3
    main(small)
    assert len(stored()) == 3


def test_the_disk_is_too_small(recipe, capsys, monkeypatch):
    usage = shutil.disk_usage(".")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=10))
    line = failure(capsys, *TEACHER, *DATA)
    assert "MiB are to be written, but only 1 MiB are free" in line


@pytest.mark.slow
def test_a_killed_run_continues(recipe):
    """The shards that are complete are used; the others are computed again."""
    command = [sys.executable, "-c", _SLOW, *TEACHER, *DATA, "--shard_mib", "0.0005"]
    with subprocess.Popen(command) as process:
        deadline = time.monotonic() + 120
        while len(shard_paths(Path("store"))) < 1 and time.monotonic() < deadline:
            time.sleep(0.05)
        process.send_signal(signal.SIGKILL)
    kept = len(stored())
    assert 0 < kept < 3
    main([*TEACHER, *DATA])
    assert len(stored()) == 3


_SLOW = """
import sys, time
from espnet_cif_hkd.cli.dump_speech_teacher import main
from espnet_cif_hkd.teachers.store.shard import Shard
write = Shard.write
def slow(path, rows):
    write(path, rows)
    time.sleep(600)
Shard.write = slow
main(sys.argv[1:])
"""


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--teacher", "whisper"), "--teacher needs --store"),
        (("--asr_config", "train.yaml", "--layer", "1"), "--layer is an option of"),
        (("--asr_config", "none.yaml"), "none.yaml: cannot be read"),
        (("--asr_config", "plain.yaml"), "plain.yaml: has no speech teacher"),
        (("--asr_config", "bare.yaml"), "frontend_conf.teacher_store is not set"),
        ((*TEACHER, "--num_workers", "0"), "--num_workers 0"),
        (("--teacher", "gone", "--store", "s"), "teacher gone"),
        ((*TEACHER, "--teacher_dim", "7"), "12 dimensions, but teacher_dim is 7"),
    ],
)
def test_wrong_commands(recipe, capsys, words, message):
    Path("plain.yaml").write_text("frontend: default\n")
    bare = {"frontend": "speech_teacher", "frontend_conf": {"teacher": "whisper"}}
    Path("bare.yaml").write_text(yaml.safe_dump(bare))
    assert message in failure(capsys, *words, *DATA)


def test_the_store_of_the_command_line(recipe):
    main(["--train_config", "train.yaml", "--store", "elsewhere", *DATA])
    assert shard_paths(Path("elsewhere")) and not Path("store").exists()


def test_the_speech_teachers_of_criteria(recipe, monkeypatch):
    """Each has its own store; the frontend's store is filled, too."""
    from recorder import Recorder

    from espnet_cif_hkd.distill import criterion_choices
    from espnet_cif_hkd.distill.filling import fill_stores

    class Frames(Recorder):
        @classmethod
        def speech_teachers(cls, conf):
            shared = {"teacher": "whisper", "rate": RATE}
            return {
                n: {**shared, "layer": n, "teacher_store": f"own{n}"} for n in (0, 1)
            }

    monkeypatch.setitem(criterion_choices.classes, "test_frames", Frames)
    config = yaml.safe_load(Path("train.yaml").read_text())
    config["model_conf"] = {"criteria": {"a": {"type": "test_frames"}}}
    Path("both.yaml").write_text(yaml.safe_dump(config))
    main(["--asr_config", "both.yaml", *DATA])
    for name in ("store", "own0", "own1"):
        assert len(StoreReader(Path(name), Payload("frames", WIDTH))) == 3
    with pytest.raises(UserError, match="names no criterion with a text teacher"):
        fill_stores(config, "both.yaml", {}, [])
