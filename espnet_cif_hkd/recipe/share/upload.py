"""Stage 15: the packed model on the Hugging Face hub, with a model card."""

import zipfile
from pathlib import Path

import yaml

from espnet_cif_hkd import __version__
from espnet_cif_hkd.io.disk import require_space
from espnet_cif_hkd.io.log import log
from espnet_cif_hkd.io.tables import write_text
from espnet_cif_hkd.recipe.context import Run
from espnet_cif_hkd.recipe.share import hub, model_card
from espnet_cif_hkd.recipe.share.pack import archive_path
from espnet_cif_hkd.recipe.share.packed import Packed, check_portable, read_packed
from espnet_cif_hkd.recipe.share.published import publishable, publishable_config


def check(run: Run) -> None:
    """Check name, client, token and ``conf/model_card.yaml`` before anything runs.

    Raises:
        UserError: One of them is missing or wrong.
    """
    hub.check_name(run.options.hf_repo)
    hub.check_ready()
    model_card.read_facts()


def warn_of_path_tokens(packed: Packed) -> None:
    """Warn about tokens that espnet_model_zoo 0.1.7 mistakes for paths."""
    tokens = packed.configs["asr_train_config"].get("token_list") or []
    names = {name.split("/")[0] for name in [*packed.members, "README.md"]}
    for token in sorted(names & set(map(str, tokens))):
        log(
            f"stage 15: the token {token!r} is also the name of a file or folder of "
            "the repository: espnet_model_zoo 0.1.7 (Python 3.10, 3.11) changes the "
            "token list when it downloads; newer ones do not (docs/sharing.md)"
        )


def upload(run: Run) -> None:
    """Stage 15: upload the packed model (only with ``--skip_upload_hf false``).

    It uploads the unpacked files of the archive, as ``espnet_model_zoo`` needs them,
    and ``README.md``.

    Raises:
        UserError: The packed model or the token is missing, or the upload failed.
    """
    check(run)
    repo = run.options.hf_repo
    packed = read_packed(archive_path(run))
    check_portable(packed)
    warn_of_path_tokens(packed)
    # The folder of ESPnet's own stage 15.
    folder = Path(run.options.expdir) / f"hf_{repo.replace('/', '_')}"
    require_space(folder, packed.size, "stage 15 (the unpacked model)")
    with zipfile.ZipFile(packed.archive) as opened:
        opened.extractall(folder)
    for name in (*packed.config_files.values(), *_results(packed)):
        _make_publishable(folder / name)
    card = folder / "README.md"
    decoding = model_card.decoding_options(
        run.options.inference_config, run.options.inference_args
    )
    write_text(card, model_card.build(repo, packed, folder, decoding))
    log(
        f"stage 15: uploading {len(packed.members) + 1} files "
        f"({packed.size / 2**20:.1f} MiB) to {repo}; the model card is {card}"
    )
    names = [*packed.members, "README.md"]
    address = hub.upload(
        repo,
        {name: folder / name for name in names},
        f"{packed.archive.stem}, uploaded by espnet-cif-hkd {__version__}",
        run.options.hf_private,
    )
    log(f"stage 15: the model is at {address}")


def _results(packed: Packed) -> list[str]:
    return [name for name in packed.members if name.endswith("RESULTS.md")]


def _make_publishable(file: Path) -> None:
    """Remove local paths and credentials from a configuration or a page."""
    text = file.read_text(encoding="utf-8")
    if file.suffix == ".md":
        changed = publishable(text)
    else:
        config = yaml.safe_load(text)
        cleaned = publishable_config(config)
        if cleaned == config:
            return
        changed = yaml.safe_dump(cleaned, sort_keys=False, allow_unicode=True)
    write_text(file, changed)
