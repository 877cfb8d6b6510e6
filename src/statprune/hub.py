"""A folder that `compress` has made -> a repository on the Hub, private unless asked otherwise."""

import shlex
from dataclasses import asdict, dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, cast

from huggingface_hub import HfApi
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, RepositoryNotFoundError

from statprune.checkpoint.record_file import read_record
from statprune.checkpoint.sentence_folder import place_of_transformer
from statprune.checkpoint.unfinished import folder_for
from statprune.checkpoint.weight_files import check_weights, one_line
from statprune.errors import HubError, InputError, OutputError

LEFT_OUT = (".*", "*.partial", "*.unfinished", "__pycache__", "*.pyc")
"""Names of files and folders that are not uploaded: states of runs, and what programs leave."""

_FAILURES: tuple[type[Exception], ...] = (cast(type[Exception], HfHubHTTPError.__mro__[1]), OSError)
"""What a request that fails raises: the library below huggingface_hub has changed."""

_UPLOAD_FAILURES: tuple[type[Exception], ...] = (*_FAILURES, ValueError)

_OWN = {".gitattributes"}
"""What the Hub itself puts into a new repository."""


@dataclass(frozen=True)
class Pushed:
    """What was uploaded.

    Attributes:
        url: of the repository.
        repo: its whole name.
        commit: its new commit, a hash.
        public: whether everybody sees it.
        files: names of what was uploaded, by the folder.
    """

    url: str
    repo: str
    commit: str
    public: bool
    files: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """JSON-able content."""
        return asdict(self) | {"files": list(self.files)}


@dataclass(frozen=True)
class Target:
    """A repository that may be written to.

    Attributes:
        repo: its whole name.
        commit: its last commit; None where it does not exist yet.
        private: whether it is private now; None where it does not exist yet.
    """

    repo: str
    commit: str | None = None
    private: bool | None = None


def target_of(repo: str, *, public: bool = False, replace: bool = False, api: HfApi | None = None) -> Target:
    """Ask the Hub whether `repo` can be pushed to; nothing is changed. For use before an expensive pass.

    Args:
        repo: NAME, or OWNER/NAME.
        public: whether everybody is to see it.
        replace: whether files that are in it already may be replaced, and removed.
        api: how the Hub is reached; None for the usual way, with the token that is stored.

    Raises:
        InputError: the name is none; there is no token, or one that may not write there; the repository
            holds files, or is public, and that was not asked for.
        HubError: the Hub cannot be reached, or fails.
    """
    api = api or HfApi()
    whole = _allowed(repo, api)
    try:
        info = api.model_info(whole)
    except RepositoryNotFoundError:
        return Target(whole)
    except HFValidationError as error:
        raise InputError(
            f"'{repo}' is no name of a repository: {one_line(error)}. Give OWNER/NAME."
        ) from error
    except _FAILURES as error:
        raise _failed(f"the Hub cannot tell of {whole}", error) from error
    files = sorted({each.rfilename for each in info.siblings or ()} - _OWN)
    if files and not replace:
        raise InputError(
            f"{whole} exists and holds {len(files)} files ({files[0]} ...); nothing is overwritten. Give "
            f"another name, or --replace: the Hub keeps what was there in the repository's history."
        )
    if info.private is False and not public:
        raise InputError(f"{whole} is public. Give --public to push there all the same, or another name.")
    return Target(whole, info.sha, info.private)


