"""The stages of a recipe of ESPnet 3, with our checks, teachers and tokens."""

import argparse
import copy
import inspect
import logging
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from espnet3.systems.esp2_asr.system import ASRSystem as ESPnetASRSystem
from espnet3.systems.launch import launch
from espnet3.utils.config_utils import load_default_config
from espnet3.utils.task_utils import get_task_class
from hydra.utils import get_class
from omegaconf import DictConfig, OmegaConf

from espnet_cif_hkd.errors import UserError
from espnet_cif_hkd.io.atomic import replacing, write_text
from espnet_cif_hkd.io.tables import read_text, write_table
from espnet_cif_hkd.plugin.preflight import check_training
from espnet_cif_hkd.recipe.checks.criteria import check_criteria, check_frontend
from espnet_cif_hkd.recipe.hooks import fill_teachers
from espnet_cif_hkd.recipe.options import Options
from espnet_cif_hkd.recipe.share.published import publishable, publishable_config
from espnet_cif_hkd.recipe.stages.tokens import read_token_list, write_vocabulary

PARTS = "espnet_cif_hkd.plugin.espnet3"
TEMPLATE = "egs3.TEMPLATE.esp2_asr"  # ESPnet's default configurations
# The units that ESPnet's command counts; sentencepiece makes all others.
_COUNTED = ("char", "word")


def run(argv: Sequence[str] | None = None) -> None:
    """Run the stages that the command line names.

    Raises:
        UserError: An option, a file or a teacher is wrong.
    """
    # ESPnet logs the traceback of every error of a stage.
    logging.getLogger("espnet3").addFilter(_without_traceback)
    launch(ASRSystem, conf_package=TEMPLATE, argv=argv)


def _without_traceback(record: logging.LogRecord) -> bool:
    """Remove the traceback of a user's error, whose line run.py prints."""
    if record.exc_info and isinstance(record.exc_info[1], UserError):
        record.exc_info = None
    return True


