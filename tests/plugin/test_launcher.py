"""``python3 -m espnet_cif_hkd`` runs what ``python3`` would, and registers.

The launcher is always a process of its own. Only the last test imports ESPnet's task.
"""

import json
import subprocess
import sys
import textwrap

import pytest

LAUNCHER = ["-m", "espnet_cif_hkd"]

PROBE = """
import json, sys
print(json.dumps({
    "argv": sys.argv, "path": sys.path[0], "name": __name__, "package": __package__,
    "file": globals().get("__file__"),
    "main": vars(sys.modules["__main__"]) is globals(),
}))
sys.exit(7)
"""

SPAWNING = """
import concurrent.futures, multiprocessing, sys
from espnet_cif_hkd.plugin import registration as plugin

class Point:
    def __init__(self, x):
        self.x = x

def child(point, start_method):
    registers = any(isinstance(finder, plugin._Finder) for finder in sys.meta_path)
    answer = [point.x, registers, __name__, sys.argv[1:]]
    if start_method is not None:
        answer.append(ask(point, start_method, None))
    return answer

def ask(point, start_method, next_method):
    context = multiprocessing.get_context(start_method)
    with concurrent.futures.ProcessPoolExecutor(1, mp_context=context) as pool:
        return pool.submit(child, point, next_method).result()

if __name__ == "__main__":
    import json
    print(json.dumps([ask(Point(3), m, "spawn") for m in ("spawn", "forkserver")]))
"""

LAUNCH_STAND_IN = """#!/usr/bin/env bash
# In the place of run.pl: --gpu N LOG COMMAND...
shift 2
log=$1
shift
"$@" >"${log}" 2>&1
"""

REAL_TASK = """
import json, sys
import torch
from espnet_cif_hkd.plugin import registration as plugin

class Registers(torch.utils.data.Dataset):
    def __len__(self):
        return 1
    def __getitem__(self, index):
        return int(any(isinstance(f, plugin._Finder) for f in sys.meta_path))

if __name__ == "__main__":
    from espnet2.tasks.asr import ASRTask
    from espnet2.train.distributed_utils import resolve_distributed_mode

    args = ASRTask.get_parser().parse_args(sys.argv[1:])
    args.version = "0"
    resolve_distributed_mode(args)
    # As ESPnet starts the processes of a training on several GPUs.
    context = torch.multiprocessing.get_context("spawn")
    worker = context.Process(target=ASRTask.main_worker, args=(args,), daemon=False)
    worker.start()
    loader = torch.utils.data.DataLoader(
        Registers(), num_workers=1, multiprocessing_context="spawn"
    )
    in_loader = [batch.tolist() for batch in loader]
    worker.join()
    print(json.dumps([in_loader, worker.exitcode]))
"""


MY_ENCODER = """
from espnet2.asr.encoder.transformer_encoder import TransformerEncoder
from espnet2.tasks.asr import encoder_choices

class MyEncoder(TransformerEncoder):
    pass

encoder_choices.classes["mine"] = MyEncoder
"""


def python(*args, cwd, options=(), program=sys.executable):
    return subprocess.run(
        [program, *options, *map(str, args)],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=570,
    )


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "script.py").write_text(PROBE)
    (tmp_path / "sub" / "__main__.py").write_text(PROBE)
    (tmp_path / "pkg").mkdir()
    (tmp_path / "pkg" / "__init__.py").write_text("")
    (tmp_path / "pkg" / "mod.py").write_text("from . import other\n" + PROBE)
    (tmp_path / "pkg" / "other.py").write_text("")
    (tmp_path / "pkg" / "__main__.py").write_text("from . import other\n" + PROBE)
    return tmp_path


@pytest.mark.parametrize(
    "command",
    [
        ["sub/script.py", "-m", "x"],
        ["sub", "x"],
        ["-m", "pkg.mod", "--flag", "x y"],
        ["-m", "pkg", "x"],
        ["-c", PROBE, "x"],
    ],
    ids=["script", "folder", "module", "package", "code"],
)
def test_target_sees_what_python_would_show_it(folder, command):
    plain = python(*command, cwd=folder)
    ours = python(*LAUNCHER, *command, cwd=folder)
    assert plain.returncode == 7, plain.stderr
    expected, seen = json.loads(plain.stdout), json.loads(ours.stdout)
    # `python3 -c` has "" here, for the working directory.
    expected["path"] = expected["path"] or str(folder)
    assert seen == expected
    assert seen["main"]
    assert (ours.returncode, ours.stderr) == (7, "")