def _allowed(repo: str, api: HfApi) -> str:
    """The whole name of `repo`, to which the token's owner may write as far as the Hub tells."""
    token = api.token
    if token is None:
        from huggingface_hub import get_token  # noqa: PLC0415 - read when it is needed

        token = get_token()
    if not token:
        raise InputError(
            f"there is no token for the Hub, and pushing to {repo} needs one. Log in with `hf auth login`, "
            f"or set HF_TOKEN."
        )
    try:
        who = api.whoami(token=token)
    except HfHubHTTPError as error:
        if error.response is not None and error.response.status_code in (401, 403):
            raise InputError(
                "the Hub refuses the token. Log in again with `hf auth login`, or set HF_TOKEN anew."
            ) from error
        raise _failed("the Hub does not tell whose token it is", error) from error
    except _FAILURES as error:
        raise _failed("the Hub cannot be reached", error) from error
    owner, slash, name = repo.rpartition("/")
    own = [who["name"], *(each["name"] for each in who.get("orgs") or ())]
    if slash and owner.lower() not in [each.lower() for each in own]:
        raise InputError(
            f"{repo}: the token is that of {', '.join(own)}, not of {owner}. Give {own[0]}/{name}."
        )
    if ((who.get("auth") or {}).get("accessToken") or {}).get("role") == "read":
        raise InputError("the token may only read. Make one that may write (hf.co/settings/tokens).")
    return repo if slash else f"{who['name']}/{name}"


def files_of(folder: Path) -> tuple[str, ...]:
    """The files of a verified folder that are uploaded, by their names in it, sorted.

    Raises:
        InputError: it holds no record of a run, or its weights are not whole.
        OutputError: the run into it did not end, or a file in it lies elsewhere.
    """
    read_record(folder)
    whole = folder.resolve()
    if folder_for(folder).exists() or any(each.endswith((".unfinished", ".partial")) for each in whole.parts):
        raise OutputError(
            f"the run into {folder} did not end, so what is there was not verified. Go on with it: "
            f"`statprune compress ... --out {folder} --resume`."
        )
    check_weights(folder / place_of_transformer(folder))
    found = []
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder)
        if any(fnmatch(part, pattern) for part in name.parts for pattern in LEFT_OUT):
            continue
        if not path.resolve().is_relative_to(whole):
            raise OutputError(f"{path} is a link to {path.resolve()}, outside the folder. Remove or copy it.")
        if path.is_file():
            found.append(name.as_posix())
    return tuple(found)


def push(
    folder: str | Path,
    repo: str,
    *,
    public: bool = False,
    replace: bool = False,
    api: HfApi | None = None,
    target: Target | None = None,
) -> Pushed:
    """Upload a folder that `compress` has made: its files and nothing else, in one commit.

    Args:
        folder: what `compress(out=...)` has written.
        repo: NAME, or OWNER/NAME, on the Hub; it is made if it does not exist.
        public: whether everybody is to see it; by default it is private.
        replace: whether files that are in it already may be replaced, and removed.
        api: how the Hub is reached; None for the usual way, with the token that is stored.
        target: what `target_of` found, if it has been asked already.

    Raises:
        InputError: as `target_of` and `files_of`; nothing is uploaded.
        HubError: the upload failed. The folder is as it was.
    """
    folder, api = Path(folder), api or HfApi()
    record, files = read_record(folder), files_of(folder)
    target = target or target_of(repo, public=public, replace=replace, api=api)
    again = shlex.join(
        ["statprune", "push", str(folder), target.repo] + ["--public"] * public + ["--replace"] * replace
    )
    try:
        url = str(api.create_repo(target.repo, private=not public, exist_ok=True))
        if public and target.private:
            api.update_repo_settings(target.repo, private=False)
        commit = api.upload_folder(
            repo_id=target.repo,
            folder_path=folder,
            commit_message=f"{record['model']}, pruned with statprune {record['statprune']}",
            ignore_patterns=[
                f"{kind}{pattern}{rest}"
                for pattern in LEFT_OUT
                for kind in ("", "**/")
                for rest in ("", "/**")
            ],
            delete_patterns="*" if replace else None,
            parent_commit=target.commit,
        )
    except _UPLOAD_FAILURES as error:
        raise _failed(
            f"{folder} could not be pushed to {target.repo}", error, f"It is whole; go on with: {again}"
        ) from error
    return Pushed(url, target.repo, str(commit.oid), public, files)


def _failed(what: str, error: Exception, remedy: str = "Check the connection, and try again.") -> HubError:
    return HubError(f"{what}: {type(error).__name__}: {one_line(error)}. {remedy}")
