"""Models by name: pull one from a Hub, find it again, read its config before any download.

In: `ORGANISATION/NAME` or a folder. Out: a folder that holds a whole, checked checkpoint. Layout on disk:

    <TUSI_CACHE or ~/.cache/tusi>/models/ORGANISATION--NAME[@REVISION]/
        config.json, *.safetensors, ...      the files, under their own names
        .tusi/pull.json                      what was asked, which files are done, whether all are
        .tusi/*.incomplete                   unfinished files (see models.hub_download)

Fetches data only (JSON, jinja, safetensors, tokenizer), never code. Knows nothing of tensors' meaning.
"""

from __future__ import annotations

import re
import shutil
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from filelock import FileLock, Timeout

from tusi.core.env import TUSI_CACHE
from tusi.core.errors import CheckpointError, ConfigError, DownloadError
from tusi.models.embedded import EMBEDDED_MODEL, embedded_folder
from tusi.models.hub_checks import check_checkpoint_files
from tusi.models.hub_client import HubClient, RepoFile
from tusi.models.hub_download import Downloader, Progress
from tusi.models.hub_record import PullRecord, read_record

DEFAULT_REVISION = "main"
PARALLEL_FILES = 4
DISK_MARGIN_BYTES = 256 * 2**20

_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_HUB_PAGE = re.compile(r"https?://[^/]+/([^/]+/[^/?#]+)/?")
_WANTED_SUFFIXES = (".json", ".jinja", ".safetensors")
_WANTED_NAMES = ("tokenizer.model",)


@dataclass(frozen=True, slots=True, kw_only=True)
class PullPlan:
    """What a pull is going to do. files: everything needed; remaining_bytes: what is not on disk yet."""

    name: str
    commit: str
    folder: Path
    files: tuple[RepoFile, ...]
    total_bytes: int
    remaining_bytes: int


def pull(
    name: str,
    *,
    revision: str = DEFAULT_REVISION,
    endpoint: str | None = None,
    folder: Path | None = None,
    recheck: bool = False,
    on_plan: Callable[[PullPlan], None] | None = None,
    progress: Progress | None = None,
    backoff_s: float = 1.0,
) -> Path:
    """Download a model and check it; resumes what an earlier call left. Returns its folder.

    folder: put it there instead of into the cache. recheck: hash again what earlier calls finished. progress is called
    from several threads. Raises ConfigError for a bad name, DownloadError for everything else; KeyboardInterrupt keeps
    what has come.
    """
    name = parse_name(name)
    folder = folder or model_folder(name, revision)
    notes = folder / ".tusi"
    try:
        with HubClient(endpoint) as client, ExitStack() as stack:
            repo = client.list_files(name, revision)
            files = select_files(repo.files, name)
            notes.mkdir(parents=True, exist_ok=True)
            stack.enter_context(FileLock(notes / "lock", timeout=0))
            job = _Job(
                folder=folder,
                files=files,
                downloader=Downloader(
                    client=client,
                    name=name,
                    commit=repo.commit,
                    partials=notes,
                    progress=progress or _silent,
                    stop=threading.Event(),
                    backoff_s=backoff_s,
                ),
                record=PullRecord(folder, name=name, revision=revision, commit=repo.commit, endpoint=client.endpoint),
            )
            missing = job.missing(recheck=recheck)
            plan = _plan(job, missing)
            if on_plan:
                on_plan(plan)
            _require_room(folder, plan.remaining_bytes)
            for file in job.files:
                if file not in missing:
                    job.downloader.progress(file, file.size)
            job.record.begin()
            job.fetch_all(missing)
            check_checkpoint_files(folder, [file.path for file in job.files])
            job.record.finish()
            return folder
    except Timeout as error:
        raise DownloadError(
            f"another process is pulling into {folder} just now. Wait for it, or give another folder with --dir."
        ) from error
    except OSError as error:
        raise DownloadError(
            f"cannot write to {folder}: {error.strerror or error}. Choose another folder with --dir or TUSI_CACHE."
        ) from error


