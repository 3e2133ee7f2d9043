"""Stage 14: the content of the archive, and archives that would not work elsewhere."""

import dataclasses
import shutil
import zipfile
from pathlib import Path

import pytest
import torch
import yaml
from finished_recipe import finished, refusal, run
from packed_model import ARCHIVE, EXP, OPTIONS, packed

from espnet_cif_hkd import UserError, __version__
from espnet_cif_hkd.io.digest import sha256
from espnet_cif_hkd.models.checkpoint import made_by
from espnet_cif_hkd.recipe.share import pack
from espnet_cif_hkd.recipe.share.packed import Packed, check_portable, read_packed

__all__ = ["finished", "packed"]

STATISTICS = "exp/asr_stats_raw_en_char/train/feats_stats.npz"


@pytest.fixture
def recipe(packed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the packed recipe to be damaged."""
    folder = tmp_path / "copy"
    shutil.copytree(packed, folder)
    monkeypatch.chdir(folder)
    return folder


def members(archive: Path) -> set[str]:
    with zipfile.ZipFile(archive) as opened:
        return set(opened.namelist())


def test_the_archive_has_what_asr_sh_packs(
    packed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(packed)
    names = members(ARCHIVE)
    assert {name for name in names if "/images/" not in name} == {
        "meta.yaml",
        str(EXP / "config.yaml"),
        str((EXP / "valid.acc.ave.pth").resolve().relative_to(packed.resolve())),
        str(EXP / "RESULTS.md"),
        STATISTICS,
        "exp/lm_lm_en_char/config.yaml",
        "exp/lm_lm_en_char/perplexity_test/ppl",
        *(
            str(path.resolve().relative_to(packed.resolve()))
            for path in [Path("exp/lm_lm_en_char/valid.loss.ave.pth")]
        ),
    }
    for folder in (EXP, Path("exp/lm_lm_en_char")):
        assert any(name.startswith(f"{folder}/images/") for name in names)
    found = read_packed(ARCHIVE)
    assert set(found.files) == {"asr_model_file", "lm_file"}
    assert set(found.configs) == {"asr_train_config", "lm_train_config"}
    check_portable(found)


def test_the_packed_checkpoint_names_our_version(packed: Path) -> None:
    found = read_packed(packed / ARCHIVE)
    with (
        zipfile.ZipFile(found.archive) as opened,
        opened.open(found.files["asr_model_file"]) as stream,
    ):
        assert made_by(torch.load(stream, weights_only=True)) == __version__


def test_an_experiment_on_another_disk_is_packed_under_its_name_here(
    recipe: Path, tmp_path: Path
) -> None:
    shutil.move("exp", tmp_path / "disk")
    Path("exp").symlink_to(tmp_path / "disk")
    before = members(ARCHIVE)
    ARCHIVE.unlink()
    assert run(stage="14", skip_packing="false", **OPTIONS) == 0
    found = read_packed(ARCHIVE)
    # A link to the best epoch is no longer followed, which only changes a name.
    assert len(found.members) == len(before)
    assert {name.split("/")[0] for name in found.members} == {"exp", "meta.yaml"}
    assert STATISTICS in found.members
    assert {path.name for path in EXP.iterdir() if ".pack" in path.name} == set()
    check_portable(found)


def test_an_absolute_folder_elsewhere_is_refused(
    recipe: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    shutil.move("exp", tmp_path / "disk")
    line = refusal(
        capfd,
        stage="14",
        skip_packing="false",
        expdir=str(tmp_path / "disk"),
        **OPTIONS,
    )
    assert "is outside this folder" in line
    assert "link it into this folder" in line


def test_a_configuration_with_absolute_paths_is_refused(
    recipe: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    config = yaml.safe_load((EXP / "config.yaml").read_text())
    absolute = str(recipe / config["normalize_conf"]["stats_file"])
    config["normalize_conf"]["stats_file"] = absolute
    (EXP / "config.yaml").write_text(yaml.safe_dump(config))
    complete = ARCHIVE.read_bytes()
    line = refusal(capfd, stage="14", skip_packing="false", **OPTIONS)
    assert f"{EXP}/config.yaml names {absolute}" in line
    assert ARCHIVE.read_bytes() == complete


def test_messages_tell_of_the_archive_by_its_name(
    recipe: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def with_a_file_elsewhere(archive: Path) -> Packed:
        found = read_packed(archive)
        return dataclasses.replace(found, files={"asr_model_file": "/disk/model.pth"})

    monkeypatch.setattr(pack, "read_packed", with_a_file_elsewhere)
    line = refusal(capfd, stage="14", skip_packing="false", **OPTIONS)
    assert f"error: {ARCHIVE} would look for /disk/model.pth on this" in line


def test_a_missing_file_is_named(
    recipe: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (recipe / STATISTICS).unlink()
    line = refusal(capfd, stage="14", skip_packing="false", **OPTIONS)
    assert f"{STATISTICS} is missing" in line


def test_an_archive_that_espnet_packed_behind_a_link_is_refused(tmp_path: Path) -> None:
    archive = tmp_path / "x.zip"
    meta = {"files": {}, "yaml_files": {"asr_train_config": "/disk/exp/config.yaml"}}
    with zipfile.ZipFile(archive, "w") as opened:
        opened.writestr("meta.yaml", yaml.safe_dump(meta))
        opened.writestr("disk/exp/config.yaml", "{}")
    with pytest.raises(UserError, match=r"/disk/exp/config\.yaml on this machine"):
        check_portable(read_packed(archive))


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 cut", None])
def test_no_archive(tmp_path: Path, content: bytes | None) -> None:
    archive = tmp_path / "x.zip"
    if content is not None:
        archive.write_bytes(content)
    with pytest.raises(UserError, match=r"x\.zip is .*run stage 14"):
        read_packed(archive)


@pytest.mark.parametrize("meta", ["files: 1", "[", "files: {}"])
def test_an_archive_of_something_else(tmp_path: Path, meta: str) -> None:
    archive = tmp_path / "x.zip"
    with zipfile.ZipFile(archive, "w") as opened:
        opened.writestr("meta.yaml", meta)
    with pytest.raises(UserError, match=r"x\.zip .*run stage 14"):
        read_packed(archive)


def test_the_calibration_of_the_model_is_packed_and_that_of_another_refused(
    tmp_path: Path,
) -> None:
    model = tmp_path / "valid.acc.ave_5best.pth"
    model.write_bytes(b"parameters")
    link = tmp_path / "valid.acc.ave.pth"
    link.symlink_to(model.name)
    assert pack._calibration(link) == []
    path = tmp_path / "calibration.json"
    path.write_text(f'{{"model": "{sha256(model)}"}}')
    assert pack._calibration(link) == [path]
    model.write_bytes(b"others")
    with pytest.raises(UserError, match="is of another model"):
        pack._calibration(link)