class ASRSystem(ESPnetASRSystem):
    """ESPnet 3's stages for our models.

    Added to ESPnet's: options of criteria and teachers are checked before the first
    stage that needs them; stores of teachers are filled before the training; character
    and word lists as in ``egs2``; the names of utterances and the weights of batches as
    with ESPnet 2; the token list is part of ``config.yaml``.
    """

    training_config: Any  # a DictConfig

    def __init__(self, training_config: DictConfig | None = None, **configs: Any):
        if training_config is not None:
            training_config = with_our_parts(training_config)
        super().__init__(training_config=training_config, **configs)

    def create_dataset(self, *args: Any, **kwargs: Any) -> None:
        """Check the configuration, then run ``local/data.sh``."""
        self._check(None)
        super().create_dataset(*args, **kwargs)

    def train_tokenizer(self, *args: Any, **kwargs: Any) -> None:
        """Write ``tokens.txt``: as stage 5 for ``char`` and ``word``, else ESPnet's."""
        tokenizer = self.training_config.tokenizer
        if tokenizer.model_type not in _COUNTED:
            super().train_tokenizer(*args, **kwargs)
            return
        self._reject_stage_args("train_tokenizer", args, kwargs)
        if self._has_tokenizer():
            return
        target = Path(tokenizer.save_path) / "tokens.txt"
        texts: dict[str, str] = {}
        for folder in self._folders("train"):
            texts.update(read_text(folder / "text"))
        with tempfile.TemporaryDirectory() as scratch, replacing(target) as part:
            text = Path(scratch) / "text"
            write_table(text, texts)
            write_vocabulary(text, part, Options(token_type=tokenizer.model_type))
            read_token_list(part)

    def _has_tokenizer(self) -> bool:
        tokenizer = self.training_config.tokenizer
        if tokenizer.model_type in _COUNTED:
            return (Path(tokenizer.save_path) / "tokens.txt").is_file()
        return bool(super()._has_tokenizer())

    def collect_stats(self, *args: Any, **kwargs: Any) -> None:
        """Compute statistics; the configuration stays as it was for later stages."""
        self._check(self._tokens())
        kept = copy.deepcopy(self.training_config)
        try:
            super().collect_stats(*args, **kwargs)
        finally:
            # ESPnet removes the normalisation, which the training needs.
            self.training_config = kept

    def train(self, *args: Any, **kwargs: Any) -> None:
        """Fill the stores of teachers, then train."""
        if not self._has_tokenizer():
            self.train_tokenizer()
        tokens = self._tokens()
        self._check(tokens)
        config = self.training_config
        options = OmegaConf.to_container(config.model, resolve=True)
        preprocessor = OmegaConf.to_container(config.dataset, resolve=True).get(
            "preprocessor"
        )
        fill_teachers(
            options,
            f"{config.exp_tag}.yaml",
            {
                "token_list": tokens,
                "token_type": self._token_type(),
                "bpemodel": (preprocessor or {}).get("bpemodel"),
            },
            [*self._folders("train"), *self._folders("valid")],
            Path(config.exp_dir),
        )
        # So that config.yaml needs no other file.
        config.model.token_list = tokens
        if preprocessor is not None and "token_list" in preprocessor:
            config.dataset.preprocessor.token_list = tokens
        super().train(*args, **kwargs)

    def infer(self, *args: Any, **kwargs: Any) -> None:
        """Check that the model is there, then decode."""
        model = self.inference_config.model
        for key in ("asr_train_config", "asr_model_file"):
            path = Path(self.inference_config.recipe_dir, model.get(key) or ".")
            if not path.exists():
                there = sorted(one.name for one in path.parent.glob("*.pth"))
                raise UserError(
                    f"model.{key}: {path} does not exist: run the stage train, or name "
                    f"another file; in this folder: {', '.join(there) or 'no model'}"
                )
        super().infer(*args, **kwargs)

    def pack_model(self, *args: Any, **kwargs: Any) -> Path:
        """Pack the model; local paths and secrets are removed from card and options."""
        folder = Path(super().pack_model(*args, **kwargs))
        for path in folder.rglob("*.yaml"):
            conf = yaml.safe_load(path.read_text(encoding="utf-8"))
            text = yaml.safe_dump(
                publishable_config(conf), allow_unicode=True, sort_keys=False
            )
            write_text(path, text)
        # --write_requirements names packages that were installed from a folder.
        for path in [*folder.rglob("*.md"), *folder.rglob("requirements*.txt")]:
            write_text(path, publishable(path.read_text(encoding="utf-8")))
        return folder

    def _tokens(self) -> list[str]:
        return read_token_list(
            Path(self.training_config.tokenizer.save_path) / "tokens.txt"
        )

    def _token_type(self) -> str:
        kind = self.training_config.tokenizer.model_type
        return str(kind) if kind in _COUNTED else "bpe"

    def _folders(self, part: str) -> list[Path]:
        """Return the Kaldi folders of a part of the data."""
        found = []
        for entry in self.training_config.dataset.get(part) or []:
            folder = (entry.get("data_src_args") or {}).get("folder")
            if folder is None:
                raise UserError(
                    f"dataset.{part} has an entry without data_src_args.folder: name "
                    "the Kaldi folder with its transcripts"
                )
            found.append(Path(self.training_config.recipe_dir, folder))
        return found

    def _check(self, tokens: list[str] | None) -> None:
        """Check criteria, teachers and the frontend.

        Raises:
            UserError: One of them is wrong.
        """
        config = self.training_config
        task = get_task_class(config.task)
        options = OmegaConf.to_container(config.model, resolve=True)
        args = argparse.Namespace(
            **{**vars(task.get_parser().parse_args([])), **options}
        )
        source = f"{config.exp_tag}.yaml"
        check_frontend(args)
        check_training(args)
        check_criteria(args, tokens, self._token_type(), source)


def drop_defaults(conf: DictConfig, defaults: DictConfig) -> None:
    """Remove ESPnet's defaults for another class, such as warm-up steps.

    ESPnet merges its options of a scheduler with those of any other scheduler.

    Args:
        conf: A class in ``_target_`` and its options.
        defaults: ESPnet's class and options.
    """
    if conf.get("_target_") == defaults.get("_target_"):
        return
    known = inspect.signature(get_class(conf["_target_"])).parameters
    for key, value in defaults.items():
        if key not in known and key != "_target_" and conf.get(key) == value:
            del conf[key]


def with_our_parts(config: DictConfig) -> DictConfig:
    """Return a training configuration with our batches and our callback.

    They replace ESPnet's collate function, not one of the user's.
    """
    config = copy.deepcopy(config)
    OmegaConf.set_struct(config, False)
    template = load_default_config("training.yaml", TEMPLATE)
    for part in ("optimizer", "scheduler"):
        if config.get(part):
            drop_defaults(config[part], template[part])
    loader = config.get("dataloader")
    if loader is None:
        return config
    common = "espnet2.train.collate_fn.CommonCollateFn"
    ours = {"_target_": f"{PARTS}.CollateFn", "_convert_": "all"}
    if (loader.get("collate_fn") or {}).get("_target_", common) == common:
        # ESPnet's statistics take tensors only.
        loader.collate_fn = {**ours, "names": False}
        for part in ("train", "valid"):
            if (loader.get(part) or {}).get("iter_factory"):
                loader[part].iter_factory.collate_fn = {**ours, "names": True}
    callbacks = list(config.trainer.get("callbacks") or [])
    config.trainer.callbacks = [
        *callbacks,
        {"_target_": f"{PARTS}.TrainingCallback", "_convert_": "all"},
    ]
    return config
