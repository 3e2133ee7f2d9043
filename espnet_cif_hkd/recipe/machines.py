"""Training on several machines, which SSH or a job of Slurm provides.

ESPnet starts one process for each GPU; all of them read the same folder. With SSH
ESPnet's ``launch`` starts them, in a job of Slurm ``srun``.
"""

import os
import re
import shlex
import shutil
import subprocess
import sys
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from espnet_cif_hkd.errors import UserError, one_line
from espnet_cif_hkd.io.processes import OUTPUT_VARIABLE
from espnet_cif_hkd.plugin.user_modules import USER_MODULE_VARIABLE

# What SSH does not carry over. Other variables: local/path.sh.
_CARRIED = ("PYTHONPATH", USER_MODULE_VARIABLE)
_ENVIRONMENT = Path("local/path.sh")
INIT_PREFIX = ".dist_init_"
_SECONDS = 15


@dataclass(frozen=True)
class Machines:
    """The machines of a training.

    Attributes:
        number: how many there are.
        hosts: their names for SSH, ``NAME`` or ``NAME:GPU:GPU``; none with Slurm.
    """

    number: int = 1
    hosts: tuple[str, ...] = ()

    @property
    def mark(self) -> tuple[int, ...]:
        """What a fingerprint of the training has; nothing for one machine."""
        return (self.number,) if self.number > 1 else ()


ONE_MACHINE = Machines()


def machines(num_nodes: int, hosts: str) -> Machines:
    """Return the machines that ``--num_nodes`` and ``--hosts`` name.

    Raises:
        UserError: The options are wrong, or contradict each other.
    """
    names = tuple(filter(None, hosts.split(",")))
    if num_nodes < 1:
        raise UserError("--num_nodes must be 1 or more")
    for name in names:
        if not re.fullmatch(r"\w[\w.@-]*(:\d+)*", name):
            raise UserError(
                f"--hosts {hosts}: {name!r} is no name of a machine; write names with "
                "commas between them, such as first,second"
            )
    if len({name.partition(":")[0] for name in names}) < len(names):
        raise UserError(f"--hosts {hosts}: a machine is named twice; name it once")
    if names and num_nodes not in (1, len(names)):
        raise UserError(
            f"--num_nodes {num_nodes}, but --hosts {hosts} names {len(names)}: give "
            "one of the two options"
        )
    return Machines(len(names) or num_nodes, names)


def require_machines(wanted: Machines) -> None:
    """Check that the machines can be reached and have the folder and the interpreter.

    Raises:
        UserError: There is neither SSH nor a job of Slurm, or a machine lacks a part.
    """
    if wanted.number == 1 and not wanted.hosts:
        return
    if not wanted.hosts:
        _require_job(wanted.number)
        return
    here = str(Path.cwd())
    if shlex.quote(here) != here:
        raise UserError(
            f"--hosts: ESPnet's launch cannot change to {here!r} on other machines; "
            "move the recipe to a folder without spaces and special characters"
        )
    for host in wanted.hosts:
        _require_host(host.partition(":")[0], here)


def _require_job(number: int) -> None:
    if "SLURM_JOB_ID" not in os.environ or shutil.which("srun") is None:
        raise UserError(
            f"--num_nodes {number}: this is no job of Slurm; name the machines for SSH "
            f"(--hosts NAME,NAME), or submit this command with sbatch --nodes {number}"
        )
    granted = os.environ.get("SLURM_JOB_NUM_NODES", "1")
    if not granted.isdigit() or int(granted) < number:
        raise UserError(
            f"--num_nodes {number}, but the job of Slurm has {granted}: submit it with "
            f"--nodes {number}"
        )


def _require_host(host: str, folder: str) -> None:
    test = f"test -d {folder} && test -x {shlex.quote(sys.executable)}"
    options = ["-o", "BatchMode=yes", "-o", f"ConnectTimeout={_SECONDS}"]
    try:
        done = subprocess.run(
            ["ssh", *options, host, test],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=2 * _SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise UserError(f"--hosts: {host}: {one_line(error, 150)}") from error
    if done.returncode == 1:
        raise UserError(
            f"--hosts: {host} lacks {folder} or {sys.executable}: share both folders "
            "between the machines, under the same names"
        )
    if done.returncode != 0:
        reason = one_line(done.stderr, 150) or f"exit status {done.returncode}"
        raise UserError(
            f"--hosts: {host} cannot be reached by ssh without a password ({reason}): "
            f"'ssh {host} true' must work"
        )


def training_command(
    wanted: Machines, module: str, arguments: Sequence[str], ngpu: int, folder: Path
) -> list[str]:
    """Return the command that starts a training on several machines.

    Args:
        wanted: The machines.
        module: ``espnet2.bin.asr_train`` or ``espnet2.bin.lm_train``.
        arguments: Its options.
        ngpu: GPUs of each machine; 0: one process on the CPU of each.
        folder: Shared by the machines, for the file by which they find each other.
    """
    ours = [sys.executable, "-m", "espnet_cif_hkd", "-m"]
    training = [*ours, module, *arguments]
    if wanted.hosts:
        carried = {name: os.environ[name] for name in _CARRIED if name in os.environ}
        carried[OUTPUT_VARIABLE] = "1"
        words = ["env", *(f"{key}={value}" for key, value in carried.items())]
        envfile = _ENVIRONMENT if _ENVIRONMENT.is_file() else "none"
        return [
            *(*ours, "espnet2.bin.launch", "--log", "-", "--ngpu", str(ngpu)),
            *("--host", ",".join(wanted.hosts), "--envfile", str(envfile)),
            *("--init_file_prefix", str(folder / INIT_PREFIX), "--"),
            *map(_quoted, [*words, *training]),
        ]
    number, init = str(wanted.number), (folder / INIT_PREFIX).absolute()
    return [
        *("srun", "--export=ALL", "--kill-on-bad-exit=1", "--nodes", number),
        *("--ntasks", number, "--ntasks-per-node", "1", *training),
        *("--ngpu", str(ngpu), "--multiprocessing_distributed", "true"),
        *(
            "--dist_launcher",
            "slurm",
            "--dist_init_method",
            f"file://{init}{uuid.uuid4()}",
        ),
        *(() if ngpu else ("--dist_backend", "gloo")),
    ]


def _quoted(word: str) -> str:
    """Quote a word for ``launch``, which writes it into a here-document of a shell."""
    return re.sub(r"([\\$`])", r"\\\1", shlex.quote(word))
