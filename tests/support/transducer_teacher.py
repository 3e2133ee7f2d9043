"""A tiny trained transducer in a folder, and students that it teaches."""

import argparse

import torch
import yaml
from espnet2.tasks.asr import ASRTask
from tiny_model import tiny_config
from tiny_speech import CHANGES
from tone_teacher import ALONE, host_model
from transducer_parts import TRANSDUCER

HOP = ALONE["frontend_conf"]["hop_length"]


def config_of(hop=HOP, changes=()):
    """A configuration; encoder frames are ``hop`` samples apart and masked."""
    frontend = {**CHANGES["frontend_conf"], "hop_length": hop}
    wanted = {**CHANGES, **ALONE, **TRANSDUCER, "frontend_conf": frontend}
    config = tiny_config(**{**wanted, **dict(changes)})
    config["model_conf"] = dict(changes).get("model_conf", {})
    return config


def save_teacher(folder, hop=HOP, seed=3, std=0.3, **changes):
    """Write ``config.yaml`` and ``valid.acc.ave.pth``; return folder and model."""
    config = config_of(hop, changes)
    torch.manual_seed(seed)
    model = ASRTask.build_model(argparse.Namespace(**config)).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=std)
    folder.mkdir(parents=True, exist_ok=True)
    # build_model replaces the name of the frontend in some configurations.
    (folder / "config.yaml").write_text(yaml.safe_dump(config_of(hop, changes)))
    torch.save(model.state_dict(), folder / "valid.acc.ave.pth")
    return str(folder), model


def student_of(teacher, hop=HOP, changes=(), **options):
    """A transducer with the criterion ``path``."""
    criteria = {"path": {"type": "transducer_path", "teacher": teacher, **options}}
    return host_model("transducer", criteria, config_changes(hop, changes))


def config_changes(hop=HOP, changes=()):
    frontend = {**CHANGES["frontend_conf"], "hop_length": hop}
    return {**ALONE, **TRANSDUCER, "frontend_conf": frontend, **dict(changes)}
