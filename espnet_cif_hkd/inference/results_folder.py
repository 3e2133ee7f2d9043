"""A folder of results: complete files only, none of other options, none twice."""

import contextlib
import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from espnet_cif_hkd.errors import UserError
from espnet_cif_hkd.inference.inputs import Recording
from espnet_cif_hkd.inference.recognition import Recognition
from espnet_cif_hkd.inference.writers import Output
from espnet_cif_hkd.io.atomic import write_text

# The options that made the results; lines of tables before they are joined; states of
# long recordings.
_STAMP, _LINES, _STATES = ".espnet-cif.json", ".lines", ".states"


class ResultsFolder:
    """Writes results into a folder.

    Args:
        folder: The folder; made with the first result.
        outputs: The files of a recording.
        made_by: Everything that changes a result, such as the model; JSON values.
        overwrite: Write again what exists.
    """

    def __init__(
        self,
        folder: Path,
        outputs: Sequence[Output],
        made_by: Mapping[str, Any],
        overwrite: bool = False,
    ) -> None:
        self.folder, self.outputs, self.overwrite = folder, outputs, overwrite
        self.made_by = dict(made_by)

    def remaining(self, all_of: Sequence[Recording]) -> list[Recording]:
        """Return the recordings without complete results.

        Results that are older than the recording do not count.

        Raises:
            UserError: Results of other options exist.
        """
        if self.overwrite:
            return list(all_of)
        left = [one for one in all_of if not self._is_done(one)]
        if len(left) < len(all_of):
            self._check_stamp()
        return left

    def __call__(self, one: Recording, found: Recognition) -> None:
        """Write the results of a recording; a file appears when it is complete.

        Raises:
            UserError: A file cannot be written.
        """
        texts = [output.write(found, one.name) for output in self.outputs]
        try:
            stamp = json.dumps(self.made_by) + "\n"
            if not _has(self.folder / _STAMP, stamp):
                write_text(self.folder / _STAMP, stamp)
            for output, text in zip(self.outputs, texts):
                write_text(self._path(output, one), text)
        except OSError as error:
            raise self._unwritable(error) from error

    def state(self, one: Recording) -> Path:
        """Return the file for the state of a long recording.

        Another content of the recording or other options have another file.
        """
        found = one.path.stat()
        made = [one.name, str(one.path.resolve()), found.st_size, found.st_mtime_ns]
        digest = hashlib.sha256(json.dumps([made, self.made_by]).encode())
        path = self.folder / _STATES / f"{digest.hexdigest()[:32]}.npz"
        if self.overwrite:
            path.unlink(missing_ok=True)
        return path

    def join(self) -> None:
        """Write the files that all recordings share, sorted by line; tidy up.

        Raises:
            UserError: A file cannot be written.
        """
        with contextlib.suppress(OSError):  # absent, or a recording failed
            (self.folder / _STATES).rmdir()
        for output in (output for output in self.outputs if output.joined):
            parts = self.folder.joinpath(_LINES, output.path).rglob("*")
            try:
                lines = [
                    line
                    for part in parts
                    if part.is_file() and not part.name.startswith(".")
                    for line in part.read_text(encoding="utf-8").splitlines(True)
                ]
                if lines:
                    lines.sort(key=lambda line: line.split(" ", 1)[0].encode())
                    write_text(self.folder / output.path, "".join(lines))
            except OSError as error:
                raise self._unwritable(error) from error

    def _path(self, output: Output, one: Recording) -> Path:
        if output.joined:
            return self.folder / _LINES / output.path / f"{one.name}.line"
        return self.folder / output.path.replace("{name}", one.name)

    def _is_done(self, one: Recording) -> bool:
        try:
            made = one.path.stat().st_mtime_ns
            paths = (self._path(output, one) for output in self.outputs)
            return all(path.stat().st_mtime_ns >= made for path in paths)
        except OSError:
            return False

    def _check_stamp(self) -> None:
        path = self.folder / _STAMP
        try:
            known = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            known = {}
        # An option of the results that is not given any more is None.
        for name, value in {**dict.fromkeys(known), **self.made_by}.items():
            before = known.get(name, "unknown")
            if before != value:
                raise UserError(
                    f"{self.folder} has results with {name} {before!r}, now it is "
                    f"{value!r}: give another -o, or --overwrite"
                )

    def _unwritable(self, error: OSError) -> UserError:
        place = error.filename or self.folder
        return UserError(
            f"{place}: cannot be written ({error.strerror}): free space or name "
            "another folder by -o, and run the same command again: it continues"
        )


def _has(path: Path, content: str) -> bool:
    try:
        return path.read_text(encoding="utf-8") == content
    except (OSError, ValueError):
        return False
