"""The folder that a run writes to: each run has one of its own, and one run at a time has it."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

from jsonargparse import Namespace
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.cli import SaveConfigCallback
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.plugins.environments import SLURMEnvironment
from lightning.pytorch.utilities import rank_zero_only, rank_zero_warn

from lightning_audiorl.callbacks.outputs import writing
from lightning_audiorl.engine.resuming import follow_schedule, reopen_epoch
from lightning_audiorl.locks import FileLock
from lightning_audiorl.weights.cards import CARD, is_written

#: Tells the processes that a run starts which folder it has.
_VARIABLE = "AUDIORL_RUN_FOLDER"
_LOCK = ".run"

#: Settings that say where something is written.
_WHERE = ("save_dir", "dirpath", "root_dir", "log_dir", "folder")

#: Loggers that write files of their own into a folder that is named; the place of others is shared by runs.
_FILE_LOGGERS = ("TensorBoardLogger", "CSVLogger")

#: The file that a command saves its settings in; an evaluation leaves those of the run as they are.
_SETTINGS = {"fit": "config.yaml", "validate": "validate.yaml", "test": "test.yaml"}
#: A file of settings that Lightning has saved begins so; another one is the user's own.
_SAVED = "# lightning.pytorch=="

#: What runs write into their folder, for ``--overwrite``. Other files are somebody else's.
_OURS = (
    *_SETTINGS.values(),
    "config_saved.yaml",
    "hparams.yaml",
    "metrics.csv",
    "events.out.tfevents.*",
    "checkpoints/step-[0-9][0-9][0-9][0-9][0-9][0-9].ckpt",
    "checkpoints/step-[0-9][0-9][0-9][0-9][0-9][0-9][0-9].ckpt",
    "checkpoints/epoch=*.ckpt",
    "checkpoints/last.ckpt",
    "checkpoints/best.ckpt",
    "checkpoints/.*.ckpt",
    "checkpoints/.*.ckpt.new",
    "report/report.*",
    "report/report_*.png",
    "audio/**/*_before.*",
    "audio/**/*_after.*",
)

#: What transformers writes of a model, into the folders of an export.
_EXPORTED = (
    "model.safetensors",
    "model-*-of-*.safetensors",
    "model.safetensors.index.json",
    "config.json",
    "generation_config.json",
    "preprocessor_config.json",
    "processor_config.json",
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "normalizer.json",
    "vocab.json",
    "vocab.txt",
    "merges.txt",
    "chat_template.*",
)


class FolderInUse(RuntimeError):
    """Another run, which is alive, has the folder."""


class RunFolder:
    """The folder of one run, held until the run ends.

    Args:
        path: the folder; is made where it is missing.

    Attributes:
        is_to_clear: whether what an earlier run wrote is to go, once the new run is sure to begin.

    Raises:
        NotADirectoryError: where it is a file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.is_to_clear = False
        with writing("a run", path):
            try:
                path.mkdir(parents=True, exist_ok=True)
            except (FileExistsError, NotADirectoryError):
                raise NotADirectoryError(
                    f"{path}: it, or what it is to be made in, is a file; give trainer.default_root_dir another folder"
                ) from None
            self._lock = FileLock(path / _LOCK)
            self.is_free = self._lock.take()

    @property
    def is_used(self) -> bool:
        """Whether a run has begun here; one that failed before its first step has not."""
        if self._lock.was_there:
            return bool(self._lock.note.get("begun"))

        # An earlier build left no note.
        has_report = (self.path / "report" / "report.json").is_file()
        return has_report or any((self.path / "checkpoints").glob("*.ckpt"))

    def holder(self) -> str:
        """The process that has the folder, in words."""
        return self._lock.holder()

    def require_free(self) -> None:
        """Raise `FolderInUse` where another process has the folder."""
        if not self.is_free:
            raise FolderInUse(
                f"{self.path}: in use by a run that is alive ({self.holder()}); wait for its end or end it, or give "
                "trainer.default_root_dir another folder"
            )

    def begin(self) -> None:
        """Note that a run has begun here: from now on the folder is its own."""
        self._lock.note["begun"] = True
        self._lock.write()

    def written(self) -> list[Path]:
        """The files that runs have written here."""
        exported = [
            f"{folder}/{name}" for folder in ("export", "export_best") for name in _EXPORTED
        ]
        found = {
            folder / CARD
            for folder in (self.path / "export", self.path / "export_best")
            if is_written(folder)
        }
        for pattern in (*_OURS, *exported):
            for path in self.path.glob(pattern):
                is_users = path.name in _SETTINGS.values() and not _is_saved(path)
                if not is_users and (path.is_file() or path.is_symlink()):
                    found.add(path)
        return sorted(found)

    def clear(self) -> None:
        """Where that was asked for, remove what runs have written here, and nothing else."""
        if not self.is_to_clear:
            return
        for path in self.written():
            path.unlink()
        self._lock.note.pop("begun", None)

    def release(self) -> None:
        """The run has ended."""
        self._lock.release()


