"""Checks of the files of a model, before it is loaded; neither torch nor ESPnet."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from espnet_cif_hkd.errors import UserError, one_line
from espnet_cif_hkd.inference.findings import FAIL, OK, WARN, Finding, caught
from espnet_cif_hkd.plugin.registration import CIF_DECODERS


def check_files(model: str, files: dict[str, Path]) -> Iterator[Finding]:
    """Yield the findings about the files of a model.

    Args:
        model: Folder, zip file or tag.
        files: Gets the files by argument of ``Speech2Text``.
    """
    from espnet_cif_hkd.inference.model_files import model_files, recipe_folder

    try:
        files.update({name: Path(f) for name, f in model_files(model).items()})
    except Exception as error:
        yield caught("model", error)
        return
    config, checkpoint = files["asr_train_config"], files["asr_model_file"]
    yield Finding(OK, "model", str(checkpoint))
    yield _checkpoint(checkpoint)
    known = _read_config(config)
    if isinstance(known, Finding):
        yield known
        return
    with recipe_folder(config.resolve()):
        yield from _configuration(known, config)
        yield _rate(known)
    yield _calibration(checkpoint)


def _checkpoint(path: Path) -> Finding:
    import zipfile

    size = path.stat().st_size
    with path.open("rb") as stream:
        head = stream.read(64)
    again = "copy it again, or average the epochs again"
    if head.startswith(b"version https://git-lfs"):
        fault = "is a pointer of Git LFS: run git lfs pull"
    elif path.name == "checkpoint.pth":
        fault = "is the state of a training: give its folder, or NNepoch.pth"
    elif not size:
        fault = f"is empty: {again}"
    elif head.startswith(b"PK") and not zipfile.is_zipfile(path):
        fault = f"is incomplete ({size} bytes): {again}"
    elif not head.startswith((b"PK", b"\x80")):
        fault = f"is no checkpoint of torch: {again}"
    else:
        return Finding(OK, "checkpoint", f"{size / 1e6:.1f} MB")
    return Finding(FAIL, "checkpoint", f"{path} {fault}")


def _read_config(path: Path) -> dict[str, Any] | Finding:
    import yaml

    try:
        known = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        reason = one_line(error, 200)
        return Finding(FAIL, "config.yaml", f"{path} is no YAML ({reason})")
    if not isinstance(known, dict) or not known.get("token_list"):
        return Finding(
            FAIL, "config.yaml", f"{path} has no token_list: give that of the training"
        )
    return known


def _configuration(known: Mapping[str, Any], path: Path) -> Iterator[Finding]:
    """Check what the configuration says, in the folder of its recipe."""
    fault = None
    for option, value in _named_files(known):
        if not Path(value).exists():
            fault = (
                f"{option} is {value}, which does not exist in {Path.cwd()}: copy it "
                f"there, or correct {path}"
            )
            yield Finding(FAIL, "config.yaml", fault)
    if fault is None:
        names = (f"{n}: {known[n]}" for n in ("encoder", "decoder") if known.get(n))
        yield Finding(OK, "config.yaml", ", ".join(names))
    if known.get("decoder") not in CIF_DECODERS:
        yield Finding(
            WARN,
            "CIF",
            f"the decoder is {known.get('decoder')}, so nothing fires: times come from "
            "CTC alone",
        )
    weight = (known.get("model_conf") or {}).get("ctc_weight", 0.5)
    if weight == 0:
        yield Finding(
            WARN,
            "CTC",
            "the model was trained without CTC: times come from CIF alone and are less "
            "exact; train with ctc_weight above 0",
        )
    else:
        yield Finding(OK, "CTC", f"ctc_weight {weight}")


def _named_files(known: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield option and path of each file that decoding needs."""
    if isinstance(known["token_list"], str):
        yield "token_list", known["token_list"]
    if known.get("bpemodel"):
        yield "bpemodel", str(known["bpemodel"])
    stats = (known.get("normalize_conf") or {}).get("stats_file")
    if known.get("normalize") == "global_mvn" and stats:
        yield "normalize_conf.stats_file", str(stats)
    frontend = known.get("frontend_conf") or {}
    teacher, weights = frontend.get("teacher"), frontend.get("weights")
    # With a revision it is the name of a hub, with "://" a package.
    is_file = teacher and "://" not in teacher and not frontend.get("teacher_revision")
    if known.get("frontend") == "speech_teacher" and weights != "value" and is_file:
        yield "frontend_conf.teacher", str(teacher)


def _rate(known: Mapping[str, Any]) -> Finding:
    """Compare the sampling rates of the configuration and of the training's audio."""
    from humanfriendly import InvalidSize, parse_size

    subject = "sampling rate"
    rates: dict[str, int] = {}
    for name in ("frontend_conf", "preprocessor_conf"):
        value = (known.get(name) or {}).get("fs")
        if value is not None:
            try:
                rates[f"{name}.fs"] = int(parse_size(str(value)))
            except InvalidSize:
                return Finding(
                    FAIL, subject, f"{name}.fs is {value!r}: write 16k or 16000"
                )
    found = _training_rate(known)
    if found is not None:
        rates["the training's audio"] = found
    if len(set(rates.values())) > 1:
        named = ", ".join(f"{name} {rate} Hz" for name, rate in rates.items())
        return Finding(
            FAIL, subject, f"{named}: correct fs in config.yaml to that of the audio"
        )
    if not any(name.endswith("fs") for name in rates):
        return Finding(
            WARN if found in (None, 16000) else FAIL,
            subject,
            "config.yaml has none, so 16000 Hz is assumed: write "
            f"'fs: {found or 16000}' under frontend_conf, if that is right",
        )
    return Finding(OK, subject, f"{next(iter(rates.values()))} Hz")


def _training_rate(known: Mapping[str, Any]) -> int | None:
    """Sampling rate of the first recording of the training, if it is still there."""
    import soundfile

    for entry in known.get("train_data_path_and_name_and_type") or ():
        try:
            table, _, kind = entry
            if kind != "sound":
                continue
            with Path(table).open(encoding="utf-8") as stream:
                name = stream.readline().split(maxsplit=1)[1].strip()
            return int(soundfile.info(name).samplerate)
        except (OSError, RuntimeError, TypeError, ValueError, IndexError):
            continue
    return None


def _calibration(checkpoint: Path) -> Finding:
    from espnet_cif_hkd.inference.calibration import calibration_file, read_calibration

    subject = "calibration"
    if not calibration_file(checkpoint).is_file():
        return Finding(
            WARN,
            subject,
            "none: times and confidences are less exact; make it by espnet-cif "
            "calibrate",
        )
    try:
        known = read_calibration(checkpoint)
    except UserError as error:
        return caught(subject, error)
    missing = "" if known.weights else "; of times only, none of confidences"
    return Finding(OK, subject, f"{calibration_file(checkpoint).name}{missing}")
