"""Two machines in network namespaces of this one, with a cable between them.

Each has its own interface and address; a process of one reaches the other only through
the cable. Files are shared, as on a cluster. SSH and Slurm are stand-ins.
"""

import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

INTERFACE = "cable"
# As sshd: the words become one line for a shell, which gets no variables of the caller.
_SSH = """#!/usr/bin/env bash
while [ "$1" = -o ]; do shift 2; done
case "$1" in {cases} *) echo "ssh: no host $1" >&2; exit 255;; esac
shift
exec env -i PATH="$PATH" HOME="$HOME" ip netns exec "$space" bash -c "$*"
"""
# As srun: a task on each machine, with the variables of the caller and its number.
_SRUN = """#!/usr/bin/env bash
echo "$*" > srun.called
while true; do
    case "$1" in --*=*) shift;; --*) shift 2;; *) break;; esac
done
export SLURM_NTASKS=2 SLURM_STEP_NUM_NODES=2 SLURM_STEP_NODELIST=first,second
export SLURM_LOCALID=0
SLURM_PROCID=0 SLURM_NODEID=0 ip netns exec {first} "$@" &
SLURM_PROCID=1 SLURM_NODEID=1 ip netns exec {second} "$@" &
wait -n; code=$?
[ $code = 0 ] || kill $(jobs -p)  # --kill-on-bad-exit
wait -n || code=$?
exit $code
"""


@dataclass(frozen=True)
class Hosts:
    """Two machines.

    Attributes:
        spaces: their network namespaces.
        names: their names for SSH, which are addresses.
        programs: folder with ``ssh`` and ``srun``.
    """

    spaces: tuple[str, str]
    names: tuple[str, str]
    programs: Path

    def processes(self, number: int) -> list[int]:
        """Return the numbers of the processes of a machine."""
        found = _ip("netns", "pids", self.spaces[number])
        return [int(word) for word in found.stdout.split()]

    def kill(self, number: int) -> None:
        """End all processes of a machine at once."""
        for process in self.processes(number):
            with suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)


def _ip(*words: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(["ip", *words], capture_output=True, text=True, check=False)


@contextmanager
def two_hosts(programs: Path) -> Iterator[Hosts]:
    """Set the machines up, and remove them and their processes at the end.

    Skips the test where this is not possible.
    """
    if os.geteuid() != 0 or shutil.which("ip") is None:
        pytest.skip(
            "network namespaces need root and the program ip (Debian: iproute2)"
        )
    spaces = (f"cif{os.getpid()}a", f"cif{os.getpid()}b")
    names = ("10.213.7.1", "10.213.7.2")
    first, second = spaces
    steps = [["netns", "add", space] for space in spaces]
    cable = f"link add {INTERFACE} type veth peer name {INTERFACE} netns {second}"
    steps.append(["-n", first, *cable.split()])
    for space, name in zip(spaces, names, strict=True):
        inside = ["-n", space]
        steps.append([*inside, "address", "add", f"{name}/24", "dev", INTERFACE])
        steps += [[*inside, "link", "set", one, "up"] for one in ("lo", INTERFACE)]
    hosts = Hosts(spaces, names, programs)
    try:
        for step in steps:
            done = _ip(*step)
            if done.returncode:
                pytest.skip(f"the kernel refuses: ip {' '.join(step)}: {done.stderr}")
        _write(programs / "srun", _SRUN.format(first=first, second=second))
        cases = (
            f"{name}) space={sp};;" for name, sp in zip(names, spaces, strict=True)
        )
        _write(programs / "ssh", _SSH.replace("{cases}", " ".join(cases)))
        yield hosts
    finally:
        for number, space in enumerate(spaces):
            hosts.kill(number)
            _ip("netns", "delete", space)


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)
