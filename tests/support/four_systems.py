"""A recipe's four configurations, train_asr_{cif,cif_acd,cif_lrd,cif_hkd}.yaml."""

from pathlib import Path
from typing import Any

import yaml

SYSTEMS = ("cif", "cif_acd", "cif_lrd", "cif_hkd")


def load(conf: Path, name: str) -> dict[str, Any]:
    """The training configuration ``name`` in the folder ``conf``."""
    text = (conf / f"train_asr_{name}.yaml").read_text(encoding="utf-8")
    loaded: dict[str, Any] = yaml.safe_load(text)
    return loaded


def weights(conf: dict[str, Any]) -> tuple[float, float]:
    """Of the acoustic and the linguistic loss."""
    criterion = conf["model_conf"].get("criterion_conf")
    if conf["model_conf"]["criterion"] is None:
        assert criterion is None
        return 0.0, 0.0
    return criterion["acoustic"]["weight"], criterion["linguistic"]["weight"]


STREAMING_ENCODER = {"chunk_size", "left_chunks", "decoding_chunk_size"}


def check_values(conf: Path, acoustic: float = 1.0, linguistic: float = 0.01) -> None:
    """The four differ in the weights of HKD only: by default the paper's."""
    assert {name: weights(load(conf, name)) for name in SYSTEMS} == {
        "cif": (0.0, 0.0),
        "cif_acd": (acoustic, 0.0),
        "cif_lrd": (0.0, linguistic),
        "cif_hkd": (acoustic, linguistic),
    }
    rests, criteria = [], []
    for name in SYSTEMS:
        loaded = load(conf, name)
        loaded["model_conf"].pop("criterion")
        criterion = loaded["model_conf"].pop("criterion_conf", None)
        rests.append(loaded)
        if criterion is not None:
            criterion["acoustic"].pop("weight")
            criterion["linguistic"].pop("weight")
            criteria.append(criterion)
    assert all(rest == rests[0] for rest in rests)
    assert all(criterion == criteria[0] for criterion in criteria)


def check_lines(conf: Path) -> None:
    """The four share all lines but the first words and the criterion, comments too."""
    shared = []
    for name in SYSTEMS:
        lines = (conf / f"train_asr_{name}.yaml").read_text().splitlines()
        begin = lines.index(
            "# The four train_asr_cif*.yaml differ in "
            "model_conf.criterion and criterion_conf only"
        )
        cut = next(n for n, line in enumerate(lines) if "    criterion:" in line)
        rest = next(n for n, line in enumerate(lines) if line.startswith("optim:"))
        shared.append(lines[begin:cut] + lines[rest:])
    assert all(lines == shared[0] for lines in shared)


def check_language_model(conf: Path, tokens: list[str]) -> None:
    """ESPnet builds the language model of ``train_lm.yaml``, and it is small."""
    from espnet2.tasks.lm import LMTask

    args = LMTask.get_parser().parse_args(
        ["--config", str(conf / "train_lm.yaml"), "--output_dir", "unused"]
    )
    args.token_list = tokens
    model = LMTask.build_model(args)
    assert sum(p.numel() for p in model.parameters()) < 2.0e6


def check_decoding(conf: Path) -> None:
    """ESPnet knows every option of ``decode_asr.yaml``."""
    from espnet2.bin.asr_inference import get_parser

    known = {action.dest for action in get_parser()._actions}
    options = yaml.safe_load((conf / "decode_asr.yaml").read_text(encoding="utf-8"))
    assert set(options) <= known


def check_streaming(conf: Path) -> None:
    """The streaming model differs from ``cif`` in what streaming needs only."""
    ours, streaming = load(conf, "cif"), load(conf, "cif_streaming")
    assert streaming.pop("normalize") is None  # run.sh --feats_normalize global_mvn
    assert ours.pop("normalize") == "utterance_mvn"
    added = {key: streaming["encoder_conf"].pop(key) for key in STREAMING_ENCODER}
    assert streaming["decoder_conf"]["predictor_conf"].pop("causal") is True
    assert streaming == ours
    assert added["decoding_chunk_size"] in added["chunk_size"]
    assert 0 in added["chunk_size"], "one model for offline recognition, too"
