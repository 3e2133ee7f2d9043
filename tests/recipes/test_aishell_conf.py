"""AISHELL-1's configurations: the paper's four systems and numbers, as ESPnet reads
them."""

import re
import subprocess
from pathlib import Path
from typing import Any

import aishell_fixture as fixture
import four_systems
import numpy as np
import pytest
import torch
import yaml
from four_systems import SYSTEMS, load, weights

CONF = fixture.RECIPE / "conf"
# ESPnet's token list for AISHELL-1 has as many.
UNITS = 4_233
TOKENS = ["<blank>", "<unk>", *map(chr, range(0x4E00, 0x4E00 + UNITS - 3)), "<sos/eos>"]


def test_the_four_differ_in_the_weights_of_hkd_only() -> None:
    four_systems.check_values(CONF)
    four_systems.check_lines(CONF)
    criterion = load(CONF, "cif_hkd")["model_conf"]["criterion_conf"]
    assert re.fullmatch("[0-9a-f]{40}", criterion["teacher_revision"])


def test_the_other_encoder_is_all_that_changes() -> None:
    ours, other = load(CONF, "cif_hkd"), load(CONF, "cif_hkd_e_branchformer")
    assert other.pop("encoder") == "e_branchformer"
    assert ours.pop("encoder") == "cif_conformer"
    other.pop("encoder_conf"), ours.pop("encoder_conf")
    assert other == ours


def _parsed(name: str) -> Any:
    from espnet2.tasks.asr import ASRTask

    import espnet_cif_hkd

    espnet_cif_hkd.register()
    args = ASRTask.get_parser().parse_args(
        ["--config", str(CONF / f"train_asr_{name}.yaml"), "--output_dir", "unused"]
    )
    args.token_list, args.input_size = TOKENS, None
    return args


@pytest.mark.parametrize("name", [*SYSTEMS, "cif_hkd_e_branchformer"])
def test_espnet_builds_the_model(name: str) -> None:
    from espnet2.tasks.asr import ASRTask

    with torch.device("meta"):
        counts = {"": 0, "criterion.": 0}
        model = ASRTask.build_model(_parsed(name))
    for key, parameter in model.named_parameters():
        counts["criterion." if key.startswith("criterion.") else ""] += (
            parameter.numel()
        )
    if not name.endswith("branchformer"):
        assert counts[""] == 47_207_818
    halves = sum(weight > 0 for weight in weights(load(CONF, name)))
    assert counts["criterion."] == halves * (256 * 768 + 768)


def test_the_learning_rate_is_the_papers() -> None:
    from espnet2.tasks.abs_task import optim_classes, scheduler_classes

    args = _parsed("cif_hkd")
    optimizer = optim_classes[args.optim](
        [torch.nn.Parameter(torch.zeros(1))], **args.optim_conf
    )
    assert isinstance(optimizer, torch.optim.AdamW)
    scheduler = scheduler_classes[args.scheduler](optimizer, **args.scheduler_conf)
    at = {}
    for update in (1, 15_000, 30_000, 119_999, 180_000, 240_000, 250_000):
        scheduler.last_epoch = update - 1
        at[update] = scheduler.get_lr()[0]
    wanted = {
        1: 3e-6,
        15_000: (3e-6 + 3e-4) / 2,
        30_000: 3e-4,
        119_999: 3e-4,
        180_000: 3e-5,
        240_000: 3e-6,
        250_000: 3e-6,
    }
    assert at == pytest.approx(wanted, rel=5e-3)


@pytest.mark.slow
def test_a_batch_is_the_papers(tmp_path: Path) -> None:
    """120,098 utterances of 150.85 hours and 15 characters; their spread is ours."""
    from espnet2.samplers.build_batch_sampler import build_batch_sampler

    conf = load(CONF, "cif_hkd")
    rng = np.random.default_rng(0)
    seconds = np.clip(rng.gamma(9.0, 0.5, 120_098), 1.2, 14.5)
    seconds *= 150.85 * 3600 / seconds.sum()
    shapes = {
        "speech_shape": (f"{int(16_000 * s)}" for s in seconds),
        "text_shape.char": (f"{max(1, int(3.2 * s))},{UNITS}" for s in seconds),
    }
    for name, values in shapes.items():
        lines = (f"utt{n:06d} {value}\n" for n, value in enumerate(values))
        (tmp_path / name).write_text("".join(lines))
    batches = build_batch_sampler(
        type=conf["batch_type"],
        batch_size=1,
        batch_bins=conf["batch_bins"],
        shape_files=[str(tmp_path / name) for name in shapes],
    )
    assert len(batches) == pytest.approx(968, rel=0.01)
    assert 120_098 / len(batches) == pytest.approx(124, rel=0.01)
    assert len(batches) * conf["max_epoch"] == pytest.approx(240_000, rel=0.01)


@pytest.mark.parametrize(("kind", "widest"), [("freq", 26), ("time", 49)])
def test_masks_are_as_wide_as_the_papers(kind: str, widest: int) -> None:
    args = _parsed("cif_hkd")
    from espnet2.asr.specaug.specaug import SpecAug

    mask = getattr(SpecAug(**args.specaug_conf), f"{kind}_mask")
    assert mask.num_mask == 2 and not mask.replace_with_zero
    mask.num_mask = 1
    axis = 1 if kind == "time" else 2
    torch.manual_seed(0)
    ramp = torch.rand(5_000, *((100, 1) if kind == "time" else (1, 80)))
    masked, _ = mask(ramp.clone())
    widths = (masked != ramp).sum(dim=axis)
    assert (int(widths.min()), int(widths.max())) == (0, widest)


