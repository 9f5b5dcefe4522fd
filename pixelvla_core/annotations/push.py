"""Putting a sidecar on the Hugging Face Hub, beside the dataset that it is about."""

from __future__ import annotations

from pathlib import Path

from pixelvla_core.annotations.episodes import file_of, wrong_file
from pixelvla_core.annotations.reader import read_manifest, read_tables
from pixelvla_core.annotations.schema import MANIFEST
from pixelvla_core.errors import DataError

RECIPE = "recipe.yaml"


def push(
    folder: Path, repo_id: str, *, into: str | None = None, revision: str | None = None, private: bool = False
) -> str:
    """Upload a sidecar in one commit and return the commit's address.

    Args:
        folder: the sidecar; every file is checked first.
        repo_id: the dataset's repository, or one of its own; made if there is none.
        into: folder in it; ``annotations/<camera>`` if left out, "." for the top.
        revision: branch, made if there is none; the main one if left out.
        private: whether a repository that is made now is private.

    Raises:
        DataError: the sidecar is damaged, or the hub refuses or cannot be reached.
    """
    from httpx import HTTPError
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError

    folder, api = Path(folder), HfApi()
    manifest = read_manifest(folder)
    for _ in read_tables(folder, manifest, ()):
        pass
    if wrong := wrong_file(folder, manifest):
        raise DataError(f"{folder / file_of(manifest)}: {wrong}. Copy the sidecar again, or annotate again.")
    place = f"annotations/{manifest['camera']}" if into is None else into
    try:
        api.create_repo(repo_id, repo_type="dataset", private=private, exist_ok=True)
        if revision:
            api.create_branch(repo_id, repo_type="dataset", branch=revision, exist_ok=True)
        return str(
            api.upload_folder(
                repo_id=repo_id,
                repo_type="dataset",
                folder_path=folder,
                path_in_repo=place,
                revision=revision,
                allow_patterns=[MANIFEST, file_of(manifest), RECIPE, *(entry["path"] for entry in manifest["files"])],
                commit_message=f"Pixel annotations of camera {manifest['camera']}",
            )
        )
    except (HTTPError, HfHubHTTPError, OSError, ValueError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise DataError(
            f"{folder} could not be pushed to {repo_id} at {api.endpoint}: {reason.rstrip('.')}. Log in with "
            "`hf auth login`, look whether the name is right and you may write there, and push again."
        ) from error
