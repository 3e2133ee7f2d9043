"""Stored features of a speech model: dump, reader, and an epoch of a frozen frontend.

``dump``: the seconds and megabytes for an hour of speech, in this process, float16 and
int8. ``reader``: batches of 32 recordings, drawn at random, from the page cache:
``gather`` finds the keys and copies the rows, ``features`` also makes them float32;
and the open files at the end. ``epoch``: training steps of CIF on the frozen model
(two conformer blocks of 192 dimensions, 40 ms), which reads the features from the store
or computes them, in turns; the same batches without a frontend are the lower limit.

    python3 benchmarks/speech_store.py --data_dir data/train --teacher FOLDER --fs 11025
"""

import argparse
import logging
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from measure import (
    Figures,
    add_options,
    describe,
    device,
    in_turns,
    medians,
    table,
    use_options,
)

from espnet_cif_hkd.encoder.speech_teacher import SpeechTeacherFrontend
from espnet_cif_hkd.teachers.speech.base import Recording
from espnet_cif_hkd.teachers.speech.dump import Recordings, fill_speech_store
from espnet_cif_hkd.teachers.speech.recordings import data_folder
from espnet_cif_hkd.teachers.speech.registry import build_speech_teacher
from espnet_cif_hkd.teachers.store.reader import StoreReader

Conf = dict[str, Any]
Listed = Sequence[Recording]
BATCH, ROUNDS = 32, 40
TOKENS = ["<blank>", "<unk>", *"ABCDEFGHIJKLMNOPQRSTUVWXYZ' ", "<sos/eos>"]
TOKENS_PER_SECOND = 12
WIDTH = 192


def dump(
    conf: dict[str, Any],
    recordings: Sequence[Recording],
    folder: Path,
    figures: Figures,
) -> str:
    """Fill a store in each coding; keep that of float16."""
    hours = sum(one.seconds for one in recordings) / 3600
    rows = []
    for coding in ("int8", "float16"):
        store, own = folder / coding, {**conf, "store_coding": coding}
        begin = time.perf_counter()
        fill_speech_store(
            own, str(store), Recordings(lambda rate: recordings, device())
        )
        seconds = time.perf_counter() - begin
        size = sum(path.stat().st_size for path in store.glob("shard-*")) / 1e6
        figures.add(f"dump, {coding}", seconds / hours, "s per hour")
        figures.add(f"size, {coding}", size / hours, "MB per hour")
        rows.append([coding, f"{seconds / hours:,.0f}", f"{size / hours:,.0f}"])
    head = ["dump", "s per hour of speech", "MB per hour of speech"]
    return table(head, rows)


def reader(
    conf: dict[str, Any],
    recordings: Sequence[Recording],
    folder: Path,
    figures: Figures,
) -> str:
    """Read batches of stored features."""
    keys = [one.key for one in recordings]
    rng = np.random.default_rng(0)
    batches = [
        [keys[n] for n in rng.integers(len(keys), size=BATCH)] for _ in range(ROUNDS)
    ]
    cpu, rows = torch.device("cpu"), []
    for coding in ("float16", "int8"):
        own = {**conf, "store_coding": coding, "teacher_store": str(folder / coding)}
        stored: Any = build_speech_teacher(own)
        store: StoreReader = stored.open()
        row_bytes = stored.payload.row_bytes

        def gather(store: StoreReader = store) -> int:
            sizes = 0
            for batch in batches:
                places = [place for place in store.find(batch) if place is not None]
                sizes += sum(store.read(places)[0])
            return sizes

        def features(stored: Any = stored) -> None:
            for batch in batches:
                stored.features_by_key(batch, cpu)

        n_bytes = gather() * row_bytes
        seconds = medians(in_turns({"gather": gather, "features": features}, 7))
        for name, spent in seconds.items():
            figures.add(f"reader, {coding}, {name}", n_bytes / spent / 1e6, "MB/s")
        shown = [f"{n_bytes / seconds[n] / 1e6:,.0f}" for n in ("gather", "features")]
        rows.append([coding, *shown, len(store.paths), len(store._open)])
    head = ["reader", "gather, MB/s", "features, MB/s", "shards", "open"]
    return table(head, rows)


