"""Follow docs/own_corpus.md: run its commands one after the other in a new folder.

  python3 tools/follow_own_corpus.py FOLDER [--page docs/own_corpus.md]

The corpus is made here: tones and noise in the place of speech, 12 + 3 + 3 utterances.
`python3` must be that of the environment to be tried. Stops at the first command that
fails. tools/fresh_install.sh calls this where only a wheel is installed.
"""

import argparse
import re
import shlex
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import soundfile

RATE = 16000
SENTENCES = """\
the small grey cat sleeps under the kitchen table
five boats left the harbour before the morning fog
please bring a warm coat and a pair of good shoes
we heard the train long before we could see it
her brother plants beans and onions every spring
the quick messenger jumped over a frozen ditch
nobody knew why the old clock stopped at noon
a yellow bird sang on the roof of the school
they baked bread with honey walnuts and rye
the judge asked six questions and waited
my neighbour fixes bicycles on sunday
rain fell all week and the river rose
the exam begins at a quarter past ten
he zipped his jacket and walked home
two foxes crossed the empty road
she wrote a letter to her uncle
open the window and let air in
the lamp above the desk is broken"""


def make_corpus(folder: Path) -> None:
    """Write recordings and ``transcripts.tsv``, as the example of the page has them."""
    numbers, lines = np.random.default_rng(0), []
    folder.mkdir(parents=True)
    for number, text in enumerate(SENTENCES.splitlines()):
        name = "train" if number < 12 else "dev" if number < 15 else "test"
        speaker = f"spk{number % 3}"
        sound = [
            np.sin(2 * np.pi * (90 + 7 * ord(one)) * np.arange(RATE // 12) / RATE)
            for one in text
        ]
        samples = 0.2 * np.concatenate(sound)
        samples += 0.01 * numbers.standard_normal(len(samples))
        soundfile.write(folder / f"{number:02}.flac", samples, RATE)
        utterance = f"{speaker}-{number:02}"
        line = (utterance, speaker, name, f"{number:02}.flac", text.upper())
        lines.append("\t".join(line))
    (folder / "transcripts.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")


def script_of(page: str) -> str:
    """Return one bash script with all commands of the page, in its order."""
    parts = ["set -euo pipefail"]
    for language, block in re.findall(
        r"^```(sh|bash|python)\n(.*?)^```", page, re.MULTILINE | re.DOTALL
    ):
        if language == "sh":
            part = block
        elif language == "python":
            part = f"python3 - <<'END_OF_PYTHON'\n{block}END_OF_PYTHON\n"
        else:  # a function that replaces the template's, in local/data.sh
            name = block.partition("()")[0]
            part = (
                "python3 - <<'END_OF_PYTHON'\nimport re\n"
                "path = 'local/data.sh'\ntext = open(path).read()\n"
                f"new, found = re.subn(r'^{name}\\(\\) \\{{\\n.*?^\\}}\\n', "
                f"lambda _: {block!r}, text, flags=re.M | re.S)\n"
                "assert found == 1\nopen(path, 'w').write(new)\nEND_OF_PYTHON\n"
            )
        shown = block.strip().splitlines()[0]
        parts += [f"echo {shlex.quote(f'=== {shown}')}", part]
    return "\n".join(parts)


def main() -> int:
    """Run the command; return its exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    default = Path(__file__).parents[1] / "docs" / "own_corpus.md"
    parser.add_argument("--page", type=Path, default=default)
    args = parser.parse_args()
    make_corpus(args.folder / "speech")
    begun = time.monotonic()
    script = script_of(args.page.read_text(encoding="utf-8"))
    code = subprocess.run(
        ["bash", "-c", script], cwd=args.folder, check=False
    ).returncode
    print(f"=== exit status {code} after {time.monotonic() - begun:.0f} s")
    return code


if __name__ == "__main__":
    sys.exit(main())
