"""Language models in GGUF format: converted, or refused in one line."""

import hashlib
import zipfile
from pathlib import Path
from typing import Any

import pytest
from error_line import error_line
from tiny_hf_lm import build_causal

from espnet_cif_hkd.cli import convert_gguf
from espnet_cif_hkd.cli.convert_gguf import PACKAGES, main
from espnet_cif_hkd.io.packages import Package


def _error(capsys: pytest.CaptureFixture[str], *command: object) -> str:
    return error_line(main, capsys, *command)


@pytest.fixture
def opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """The readers of GGUF files are replaced; the contents of the files."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = build_causal(tmp_path / "tiny")
    seen = []

    def stand_in(gguf: Path) -> tuple[Any, Any]:
        seen.append(gguf.read_bytes())
        model = AutoModelForCausalLM.from_pretrained(folder)
        return AutoTokenizer.from_pretrained(folder), model

    monkeypatch.setattr(convert_gguf, "_opened", stand_in)
    monkeypatch.setattr(convert_gguf, "_NEEDED", ())
    return seen


def test_the_parts_of_a_package_become_a_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, opened: list[bytes]
) -> None:
    from transformers import AutoModelForCausalLM

    entries = []
    (tmp_path / "downloads").mkdir()
    for n in range(2):
        path = tmp_path / "downloads" / f"part{n}-1-py3-none-any.whl"
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr(f"data/part{n}", f"part {n},")
        raw = path.read_bytes()
        digest = hashlib.sha256(raw).hexdigest()
        entries.append(
            (Package(path.name, len(raw), digest, "x", "y"), f"data/part{n}")
        )
    monkeypatch.setitem(PACKAGES, "gemma-3-270m", tuple(entries))
    out = tmp_path / "gemma"
    main(["--package", "gemma-3-270m", str(out)])
    main(["--package", "gemma-3-270m", str(out)])  # it is there
    assert opened == [b"part 0,part 1,"]
    AutoModelForCausalLM.from_pretrained(out)
    assert sorted(path.name for path in tmp_path.glob(".gemma*")) == []


def test_bad_input_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], opened: list[bytes]
) -> None:
    gguf = tmp_path / "a.gguf"
    assert "name a GGUF file and the folder" in _error(capsys, tmp_path / "out")
    error = _error(capsys, "--package", "gemma-3-270m", gguf, tmp_path / "out")
    assert "name a GGUF file and the folder" in error
    assert "no such file" in _error(capsys, gguf, tmp_path / "out")
    assert "holds something else" in _error(capsys, gguf, tmp_path)
    assert not (tmp_path / "out").exists()


def test_a_damaged_file_and_missing_packages(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    gguf = tmp_path / "a.gguf"
    gguf.write_bytes(b"no such format")
    monkeypatch.setattr(convert_gguf, "_NEEDED", ("transformers", "no_such_package"))
    error = _error(capsys, gguf, tmp_path / "out")
    assert "no_such_package not installed: pip install no_such_package" in error
    monkeypatch.setattr(convert_gguf, "_NEEDED", ())
    assert "cannot be opened as a causal LM" in _error(capsys, gguf, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_known_packages_have_sizes_and_hashes() -> None:
    for parts in PACKAGES.values():
        for package, member in parts:
            assert package.file.endswith("-py3-none-any.whl")
            assert len(package.sha256) == 64 and package.size > 1 << 20
            assert "==" in package.fetch and ".gguf.part" in member
