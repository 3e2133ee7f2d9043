"""Draw where a CIF model fires in one utterance."""

import argparse
import sys
from pathlib import Path
from typing import Any

import numpy as np

from espnet_cif_hkd.cli.command import command_parser, exit_status
from espnet_cif_hkd.errors import UserError
from espnet_cif_hkd.inference.figure import Alignment, FloatArray, draw
from espnet_cif_hkd.io.audio import read_utterance, resample, select_channel
from espnet_cif_hkd.io.tables import read_table, single_spaced


def look_up(path: Path, utt_id: str) -> str:
    """Return the entry of an utterance in a Kaldi table.

    Raises:
        UserError: the utterance is not in the table.
    """
    table = read_table(path)
    if utt_id not in table:
        raise UserError(f"{path}: no utterance {utt_id}; choose another by --utt_id")
    return table[utt_id]


def read_audio(name: str, entry: str, rate: int) -> FloatArray:
    """Read the first channel of a recording.

    Args:
        name: name of the utterance, for messages.
        entry: a file, or a command as in ``wav.scp``.
        rate: sampling rate of the result in Hz; other recordings are resampled.

    Returns:
        Samples, ``(S,)`` float32.

    Raises:
        UserError: the recording cannot be read, is empty or contains NaN.
    """
    sound = select_channel(read_utterance(name, entry), "0", name)
    return np.asarray(resample(sound.samples, sound.rate, rate), dtype=np.float32)


def picture_path(out: Path, name: str) -> Path:
    """Return the file to write: ``out``, or ``NAME.png`` in it if it is a folder.

    Raises:
        UserError: the folder cannot be made.
    """
    path = out / f"{name}.png" if out.is_dir() else out
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"--out {out}: {error.filename}: {error.strerror}: name another file"
        ) from error
    return path


def fire(
    model: Any, samples: FloatArray, rate: int
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Run encoder and predictor on one utterance.

    Args:
        model: a CIFASRModel in evaluation mode.
        samples: audio, ``(S,)``.
        rate: its sampling rate in Hz.

    Returns:
        alpha ``(T,)``; firing times ``(L,)`` and frame borders ``(T + 1,)`` in seconds.

    Raises:
        UserError: the model has no CIF decoder, or the audio is too short for it.
    """
    import torch

    from espnet_cif_hkd.encoder.geometry import frame_times
    from espnet_cif_hkd.inference.curve import curve_of
    from espnet_cif_hkd.inference.results import Frames
    from espnet_cif_hkd.plugin.compat import TooShortUttError

    decoder = getattr(model, "decoder", None)
    if decoder is None or not hasattr(decoder, "fire"):
        raise UserError("this checkpoint has no CIF decoder: train with decoder: cif")
    device = next(model.parameters()).device
    speech = torch.from_numpy(samples).unsqueeze(0).to(device)
    lengths = torch.tensor([speech.size(1)], device=device)
    with torch.no_grad():
        try:
            encoded, n_frames = model.encode(speech, lengths)
        except TooShortUttError as error:
            raise UserError(f"the audio is too short for this model: {error}") from None
    hidden = encoded[0] if isinstance(encoded, tuple) else encoded
    n = int(n_frames[0])
    times = frame_times(model, rate, len(samples), n)
    curve = curve_of(decoder, Frames(hidden[0, :n], times, len(samples) / rate))
    return curve.alpha, curve.firings, curve.edges


def get_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = command_parser(__file__, __doc__)
    parser.add_argument("--model_file", type=Path, required=True)
    parser.add_argument("--train_config", type=Path, required=True)
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--audio", help="one audio file")
    source.add_argument("--wav_scp", type=Path, help="Kaldi table of audio files")
    parser.add_argument("--utt_id", help="which utterance (default: the first)")
    parser.add_argument("--text", type=Path, help="Kaldi table of references")
    parser.add_argument(
        "--hyp_dir",
        type=Path,
        help="folder with the text and token of stage 12 (default: decode here)",
    )
    parser.add_argument("--beam_size", type=int, default=5)
    parser.add_argument("--ctc_weight", type=float, default=0.3)
    parser.add_argument(
        "--out", type=Path, required=True, help="the PNG, or its folder"
    )
    return parser


def plot(args: argparse.Namespace) -> Alignment:
    """Draw the picture; return its content.

    Raises:
        UserError: a file is missing or does not fit.
    """
    audio, utt_id = args.audio, args.utt_id
    if args.wav_scp is not None:
        table = read_table(args.wav_scp)
        if not table:
            raise UserError(f"{args.wav_scp}: no utterances in it")
        utt_id = utt_id or next(iter(table))
        audio = look_up(args.wav_scp, utt_id)
    if utt_id is None and (args.text is not None or args.hyp_dir is not None):
        raise UserError("--text and --hyp_dir need --utt_id when --audio is given")
    for path in (args.model_file, args.train_config):
        if not path.is_file():
            raise UserError(f"{path}: no such file")
    reference = None
    if args.text is not None:
        reference = single_spaced(look_up(args.text, utt_id))
    args.out = picture_path(args.out, utt_id or Path(audio).stem)

    import espnet_cif_hkd
    from espnet_cif_hkd.inference.results import sampling_rate

    recogniser = espnet_cif_hkd.Speech2Text(
        asr_train_config=str(args.train_config),
        asr_model_file=str(args.model_file),
        beam_size=args.beam_size,
        ctc_weight=args.ctc_weight,
    )
    rate = sampling_rate(recogniser.asr_model, recogniser.asr_train_args)
    samples = read_audio(utt_id or audio, audio, rate)
    if args.hyp_dir is not None:
        hypothesis = look_up(args.hyp_dir / "text", utt_id)
        tokens = look_up(args.hyp_dir / "token", utt_id).split()
    else:
        text, tokens, *_ = recogniser(samples)[0]
        hypothesis = text or ""
    alpha, firing_times, edges = fire(recogniser.asr_model, samples, rate)
    alignment = Alignment(
        samples=samples,
        rate=rate,
        alpha=alpha,
        edges=edges,
        firing_times=firing_times,
        tokens=tokens,
        hypothesis=hypothesis,
        reference=reference,
    )
    draw(alignment, args.out)
    return alignment


def main(cmd: list[str] | None = None) -> int:
    """Run the command; return its exit code."""
    args = get_parser().parse_args(cmd)

    def run() -> None:
        plot(args)
        print(args.out)

    return exit_status(run)


if __name__ == "__main__":
    sys.exit(main())