def _numbered(root: Path) -> Iterator[Path]:
    """The folder, then ``<folder>-2``, ``<folder>-3`` and so on."""
    yield root
    for number in count(2):
        yield root.with_name(f"{root.name}-{number}")


def _folder_of(checkpoint: Path, root: Path, dirpath: str | None) -> Path | None:
    """The folder of the run that a checkpoint was written by: ``root`` or one of its numbered ones, else None."""
    whole = checkpoint.absolute()
    name = re.compile(re.escape(root.name) + r"(-\d+)?")

    # By either name where there are symbolic links.
    parents = {*whole.parents, *whole.resolve().parents}
    beside = sorted(root.parent.iterdir()) if root.parent.is_dir() else []
    for folder in (root, *beside):
        is_own = name.fullmatch(folder.name) is not None
        if is_own and not parents.isdisjoint({folder.absolute(), folder.resolve()}):
            return root.with_name(folder.name)
    if dirpath is not None and whole.is_relative_to(Path(dirpath).absolute()):
        return root
    return None


def _warn_of_newer(root: Path) -> None:
    """Say so where a numbered folder has a newer checkpoint than the one that a run goes on from."""
    last = root / "checkpoints" / "last.ckpt"
    others = list(root.parent.glob(f"{root.name}-[0-9]*/checkpoints/last.ckpt"))
    newest = max([last, *others], key=lambda path: path.stat().st_mtime if path.exists() else 0.0)
    if newest != last:
        rank_zero_warn(
            f"going on in {root}; {newest.parents[1]} is of a later run, which goes on with --ckpt_path {newest}"
        )


def take_folder(settings: Namespace) -> RunFolder | None:
    """Find this run a folder of its own, and put it into the settings, wherever they name the folder.

    A folder that an earlier run has used is left alone: the next run gets ``<folder>-2``, and so on. ``overwrite``
    removes what the earlier run wrote; ``ckpt_path`` goes on in its folder.

    Args:
        settings: of ``audiorl fit``; changed in place.

    Returns:
        The folder, held; None for a dry run, a folder that is no local path, and every process but the first.

    Raises:
        FolderInUse: where a run would go on in, or overwrite, the folder of one that is alive.
    """
    place = str(settings.trainer.default_root_dir)
    if settings.trainer.get("fast_dev_run") or "://" in place:
        return None

    root = Path(place).expanduser()
    if not root.name:
        root = root.absolute()

    # Processes that the first one has started are told; others write nothing.
    if getattr(rank_zero_only, "rank", 0) != 0:
        move(settings, root, Path(os.environ.get(_VARIABLE, root)))
        return None

    checkpoint = settings.get("ckpt_path")
    has_requeued = any(root.glob("hpc_ckpt_*.ckpt")) and SLURMEnvironment.detect()
    if checkpoint == "last":
        _warn_of_newer(root)
    if checkpoint in ("last", "best", "hpc") or has_requeued:
        taken = _go_on(root)
    elif checkpoint and (own := _folder_of(Path(checkpoint), root, _dirpath(settings))):
        taken = _go_on(own)
    elif settings.get("overwrite"):
        taken = _go_on(root)
        _keep_what_is_read(settings, taken)
        taken.is_to_clear = True
    else:
        taken = _own_folder(root)

    # The saved settings are to be run again, without harm.
    settings.overwrite = False
    os.environ[_VARIABLE] = str(taken.path)
    move(settings, root, taken.path)
    return taken


def _dirpath(settings: Namespace) -> str | None:
    """Where checkpoints go, where the settings say so."""
    dirpath: str | None = settings.get("checkpoint.dirpath")
    return dirpath


def _go_on(root: Path) -> RunFolder:
    folder = RunFolder(root)
    folder.require_free()
    return folder


def _keep_what_is_read(settings: Namespace, folder: RunFolder) -> None:
    """Raise ValueError where ``overwrite`` would remove what the new run begins from."""
    removed = [path.resolve() for path in folder.written()]
    for name, text in _texts(settings):
        # A folder above the run's is named for something else in it.
        is_read = name.split(".")[0] in ("model", "data", "ckpt_path")
        path = Path(text).expanduser()
        if (
            not is_read
            or len(text) > 4096
            or not path.resolve().is_relative_to(folder.path.resolve())
        ):
            continue

        if path.resolve() != folder.path.resolve() and any(
            file.is_relative_to(path.resolve()) for file in removed
        ):
            folder.release()
            raise ValueError(
                f"--overwrite would remove {path}, which {name} names; copy it elsewhere, or give "
                "trainer.default_root_dir another folder"
            )


def _texts(node: Any, name: str = "") -> Iterator[tuple[str, str]]:
    """Every string of the settings, with its dotted name."""
    if isinstance(node, str):
        yield name, node
    elif isinstance(node, list):
        for number, item in enumerate(node):
            yield from _texts(item, f"{name}.{number}")
    elif isinstance(node, Namespace | dict):
        for key, value in (node if isinstance(node, dict) else vars(node)).items():
            yield from _texts(value, f"{name}.{key}" if name else str(key))


def _is_saved(path: Path) -> bool:
    """Whether a file of settings is one that a command has saved, and not the user's own."""
    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            return file.readline().startswith(_SAVED)
    except OSError:
        return False


