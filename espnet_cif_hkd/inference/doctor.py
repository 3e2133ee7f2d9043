"""Checks of an installation and of a trained model, quick ones first.

Nothing heavy is imported before the files of the model are known to be sound, so most
faults are named within a second.
"""

import importlib.metadata
import importlib.util
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from espnet_cif_hkd.errors import UserError, one_line
from espnet_cif_hkd.inference.findings import FAIL, OK, WARN, Finding, caught
from espnet_cif_hkd.inference.model_check import check_files
from espnet_cif_hkd.io.missing import how_to_install, missing_named

# Release of ESPnet -> versions of Python with which it is tested.
PAIRS = {"202511": ((3, 10), (3, 11)), "202611": ((3, 12),)}
_PACKAGES = ("torch", "numpy", "yaml", "soundfile", "soxr", "filelock")
_PIP = {"yaml": "PyYAML"}
_SECONDS = 5.0


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
    files: dict[str, Path] = {}
    steps = [_machine()]
    if model is not None:
        steps.append(check_files(model, files))
    if importlib.util.find_spec("torch") is not None:
        steps.append(_torch(device))
    faults = 0
    for step in steps:
        try:
            for finding in step:
                faults += finding.level == FAIL
                yield finding
        except ImportError as error:  # of a package that is missing, see above
            faults += 1
            yield caught("model", error)
    if model is None:
        return
    if faults:
        message = "not tried: correct the faults above first"
        yield Finding(WARN, "recognition", message)
        return
    yield from _recognition(model, audio, device, load)


def _machine() -> Iterator[Finding]:
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
    yield _audio_reading()


def _python() -> tuple[int, int]:
    return sys.version_info[:2]


def version(name: str) -> str | None:
    """Return the version of an installed package; None: it is not installed."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _espnet(python: tuple[int, int]) -> Finding:
    release = version("espnet")
    if release is None and importlib.util.find_spec("espnet2") is None:
        command = how_to_install("espnet2")
        return Finding(FAIL, "ESPnet", f"is not installed: {command}")
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
        return caught("audio reading", error)
    return Finding(OK, "audio reading", "wav, flac, another sampling rate")


def _torch(device: str) -> Iterator[Finding]:
    try:
        import torch

        torch.zeros(1, device=device).add(1).item()
    except Exception as error:
        reason = one_line(error, 150)
        fix = "install torch again" if device == "cpu" else "use --device cpu"
        yield Finding(FAIL, "torch", f"{device}: {reason}: {fix}")
        return
    yield Finding(OK, "torch", f"computes on {device}")
    if importlib.util.find_spec("espnet2") is not None:
        yield _torchaudio()


def _torchaudio() -> Finding:
    """ESPnet imports it, and builds of it fit one kind of torch."""
    try:
        with missing_named():
            loaded = importlib.import_module("torchaudio")
    except Exception as error:
        return caught("torchaudio", error)
    return Finding(OK, "torchaudio", str(loaded.__version__))


def _recognition(
    model: str, audio: str | None, device: str, load: Callable[[str, str], Any]
) -> Iterator[Finding]:
    """Load the model and recognise some seconds."""
    begun = time.monotonic()
    try:
        recognizer = load(model, device)
    except Exception as error:
        yield caught("loading", error)
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
        yield caught("audio", error)
        return
    seconds = len(samples) / recognizer.sampling_rate
    try:
        yield _firing(recognizer.frames(samples), seconds, audio)
        begun = time.monotonic()
        found = recognizer.recognise(samples)
        factor = (time.monotonic() - begun) / seconds
    except Exception as error:
        yield caught("recognition", error)
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
