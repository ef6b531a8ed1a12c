"""Models and data sets of the Hugging Face hub, at a pinned commit. The token stays with the library."""

import re
from pathlib import Path

from workflow.tradeoff import files
from workflow.tradeoff.errors import UserError, first_line
from workflow.tradeoff.fetch.sources import checkpoint, kinds, weights


def pinned(revision: str) -> str:
    """``revision``, if it is a whole commit hash; UserError otherwise, since a branch's content changes."""
    if not re.fullmatch(r"[0-9a-f]{40}", revision):
        raise UserError(f"revision {revision!r} is not a commit hash: give all 40 hex digits of one")
    return revision


def model(repo: str, revision: str, output: Path, quantized: bool = False) -> tuple[Path, str | None]:
    """The hub cache's folder with the model ``repo`` at commit ``revision``, and the licence of its card.

    The config is read, and the free space for the rest in the cache and in ``output`` checked, before the weights are
    downloaded. Without a connection, a copy that the cache holds already is used. quantized: whether it may be.
    Raises UserError when the hub has no such model, gives no access, or cannot be reached.
    """
    import huggingface_hub as hub

    what = f"hub model {repo}"
    pinned(revision)
    hub.logging.set_verbosity_error()
    try:
        try:
            found = hub.HfApi().model_info(repo, revision=revision, files_metadata=True)
        except Exception as error:
            if not unreachable(error):
                raise
            folder = hub.snapshot_download(repo, revision=revision, local_files_only=True)
            return Path(folder), None
        sizes = {file.rfilename: file.size or 0 for file in found.siblings}
        names = checkpoint.wanted(sizes, what)
        config = Path(hub.hf_hub_download(repo, "config.json", revision=revision)).parent
        if not quantized:
            kinds.refuse_quantized(kinds.raw(config, what), sizes, what)
        kinds.model_class(kinds.read_config(config, what), what)
        if names[-1].endswith(".index.json"):
            index = names[-1]
            named = weights.shards(Path(hub.hf_hub_download(repo, index, revision=revision)), what)
            weights.refuse_absent(named, sizes, index, what)
            names += named
        missing = [
            name for name in names if not isinstance(hub.try_to_load_from_cache(repo, name, revision=revision), str)
        ]
        files.check_disk(
            Path(hub.constants.HF_HUB_CACHE), sum(sizes[name] for name in missing), f"the download of {what}"
        )
        files.check_disk(output, sum(sizes[name] for name in names), what)
        folder = hub.snapshot_download(repo, revision=revision, allow_patterns=names)
    except UserError:
        raise
    except Exception as error:
        raise translate(error, what) from error
    return Path(folder), (found.card_data or {}).get("license")


def file(repo: str, revision: str, name: str, output: Path) -> Path:
    """The hub cache's copy of one file of ``repo``; UserError when it cannot be had."""
    import huggingface_hub as hub

    what = f"{name} of {repo}"
    pinned(revision)
    try:
        found = hub.HfApi().get_paths_info(repo, [name], revision=revision)
        if not found:
            raise UserError(f"the hub's {repo} has no file {name}: correct it")
        files.check_disk(output, 2 * found[0].size, what)
        return Path(hub.hf_hub_download(repo, name, revision=revision))
    except UserError:
        raise
    except Exception as error:
        raise translate(error, what) from error


def dataset(repo: str, config: str | None, split: str, revision: str) -> list[str]:
    """The rows of the column ``text`` of a data set; UserError when it cannot be had."""
    what = f"hub data set {repo}"
    pinned(revision)
    import datasets
    import huggingface_hub

    huggingface_hub.logging.set_verbosity_error()
    try:
        rows = datasets.load_dataset(repo, config, split=split, revision=revision)
    except Exception as error:
        raise translate(error, what) from error
    if "text" not in rows.column_names:
        raise UserError(f"{what} has no column `text` (it has {', '.join(rows.column_names)}): give another data set")
    return list(rows["text"])


def unreachable(error: BaseException) -> bool:
    """Whether the hub could not be asked, as against having said no."""
    import requests
    from huggingface_hub import errors

    kinds = (requests.ConnectionError, requests.Timeout, errors.OfflineModeIsEnabled, ConnectionError, TimeoutError)
    status = getattr(getattr(error, "response", None), "status_code", 0) or 0
    return isinstance(error, kinds) or status >= 500


def translate(error: Exception, what: str) -> Exception:
    """The UserError that says what an ``error`` of the hub's libraries means; other errors come back as they are.

    No message of the library is repeated, but for a wrong config or split: it could hold addresses.
    """
    from datasets.exceptions import DatasetNotFoundError
    from huggingface_hub import errors

    token = "ask for access on its page, then log in with `hf auth login` or set HF_TOKEN"
    if isinstance(error, errors.GatedRepoError) or (isinstance(error, DatasetNotFoundError) and "gated" in str(error)):
        return UserError(f"{what} is gated and this token, or no token, has no access: {token}")
    if isinstance(error, errors.RevisionNotFoundError):
        return UserError(f"{what} has no such commit: correct `revision`")
    if isinstance(error, errors.RepositoryNotFoundError | DatasetNotFoundError):
        return UserError(f"{what} does not exist, or is private: correct its name; if it is private, {token}")
    if isinstance(error, errors.LocalEntryNotFoundError) or unreachable(error):
        return UserError(
            f"the hub cannot be reached, and the cache does not hold {what}: check the network, or give a local source"
        )
    if isinstance(error, errors.EntryNotFoundError):
        return UserError(f"{what} lacks a file that it lists: correct `revision`")
    if isinstance(error, errors.HfHubHTTPError):
        status = getattr(error.response, "status_code", "an error")
        return UserError(f"the hub refused {what} (HTTP {status}): check the token's rights and try again later")
    if isinstance(error, errors.HFValidationError):
        return UserError(f"{what} cannot be a name on the hub: correct `repo` (OWNER/NAME)")
    if isinstance(error, ValueError):
        return UserError(f"{what}: {first_line(error)}; correct `config` or `split`")
    return error
