"""ESPnet's ASR task for audio without transcripts."""

import argparse
from collections.abc import Callable, Sequence
from typing import Any

from espnet2.tasks.asr import ASRTask

from espnet_cif_hkd.errors import UserError
from espnet_cif_hkd.plugin.preflight import check_arguments
from espnet_cif_hkd.plugin.registration import register

# ESPnet's task builds a CTC layer of this size, which model: pretrain does not use.
_TOKENS = ["<blank>", "<unk>", "<sos/eos>"]


class PretrainTask(ASRTask):  # type: ignore[misc]
    """ESPnet's ASR task for ``model: pretrain``: only ``speech`` is required.

    It has the options of ``espnet2.bin.asr_train``. A token list is not required, and
    ``text`` is not read into the batches.
    """

    @classmethod
    def add_task_arguments(cls, parser: argparse.ArgumentParser) -> None:
        """Add the options of the ASR task."""
        super().add_task_arguments(parser)
        parser.get_default("required").remove("token_list")
        parser.set_defaults(model="pretrain")

    @classmethod
    def required_data_names(
        cls, train: bool = True, inference: bool = False
    ) -> tuple[str, ...]:
        """Return the names of required data: ``speech``."""
        return ("speech",)

    @classmethod
    def optional_data_names(
        cls, train: bool = True, inference: bool = False
    ) -> tuple[str, ...]:
        """Return the names of data that may be given: ``text``."""
        return ("text",)

    @classmethod
    def build_preprocess_fn(
        cls, args: argparse.Namespace, train: bool
    ) -> Callable[[str, dict[str, Any]], dict[str, Any]]:
        """Return ESPnet's preprocessor without a tokenizer."""
        changes = {"token_type": None, "token_list": None, "bpemodel": None}
        speech = argparse.Namespace(**{**vars(args), **changes})
        return _WithoutText(super().build_preprocess_fn(speech, train))

    @classmethod
    def build_model(cls, args: argparse.Namespace) -> Any:
        """Build the model.

        Raises:
            UserError: The configuration has another model.
        """
        if args.model != "pretrain":
            raise UserError(
                f"model: {args.model} cannot train without transcripts; set 'model: "
                "pretrain', or use espnet2.bin.asr_train"
            )
        if args.token_list is None:
            args.token_list = list(_TOKENS)
        return super().build_model(args)

    @classmethod
    def main(
        cls, args: argparse.Namespace | None = None, cmd: Sequence[str] | None = None
    ) -> None:
        """Check the arguments, then train."""
        register()
        if args is None:
            args = cls.get_parser().parse_args(cmd)
        check_arguments(args)
        super().main(args=args)

    @classmethod
    def main_worker(cls, args: argparse.Namespace) -> None:
        """Train in this process, which ESPnet may have spawned."""
        register()
        super().main_worker(args)


class _WithoutText:
    """A preprocessor for audio; it removes texts."""

    def __init__(self, preprocess: Any) -> None:
        self._preprocess = preprocess

    def __call__(self, uid: str, data: dict[str, Any]) -> dict[str, Any]:
        data = {name: value for name, value in data.items() if name != "text"}
        return data if self._preprocess is None else self._preprocess(uid, data)