class SaveSettings(SaveConfigCallback):
    """Saves a command's settings in its folder; a file of the user's own that has that name stays as it is."""

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Lightning's own saving, with a name that is free."""
        self.config_filename = _SETTINGS.get(stage, self.config_filename)
        target = Path(trainer.log_dir or trainer.default_root_dir) / self.config_filename
        is_users = trainer.is_global_zero and target.is_file() and not _is_saved(target)
        if is_users:
            self.config_filename = f"{target.stem}_saved.yaml"
            rank_zero_warn(
                f"{target} is a file of yours, and stays; the settings of this run are saved in "
                f"{target.with_name(self.config_filename)}"
            )
        super().setup(trainer, pl_module, stage)


def free_folder(root: Path) -> tuple[RunFolder, str]:
    """The first of ``root``, ``<root>-2`` and so on that no run has used, held; and why it is not ``root``, if so."""
    reason = ""
    for path in _numbered(root):
        folder = RunFolder(path)
        if folder.is_free and not folder.is_used:
            break
        if not reason:
            reason = "holds an earlier run" if folder.is_free else f"is in use by {folder.holder()}"
        folder.release()
    return folder, reason


def _own_folder(root: Path) -> RunFolder:
    """The first folder that no run has used; a line says so where it is not ``root``."""
    folder, reason = free_folder(root)
    if reason:
        rank_zero_warn(
            f"{root} {reason}: this run writes to {folder.path}. To begin anew in {root} give --overwrite; to go on "
            "with the earlier run, --ckpt_path last"
        )
    return folder


def move(settings: Namespace, old: Path, new: Path, suffix: str | None = None) -> None:
    """Put the folder ``new`` in the place of ``old`` wherever the settings say where something is written.

    A folder elsewhere that a setting names for what the run writes gets ``suffix`` behind it: by default the number.
    """
    if old == new:
        return
    if suffix is None:
        suffix = new.name.removeprefix(old.name)
    for name, section in vars(settings).items():
        if name not in ("model", "data"):
            _move_within(section, old, new, suffix)

    settings.trainer.default_root_dir = str(new)
    part = settings.get("model.init_args")
    if part is not None and isinstance(part.get("folder"), str):
        part.folder = _moved(part.folder, old, new, suffix)


def _move_within(node: Any, old: Path, new: Path, suffix: str) -> None:
    """Every path of ``node`` and below that says where something is written."""
    if isinstance(node, list):
        for item in node:
            _move_within(item, old, new, suffix)
    if not isinstance(node, Namespace | dict):
        return

    # The folder of another logger is shared by runs: each has a name of its own there.
    kind = str(node.get("class_path", "")).rpartition(".")[2]
    own = node.get("init_args")
    is_shared = kind.endswith("Logger") and (
        kind not in _FILE_LOGGERS or own is None or own.get("version") is None
    )
    if is_shared:
        suffix = ""

    for key, value in list((node if isinstance(node, dict) else vars(node)).items()):
        if key in _WHERE and isinstance(value, str):
            node[key] = _moved(value, old, new, suffix)
        else:
            _move_within(value, old, new, suffix)


def _moved(path: str, old: Path, new: Path, suffix: str) -> str:
    whole = Path(path).absolute()
    if whole.is_relative_to(old.absolute()):
        return str(new / whole.relative_to(old.absolute()))
    return f"{path.rstrip('/')}{suffix}"


class KeepFolder(Callback):
    """Notes in the run's folder that the run has begun, and has all processes agree on it.

    Args:
        folder: of the run; None in every process but the first.
    """

    def __init__(self, folder: RunFolder | None) -> None:
        self.folder = folder

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Where processes are started side by side, the others learn the folder here."""
        if stage == "fit":
            place = trainer.strategy.broadcast(trainer.default_root_dir)
            vars(trainer)["_default_root_dir"] = place

    def on_load_checkpoint(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        checkpoint: dict[str, Any],
    ) -> None:
        """The training of a part can be made longer, too."""
        reopen_epoch(checkpoint)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Settings that fail before the first step, or in the evaluation before it, leave the folder free."""
        if self.folder is not None:
            self.folder.begin()
        if trainer.fit_loop.is_resuming:
            follow_schedule([config.scheduler for config in trainer.lr_scheduler_configs])


def keep_curves(trainer: Trainer) -> None:
    """Put the file of a CSVLogger out of the way, which it would delete where a run goes on or is evaluated."""
    if not trainer.is_global_zero:
        return
    for logger in trainer.loggers:
        if not isinstance(logger, CSVLogger):
            continue
        metrics = Path(logger.log_dir) / "metrics.csv"
        if metrics.is_file():
            kept = next(path for path in _numbered_files(metrics) if not path.exists())
            metrics.rename(kept)
            rank_zero_warn(
                f"CSVLogger begins {metrics} anew; the curve until now is in {kept}. TensorBoardLogger goes on with "
                "its curves"
            )


def _numbered_files(path: Path) -> Iterator[Path]:
    for number in count(1):
        yield path.with_stem(f"{path.stem}-{number}")