def resolve_model(name: str, *, revision: str = DEFAULT_REVISION) -> Path:
    """The folder of a model: the embedded one's, a local one, or where `pull` (or Hugging Face's tools) put it.

    Downloads nothing. Raises CheckpointError if there is no such folder or the pull was not finished, ConfigError for
    what is no name.
    """
    if name == EMBEDDED_MODEL:
        return embedded_folder()
    local = Path(name).expanduser()
    if local.is_dir():
        _require_finished(local, name)
        if not (local / "config.json").is_file():
            raise CheckpointError(
                f"{local} holds no config.json, so it is not a checkpoint folder. "
                "Give the folder that holds config.json and *.safetensors."
            )
        return local
    if local.exists():
        raise CheckpointError(
            f"{local} is a file. Give the folder of the checkpoint that it belongs to: {local.parent}"
        )
    if not _NAME.fullmatch(name):
        raise CheckpointError(
            f"there is no folder {name!r}, and it is no Hub name either. Give a checkpoint folder, "
            "or ORGANISATION/NAME after `tusi pull ORGANISATION/NAME`."
        )
    folder = model_folder(name, revision)
    if not (folder / ".tusi" / "pull.json").exists():
        if theirs := _in_hugging_face_cache(name, revision):
            return theirs
        raise CheckpointError(
            f"the model {name} is not on this machine (looked for the folder {name!r}, for {folder}, and in Hugging "
            f"Face's cache). Run `tusi pull {name}` first; `tusi fit {name}` tells beforehand whether it fits here."
        )
    _require_finished(folder, name)
    return folder


def fetch_config(name: str, *, revision: str = DEFAULT_REVISION, endpoint: str | None = None) -> dict[str, Any]:
    """config.json of a model on the Hub, and nothing else of it. Raises ConfigError or DownloadError."""
    name = parse_name(name)
    with HubClient(endpoint) as client:
        return client.get_json(name, revision, "config.json")


def parse_name(name: str) -> str:
    """`ORGANISATION/NAME`, from that or from the address of the model's page. Raises ConfigError."""
    if page := _HUB_PAGE.fullmatch(name):
        name = page.group(1)
    if not _NAME.fullmatch(name) or ".." in name:
        raise ConfigError(
            f"{name!r} is not the name of a model on a Hub; expected ORGANISATION/NAME, "
            "for example baidu/ERNIE-4.5-VL-28B-A3B-Thinking."
        )
    return name


def cache_folder() -> Path:
    """TUSI_CACHE, or ~/.cache/tusi."""
    return Path(TUSI_CACHE.get() or "~/.cache/tusi").expanduser()


def model_folder(name: str, revision: str = DEFAULT_REVISION) -> Path:
    """Where the cache keeps a model, whether it is there or not."""
    suffix = "" if revision == DEFAULT_REVISION else "@" + re.sub(r"[^\w.-]", "-", revision)
    return cache_folder() / "models" / (name.replace("/", "--") + suffix)


def is_pulled(name: str, revision: str = DEFAULT_REVISION) -> bool:
    """True if the cache holds the whole of this model."""
    notes = model_folder(name, revision) / ".tusi" / "pull.json"
    return _NAME.fullmatch(name) is not None and bool(read_record(notes).get("complete"))


def select_files(files: Iterable[RepoFile], name: str) -> tuple[RepoFile, ...]:
    """The files that running the model needs, large ones last. Raises DownloadError if it is no such model."""
    files = tuple(files)
    wanted = tuple(f for f in files if is_wanted(f.path))
    names = {f.path for f in wanted}
    if "config.json" not in names or not any(path.endswith(".safetensors") for path in names):
        kinds = sorted({PurePosixPath(f.path).suffix for f in files} - {""})
        raise DownloadError(
            f"{name} is not a checkpoint that Tusi reads: it needs config.json and *.safetensors, and the repository "
            f"has {', '.join(kinds) or 'no files'}. Choose the PyTorch one (-PT or -Thinking), not -Paddle, GGUF or an "
            "adapter."
        )
    return tuple(sorted(wanted, key=lambda f: (f.size, f.path)))


