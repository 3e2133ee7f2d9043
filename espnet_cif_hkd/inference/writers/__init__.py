"""Writers: a result as the text of a file, in each of the formats of ``FORMATS``."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial

from espnet_cif_hkd.errors import UserError
from espnet_cif_hkd.inference.recognition import Recognition
from espnet_cif_hkd.inference.subtitles import Limits
from espnet_cif_hkd.inference.writers import speech, subtitle, verbose_json

Writer = Callable[[Recognition, str], str]


@dataclass(frozen=True)
class Output:
    """A file that is written for a recording.

    Attributes:
        path: Name of the file in the output folder; ``{name}`` is the recording's.
        write: Returns the content for a result and the name of its recording.
        limits: True if ``write`` takes :class:`Limits` as third argument.
    """

    path: str
    write: Callable[..., str]
    limits: bool = False

    @property
    def joined(self) -> bool:
        """True if all recordings share the file, each with lines of its own."""
        return "{name}" not in self.path


# Format -> its files.
FORMATS: dict[str, tuple[Output, ...]] = {
    "txt": (Output("{name}.txt", verbose_json.txt),),
    "json": (Output("{name}.json", verbose_json.json_text),),
    "srt": (Output("{name}.srt", subtitle.srt, limits=True),),
    "vtt": (Output("{name}.vtt", subtitle.vtt, limits=True),),
    "tsv": (Output("{name}.tsv", subtitle.tsv),),
    "ctm": (Output("{name}.ctm", speech.ctm),),
    "textgrid": (Output("{name}.TextGrid", speech.textgrid),),
    "text": (Output("text", speech.kaldi_text),),
    "kaldi": (
        Output("kaldi/text", speech.segment_texts),
        Output("kaldi/segments", speech.segments),
    ),
}


def formats_of(names: Iterable[str], limits: Limits | None = None) -> list[Output]:
    """Return the files of some formats.

    Args:
        names: Names of formats; ``all`` stands for all of them.
        limits: For subtitles; default: see :mod:`espnet_cif_hkd.inference.subtitles`.

    Raises:
        UserError: There is no such format.
    """
    chosen: dict[str, tuple[Output, ...]] = {}
    for name in names:
        low = name.strip().lower()
        if low != "all" and low not in FORMATS:
            raise UserError(
                f"no format {name!r}: choose from {', '.join(FORMATS)} or all"
            )
        chosen.update(FORMATS if low == "all" else {low: FORMATS[low]})
    return [
        Output(one.path, partial(one.write, limits=limits)) if one.limits else one
        for outputs in chosen.values()
        for one in outputs
    ]


def write(found: Recognition, name: str, form: str) -> str:
    """Return a result in a format that has one file.

    Args:
        found: The result.
        name: Of the recording.
        form: ``txt``, ``json``, ``srt``, ``vtt``, ``tsv``, ``ctm``, ``textgrid`` or
            ``text``.

    Raises:
        UserError: There is no such format, or it has several files.
    """
    outputs = formats_of([form])
    if len(outputs) > 1:
        raise UserError(f"format {form} has {len(outputs)} files: give -o a folder")
    return outputs[0].write(found, name)