@pytest.mark.parametrize(("epochs", "kept"), [(4, 3), (2, 3)])
def test_the_average_is_of_the_last_epochs(
    tmp_path: Path, epochs: int, kept: int
) -> None:
    """ESPnet's n best by the number of updates are the n last, under the name that
    run.sh decodes with."""
    from espnet2.main_funcs.average_nbest_models import average_nbest_models
    from espnet2.train.reporter import Reporter

    reporter = Reporter()
    for epoch in range(1, epochs + 1):
        reporter.set_epoch(epoch)
        # A training that gets worse, so that no other criterion would do.
        with reporter.observe("train") as observed:
            observed.register({"loss": torch.tensor(float(epoch))})
            observed.next()
        state = {"weight": torch.tensor([2.0**epoch])}
        torch.save(state, tmp_path / f"{epoch}epoch.pth")
    average_nbest_models(
        tmp_path, reporter, load(CONF, "cif_hkd")["best_model_criterion"], kept
    )
    options = fixture.options_of_run_sh(fixture.lay_out(tmp_path / "recipe"))
    name = options[options.index("--inference_asr_model") + 1]
    averaged = torch.load(tmp_path / name)["weight"].item()
    last = [2.0**epoch for epoch in range(1, epochs + 1)][-kept:]
    # With fewer epochs than asked for ESPnet takes the best one, which is the last.
    wanted = sum(last) / kept if epochs >= kept else last[-1]
    assert averaged == pytest.approx(wanted)


def test_a_published_encoder_begins_a_training(tmp_path: Path) -> None:
    """As the README says. Published encoders have the names of older releases; ESPnet
    202611 drops those of the input layer unless they are named."""
    from espnet2.asr.encoder.e_branchformer_encoder import EBranchformerEncoder
    from espnet2.torch_utils.load_pretrained_model import load_pretrained_model

    conf = {**load(CONF, "cif_hkd_e_branchformer")["encoder_conf"], "num_blocks": 1}
    published, model = (
        torch.nn.ModuleDict({"encoder": EBranchformerEncoder(80, **conf)})
        for _ in range(2)
    )
    old = {
        re.sub(r"embed\.out\.(weight|bias)", r"embed.out.0.\1", name): value
        for name, value in published.state_dict().items()
    }
    torch.save({**old, "ctc.ctc_lo.bias": torch.zeros(1)}, tmp_path / "old.pth")
    readme = (fixture.RECIPE / "README.md").read_text()
    written = re.search(r'--init_param (FILE:.+?)"', readme)
    assert written is not None
    first, second = written[1].replace("FILE", str(tmp_path / "old.pth")).split()
    load_pretrained_model(first, model, False)
    if set(old) - set(published.state_dict()) - {"ctc.ctc_lo.bias"}:
        load_pretrained_model(second, model, False)
    for name, value in published.state_dict().items():
        assert torch.equal(model.state_dict()[name], value), name


def test_run_sh_gives_each_system_its_files(tmp_path: Path) -> None:
    recipe = fixture.lay_out(tmp_path / "recipe")

    def given(*arguments: str) -> dict[str, str]:
        words = fixture.options_of_run_sh(recipe, *arguments)
        return dict(zip(words[::2], words[1::2]))

    for system in ("cif", "acd", "lrd", "hkd"):
        passed = given("--system", system)
        suffix = "" if system == "cif" else f"_{system}"
        assert passed["--asr_config"] == f"conf/train_asr_cif{suffix}.yaml"
        for option in ("--asr_config", "--inference_config", "--lm_config"):
            assert (recipe / passed[option]).is_file()
    assert given()["--asr_config"] == "conf/train_asr_cif_hkd.yaml"
    with_lm = given("--use_lm", "true", "--data_url", "http://here", "--stage", "3")
    assert with_lm["--inference_config"] == "conf/decode_asr_lm.yaml"
    assert with_lm["--use_lm"] == "true" and with_lm["--stage"] == "3"
    assert with_lm["--local_data_opts"].endswith("--data_url http://here")
    assert given("--asr_config", "conf/mine.yaml")["--asr_config"] == "conf/mine.yaml"
    refused = subprocess.run(
        ["bash", str(recipe / "run.sh"), "--system", "best"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert refused.returncode == 2
    assert "choose cif, acd, lrd, hkd, soft or whisper_decoder" in refused.stderr


def test_decoding_is_the_papers() -> None:
    from espnet2.bin.asr_inference import get_parser

    known = {action.dest for action in get_parser()._actions}
    plain, with_lm = (
        yaml.safe_load((CONF / f"decode_asr{suffix}.yaml").read_text())
        for suffix in ("", "_lm")
    )
    assert set(plain) <= known
    assert (plain["beam_size"], plain["ctc_weight"], plain["lm_weight"]) == (10, 0, 0)
    assert plain.pop("lm_weight") < with_lm.pop("lm_weight")
    assert with_lm == plain


def test_espnet_builds_the_language_model() -> None:
    from espnet2.tasks.lm import LMTask

    args = LMTask.get_parser().parse_args(
        ["--config", str(CONF / "train_lm.yaml"), "--output_dir", "unused"]
    )
    args.token_list = TOKENS
    with torch.device("meta"):
        model = LMTask.build_model(args)
    assert 5e6 < sum(p.numel() for p in model.parameters()) < 1e7
