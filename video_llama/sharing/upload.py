"""Upload an exported folder to the Hugging Face hub."""

from __future__ import annotations

import re
from pathlib import Path

from video_llama.checkpoints.sources.hub import is_offline, log_no_requests
from video_llama.common.errors import DownloadError, first_line

_REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


def check_upload(repo: str) -> None:
    """Raise DownloadError for what cannot be a repository, and where uploads are switched off."""
    if not _REPOSITORY.fullmatch(repo):
        raise DownloadError(f"--push-to-hub {repo}: expected a repository, ORG/NAME")
    if is_offline():
        raise DownloadError(f"--push-to-hub {repo}: HF_HUB_OFFLINE is set, so nothing is uploaded. Run it without.")


def upload(folder: str | Path, repo: str, *, private: bool = False) -> str:
    """Upload a folder in one commit, to a repository that is created if it is not there; return ``org/name@commit``.

    ``huggingface_hub`` does it: its tokens, endpoint and proxies apply. A file that is there already is not sent again.

    Args:
        folder: what ``export`` wrote.
        repo: ``org/name``.
        private: of a repository that is created.
    Raises:
        DownloadError: the hub refuses it, or cannot be reached; the folder stays.
    """
    from huggingface_hub import HfApi  # slow to import
    from huggingface_hub.errors import HTTPError

    check_upload(repo)
    log_no_requests()
    api = HfApi()
    try:
        api.create_repo(repo, private=private, exist_ok=True)
        done = api.upload_folder(repo_id=repo, folder_path=folder, commit_message="Upload with video_llama")
    except (HTTPError, OSError, ValueError, RuntimeError) as error:
        raise DownloadError(
            f"{repo}: not uploaded: {first_line(error)}. {folder} is complete. Log in with hf auth login or HF_TOKEN if you "
            "have not, and run the same command again."
        ) from error
    return f"{repo}@{done.oid}"
