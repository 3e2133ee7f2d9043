"""FOTAQ's configurations: four systems that differ in the criterion only."""

from typing import Any

import fotaq_fixture as fixture
import pytest
import yaml

CONF = fixture.RECIPE / "conf"
SYSTEMS = ("cif", "cif_acd", "cif_lrd", "cif_hkd")
TOKENS = ["<blank>", "<unk>", "<space>", *"ABCDEFGHIJKLMNOPQRSTUVWXYZ'", "<sos/eos>"]


def _system(name: str) -> dict[str, Any]:
    text = (CONF / f"train_asr_{name}.yaml").read_text(encoding="utf-8")
    loaded: dict[str, Any] = yaml.safe_load(text)
    return loaded


def _weights(conf: dict[str, Any]) -> tuple[float, float]:
    criterion = conf["model_conf"].get("criterion_conf")
    if conf["model_conf"]["criterion"] is None:
        assert criterion is None
        return 0.0, 0.0
    return criterion["acoustic"]["weight"], criterion["linguistic"]["weight"]


def test_the_four_differ_in_the_weights_of_hkd_only() -> None:
    weights = {name: _weights(_system(name)) for name in SYSTEMS}
    assert weights == {
        "cif": (0.0, 0.0),
        "cif_acd": (1.0, 0.0),
        "cif_lrd": (0.0, 0.01),
        "cif_hkd": (1.0, 0.01),
    }
    rests, criteria = [], []
    for name in SYSTEMS:
        conf = _system(name)
        conf["model_conf"].pop("criterion")
        criterion = conf["model_conf"].pop("criterion_conf", None)
        rests.append(conf)
        if criterion is not None:
            criterion["acoustic"].pop("weight")
            criterion["linguistic"].pop("weight")
            criteria.append(criterion)
    assert all(rest == rests[0] for rest in rests)
    assert all(criterion == criteria[0] for criterion in criteria)


def test_the_four_files_share_their_lines() -> None:
    shared = []
    for name in SYSTEMS:
        lines = (CONF / f"train_asr_{name}.yaml").read_text().splitlines()
        begin = lines.index(
            "# The four train_asr_cif*.yaml differ in "
            "model_conf.criterion and criterion_conf only"
        )
        cut = next(n for n, line in enumerate(lines) if "criterion:" in line)
        rest = next(n for n, line in enumerate(lines) if line.startswith("optim:"))
        shared.append(lines[begin:cut] + lines[rest:])
    assert all(lines == shared[0] for lines in shared)


@pytest.mark.parametrize("name", SYSTEMS)
def test_espnet_builds_the_model(name: str) -> None:
    from espnet2.tasks.asr import ASRTask

    import espnet_cif_hkd

    espnet_cif_hkd.register()
    args = ASRTask.get_parser().parse_args(
        ["--config", str(CONF / f"train_asr_{name}.yaml"), "--output_dir", "unused"]
    )
    args.token_list = TOKENS
    args.input_size = None
    model = ASRTask.build_model(args)
    needed = sum(
        tensor.numel()
        for key, tensor in model.state_dict().items()
        if not key.startswith("criterion.")
    )
    assert 3.0e6 < needed < 5.0e6
    projections = [key for key in model.state_dict() if key.startswith("criterion.")]
    acoustic, linguistic = _weights(_system(name))
    halves = (acoustic > 0) + (linguistic > 0)
    assert bool(projections) == (halves > 0)
    weight = [k for k in projections if k.endswith("weight")]
    assert len(weight) == halves


def test_espnet_knows_every_option_of_the_language_model() -> None:
    from espnet2.tasks.lm import LMTask

    args = LMTask.get_parser().parse_args(
        ["--config", str(CONF / "train_lm.yaml"), "--output_dir", "unused"]
    )
    args.token_list = TOKENS
    model = LMTask.build_model(args)
    assert sum(p.numel() for p in model.parameters()) < 2.0e6


def test_espnet_knows_every_option_of_decoding() -> None:
    from espnet2.bin.asr_inference import get_parser

    known = {action.dest for action in get_parser()._actions}
    conf = yaml.safe_load((CONF / "decode_asr.yaml").read_text())
    assert set(conf) <= known
