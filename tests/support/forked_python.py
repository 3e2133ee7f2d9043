"""A ``python3`` for scripts under test whose imports of ESPnet are paid for once.

:class:`ForkedPython` writes a program that takes the place of ``python3``, such as in
``PYTHON`` of ``run.sh``. It passes ``-m espnet_cif_hkd…`` to a server that has ESPnet
imported, but nothing of this package, and that forks a process for each call; anything
else is run by the real interpreter. Started as a program, this file is that server.
"""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

from python_forks import import_espnet, run_forked

_CLIENT = """\
#!{python} -IS
import os
import sys

words = sys.argv[1:]
if words[:1] != ["-m"] or not words[1:2][0].startswith("espnet_cif_hkd"):
    os.execv({python!r}, [{python!r}, *words])

import json
import signal
import socket

with socket.socket(socket.AF_UNIX) as server:
    server.connect({address!r})
    order = json.dumps([os.getcwd(), words[1:], dict(os.environ)]).encode()
    socket.send_fds(server, [len(order).to_bytes(8, "little")], [0, 1, 2])
    server.sendall(order)
    answers = server.makefile()
    child = int(answers.readline())
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        signal.signal(number, lambda number, frame: os.kill(child, number))
    sys.exit(int(answers.readline() or 1))
"""


class ForkedPython:
    """The server and the program that calls it.

    Args:
        folder: a new folder for both; its path is short, as paths of sockets are.
    """

    def __init__(self, folder: Path) -> None:
        address = str(folder / "socket")
        self.program = folder / "python3"
        client = _CLIENT.format(python=sys.executable, address=address)
        self.program.write_text(client, encoding="utf-8")
        self.program.chmod(0o755)
        self.process = subprocess.Popen(
            [sys.executable, __file__, address],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == b"ready\n"

    def close(self) -> None:
        """End the server."""
        self.process.terminate()
        self.process.wait(timeout=30)


def _serve(address: str) -> None:
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what imports print is no answer
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(address)
        server.listen()
        print("ready", file=answers, flush=True)
        answers.close()
        import_espnet()
        signal.signal(signal.SIGCHLD, _reap)
        while True:
            client, _ = server.accept()
            if os.fork() == 0:
                server.close()
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                os._exit(_answer(client))
            client.close()


def _reap(number: int, frame: object) -> None:
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def _answer(client: socket.socket) -> int:
    size, descriptors, *_ = socket.recv_fds(client, 8, 3)
    with client.makefile("rb") as stream:
        cwd, words, variables = json.loads(stream.read(int.from_bytes(size, "little")))
    client.sendall(f"{os.getpid()}\n".encode())
    code = run_forked(cwd, words, variables, descriptors)
    client.sendall(f"{code}\n".encode())
    return code


if __name__ == "__main__":
    _serve(sys.argv[1])
