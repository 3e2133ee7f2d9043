"""Fill the stores of a configuration's criteria from Kaldi text files.

Stores of speech teachers: :mod:`espnet_cif_hkd.distill.speech_filling`.
"""

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from espnet_cif_hkd.distill.choices import Configured, configured
from espnet_cif_hkd.distill.criterion import Sentences
from espnet_cif_hkd.errors import UserError

# Options of ESPnet's preprocessor by the name that its commands give them.
_TOKEN_OPTIONS = {
    "token_type": "token_type",
    "bpemodel": "bpemodel",
    "text_cleaner": "cleaner",
    "g2p_type": "g2p",
    "non_linguistic_symbols": "non_linguistic_symbols",
}


def stores(model_conf: Mapping[str, Any]) -> list[tuple[Configured, str]]:
    """Return the criteria with a store for texts, with each of its folders."""
    return [
        (item, folder)
        for item in configured(model_conf)
        if not item.cls.speech_teachers(item.conf)
        for folder in item.cls.stores(item.conf)
    ]


def fill_stores(
    config: Mapping[str, Any],
    source: str,
    token_options: Mapping[str, Any],
    texts: Sequence[Path],
    folder: str | None = None,
    device: str = "auto",
    shard_mib: float = 64,
) -> None:
    """Store the targets of all sentences for each criterion that has a store.

    ESPnet's preprocessor splits the texts into tokens, as in the training, which looks
    sentences up by their token ids. A second call adds only missing sentences.

    Args:
        config: A training configuration; the keys ``model_conf``, ``preprocessor`` and
            ``preprocessor_conf`` are used.
        source: File of the configuration, for messages.
        token_options: ``token_list`` (tokens or a file of them), ``token_type``,
            ``bpemodel``, ``cleaner``, ``g2p`` and ``non_linguistic_symbols``, as
            ``asr_train`` takes them.
        texts: Kaldi text files, that of the training first.
        folder: The store to fill, by default that of the configuration. Only for a
            configuration with one criterion.
        device: ``auto``, or the name of a torch device.
        shard_mib: Approximate size of one file of a store, in MiB.

    Raises:
        UserError: An option or a file is wrong.
    """
    items = [
        item
        for item in configured(config.get("model_conf") or {})
        if not item.cls.speech_teachers(item.conf)
    ]
    if not items:
        raise UserError(
            f"{source}: model_conf names no criterion with a text teacher; name a "
            "configuration with a criterion, such as criterion: hkd"
        )
    places = stores(config.get("model_conf") or {})
    if folder and (len(items) != 1 or len(places) > 1):
        raise UserError(
            f"{source}: --store fits only one criterion with one store, not "
            f"{max(len(items), len(places))}"
        )
    if folder:
        places = [(items[0], folder)]
    if not places:
        raise UserError(
            f"{source}: criterion_conf.teacher_store is not set; set it, or use --store"
        )
    for text in texts:
        if not text.is_file():
            raise UserError(f"{text}: this text file does not exist")
    options = preprocessor_options(token_options)
    if config.get("preprocessor", "default") != "default":
        raise UserError(
            f"{source}: preprocessor {config['preprocessor']} is not supported here; "
            "use teacher_store: null"
        )

    import torch
    from espnet2.train.preprocessor import CommonPreprocessor

    preprocessor = CommonPreprocessor(
        train=False, **options, **(config.get("preprocessor_conf") or {})
    )

    def utterances(path: Path) -> Iterator[tuple[str, Sequence[int]]]:
        for name, text in _read_utterances(path):
            yield name, preprocessor("text", {"text": text})["text"].tolist()

    def sequences() -> Iterator[Sequence[int]]:
        return (ids for path in texts for _, ids in utterances(path))

    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    sentences = Sentences(
        sequences,
        options["token_list"],
        options["token_type"],
        torch.device(device),
        int(shard_mib * 2**20),
        {str(path): partial(utterances, path) for path in texts},
    )
    for item, place in places:
        with item.naming():
            item.cls.fill(item.conf, place, sentences)


def read_sentences(paths: Sequence[Path]) -> Iterator[str]:
    """Yield the transcripts of Kaldi text files, as ESPnet reads them.

    Raises:
        UserError: A file cannot be read.
    """
    for path in paths:
        for _, text in _read_utterances(path):
            yield text


def _read_utterances(path: Path) -> Iterator[tuple[str, str]]:
    """Yield the names and transcripts of a Kaldi text file.

    Raises:
        UserError: The file cannot be read.
    """
    try:
        with open(path, encoding="utf-8") as f:
            for line in f:
                name, *text = line.rstrip().split(maxsplit=1) or [""]
                yield name, text[0] if text else ""
    except (OSError, UnicodeDecodeError) as e:
        raise UserError(f"{path}: cannot be read ({e})") from e


def preprocessor_options(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options of ESPnet's preprocessor; see :func:`fill_stores`.

    Raises:
        UserError: An option is missing or names a file that cannot be read.
    """

    def option(name: str) -> Any:
        value = given.get(name)
        return None if str(value).lower() in ("none", "null", "nil", "") else value

    token_list = option("token_list")
    if token_list is None:
        raise UserError("--token_list is needed with --asr_config")
    if isinstance(token_list, (str, Path)):
        try:
            # The same reading as in ESPnet's ASR task.
            with open(token_list, encoding="utf-8") as f:
                token_list = [line.rstrip() for line in f]
        except (OSError, UnicodeDecodeError) as e:
            raise UserError(f"{token_list}: cannot be read ({e})") from e
    if "<unk>" not in token_list:
        raise UserError("the token list has no <unk>; name ESPnet's tokens.txt")
    options = {name: option(ours) for name, ours in _TOKEN_OPTIONS.items()}
    token_type, bpemodel = options["token_type"], options["bpemodel"]
    if token_type is None:
        raise UserError("--token_type is needed: char, bpe, word or hugging_face")
    if token_type in ("bpe", "hugging_face") and bpemodel is None:
        raise UserError(f"--bpemodel is needed for --token_type {token_type}")
    if token_type == "bpe" and not Path(bpemodel).is_file():
        raise UserError(f"--bpemodel {bpemodel}: this file does not exist")
    return {"token_list": token_list, **options}
