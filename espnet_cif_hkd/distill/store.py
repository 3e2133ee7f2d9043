"""Teacher vectors on disk, found by the token ids of a sentence.

A store is a folder: ``header.json`` says whose vectors these are, and each
``shard-NNNNN.bin`` holds some sentences: a magic line, then three arrays in NumPy's
own format: keys (S,) sorted 16-byte hashes, starts (S + 1,) int64 rows, features
(R, C) float16. A shard is complete from the moment when it has its name. Reading
maps the files into memory, so that its use does not grow with the corpus.
"""

import hashlib
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from torch import Tensor

from espnet_cif_hkd.distill.teacher import TeacherConfig, layer_index
from espnet_cif_hkd.distill.units import TokenSpeller, infer_token_type
from espnet_cif_hkd.errors import UserError

FORMAT = 1
KEY_BYTES = 16
_KEY = np.dtype(f"S{KEY_BYTES}")
_MAGIC = b"espnet_cif_hkd shard 1\n"
_HEADER = "header.json"


def sequence_key(ids: Sequence[int]) -> bytes:
    """16-byte BLAKE2b hash of a token id sequence (as little-endian int32)."""
    data = np.asarray(ids, dtype="<i4").tobytes()
    return hashlib.blake2b(data, digest_size=KEY_BYTES).digest()


def token_list_hash(token_list: Sequence[str]) -> str:
    """Hash of the tokens in their order."""
    data = "\n".join(token_list).encode("utf-8", errors="surrogatepass")
    return hashlib.blake2b(data, digest_size=KEY_BYTES).hexdigest()


@dataclass(frozen=True)
class StoreHeader:
    """What the vectors of a store are; ``layer`` counts from the embedding."""

    format: int
    teacher: str
    revision: str | None
    dim: int
    layer: int
    num_layers: int
    dtype: str
    case: str
    token_type: str
    n_tokens: int
    token_list: str
    fingerprint: str

    @classmethod
    def read(cls, folder: Path) -> "StoreHeader":
        """Header of the store in ``folder``.

        Raises:
            UserError: there is none, or it is damaged or of another format.
        """
        path = folder / _HEADER
        try:
            values: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError as e:
            raise UserError(
                f"teacher_store {folder}: there is no {_HEADER} in it; {_dump_hint()}"
            ) from e
        except (OSError, ValueError) as e:
            raise UserError(
                f"{path}: cannot be read ({e}); delete the store and dump it anew"
            ) from e
        if values.get("format") != FORMAT:
            raise UserError(
                f"{path}: format {values.get('format')} is not {FORMAT}, the one this "
                "version reads; delete the store and dump it anew"
            )
        try:
            return cls(**values)
        except TypeError as e:
            raise UserError(f"{path}: {e}; delete the store and dump it anew") from e

    def write(self, folder: Path) -> None:
        """Write the header; it appears whole or not at all."""
        text = json.dumps(asdict(self), indent=2, ensure_ascii=False) + "\n"
        write_atomically(folder / _HEADER, lambda f: f.write(text.encode()))


def header_for(
    config: TeacherConfig,
    token_list: Sequence[str],
    token_type: str | None,
    num_layers: int,
    fingerprint: str,
) -> StoreHeader:
    """Header of a store of this teacher for this token list."""
    return StoreHeader(
        format=FORMAT,
        teacher=config.name,
        revision=config.revision,
        dim=config.dim,
        layer=layer_index(config, num_layers),
        num_layers=num_layers,
        dtype=config.dtype,
        case=config.case,
        token_type=token_type or infer_token_type(token_list),
        n_tokens=len(token_list),
        token_list=token_list_hash(token_list),
        fingerprint=fingerprint,
    )


