"""Protect a trained model from a training with other options in its folder.

ESPnet overwrites ``config.yaml`` before it reads the checkpoint. If the two do not fit,
the training fails, and the trained model can no longer decode. The states that a
checkpoint restores (optimizer, scheduler) would silently override new options.
"""

import argparse
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from espnet_cif_hkd.errors import UserError
from espnet_cif_hkd.io.torch_file import is_complete

# ESPnet's options that change parameters or states of a checkpoint. model_conf of the
# recogniser is not here: check_parameters compares the parameters.
_FIXED = (
    *("token_type", "train_dtype", "freeze_param", "use_adapter", "adapter"),
    *("frontend", "preencoder", "encoder", "postencoder", "decoder", "ctc", "model"),
    *("normalize", "joint_net", "lm", "optim", "scheduler"),
)


def _trained(folder: Path) -> dict[str, Any] | None:
    """Return the configuration of the model in ``folder``; None without a model."""
    import yaml

    config = folder / "config.yaml"
    if not config.is_file() or not any(folder.glob("*.pth")):
        return None
    try:
        found = yaml.safe_load(config.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(
            f"{config} cannot be read: restore it, or remove {folder}"
        ) from error
    return found if isinstance(found, dict) else {}


def _flat(name: str, value: Any) -> Iterator[tuple[str, Any]]:
    """Yield options with dotted names."""
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from _flat(f"{name}.{key}", item)
    else:
        yield name, value


def _first_change(name: str, old: Any, new: Any) -> str | None:
    import yaml

    # Tuples are lists in YAML.
    new = yaml.safe_load(yaml.safe_dump(new))
    was, now = dict(_flat(name, old)), dict(_flat(name, new))
    for key in [*was, *now]:
        if was.get(key) != now.get(key):
            return f"{key} {was.get(key)}, and this run has {now.get(key)}"
    return None


def _refusal(folder: Path, change: str, tag: str) -> UserError:
    return UserError(
        f"{folder} has a model that was trained with {change}: train under another "
        f"--{tag}, or remove {folder}"
    )


def check_same_model(folder: Path, args: argparse.Namespace, tag: str) -> None:
    """Check that options fit the model in an experiment folder.

    Args:
        folder: the experiment folder.
        args: arguments of ESPnet's training command.
        tag: the option that selects another folder, for the message.

    Raises:
        UserError: an option differs; the message has both values.
    """
    old, new = _trained(folder), vars(args)
    if old is None:
        return
    names = {f"{name}{end}" for name in _FIXED for end in ("", "_conf")}
    # The statistics of global_mvn are in the checkpoint; the path of their file does
    # not matter.
    names -= {"normalize_conf"} | ({"model_conf"} if tag == "asr_tag" else set())
    for name in sorted(names & set(old) & set(new)):
        change = _first_change(name, old[name], new[name])
        if change is not None:
            raise _refusal(folder, change, tag)


def check_tokens(folder: Path, token_list: Path, tag: str) -> None:
    """Check that a token list is that of the model in an experiment folder.

    Raises:
        UserError: the token lists differ.
    """
    old = (_trained(folder) or {}).get("token_list")
    tokens = [line.rstrip() for line in token_list.open(encoding="utf-8")]
    if isinstance(old, list) and list(map(str, old)) != tokens:
        change = f"another token list than {token_list}"
        raise _refusal(folder, f"{change} ({len(old)} tokens, not {len(tokens)})", tag)


def check_parameters(
    folder: Path, args: argparse.Namespace, model: Any, tag: str = "asr_tag"
) -> None:
    """Check that a model has the parameters of the model in an experiment folder.

    Args:
        folder: the experiment folder.
        args: arguments of ESPnet's training command.
        model: the model of these arguments; its parameters are overwritten.
        tag: the option that selects another folder, for the message.

    Raises:
        UserError: parameters differ; the message has the option of ``model_conf``, or
            the parameter.
    """
    import torch

    old = _trained(folder)
    epochs = [path for path in folder.glob("*epoch.pth") if is_complete(path)]
    if old is None or not epochs or getattr(args, "use_adapter", False):
        return
    path = max(epochs, key=lambda path: path.stat().st_mtime_ns)
    state = torch.load(path, map_location="cpu", weights_only=True)
    # The statistics of global_mvn are buffers that the model of preflight does not
    # have.
    state = {k: v for k, v in state.items() if not k.startswith("normalize.")}
    try:
        model.load_state_dict(state)
    except (RuntimeError, UserError) as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        change = _first_change("model_conf", old.get("model_conf"), args.model_conf)
        what = lines[1] if len(lines) > 1 else lines[0]
        raise _refusal(
            folder, change or f"other parameters than this run's ({what[:200]})", tag
        ) from error
