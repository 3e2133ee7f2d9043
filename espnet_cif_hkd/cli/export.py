"""Export a model to ONNX: ``python3 -m espnet_cif_hkd.cli.export``."""

import argparse
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from espnet_cif_hkd.cli.command import command_parser, run_logged
from espnet_cif_hkd.errors import UserError


def get_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = command_parser(__file__, __doc__)
    parser.add_argument(
        "--model",
        required=True,
        help="folder of an experiment, checkpoint in it, packed model (zip) or tag",
    )
    parser.add_argument("--out", type=Path, required=True, help="folder for the files")
    parser.add_argument(
        "--format",
        choices=["onnx", "sherpa"],
        default="onnx",
        help="onnx: graphs for our runner; sherpa: one graph for sherpa-onnx, of a "
        "model with a one-pass decoder and 'frontend: kaldi_fbank'",
    )
    parser.add_argument(
        "--streaming",
        action="store_true",
        help="graphs for audio in pieces, of a model with chunks: 'encoder: "
        "cif_conformer' with decoding_chunk_size, and 'decoder: cif'",
    )
    parser.add_argument(
        "--int8", action="store_true", help="also graphs with weights of 8 bits"
    )
    parser.add_argument(
        "--no-frontend",
        action="store_true",
        help="the graph reads features, which the runner computes in numpy",
    )
    parser.add_argument(
        "--check",
        nargs="+",
        default=[],
        metavar="FILE",
        help="recordings for the self-check (default: noise)",
    )
    return parser


def run(args: argparse.Namespace) -> None:
    """Export and check.

    Raises:
        UserError: The model cannot be exported, or the self-check fails.
    """
    from espnet_cif_hkd.inference.export.check import compare
    from espnet_cif_hkd.inference.export.exporter import export_model
    from espnet_cif_hkd.inference.export.onnx_files import require_onnx
    from espnet_cif_hkd.inference.onnx_folder import METADATA
    from espnet_cif_hkd.io.audio import read_utterance, resample, select_channel

    require_onnx()
    if args.format == "sherpa" and (args.no_frontend or args.check or args.streaming):
        raise UserError(
            "--format sherpa has no --no-frontend, no --streaming and no --check"
        )
    if args.streaming and args.no_frontend:
        raise UserError("--streaming has no --no-frontend: its graph reads samples")
    source = load_source(args.model)
    if args.format == "sherpa":
        from espnet_cif_hkd.inference.export.sherpa import export_sherpa

        gap = export_sherpa(source, args.out, args.int8)
        logging.info("%s: self-check passed, max |Δ log p| %.1e", args.out, gap)
        return
    sounds = [
        select_channel(read_utterance(name, name), "0", name) for name in args.check
    ]
    metadata = export_model(
        source, args.out, args.int8, not args.no_frontend, args.streaming
    )
    rate = metadata["sampling_rate"]
    recordings = [resample(sound.samples, sound.rate, rate) for sound in sounds]
    try:
        result = compare(source.model, args.out, recordings or None)
        result.require()
    except BaseException:
        # The runner refuses a folder that was not checked.
        (args.out / METADATA).unlink()
        raise
    logging.info(
        "%s: exported in %s s; self-check passed: %d recordings, %d tokens equal, max "
        "|Δ log p| %.1e",
        *(args.out, metadata["seconds"], result.n_recordings, result.n_tokens),
        result.worst,
    )
    if args.int8:
        small = compare(source.model, args.out, recordings or None, int8=True)
        logging.info(
            "8 bits: max |Δ log p| %.1e, other tokens in %d of %d recordings",
            *(small.worst, len(small.different), small.n_recordings),
        )


def load_source(name: str) -> Any:
    """Load a trained model with its calibration.

    Raises:
        UserError: It is no model.
    """
    from espnet_cif_hkd.inference.calibration import read_calibration
    from espnet_cif_hkd.inference.export.exporter import Source
    from espnet_cif_hkd.inference.model_files import model_files, recipe_folder
    from espnet_cif_hkd.inference.speech2text import Speech2Text

    files = model_files(name)
    config = str(Path(files["asr_train_config"]).resolve())
    checkpoint = str(Path(files["asr_model_file"]).resolve())
    with recipe_folder(config):
        loaded = Speech2Text(config, checkpoint, beam_size=1, ctc_weight=0.0)
    return Source(
        loaded.asr_model,
        str(loaded.asr_train_args.token_type),
        read_calibration(checkpoint),
    )


def main(cmd: Sequence[str] | None = None) -> None:
    """Run the command."""
    run_logged(get_parser(), run, cmd)


if __name__ == "__main__":
    main()
