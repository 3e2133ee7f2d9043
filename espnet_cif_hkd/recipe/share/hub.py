"""Calls of the Hugging Face hub for sharing a model.

``huggingface_hub`` works over HTTP, without git and git-lfs. It retries if a server is
busy.
"""

import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from espnet_cif_hkd.errors import UserError, one_line
from espnet_cif_hkd.io.log import log

_TOKEN = (
    "make a token with write permission (Settings, Access Tokens on the hub), then "
    "'hf auth login' or HF_TOKEN=… in the environment"
)
_AGAIN = "run the same command again; files that have arrived are not sent again"


def check_name(repo: str) -> None:
    """Check that a name is ``USER/NAME``.

    Raises:
        UserError: The name is missing or malformed.
    """
    if not repo:
        raise UserError("--hf_repo is required for stage 15: give --hf_repo USER/NAME")
    part = r"\w([\w.-]*\w)?"
    if (
        not re.fullmatch(f"{part}/{part}", repo, re.ASCII)
        or re.search(r"--|\.\.", repo)
        or len(repo) > 96
    ):
        raise UserError(
            f"--hf_repo {repo} is no repository: write USER/NAME, your name on the hub "
            "or your organisation's and a name for the model (letters, digits, - _ .)"
        )


def check_ready() -> None:
    """Check for the client and a token, without asking a server.

    Raises:
        UserError: The client or the token is missing.
    """
    try:
        from huggingface_hub import constants, get_token
    except ImportError as error:
        raise UserError(
            f"stage 15 needs huggingface_hub ({error}): "
            "python3 -m pip install huggingface_hub"
        ) from error
    if constants.HF_HUB_OFFLINE:
        raise UserError(
            "HF_HUB_OFFLINE or TRANSFORMERS_OFFLINE is set, and stage 15 needs the "
            "hub: unset it for this command"
        )
    if not get_token():
        raise UserError(f"stage 15 needs a token of the hub and found none: {_TOKEN}")


def _chain(error: BaseException | None) -> list[BaseException]:
    found: list[BaseException] = []
    while error is not None and error not in found:
        found.append(error)
        error = error.__cause__ or error.__context__
    return found


def _status(error: BaseException) -> int | None:
    for one in _chain(error):
        code = getattr(getattr(one, "response", None), "status_code", None)
        if isinstance(code, int):
            return code
    return None


def explained(error: Exception, repo: str) -> UserError:
    """Return an error with the cause of a failed call and its fix, in one line."""
    status = _status(error)
    if status == 401:
        return UserError(f"the hub refused the token (401): {_TOKEN}")
    if status in (403, 404):
        return UserError(
            f"the token may not write to {repo} ({status}): check the name "
            f"--hf_repo {repo}, and {_TOKEN}"
        )
    # The client wraps the cause of a failed transfer in another error.
    root = _chain(error)[-1]
    reason = one_line(root) or "no reason given"
    reported = f"{type(root).__name__}: {reason[:200]}"
    if status == 409:
        return UserError(f"{repo} was changed meanwhile (409): {_AGAIN}")
    if status is not None and (status == 429 or status >= 500):
        return UserError(f"the hub failed for the moment ({status}): {_AGAIN}")
    if isinstance(error, ValueError) and "README.md" in str(error):
        return UserError(
            f"the hub does not take the model card ({one_line(error)}): "
            "correct conf/model_card.yaml, and run the same command again"
        )
    if status is not None:
        return UserError(
            f"the hub refused the upload to {repo} ({status}, {reported}): fix what it "
            "names, and run the same command again"
        )
    return UserError(f"the upload to {repo} broke off ({reported}): {_AGAIN}")


def upload(
    repo: str, files: Mapping[str, Path], message: str, private: bool = False
) -> str:
    """Upload files to a repository in one commit.

    A missing repository is created, either private or with the default visibility of
    its owner. An existing one gets a new commit; its visibility and other files stay.
    Nothing is sent if the repository has the same files.

    Args:
        repo: ``USER/NAME``.
        files: Local files by their names in the repository.
        message: Message of the commit.
        private: Whether the repository must be private.

    Returns:
        The address of the repository.

    Raises:
        UserError: The hub refused, cannot be reached, or has a public repository
            although a private one is requested (then nothing is sent).
    """
    from huggingface_hub import CommitOperationAdd, HfApi
    from huggingface_hub.utils import disable_progress_bars

    if not sys.stderr.isatty():
        # In a log file the progress bars would fill many lines.
        disable_progress_bars()
    api: Any = HfApi(library_name="espnet-cif-hkd")
    try:
        # First, because a token may be valid for this repository only.
        if api.repo_exists(repo):
            log(f"stage 15: {repo} exists and gets a new commit")
        else:
            # None: the default of the owner.
            api.create_repo(repo, exist_ok=True, private=private or None)
            log(f"stage 15: created the repository {repo}")
        found = api.model_info(repo)
        if private and not found.private:
            raise UserError(
                f"--hf_private true, but {repo} is public: make it private in its "
                "settings on the hub, or choose another --hf_repo; nothing was sent"
            )
        before = found.sha
        commit = api.create_commit(
            repo,
            [CommitOperationAdd(name, str(path)) for name, path in files.items()],
            commit_message=message,
        )
    except UserError:
        raise
    except Exception as error:
        raise explained(error, repo) from error
    if commit.oid == before:
        log(f"stage 15: {repo} has these files already")
    return f"{api.endpoint}/{repo}"