@pytest.mark.parametrize(
    "code", ["raise KeyError('mine')", "import sys; sys.exit('mine')"]
)
def test_failures_pass_through(folder, code):
    plain = python("-c", code, cwd=folder)
    ours = python(*LAUNCHER, "-c", code, cwd=folder)
    assert ours.returncode == plain.returncode == 1
    assert ours.stderr.splitlines()[-1] == plain.stderr.splitlines()[-1]


@pytest.mark.parametrize(
    "command",
    [["-m", "no_such_module"], ["-m", "no.such.module"], ["no_such_script.py"]],
)
def test_missing_target_fails_as_in_python(folder, command):
    plain = python(*command, cwd=folder)
    ours = python(*LAUNCHER, *command, cwd=folder)
    assert ours.returncode == plain.returncode != 0
    assert command[-1] in ours.stderr
    assert "Traceback" not in ours.stderr


def test_user_error_is_one_line(folder):
    code = "from espnet_cif_hkd.errors import UserError; raise UserError('use x')"
    ours = python(*LAUNCHER, "-c", code, cwd=folder)
    assert (ours.returncode, ours.stderr) == (1, "error: use x\n")


@pytest.mark.parametrize("command", [[], ["-m"], ["-u", "script.py"]])
def test_wrong_usage(folder, command):
    ours = python(*LAUNCHER, *command, cwd=folder)
    assert ours.returncode == 2
    assert ours.stderr.startswith("error: ")
    assert "usage: python3 -m espnet_cif_hkd -m MODULE" in ours.stderr


def test_help(folder):
    ours = python(*LAUNCHER, "--help", cwd=folder)
    assert (ours.returncode, ours.stderr) == (0, "")
    assert ours.stdout.startswith("usage: ")


@pytest.mark.slow
@pytest.mark.parametrize("as_module", [False, True], ids=["script", "module"])
def test_children_and_grandchildren_register(tmp_path, as_module):
    (tmp_path / "spawning.py").write_text(SPAWNING)
    command = ["-m", "spawning"] if as_module else ["spawning.py"]
    ours = python(*LAUNCHER, *command, "an argument", cwd=tmp_path)
    assert ours.returncode == 0, ours.stderr
    grandchild = [3, True, "__mp_main__", ["an argument"]]
    assert json.loads(ours.stdout) == [[*grandchild, grandchild]] * 2


@pytest.mark.slow
def test_launch_runs_its_command_without_importing_torch(tmp_path):
    run_pl = tmp_path / "run.pl"
    run_pl.write_text(LAUNCH_STAND_IN)
    run_pl.chmod(0o755)
    printed = json.dumps("printed")
    ours = python(
        *LAUNCHER,
        *["-m", "espnet2.bin.launch", "--cmd", run_pl, "--log", "train.log"],
        *["--ngpu", "0", "--", sys.executable, *LAUNCHER, "-c", f"print({printed})"],
        cwd=tmp_path,
        options=["-X", "importtime"],
    )
    assert ours.returncode == 0, ours.stderr
    assert (tmp_path / "train.log").read_text() == "printed\n"
    imported = {line.rpartition("|")[2].strip() for line in ours.stderr.splitlines()}
    assert "espnet2.bin" in imported
    assert not imported & {"torch", "transformers", "espnet2.tasks.asr"}


@pytest.mark.slow
def test_espnets_workers_know_the_classes(tmp_path, forked_python):
    """A spawned ``ASRTask.main_worker`` and a spawned worker of a data loader.

    They know our classes and those of a user's module, also when the folder of a script
    replaces the working directory.
    """
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere/train.py").write_text(REAL_TASK)
    (tmp_path / "my_encoder.py").write_text(MY_ENCODER)
    (tmp_path / "tokens.txt").write_text("<blank>\n<unk>\nA\n<sos/eos>\n")
    (tmp_path / "train.yaml").write_text(
        textwrap.dedent(
            """
            decoder: cif
            decoder_conf: {attention_heads: 2, linear_units: 4, num_blocks: 1}
            model: cif
            encoder: mine
            encoder_conf:
                {output_size: 4, attention_heads: 2, linear_units: 4, num_blocks: 1}
            normalize: utterance_mvn
            optim: adam
            """
        )
    )
    ours = python(
        *[*LAUNCHER, "--user_module", "my_encoder"],
        *["elsewhere/train.py", "--config", "train.yaml", "--token_list", "tokens.txt"],
        *["--output_dir", "exp", "--ngpu", "0", "--dry_run", "true"],
        cwd=tmp_path,
        program=forked_python,
    )
    assert ours.returncode == 0, ours.stderr
    assert json.loads(ours.stdout.splitlines()[-1]) == [[[1]], 0], ours.stderr
    written = (tmp_path / "exp" / "config.yaml").read_text()
    assert "decoder: cif" in written and "encoder: mine" in written