def check_header(
    folder: Path,
    header: StoreHeader,
    config: TeacherConfig,
    token_list: Sequence[str],
    token_type: str | None,
    fingerprint: str | None = None,
) -> None:
    """Refuse a store that was made for something else.

    Args:
        folder, header: the store.
        config, token_list, token_type: what is asked for.
        fingerprint: of the opened teacher, where it is opened.

    Raises:
        UserError: names what differs.
    """
    wanted = header_for(
        config, token_list, token_type, header.num_layers, header.fingerprint
    )
    names = {
        "teacher": "teacher",
        "revision": "teacher_revision",
        "dim": "teacher_dim",
        "layer": "layer",
        "dtype": "teacher_dtype",
        "case": "case",
        "token_type": "token type",
    }
    mend = "correct the configuration, or dump into another folder"
    for field, name in names.items():
        made, asked = getattr(header, field), getattr(wanted, field)
        if made != asked:
            if field == "layer":
                asked = config.layer
            raise UserError(
                f"teacher_store {folder}: made for {name} {made}, but the "
                f"configuration asks for {asked}; {mend}"
            )
    if header.token_list != wanted.token_list:
        raise UserError(
            f"teacher_store {folder}: made for another token list ({header.n_tokens} "
            f"tokens, this one has {wanted.n_tokens}); {mend}"
        )
    if fingerprint is not None and header.fingerprint != fingerprint:
        raise UserError(
            f"teacher_store {folder}: made with other weights or another tokenizer "
            f"than {config.name} has now; dump into another folder"
        )