def is_wanted(path: str) -> bool:
    """Whether a file is part of a checkpoint: data that is read, never code."""
    # Only the top folder: nothing that a Hub answers can then point outside of the model's folder.
    plain = re.fullmatch(r"[\w][\w.-]*", path) is not None
    return plain and (path in _WANTED_NAMES or path.endswith(_WANTED_SUFFIXES))


@dataclass(frozen=True, kw_only=True)
class _Job:
    """One pull under way."""

    folder: Path
    files: tuple[RepoFile, ...]
    downloader: Downloader
    record: PullRecord

    def missing(self, *, recheck: bool) -> list[RepoFile]:
        """What is not on disk whole."""
        return [file for file in self.files if not self.record.has(file, recheck=recheck)]

    def fetch_all(self, files: list[RepoFile]) -> None:
        """Download these, several at a time. An error in one, or Ctrl-C, ends the others at their next chunk."""
        with ThreadPoolExecutor(PARALLEL_FILES) as pool:
            futures = [pool.submit(self._fetch, file) for file in files]
            try:
                done, _ = wait(futures, return_when=FIRST_EXCEPTION)
            finally:
                if not all(future.done() and not future.exception() for future in futures):
                    self.downloader.stop.set()
                    pool.shutdown(wait=True, cancel_futures=True)
        for future in done:
            future.result()

    def _fetch(self, file: RepoFile) -> None:
        self.downloader.fetch(file, self.folder / file.path)
        self.record.add(file)


def _plan(job: _Job, missing: list[RepoFile]) -> PullPlan:
    return PullPlan(
        name=job.downloader.name,
        commit=job.downloader.commit,
        folder=job.folder,
        files=job.files,
        total_bytes=sum(file.size for file in job.files),
        remaining_bytes=sum(file.size - job.downloader.bytes_on_disk(file) for file in missing),
    )


def _require_room(folder: Path, remaining: int) -> None:
    free = shutil.disk_usage(folder).free
    if remaining and remaining + DISK_MARGIN_BYTES > free:
        raise DownloadError(
            f"{remaining / 1e9:.2f} GB are still to come and {folder} has {free / 1e9:.2f} GB free; nothing was "
            "fetched. Free some space, or choose another disk with --dir or TUSI_CACHE."
        )


def _require_finished(folder: Path, name: str) -> None:
    """Raise CheckpointError if a pull into this folder was begun and never came to its end."""
    notes = folder / ".tusi" / "pull.json"
    if notes.exists() and not read_record(notes).get("complete"):
        raise CheckpointError(
            f"the download of {name} into {folder} is not finished. Run the same `tusi pull` again: it goes on "
            "where it stopped."
        )


def _in_hugging_face_cache(name: str, revision: str) -> Path | None:
    """The model if another program downloaded the whole of it into Hugging Face's own cache."""
    from huggingface_hub import constants

    root = Path(constants.HF_HUB_CACHE) / f"models--{name.replace('/', '--')}"
    reference = root / "refs" / revision
    commit = reference.read_text(encoding="utf-8").strip() if reference.is_file() else revision
    folder = root / "snapshots" / commit
    index = folder / "model.safetensors.index.json"
    shards: set[str] = {"model.safetensors"}
    if index.is_file():
        shards = set(read_record(index).get("weight_map", {}).values())
    # Its files are links; one that was not downloaded to the end is not there or leads nowhere.
    is_whole = bool(shards) and all((folder / path).is_file() for path in ("config.json", *shards))
    return folder if is_whole else None


def _silent(_file: RepoFile, _bytes: int) -> None:
    pass
