"""Options that choose the search, of transcribe, serve and calibrate."""

import argparse
from typing import Any

from espnet_cif_hkd.errors import UserError


def add_search(parser: argparse.ArgumentParser) -> Any:
    """Add the options of the search.

    Returns:
        The group of searches, of which one can be chosen.
    """
    search = parser.add_mutually_exclusive_group()
    search.add_argument(
        "--beam",
        "--beam_size",
        type=int,
        metavar="N",
        help="beam search with N hypotheses",
    )
    search.add_argument(
        "--greedy", action="store_true", help="most probable tokens (default)"
    )
    search.add_argument(
        "--one_pass",
        action="store_true",
        help="all tokens at once, by the decoder of model_conf.nar_conf",
    )
    parser.add_argument(
        "--fallback_below",
        type=float,
        metavar="P",
        help="with --one_pass: utterances with a token of a probability below this are "
        "recognised again, token by token",
    )
    return search


def check_search(args: argparse.Namespace) -> None:
    """Check the options of :func:`add_search`.

    Raises:
        UserError: An option is wrong.
    """
    if args.beam is not None and args.beam < 1:
        raise UserError(f"--beam {args.beam}: write 1 or more")
    if args.fallback_below is None:
        return
    if not args.one_pass:
        raise UserError("--fallback_below needs --one_pass")
    if not 0 <= args.fallback_below <= 1:
        raise UserError(
            f"--fallback_below {args.fallback_below}: write a probability from 0 to 1"
        )


def one_pass_of(args: argparse.Namespace) -> dict[str, Any]:
    """Return the arguments of ``Speech2Text`` for ``--one_pass``; empty without it."""
    if not args.one_pass:
        return {}
    return {"one_pass": True, "fallback_below": args.fallback_below or 0.0}


def search_of(args: argparse.Namespace) -> dict[str, Any]:
    """Return the arguments of ``Recognizer`` for the options."""
    beam = {} if args.beam is None else {"beam_size": args.beam}
    return {"greedy": args.beam is None, **beam, **one_pass_of(args)}
