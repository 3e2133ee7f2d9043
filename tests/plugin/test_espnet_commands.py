"""ESPnet's own commands on a CIF model: statistics, training, decoding, packing.

One tiny run serves all tests of this file, since each command costs seconds.
"""

import zipfile

import numpy as np
import pytest
import soundfile
import torch
import yaml
from tiny_bert import HIDDEN, build_tiny_bert

import espnet_cif_hkd
import espnet_cif_hkd.teachers.text.plm
from espnet_cif_hkd.errors import UserError
from espnet_cif_hkd.plugin.compat import ESPNET_RELEASE

pytestmark = pytest.mark.slow
RATE = 8000
TEXTS = {"u1": "ABBA", "u2": "A CAB", "u3": "BACA", "u4": "CC A", "u5": "B"}
TOKENS = ["<blank>", "<unk>", "<space>", "A", "B", "C", "<sos/eos>"]


def refuse(*args, **kwargs):
    raise AssertionError("a teacher was opened")


def write_corpus(folder):
    rng = np.random.default_rng(0)
    for name in ("wav.scp", "text", "speech_shape", "text_shape"):
        (folder / name).write_text("")
    for utt_id, text in TEXTS.items():
        samples = rng.normal(0, 0.1, RATE * (2 + len(text)) // 4)
        soundfile.write(folder / f"{utt_id}.wav", samples, RATE)
        with (folder / "wav.scp").open("a") as scp:
            scp.write(f"{utt_id} {folder / utt_id}.wav\n")
        with (folder / "text").open("a") as out:
            out.write(f"{utt_id} {text}\n")
    (folder / "tokens.txt").write_text("\n".join(TOKENS) + "\n")
    config = {
        "frontend_conf": {"fs": RATE, "n_fft": 256, "hop_length": 80, "n_mels": 8},
        "normalize": "utterance_mvn",
        "encoder": "conformer",
        "encoder_conf": {
            "output_size": 8,
            "attention_heads": 2,
            "linear_units": 8,
            "num_blocks": 1,
            "cnn_module_kernel": 3,
        },
        "decoder": "cif",
        "decoder_conf": {"attention_heads": 2, "linear_units": 8, "num_blocks": 1},
        "model": "cif",
        "model_conf": {
            "criterion": "hkd",
            "criterion_conf": {
                "teacher": build_tiny_bert(folder / "bert"),
                "teacher_dim": HIDDEN,
            },
        },
        "optim": "adam",
        "optim_conf": {"lr": 0.001},
        "batch_type": "unsorted",
        "batch_size": 2,
        "max_epoch": 2,
        "keep_nbest_models": 2,
        "num_att_plot": 1,
        "use_matplotlib": False,
        "use_tensorboard": False,
        "best_model_criterion": [["valid", "acc", "max"]],
    }
    (folder / "train.yaml").write_text(yaml.safe_dump(config))


def data_options(folder, shapes):
    options = []
    for split in ("train", "valid"):
        for name, kind in (("wav.scp", "speech,sound"), ("text", "text,text")):
            path = f"{folder / name},{kind}"
            options += [f"--{split}_data_path_and_name_and_type", path]
        for kind in ("speech", "text"):
            shape = shapes / split / f"{kind}_shape"
            options += [f"--{split}_shape_file", str(shape)]
    return options


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Statistics (without a teacher) and two epochs (with one)."""
    folder = tmp_path_factory.mktemp("run")
    write_corpus(folder)
    espnet_cif_hkd.register()
    from espnet2.bin.asr_train import main as asr_train

    common = ["--use_preprocessor", "true", "--token_type", "char", "--ngpu", "0"]
    common += ["--token_list", str(folder / "tokens.txt")]
    common += ["--config", str(folder / "train.yaml"), "--num_workers", "0"]
    stats = folder / "stats"
    for split in ("train", "valid"):
        (stats / split).mkdir(parents=True)
    for name in ("speech_shape", "text_shape"):
        (folder / name).write_text("".join(f"{u} 1\n" for u in TEXTS))
    flat = data_options(folder, stats)
    flat = [str(folder / o.rsplit("/", 1)[1]) if "/stats/" in o else o for o in flat]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(espnet_cif_hkd.teachers.text.plm, "open_teacher", refuse)
        asr_train(
            cmd=[*common, *flat, "--collect_stats", "true", "--output_dir", str(stats)]
        )
    asr_train(
        cmd=[*common, *data_options(folder, stats), "--output_dir", str(folder / "exp")]
    )
    return folder


@pytest.fixture
def no_teacher(monkeypatch):
    monkeypatch.setattr(espnet_cif_hkd.teachers.text.plm, "open_teacher", refuse)


def test_training_writes_espnets_files_and_our_statistics(run):
    log = {p.name for p in (run / "exp").iterdir()}
    assert {"config.yaml", "2epoch.pth", "valid.acc.ave.pth", "checkpoint.pth"} <= log
    states = torch.load(run / "exp" / "checkpoint.pth", weights_only=False)
    epoch = states["reporter"]["stats"][2]
    shared = {"loss", "loss_att", "nll", "loss_ctc", "loss_quantity", "loss_acd"}
    shared |= {"loss_lrd", "acc", "acc_acd"}
    assert shared <= set(epoch["train"])
    free = {"cer", "wer", "cer_ctc", "cer_free", "length_error"}
    assert shared | free <= set(epoch["valid"])


@pytest.mark.parametrize("ctc_weight", ["0.0", "0.4"])
def test_asr_inference_keeps_every_utterance(run, no_teacher, ctc_weight):
    from espnet2.bin.asr_inference import main as asr_inference

    # 12 ms: shorter than the encoder's sub-sampling
    short = run / f"short{ctc_weight}"
    short.mkdir()
    soundfile.write(short / "short.wav", np.zeros(96), RATE)
    scp = (run / "wav.scp").read_text() + f"u6 {short}/short.wav\n"
    (short / "wav.scp").write_text(scp)
    asr_inference(
        cmd=[
            *("--asr_train_config", str(run / "exp" / "config.yaml")),
            *("--asr_model_file", str(run / "exp" / "valid.acc.ave.pth")),
            *("--data_path_and_name_and_type", f"{short}/wav.scp,speech,sound"),
            *("--beam_size", "3", "--ctc_weight", ctc_weight, "--ngpu", "0"),
            *("--output_dir", str(short / "decode"), "--num_workers", "0"),
        ]
    )
    lines = (short / "decode" / "1best_recog" / "text").read_text().splitlines()
    assert [line.split()[0] for line in lines] == [*TEXTS, "u6"]
    assert lines[-1].split(maxsplit=1)[1:] == []


def test_pack_and_decode_the_same_elsewhere(run, no_teacher, tmp_path):
    from espnet2.bin.pack import main as pack
    from espnet2.main_funcs.pack_funcs import unpack

    pack(
        cmd=[
            "asr",
            *("--asr_train_config", str(run / "exp" / "config.yaml")),
            *("--asr_model_file", str(run / "exp" / "valid.acc.ave.pth")),
            *("--outpath", str(tmp_path / "model.zip")),
        ]
    )
    assert zipfile.is_zipfile(tmp_path / "model.zip")
    unpacked = unpack(str(tmp_path / "model.zip"), str(tmp_path / "unpacked"))
    samples, _ = soundfile.read(run / "u1.wav", dtype="float32")
    options = {"beam_size": 2, "ctc_weight": 0.3}
    before = espnet_cif_hkd.Speech2Text(
        str(run / "exp" / "config.yaml"),
        str(run / "exp" / "valid.acc.ave.pth"),
        **options,
    )(samples)
    after = espnet_cif_hkd.Speech2Text(**unpacked, **options)(samples)
    assert [h[0] for h in before] == [h[0] for h in after]
    assert float(before[0][3].score) == float(after[0][3].score)


def test_a_checkpoint_without_the_decoder_is_refused(run, no_teacher, tmp_path):
    state = torch.load(run / "exp" / "valid.acc.ave.pth", weights_only=True)
    state = {k: v for k, v in state.items() if not k.startswith("decoder.")}
    torch.save(state, tmp_path / "half.pth")
    with pytest.raises(UserError, match=r"decoder\.predictor"):
        espnet_cif_hkd.Speech2Text(
            str(run / "exp" / "config.yaml"), str(tmp_path / "half.pth")
        )


def test_the_release_is_one_we_support():
    assert ESPNET_RELEASE in ("202511", "202611")
