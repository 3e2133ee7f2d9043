"""How well Whisper's decoder, untrained, predicts the units of a token list.

    cd egs2/hsk/asr_hkd
    python3 ../../../benchmarks/whisper_units.py downloads/whisper_base --language zh \\
        --token_list data/zh_token_list/char/tokens.txt [--data data/dev]
        [--utterances 50]

Whisper reads the audio and all units before, each as one vector, and its state is
compared with one row for each unit. Units of several tokens of Whisper have no vector
of their own: the table compares rows made from their tokens.
"""

import argparse
from pathlib import Path

import torch
from measure import describe, table
from quality import load
from torch import Tensor

from espnet_cif_hkd.recipe.stages.tokens import read_token_list
from espnet_cif_hkd.teachers.speech.whisper_pieces import unit_tokens
from espnet_cif_hkd.teachers.speech.whisper_text import WhisperText

# What a unit gets from the embeddings of its tokens (K, D).
_ROWS = {
    "mean": lambda tokens: tokens.mean(dim=0),
    "first": lambda tokens: tokens[0],
    "last": lambda tokens: tokens[-1],
    "sum": lambda tokens: tokens.sum(dim=0),
}


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("--language")
    parser.add_argument("--token_list", required=True)
    parser.add_argument("--data", type=Path, default=Path("data/dev"))
    parser.add_argument("--utterances", type=int, help="all by default")
    args = parser.parse_args()
    print(describe("transformers", threads=torch.get_num_threads()) + "\n", flush=True)
    whisper = WhisperText(args.model, language=args.language)
    units = read_token_list(args.token_list)[2:-1]
    tokens = unit_tokens(whisper.tokenizer, units)
    embed = whisper.model.model.decoder.embed_tokens.weight.detach()
    rows = {
        name: torch.stack([row(embed[torch.tensor(ids)]) for ids in tokens])
        for name, row in _ROWS.items()
    }
    place = {unit: n for n, unit in enumerate(units)}
    several = torch.tensor([len(ids) > 1 for ids in tokens])
    pairs = [("mean", name) for name in _ROWS] + [("last", "first"), ("first", "first")]
    right = torch.zeros(len(pairs), 2)
    counts = torch.zeros(2)
    for one in load(args.data, whisper.rate, args.utterances):
        text = one.text.replace(" ", "")
        if not text or any(char not in place for char in text):
            continue
        wanted = torch.tensor([place[char] for char in text])
        kinds = torch.stack([~several[wanted], several[wanted]]).float()  # (2, L)
        counts += kinds.sum(dim=1)
        with torch.inference_mode():
            features = whisper.features([one.samples])
            frames = whisper.model.get_encoder()(features)[0]  # (1, T, D)
        states = {
            name: _states(whisper, frames, rows[name][wanted[:-1]])
            for name in {pair[0] for pair in pairs}
        }
        for n, (given, output) in enumerate(pairs):
            hits = (states[given] @ rows[output].T).argmax(dim=-1) == wanted
            right[n] += kinds @ hits.float()
    lines = [
        [
            *pair,
            *(f"{100 * x:.1f}" for x in (*(one / counts), one.sum() / counts.sum())),
        ]
        for pair, one in zip(pairs, right, strict=True)
    ]
    head = ["as input", "as output", "one token: right, %", "several, %", "all, %"]
    print(table(head, lines))
    print(f"\n{int(counts[0])} units of one token, {int(counts[1])} of several")


@torch.inference_mode()
def _states(whisper: WhisperText, frames: Tensor, units: Tensor) -> Tensor:
    """Return the decoder's last state before each unit (L, D)."""
    decoder = whisper.model.model.decoder
    prompt = decoder.embed_tokens.weight[torch.tensor(whisper.prompt)]
    found = decoder(
        inputs_embeds=torch.cat([prompt, units])[None], encoder_hidden_states=frames
    )
    states: Tensor = found.last_hidden_state[0, len(prompt) - 1 :]
    return states


if __name__ == "__main__":
    main()
