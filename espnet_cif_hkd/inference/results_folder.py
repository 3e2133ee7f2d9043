"""A folder of results: complete files only, none of other options, none twice."""

import contextlib
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from espnet_cif_hkd.errors import UserError
from espnet_cif_hkd.inference.inputs import Recording
from espnet_cif_hkd.inference.recognition import Recognition
from espnet_cif_hkd.inference.writers import Output
from espnet_cif_hkd.io.atomic import write_text

# The options that made the results; the same of each recording, as a digest; lines of
# tables before they are joined; states of long recordings.
_STAMP, _MADE, _LINES, _STATES = ".espnet-cif.json", ".made", ".lines", ".states"


class ResultsFolder:
    """Writes results into a folder.

    Args:
        folder: The folder; made with the first result.
        outputs: The files of a recording.
        made_by: Everything that changes a result, such as the model; JSON values.
        overwrite: Write again what exists.
        details: Everything else that changes the result of a recording, such as its
            text; if it is another one now, the recording is not complete.
    """

    def __init__(
        self,
        folder: Path,
        outputs: Sequence[Output],
        made_by: Mapping[str, Any],
        overwrite: bool = False,
        details: Callable[[Recording], Any] | None = None,
    ) -> None:
        self.folder, self.outputs, self.overwrite = folder, outputs, overwrite
        self.made_by, self._details = dict(made_by), details
        self._ours = _digest(self.made_by)

    def remaining(self, all_of: Sequence[Recording]) -> list[Recording]:
        """Return the recordings without complete results.

        Results that are older than the recording do not count.

        Raises:
            UserError: Results of other options exist.
        """
        if self.overwrite:
            return list(all_of)
        if (self.folder / _STAMP).exists():
            self._check_stamp()
        return [one for one in all_of if not self._is_done(one)]

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
            write_text(self.folder / _MADE / one.name, self._made(one))
        except OSError as error:
            raise self._unwritable(error) from error

    def state(self, one: Recording) -> Path:
        """Return the file for the state of a long recording.

        Another content of the recording or other options have another file.
        """
        found = one.path.stat()
        made = [one.name, str(one.path.resolve()), found.st_size, found.st_mtime_ns]
        path = self.folder / _STATES / f"{_digest([made, self._made(one)])}.npz"
        if self.overwrite:
            path.unlink(missing_ok=True)
        return path

    def join(self) -> None:
        """Write the files that all recordings share, sorted by line; tidy up.

        Lines of another model or of other options are left out.

        Raises:
            UserError: A file cannot be written.
        """
        with contextlib.suppress(OSError):  # absent, or a recording failed
            (self.folder / _STATES).rmdir()
        for output in (output for output in self.outputs if output.joined):
            top = self.folder / _LINES / output.path
            try:
                lines = [
                    line
                    for part in top.rglob("*.line")
                    if not part.name.startswith(".")
                    and self._is_ours(
                        self._known(str(part.relative_to(top))[: -len(".line")])
                    )
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
            if any(path.stat().st_mtime_ns < made for path in paths):
                return False
        except OSError:
            return False
        known = self._known(one.name)
        if not self._is_ours(known):
            raise UserError(
                f"{self.folder} has results of {one.name} of another model or of other "
                "options: give another -o, or --overwrite"
            )
        # Version 0.3 kept no record of a recording.
        return known == self._made(one) or (known == "" and self._details is None)

    def _made(self, one: Recording) -> str:
        """The record of a recording: digests of all options and of its details."""
        own = None if self._details is None else self._details(one)
        return f"{self._ours} {_digest(own)}\n"

    def _known(self, name: str) -> str:
        try:
            return (self.folder / _MADE / name).read_text(encoding="utf-8")
        except (OSError, ValueError):
            return ""

    def _is_ours(self, known: str) -> bool:
        return not known or known.split(" ")[0] == self._ours

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


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()[:32]


def _has(path: Path, content: str) -> bool:
    try:
        return path.read_text(encoding="utf-8") == content
    except (OSError, ValueError):
        return False