def epoch(
    conf: dict[str, Any],
    recordings: Sequence[Recording],
    folder: Path,
    figures: Figures,
) -> str:
    """Training steps with stored and with computed features."""
    model = _model(int(conf["teacher_dim"])).to(device()).train()
    optimizer = torch.optim.Adam(model.parameters(), 1e-4)
    frontend = {"fs": conf["rate"], "pool": 2}
    frontend |= {n: v for n, v in conf.items() if n != "rate"}
    stored = SpeechTeacherFrontend(**frontend, teacher_store=str(folder / "float16"))
    computed = SpeechTeacherFrontend(**frontend)
    ordered = sorted(recordings, key=lambda one: one.seconds)
    batches = []
    for begin in range(0, len(ordered), BATCH):
        some = ordered[begin : begin + BATCH]
        waves = [torch.from_numpy(one.samples) for one in some]
        lengths = torch.tensor([len(wave) for wave in waves])
        n_tokens = (lengths / conf["rate"] * TOKENS_PER_SECOND).long().clamp(min=1)
        text = torch.randint(2, len(TOKENS) - 1, (len(some), int(n_tokens.max())))
        places = torch.arange(text.size(1))
        text[places[None] >= n_tokens[:, None]] = -1
        padded = torch.nn.utils.rnn.pad_sequence(waves, batch_first=True)
        batches.append([t.to(device()) for t in (padded, lengths, text, n_tokens)])
    known = [stored.train()(batch[0], batch[1]) for batch in batches]

    def steps(features: Callable[[int], tuple[torch.Tensor, torch.Tensor]]) -> None:
        for n, (_, _, text, n_tokens) in enumerate(batches):
            optimizer.zero_grad()
            model(*features(n), text, n_tokens)[0].backward()
            optimizer.step()

    ways = {
        "without a frontend": lambda: steps(lambda n: known[n]),
        "stored": lambda: steps(lambda n: stored(*batches[n][:2])),
        "computed": lambda: steps(lambda n: computed(*batches[n][:2])),
    }
    seconds = medians(in_turns(ways, 3))
    hours = sum(one.seconds for one in recordings) / 3600
    rows = []
    for name, spent in seconds.items():
        figures.add(f"epoch, {name}", spent / hours, "s per hour")
        ratio = spent / seconds["stored"]
        rows.append([name, f"{spent / hours:,.0f}", f"{ratio:.2f}"])
    return table(["epoch of training steps", "s per hour of speech", "/ stored"], rows)


def _model(n_dim: int) -> Any:
    import espnet_cif_hkd

    espnet_cif_hkd.register()
    from espnet2.tasks.asr import ASRTask

    config = ASRTask.get_default_config()
    blocks = {"attention_heads": 4, "linear_units": 4 * WIDTH, "num_blocks": 2}
    encoder = {"output_size": WIDTH, "input_layer": "linear", "pooling_layers": []}
    config.update(
        token_list=TOKENS,
        input_size=n_dim,
        frontend=None,
        specaug=None,
        normalize="utterance_mvn",
        normalize_conf={},
        encoder="cif_conformer",
        encoder_conf={**encoder, **blocks},
        decoder="cif",
        decoder_conf=blocks,
        model="cif",
        model_conf={"ctc_weight": 0.5},
        ctc_conf={},
    )
    return ASRTask.build_model(argparse.Namespace(**config))


def main() -> None:
    """Print what the options ask for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data_dir", type=Path, required=True)
    parser.add_argument("--teacher", required=True)
    parser.add_argument("--teacher_dim", type=int, default=512)
    parser.add_argument("--fs", type=int, default=16000)
    parser.add_argument("--recordings", type=int, default=256)
    parser.add_argument("--threads", type=int, default=1)
    add_options(parser)
    args = parser.parse_args()
    figures = use_options(args)
    logging.disable(logging.INFO)
    print(
        describe("transformers", "safetensors", threads=args.threads) + "\n", flush=True
    )
    listed = data_folder(args.data_dir, args.fs)
    chosen = np.random.default_rng(0).permutation(len(listed))[: args.recordings]
    recordings = [Recording(listed[n].samples, args.fs, listed[n].name) for n in chosen]
    hours = sum(one.seconds for one in recordings) / 3600
    print(f"{len(recordings)} recordings, {hours:.3f} hours\n", flush=True)
    conf = {"teacher": args.teacher, "teacher_dim": args.teacher_dim, "rate": args.fs}
    with tempfile.TemporaryDirectory() as name:
        for part in (dump, reader, epoch):
            print(part(conf, recordings, Path(name), figures) + "\n", flush=True)


if __name__ == "__main__":
    main()
