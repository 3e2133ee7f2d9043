"""Checks of an installation and of a trained model, quick ones first.

Nothing heavy is imported before the files of the model are known to be sound, so most
faults are named within a second.
"""

import importlib.metadata
import importlib.util
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from espnet_cif_hkd.errors import UserError

OK, WARN, FAIL = "ok", "warn", "FAIL"
# Release of ESPnet -> versions of Python with which it is tested.
PAIRS = {"202511": ((3, 10), (3, 11)), "202611": ((3, 12),)}
_PACKAGES = ("torch", "numpy", "yaml", "soundfile", "soxr", "filelock")
_PIP = {"yaml": "PyYAML"}
_SECONDS = 5.0


@dataclass(frozen=True)
class Finding:
    """The result of a check.

    Attributes:
        level: ``ok``, ``warn`` or ``FAIL``.
        subject: What was checked, in one or two words.
        message: One line; of a fault also how to fix it.
    """

    level: str
    subject: str
    message: str


def open_model(model: str, device: str) -> Any:
    """Return a recogniser with greedy search."""
    from espnet_cif_hkd.inference.recognizer import Recognizer

    return Recognizer(model, device=device)


def diagnose(
    model: str | None = None,
    audio: str | None = None,
    device: str = "cpu",
    load: Callable[[str, str], Any] = open_model,
) -> Iterator[Finding]:
    """Yield the findings about this machine, and about a model.

    Args:
        model: Folder, zip file or tag; None: only the machine is checked.
        audio: A file to recognise; None: synthetic sound.
        device: ``cpu``, ``cuda`` …
        load: Opens the model.
    """
    faults = 0
    for finding in _machine(device):
        faults += finding.level == FAIL
        yield finding
    if model is None:
        return
    files: dict[str, Path] = {}
    for finding in _model_files(model, files):
        faults += finding.level == FAIL
        yield finding
    if faults:
        message = "not tried: correct the faults above first"
        yield Finding(WARN, "recognition", message)
        return
    yield from _recognition(model, audio, device, load)


def _caught(subject: str, error: Exception) -> Finding:
    reason = " ".join(str(error).split())[:300] or type(error).__name__
    if not isinstance(error, UserError):
        reason = f"{type(error).__name__}: {reason}"
    return Finding(FAIL, subject, reason)


