"""Stage 14: a zip file with everything that decoding needs."""

import contextlib
import dataclasses
import os
import shutil
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from espnet_cif_hkd.errors import UserError
from espnet_cif_hkd.io.atomic import replacing
from espnet_cif_hkd.io.digest import sha256
from espnet_cif_hkd.io.log import log
from espnet_cif_hkd.recipe.checks import stamps
from espnet_cif_hkd.recipe.commands import call
from espnet_cif_hkd.recipe.context import Run
from espnet_cif_hkd.recipe.share.packed import check_portable, read_packed
from espnet_cif_hkd.recipe.stages.tokens import tokenizer_files


def archive_path(run: Run) -> Path:
    """Return the path of the zip file, the same as that of ``asr.sh``."""
    exp, model = run.paths.asr_exp, Path(run.options.inference_asr_model)
    return exp / f"{exp.name}_{model.stem}.zip"


def _link_or_copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source.resolve(), target)
    except OSError:
        shutil.copyfile(source, target)


@contextlib.contextmanager
def _folder_for(paths: Sequence[Path], scratch: Path) -> Iterator[Path]:
    """Yield a folder in which ESPnet packs ``paths`` under their names in the recipe.

    ESPnet follows links and packs files outside of the working directory under absolute
    names. So if ``exp`` is a link to another disk, ESPnet's archive works on this
    machine only.
    """
    here = Path.cwd().resolve()
    if all(path.resolve().is_relative_to(here) for path in paths):
        yield Path.cwd()
        return
    shutil.rmtree(scratch, ignore_errors=True)
    try:
        for path in paths:
            if path.is_absolute() or ".." in path.parts:
                raise UserError(
                    f"{path} is outside this folder, and other machines would look "
                    "for it in the same place: link it into this folder, and use the "
                    "relative name of the link in the options"
                )
            for file in path.rglob("*") if path.is_dir() else [path]:
                if not file.is_dir():
                    _link_or_copy(file, scratch / file)
        yield scratch
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


@contextlib.contextmanager
def _working_in(folder: Path) -> Iterator[None]:
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


def _name_folder(archive: Path, folder: Path) -> None:
    """Add an entry for ``folder`` to the archive.

    When unpacking, ESPnet changes only paths in the configuration that are names of
    entries, and the configuration has the folder of a Hugging Face tokenizer.
    """
    with zipfile.ZipFile(archive, "a") as packed:
        packed.writestr(f"{folder.as_posix()}/", b"")


def _images(exp: Path) -> list[Path]:
    """The curves of a training; ``use_matplotlib: false`` draws none."""
    return [path for path in [exp / "images"] if path.is_dir()]


def _calibration(model: Path) -> list[Path]:
    """The file that python3 -m espnet_cif_hkd.cli.calibrate wrote beside a model.

    Raises:
        UserError: It was fitted to another model.
    """
    path = model.with_name("calibration.json")
    if not path.is_file():
        return []
    # The key is not read as JSON: a file without the hash is of another model as well.
    if sha256(model) not in path.read_text(encoding="utf-8"):
        raise UserError(
            f"{path} is of another model than {model}: run python3 -m "
            "espnet_cif_hkd.cli.calibrate for this model, or remove the file"
        )
    return [path]


def pack(run: Run) -> None:
    """Stage 14: pack the model (only with ``--skip_packing false``).

    Raises:
        UserError: A file is missing, the archive would not work on another machine, or
            the calibration is of another model.
    """
    options, paths = run.options, run.paths
    model = paths.asr_exp / options.inference_asr_model
    stamps.require_model(paths.asr_exp, 11, options.inference_asr_model)
    stamps.require(paths.asr_exp, 13, ["RESULTS.md"])
    target = archive_path(run)
    packed = {"asr_train_config": paths.asr_exp / "config.yaml"}
    extra: list[Path] = []
    if options.use_lm:
        packed["lm_train_config"] = paths.lm_exp / "config.yaml"
        extra += [paths.lm_exp / "perplexity_test" / "ppl", *_images(paths.lm_exp)]
    packed["asr_model_file"] = model
    if options.use_lm:
        packed["lm_file"] = paths.lm_exp / options.inference_lm
    if options.feats_normalize == "global_mvn":
        extra.append(paths.asr_stats_dir / "train" / "feats_stats.npz")
    extra += tokenizer_files(run)
    if options.nlsyms_txt != "none":
        extra.append(Path(options.nlsyms_txt))
    extra += [paths.asr_exp / "RESULTS.md", *_images(paths.asr_exp)]
    extra += _calibration(model)
    for path in (*packed.values(), *extra):
        if not path.exists():
            raise UserError(f"{path} is missing: run the stage that makes it first")
    arguments = [
        "asr",
        *(word for key, path in packed.items() for word in (f"--{key}", str(path))),
        *(word for path in extra for word in ("--option", str(path))),
    ]
    log_file = (paths.asr_exp / "pack.log").absolute()
    scratch = (paths.asr_exp / ".packing").absolute()
    with replacing(target) as part:
        arguments += ["--outpath", str(part.absolute())]
        with _folder_for([*packed.values(), *extra], scratch) as folder:
            with _working_in(folder):
                call("espnet2.bin.pack", arguments, log_file, "stage 14")
            if Path(paths.bpemodel).is_dir():
                _name_folder(part, Path(paths.bpemodel))
            # With the final name, because the temporary one must not be in messages.
            check_portable(dataclasses.replace(read_packed(part), archive=target))
    log(f"stage 14: packed in {target} ({target.stat().st_size / 2**20:.1f} MiB)")
