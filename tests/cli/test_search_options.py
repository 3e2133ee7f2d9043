"""Options of the search, which three commands have in common."""

import importlib
import io

import pytest

from espnet_cif_hkd.cli.search_options import check_search, search_of
from espnet_cif_hkd.errors import UserError

REQUIRED = {
    "transcribe": ["a.wav", "--model", "m"],
    "serve": ["--model", "m"],
    "calibrate": ["--model", "m", "--data", "dev"],
}


def parsed(command, *options):
    parser = importlib.import_module(f"espnet_cif_hkd.cli.{command}").get_parser()
    return parser.parse_args([*REQUIRED[command], *options])


@pytest.mark.parametrize("command", REQUIRED)
@pytest.mark.parametrize(
    ("options", "wanted"),
    [
        ([], {"greedy": True}),
        (["--greedy"], {"greedy": True}),
        (["--beam", "5"], {"greedy": False, "beam_size": 5}),
        (["--beam_size", "5"], {"greedy": False, "beam_size": 5}),
        (["--one_pass"], {"greedy": True, "one_pass": True, "fallback_below": 0.0}),
        (
            ["--one_pass", "--fallback_below", "0.3"],
            {"greedy": True, "one_pass": True, "fallback_below": 0.3},
        ),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_options_are_arguments_of_the_recogniser(command, options, wanted) -> None:
    args = parsed(command, *options)
    check_search(args)
    assert search_of(args) == wanted


@pytest.mark.parametrize("command", REQUIRED)
@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--beam", "0"], "--beam 0: write 1 or more"),
        (["--fallback_below", "0.3"], "--fallback_below needs --one_pass"),
        (["--one_pass", "--fallback_below", "2"], "2.0: write a probability from 0"),
        (["--one_pass", "--fallback_below", "nan"], "nan: write a probability"),
    ],
)
def test_wrong_options_are_refused(command, options, message) -> None:
    with pytest.raises(UserError, match=message):
        check_search(parsed(command, *options))


@pytest.mark.parametrize("command", REQUIRED)
def test_one_search_at_a_time(command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stderr", io.StringIO())
    for other in (["--greedy"], ["--beam", "5"]):
        with pytest.raises(SystemExit):
            parsed(command, "--one_pass", *other)