def _machine(device: str) -> Iterator[Finding]:
    python = _python()
    named = ".".join(map(str, python))
    if not (3, 10) <= python <= (3, 12):
        yield Finding(
            FAIL, "Python", f"{named}: ESPnet needs 3.10 to 3.12; install one of them"
        )
    else:
        yield Finding(OK, "Python", named)
    yield _espnet(python)
    missing = [name for name in _PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        names = " ".join(_PIP.get(name, name) for name in missing)
        yield Finding(FAIL, "packages", f"missing: python3 -m pip install {names}")
    else:
        known = (f"{name} {version(_PIP.get(name, name))}" for name in _PACKAGES)
        yield Finding(OK, "packages", ", ".join(known))
    torch, torchaudio = version("torch"), version("torchaudio")
    if torch and torchaudio and _minor(torch) != _minor(torchaudio):
        yield Finding(
            WARN,
            "torchaudio",
            f"{torchaudio} is for another torch than {torch}: python3 -m pip install "
            f"torchaudio=={_minor(torch)}.*, or uninstall it",
        )
    yield _audio_reading()
    if device != "cpu" and not missing:
        yield _device(device)


def _python() -> tuple[int, int]:
    return sys.version_info[:2]


def version(name: str) -> str | None:
    """Return the version of an installed package; None: it is not installed."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _minor(number: str) -> str:
    return ".".join(number.split("+")[0].split(".")[:2])


def _espnet(python: tuple[int, int]) -> Finding:
    release = version("espnet")
    if release is None and importlib.util.find_spec("espnet2") is None:
        return Finding(
            FAIL, "ESPnet", "is not installed: run tools/install.sh (docs/install.md)"
        )
    if release is None:
        return Finding(WARN, "ESPnet", "a checkout without version: not a release")
    fits = next((one for one, known in PAIRS.items() if python in known), "202611")
    if release not in PAIRS:
        return Finding(
            FAIL,
            "ESPnet",
            f"{release} is neither of {' and '.join(PAIRS)}: install {fits} "
            "(docs/install.md)",
        )
    if python not in PAIRS[release]:
        return Finding(
            WARN,
            "ESPnet",
            f"{release} is not tested with Python {python[0]}.{python[1]}: install "
            f"{fits} (docs/install.md)",
        )
    return Finding(OK, "ESPnet", release)


def _audio_reading() -> Finding:
    try:
        import numpy as np
        import soundfile

        from espnet_cif_hkd.inference.media import read_audio

        with tempfile.TemporaryDirectory() as folder:
            for suffix in ("wav", "flac"):
                path = Path(folder) / f"a.{suffix}"
                soundfile.write(path, np.zeros(800), 8000, subtype="PCM_24")
                samples, _ = read_audio(path, 16000)
                if len(samples) != 1600:
                    raise UserError(f"{suffix}: {len(samples)} of 1600 samples")
    except Exception as error:
        return _caught("audio reading", error)
    return Finding(OK, "audio reading", "wav, flac, another sampling rate")


def _device(device: str) -> Finding:
    import torch

    try:
        torch.zeros(1, device=device).add(1).item()
    except Exception as error:
        reason = " ".join(str(error).split())[:150]
        return Finding(FAIL, "device", f"{device}: {reason}: use --device cpu")
    return Finding(OK, "device", device)


def _model_files(model: str, files: dict[str, Path]) -> Iterator[Finding]:
    from espnet_cif_hkd.inference.model_files import model_files, recipe_folder

    try:
        files.update({name: Path(f) for name, f in model_files(model).items()})
    except Exception as error:
        yield _caught("model", error)
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
        reason = " ".join(str(error).split())[:200]
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
    if known.get("decoder") != "cif":
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
        return _caught(subject, error)
    missing = "" if known.weights else "; of times only, none of confidences"
    return Finding(OK, subject, f"{calibration_file(checkpoint).name}{missing}")


def _recognition(
    model: str, audio: str | None, device: str, load: Callable[[str, str], Any]
) -> Iterator[Finding]:
    """Load the model and recognise some seconds."""
    begun = time.monotonic()
    try:
        recognizer = load(model, device)
    except Exception as error:
        yield _caught("loading", error)
        return
    yield Finding(OK, "loading", f"{time.monotonic() - begun:.1f} s")
    bad = _not_finite(recognizer)
    if bad is not None:
        message = f"{bad} has NaN or infinity: take an earlier epoch"
        yield Finding(FAIL, "parameters", message)
        return
    try:
        samples = _sound(audio, recognizer.sampling_rate)
    except UserError as error:
        yield _caught("audio", error)
        return
    seconds = len(samples) / recognizer.sampling_rate
    try:
        yield _firing(recognizer.frames(samples), seconds, audio)
        begun = time.monotonic()
        found = recognizer.recognise(samples)
        factor = (time.monotonic() - begun) / seconds
    except Exception as error:
        yield _caught("recognition", error)
        return
    text = found.text if len(found.text) <= 60 else f"{found.text[:60]}…"
    if audio is not None and not found.tokens:
        yield Finding(FAIL, "recognition", f"{audio}: no text; is it speech?")
    else:
        yield Finding(OK, "recognition", repr(text) if audio else "synthetic sound")
    yield Finding(
        OK if factor < 1 else WARN,
        "speed",
        f"real-time factor {factor:.2f} for {seconds:.1f} s on {device}"
        + ("" if factor < 1 else ": slower than speech; use a GPU or a smaller model"),
    )


def _not_finite(recognizer: Any) -> str | None:
    """Return the name of a parameter with NaN or infinity."""
    for name, value in recognizer.speech2text.asr_model.named_parameters():
        if not value.isfinite().all():
            return str(name)
    return None


def _sound(audio: str | None, rate: int) -> Any:
    import numpy as np

    if audio is not None:
        from espnet_cif_hkd.inference.media import open_audio

        with open_audio(audio, rate) as opened:
            return opened.read(0.0, min(opened.duration, 6 * _SECONDS))
    # A buzz with syllables: loud and quiet four times a second.
    times = np.arange(round(_SECONDS * rate)) / rate
    buzz = sum(np.sin(2 * np.pi * 120 * n * times) / n for n in range(1, 20))
    loudness = 0.5 - 0.5 * np.cos(2 * np.pi * 4 * times)
    return (0.1 * buzz * loudness).astype(np.float32)


def _firing(frames: Any, seconds: float, audio: str | None) -> Finding:
    subject = "firing"
    if frames is None:
        return Finding(FAIL, subject, f"{seconds:.2f} s are too short for the encoder")
    if frames.alpha is None:
        return Finding(WARN, subject, "the model has no CIF")
    alpha = [float(value) for value in frames.alpha]
    total = sum(alpha)
    if not total < float("inf"):
        return Finding(FAIL, subject, "alpha is NaN: take an earlier epoch")
    message = f"sum of alpha {total:.1f} in {seconds:.1f} s, {len(alpha)} frames"
    if total < 0.5:
        level = WARN if audio is None else FAIL
        hint = "try --audio with speech" if audio is None else "train it longer"
        return Finding(level, subject, f"{message}: nothing fires; {hint}")
    if min(alpha) > 0.95:
        return Finding(FAIL, subject, f"{message}: every frame fires; train it longer")
    return Finding(OK, subject, message)
