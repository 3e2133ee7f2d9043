"""Real processes that talk by gloo, forked so that ESPnet is imported once."""

import io
import multiprocessing
import os
import tempfile
import traceback

import torch
import torch.distributed

TIMEOUT = 300  # seconds; a test that waits longer has hung


def run_ranks(function, *arguments, world_size=2):
    """Call ``function(rank, *arguments)`` in every rank of a process group.

    Returns what the ranks returned, in their order. A rank that fails, or one that
    waits for ever, fails the test that called.
    """
    context = multiprocessing.get_context("fork")
    with tempfile.TemporaryDirectory() as folder:
        started = []
        for rank in range(world_size):
            receiver, sender = context.Pipe(duplex=False)
            process = context.Process(
                target=_rank,
                args=(rank, world_size, folder, sender, function, arguments),
            )
            process.start()
            sender.close()
            started.append((process, receiver))
        try:
            outcomes = [_outcome(*item) for item in started]
        finally:
            for process, _ in started:
                process.kill()
                process.join()
    # A rank that fails closes the connections of the others, so report all of them.
    failed = [
        f"rank {rank} {value}"
        for rank, (kind, value) in enumerate(outcomes)
        if kind == "failed"
    ]
    if failed:
        raise AssertionError("\n".join(failed))
    return [value for _, value in outcomes]


def _rank(rank, world_size, folder, sender, function, arguments):
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    try:
        torch.set_num_threads(1)
        torch.distributed.init_process_group(
            "gloo",
            init_method=f"file://{folder}/group",
            world_size=world_size,
            rank=rank,
        )
        outcome = ("result", function(rank, *arguments))
    except BaseException:
        outcome = ("failed", f"failed:\n{traceback.format_exc()}")
    stream = io.BytesIO()
    torch.save(outcome, stream)
    sender.send_bytes(stream.getvalue())
    # Nothing of the parent's, such as pytest's reports, may run in the child.
    os._exit(0)


def _outcome(process, receiver):
    """``("result", value)`` or ``("failed", why)``."""
    if not receiver.poll(TIMEOUT):
        return "failed", "has hung"
    try:
        data = receiver.recv_bytes()
    except EOFError:
        process.join()
        return "failed", f"died: {process.exitcode}"
    return torch.load(io.BytesIO(data), weights_only=False)