def write_atomically(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """Write a file that is complete as soon as it has its name.

    Raises:
        OSError: as the system's; nothing of the file is left.
    """
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        with open(temporary, "wb") as f:
            write(f)
            f.flush()
            os.fsync(f.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    # The new name itself is durable only once the folder is written.
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


class Shard:
    """One file of a store, mapped into memory."""

    def __init__(self, path: Path, dim: int):
        self.path = path
        try:
            with open(path, "rb") as f:
                if f.read(len(_MAGIC)) != _MAGIC:
                    raise ValueError("it does not begin as a shard does")
                self._keys = _map_array(f, path, _KEY)
                self._starts = _map_array(f, path, np.dtype("<i8"))
                self._features = _map_array(f, path, np.dtype("<f2"))
                rest = f.read(1)
            rows = int(self._starts[-1])
            if rest or self._features.shape != (rows, dim):
                raise ValueError(f"it does not hold {rows} vectors of width {dim}")
        except (OSError, ValueError, EOFError, IndexError) as e:
            raise UserError(
                f"{path}: this shard is damaged ({e}); delete it and {_dump_hint()}"
            ) from e

    def __len__(self) -> int:
        return len(self._keys)

    @property
    def n_rows(self) -> int:
        """Vectors in the shard."""
        return len(self._features)

    def find(self, keys: np.ndarray) -> np.ndarray:
        """For each of ``keys`` (n,) its place in this shard, or -1."""
        if not len(self._keys):
            return np.full(len(keys), -1)
        places = np.searchsorted(self._keys, keys)
        places = np.minimum(places, len(self._keys) - 1)
        return np.where(self._keys[places] == keys, places, -1)

    def rows(self, place: int) -> np.ndarray:
        """(U + 1, C) float16 vectors of a sentence."""
        return self._features[self._starts[place] : self._starts[place + 1]]

    @staticmethod
    def write(
        path: Path, keys: Sequence[bytes], features: Sequence[np.ndarray]
    ) -> None:
        """Write sentences, each with its key and (U + 1, C) float16 vectors."""
        order = sorted(range(len(keys)), key=keys.__getitem__)
        starts = np.zeros(len(keys) + 1, dtype="<i8")
        np.cumsum([len(features[n]) for n in order], out=starts[1:])

        def write(f: BinaryIO) -> None:
            f.write(_MAGIC)
            _write_array(f, np.array([keys[n] for n in order], dtype=_KEY))
            _write_array(f, starts)
            rows = np.concatenate([features[n] for n in order])
            _write_array(f, rows.astype("<f2", copy=False))

        write_atomically(path, write)


def _write_array(f: BinaryIO, array: np.ndarray) -> None:
    """Like ``np.save``, whose error on a full disk carries no error number."""
    array = np.ascontiguousarray(array)
    np.lib.format.write_array_header_1_0(
        f, np.lib.format.header_data_from_array_1_0(array)
    )
    f.write(array.view(np.uint8).data)


def _map_array(f: BinaryIO, path: Path, dtype: np.dtype[Any]) -> np.ndarray:
    """Map the array that begins at the file's position and step over it."""
    if np.lib.format.read_magic(f) != (1, 0):
        raise ValueError("an array of it has another format")
    shape, _, found = np.lib.format.read_array_header_1_0(f)
    if found != dtype:
        raise ValueError(f"an array of it is {found}, not {dtype}")
    start = f.tell()
    size = int(np.prod(shape)) * dtype.itemsize
    if os.path.getsize(path) < start + size:
        raise ValueError("its end is missing")
    f.seek(size, os.SEEK_CUR)
    # An empty array cannot be mapped.
    if not size:
        return np.empty(shape, dtype)
    return np.memmap(path, dtype=dtype, mode="r", offset=start, shape=shape)


class StoreReader:
    """All shards of a store."""

    def __init__(self, folder: Path, dim: int):
        self.shards = [Shard(path, dim) for path in shard_paths(folder)]

    def find(self, keys: Sequence[bytes]) -> list[tuple[int, int] | None]:
        """For each key its shard and its place there, or None."""
        wanted = np.array(keys, dtype=_KEY)
        found: list[tuple[int, int] | None] = [None] * len(keys)
        for number, shard in enumerate(self.shards):
            for n, place in enumerate(shard.find(wanted).tolist()):
                if place >= 0:
                    found[n] = (number, place)
        return found

    def rows(self, place: tuple[int, int]) -> np.ndarray:
        """(U + 1, C) float16 vectors of a sentence that was found."""
        return self.shards[place[0]].rows(place[1])


def shard_paths(folder: Path) -> list[Path]:
    """The complete shards of a store, in the order of their numbers."""
    return sorted(folder.glob("shard-*.bin"))


class StoredTeacher:
    """A :class:`~espnet_cif_hkd.distill.teacher.Teacher` that reads a store.

    Args:
        folder: the store.
        config: the teacher that it must have been made for.
        token_list: of the ASR model.
        token_type: of the ASR model; None infers it.
    """

    def __init__(
        self,
        folder: str,
        config: TeacherConfig,
        token_list: Sequence[str],
        token_type: str | None = None,
    ):
        self.folder = Path(folder)
        self.config = config
        self.token_list = list(token_list)
        self.token_type = token_type
        self._reader: StoreReader | None = None

    def __getstate__(self) -> dict[str, Any]:
        # Maps of files do not travel to other processes.
        return {**self.__dict__, "_reader": None}

    def open(self) -> StoreReader:
        """Open the store unless it is open.

        Raises:
            UserError: it is missing, damaged or made for something else.
        """
        if self._reader is None:
            header = StoreHeader.read(self.folder)
            check_header(
                self.folder, header, self.config, self.token_list, self.token_type
            )
            self._reader = StoreReader(self.folder, header.dim)
        return self._reader

    def features(
        self, sequences: Sequence[Sequence[int]], device: torch.device
    ) -> Tensor:
        """See :class:`~espnet_cif_hkd.distill.teacher.Teacher`.

        Raises:
            UserError: a sentence is not in the store.
        """
        reader = self.open()
        parts = [np.zeros((0, self.config.dim), dtype=np.float16)]
        places = reader.find([sequence_key(ids) for ids in sequences])
        for ids, place in zip(sequences, places, strict=True):
            if place is None:
                speller = TokenSpeller(self.token_list, self.token_type, "<unk>")
                raise UserError(
                    f"teacher_store {self.folder}: has no vectors for the sentence "
                    f"{speller(ids).text!r}; {_dump_hint()}"
                )
            parts.append(reader.rows(place))
        return torch.from_numpy(np.concatenate(parts)).to(device).float()


def _dump_hint() -> str:
    return (
        "run: python3 -m espnet_cif_hkd.bin.dump_teacher with the texts of training "
        "and validation (it adds what is missing)"
    )
