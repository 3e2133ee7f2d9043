"""Stage 14: one zip file with everything that decoding needs."""

from pathlib import Path

from espnet_cif_hkd.recipe import stamps
from espnet_cif_hkd.recipe.commands import call
from espnet_cif_hkd.recipe.context import Run
from espnet_cif_hkd.recipe.log import log


def pack(run: Run) -> None:
    """Stage 14: pack the model (only with ``--skip_packing false``)."""
    options, paths = run.options, run.paths
    model = options.inference_asr_model
    stamps.require_model(paths.asr_exp, 11, model)
    stamps.require(paths.asr_exp, 13, ["RESULTS.md"])
    target = paths.asr_exp / f"{paths.asr_exp.name}_{Path(model).stem}.zip"
    language: list[str] = []
    extra: list[Path] = []
    if options.use_lm:
        lm_file = paths.lm_exp / options.inference_lm
        language = [
            *("--lm_train_config", str(paths.lm_exp / "config.yaml")),
            *("--lm_file", str(lm_file)),
        ]
        extra += [paths.lm_exp / "perplexity_test" / "ppl", paths.lm_exp / "images"]
    if options.feats_normalize == "global_mvn":
        extra.append(paths.asr_stats_dir / "train" / "feats_stats.npz")
    if options.token_type == "bpe":
        extra.append(Path(paths.bpemodel))
    if options.nlsyms_txt != "none":
        extra.append(Path(options.nlsyms_txt))
    extra += [paths.asr_exp / "RESULTS.md", paths.asr_exp / "images"]
    call(
        "espnet2.bin.pack",
        [
            *("asr", "--asr_train_config", str(paths.asr_exp / "config.yaml")),
            *("--asr_model_file", str(paths.asr_exp / model), *language),
            *(word for path in extra for word in ("--option", str(path))),
            *("--outpath", str(target)),
        ],
        paths.asr_exp / "pack.log",
        "stage 14",
    )
    log(f"stage 14: packed in {target}")
