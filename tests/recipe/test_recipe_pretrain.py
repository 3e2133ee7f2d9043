"""Stage 1 on two speech teachers, then a recogniser from it, by the recipe engine."""

from pathlib import Path

import pytest
import tiny_recipe
import torch
import yaml
from tiny_whisper import WIDTH, build_tiny_whisper

from espnet_cif_hkd.cli import pretrain
from espnet_cif_hkd.models.pretrain_task import PretrainTask
from espnet_cif_hkd.recipe.cli import main
from espnet_cif_hkd.teachers.payload import Payload
from espnet_cif_hkd.teachers.store.reader import StoreReader

ENCODER = "encoder: transformer\nencoder_conf: {output_size: 8, "


@pytest.fixture
def recipe(tmp_path, monkeypatch):
    """A recipe with a configuration for each of the two stages."""
    tiny_recipe.make(tmp_path)
    monkeypatch.chdir(tmp_path)
    config = yaml.safe_load(tiny_recipe.CIF_CONFIG)
    Path("conf/cif.yaml").write_text(yaml.safe_dump(config))
    teachers = {
        name: {
            "teacher": build_tiny_whisper(Path(name), seed),
            "rate": tiny_recipe.RATE,
            "teacher_store": f"dump/teacher/{name}",
        }
        for seed, name in enumerate(("first", "second"))
    }
    for key in ("decoder", "decoder_conf"):
        del config[key]
    criteria = {"frames": {"type": "frames", "teachers": teachers}}
    config |= {"model": "pretrain", "model_conf": {"criteria": criteria}}
    Path("conf/pretrain.yaml").write_text(yaml.safe_dump(config))
    return tmp_path


def words(tag, **changed):
    changed = {"feats_normalize": "utterance_mvn", **changed}
    return tiny_recipe.options(asr_config=f"conf/{tag}.yaml", asr_tag=tag, **changed)


@pytest.mark.slow
def test_both_stages(recipe, capfd):
    """The stores are filled, the encoder is loaded, and unlabelled audio is added."""
    curves = "--use_matplotlib true"
    assert main(words("pretrain", stop_stage="11", asr_args=curves)) == 0
    payload = Payload("frames", WIDTH)
    for name in ("first", "second"):
        assert len(StoreReader(Path("dump/teacher") / name, payload)) == 8
    exp = Path("exp/asr_pretrain")
    log = (exp / "train.log").read_text()
    for name in ("loss", "loss_trivial", "explained", "cosine", "coverage"):
        assert f"frames.{name}_second=" in log
    assert (exp / "images/frames.loss_second.png").is_file()
    best = exp / "valid.loss.ave.pth"
    state = torch.load(best, weights_only=True)
    assert not any(key.startswith(("decoder", "ctc")) for key in state)

    start = f"{best}:encoder:encoder"
    frozen = (
        "--model_conf freeze_encoder_updates=1000 --model_conf encoder_lr_factor=.2"
    )
    found = words("cif", stage="10", stop_stage="11", pretrained_model=start)
    assert main([*found, "--asr_args", frozen]) == 0
    other = torch.load("exp/asr_cif/1epoch.pth", weights_only=True)
    encoder = {key for key in state if key.startswith("encoder.")}
    assert len(encoder) > 10
    assert all(torch.equal(other[key], state[key]) for key in encoder)

    config = yaml.safe_load(Path("conf/cif.yaml").read_text())
    config["encoder_conf"]["num_blocks"] = 2
    Path("conf/other.yaml").write_text(yaml.safe_dump(config))
    capfd.readouterr()
    wrong = words("other", stage="10", stop_stage="11", pretrained_model=start)
    assert main(wrong) == 1
    message = f"encoder_conf.num_blocks is 1 in {exp}/config.yaml and 2 here; give"
    assert message in capfd.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("launcher", [[], ["espnet_cif_hkd", "-m"]])
def test_audio_without_transcripts(recipe, launcher, run_python, monkeypatch):
    """The command of its own; labelled and unlabelled audio in one table."""
    assert main(words("pretrain", stop_stage="4")) == 0
    data = Path("dump/raw")
    tables = [data / name / "wav.scp" for name in ("train", "test")]
    lines = sorted("".join(path.read_text() for path in tables).splitlines())
    joined = Path("joined")
    joined.mkdir()
    (joined / "wav.scp").write_text("\n".join(lines) + "\n")

    def run(*command):
        found = run_python("-m", *launcher, *command)
        assert found.returncode == 0, found.stderr[-3000:]
        return found.stderr

    run(
        *("espnet_cif_hkd.cli.dump_speech_teacher", "--asr_config"),
        *("conf/pretrain.yaml", "--data_dir", "joined", "dump/raw/valid"),
    )
    options = [
        *("--config", "conf/pretrain.yaml"),
        *("--frontend_conf", "fs=8k", "--normalize", "utterance_mvn"),
        *("--train_data_path_and_name_and_type", "joined/wav.scp,speech,sound"),
        *("--valid_data_path_and_name_and_type", "dump/raw/valid/wav.scp,speech,sound"),
        *("--output_dir", "exp/alone", "--ngpu", "0"),
        *("--train_shape_file", "joined/wav.scp"),
        *("--valid_shape_file", "dump/raw/valid/wav.scp"),
    ]
    log = run("espnet_cif_hkd.cli.pretrain", *options)
    assert "frames.coverage_second" in log
    assert Path("exp/alone/valid.loss.ave.pth").exists()
    # The same command continues; with other data it is refused.
    monkeypatch.setattr(PretrainTask, "main", lambda args: None)
    assert pretrain.main([*options, "--resume", "true"]) == 0
    (joined / "wav.scp").write_text("\n".join(lines[1:]) + "\n")
    assert pretrain.main([*options, "--resume", "true"]) == 1
