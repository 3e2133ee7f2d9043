"""A ``python3`` for tests whose imports of ESPnet are paid for once in a test run.

:func:`start` writes a program that takes the place of ``python3``, such as in
``PYTHON`` of ``run.sh``. It passes ``-m espnet_cif_hkd…`` and ``-m espnet2…`` to a
server that has ESPnet imported, but nothing of this package, and that forks a process
for each call. So the package registers its classes in each process, as in one that
Python starts. The real interpreter runs anything else. Started as a program, this file
is that server.
"""

import contextlib
import ctypes
import gc
import json
import logging
import os
import runpy
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import traceback
from pathlib import Path

_CLIENT = """\
#!{python} -IS
import os
import sys

words = sys.argv[1:]
if words[:1] != ["-m"] or words[1].split(".")[0] not in ("espnet_cif_hkd", "espnet2"):
    os.execv({python!r}, [{python!r}, *words])

import json
import signal
import socket

with socket.socket(socket.AF_UNIX) as server:
    server.connect({address!r})
    order = json.dumps([os.getcwd(), words[1:], dict(os.environ)]).encode()
    network = os.open("/proc/self/ns/net", os.O_RDONLY)
    descriptors = [0, 1, 2, network]
    socket.send_fds(server, [len(order).to_bytes(8, "little")], descriptors)
    server.sendall(order)
    answers = server.makefile()
    child = int(answers.readline())
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        signal.signal(number, lambda number, frame: os.kill(child, number))
    sys.exit(int(answers.readline() or 1))
"""


def start(owner: int) -> Path:
    """Start a server; it ends soon after the process ``owner``.

    Returns:
        A folder with the program ``python3`` that calls it.
    """
    folder = Path(tempfile.mkdtemp())  # paths of sockets are short
    address = str(folder / "socket")
    program = folder / "python3"
    client = _CLIENT.format(python=sys.executable, address=address)
    program.write_text(client, encoding="utf-8")
    program.chmod(0o755)
    process = subprocess.Popen(
        [sys.executable, __file__, address, str(owner)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    return folder


def _serve(address: str, owner: int) -> None:
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what imports print is no answer
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(address)
        server.listen()
        print("ready", file=answers, flush=True)
        answers.close()
        gc.disable()
        _import_espnet()
        gc.freeze()  # the processes share these objects and do not search them
        signal.signal(signal.SIGCHLD, _reap)
        server.settimeout(1)  # seconds
        while _runs(owner):
            try:
                client, _ = server.accept()
            except TimeoutError:
                continue
            if os.fork() == 0:
                server.close()
                gc.enable()
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                os._exit(_answer(client))
            client.close()
    shutil.rmtree(Path(address).parent)
    os._exit(0)  # what was imported takes seconds to be torn down


def _import_espnet() -> None:
    """Import what takes long, and nothing of this package."""
    import espnet2.bin.asr_inference
    import espnet2.tasks.lm  # noqa: F401
    import matplotlib.pyplot  # noqa: F401

    with contextlib.suppress(ImportError):  # only ESPnet 202611 has it
        import espnet3.publication.inference_model
        import espnet3.systems.esp2_asr.system
        import espnet3.systems.launch  # noqa: F401
    # It configures logging when it is imported; a program without it must not see that.
    logging.getLogger().handlers.clear()
    logging.getLogger().setLevel(logging.WARNING)
    logging.captureWarnings(False)

    assert not [name for name in sys.modules if name.startswith("espnet_cif_hkd")]


def _reap(number: int, frame: object) -> None:
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def _runs(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


def _answer(client: socket.socket) -> int:
    client.setblocking(True)
    size, descriptors, *_ = socket.recv_fds(client, 8, 4)
    with client.makefile("rb") as stream:
        cwd, words, variables = json.loads(stream.read(int.from_bytes(size, "little")))
    client.sendall(f"{os.getpid()}\n".encode())
    code = _run(cwd, words, variables, descriptors)
    client.sendall(f"{code}\n".encode())
    return code


def _run(
    cwd: str, words: list[str], variables: dict[str, str], descriptors: list[int]
) -> int:
    """Become ``python3 -m WORDS``; return its exit status."""
    *standard, network = descriptors
    for number, descriptor in enumerate(standard):
        os.dup2(descriptor, number)
    _enter(network)
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(variables)
    added = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    sys.path[:] = [cwd, *added, *(path for path in sys.path[1:] if path not in added)]
    module, *_ = sys.argv = words
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    except SystemExit as error:
        if isinstance(error.code, str):
            print(error.code, file=sys.stderr)
        return error.code if isinstance(error.code, int) else int(bool(error.code))
    except BaseException:
        traceback.print_exc()
        return 1
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
    return 0


def _enter(network: int) -> None:
    """Move this process to the caller's network, if that is another one."""
    if not os.path.sameopenfile(network, os.open("/proc/self/ns/net", os.O_RDONLY)):
        assert ctypes.CDLL(None).setns(network, 0) == 0, "needs root"
    os.close(network)


if __name__ == "__main__":
    _serve(sys.argv[1], int(sys.argv[2]))
