"""A run that was cut off goes on from its last whole checkpoint, with the settings and data that it had."""

import hashlib
import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shieldguard.errors import ConfigError
from shieldguard.training.finetune.lessons import Lesson, Pair

_STATE = "trainer_state.json"  # the last file of a checkpoint that transformers writes


@dataclass(frozen=True, slots=True)
class Run:
    """The folder in which a run keeps its checkpoints while it lasts, and what it is a run of."""

    folder: Path
    identity: Mapping[str, Any]

    @classmethod
    def begin(cls, out: Path, identity: Mapping[str, Any], *, resume: bool) -> "Run":
        """Raises `ConfigError` where `out` holds a model, or the checkpoints of another run, or of this one
        where that is not to be resumed."""
        run = cls(out / "checkpoints", identity)
        begun = any(run._checkpoints())
        if (out / "config.json").exists() and not begun:
            raise ConfigError(f"{str(out)!r} holds a model; give another folder")
        if begun and not resume:
            raise ConfigError(
                f"{str(run.folder)!r} holds checkpoints of a run that was cut off; go on with --resume, "
                "or take them away"
            )
        if begun:
            run._check()
        try:
            run.folder.mkdir(parents=True, exist_ok=True)
            run._file.write_text(json.dumps(identity, indent=2), encoding="utf-8")
        except OSError as error:
            raise ConfigError(f"cannot write to {str(out)!r}: {error}") from None
        return run

    @property
    def _file(self) -> Path:
        return self.folder / "run.json"

    def _check(self) -> None:
        try:
            before = json.loads(self._file.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise ConfigError(
                f"cannot tell what run {str(self.folder)!r} is of: {error}; give another folder"
            ) from None
        for name, value in self.identity.items():
            if before.get(name) != value:
                raise ConfigError(
                    f"the run in {str(self.folder)!r} had {name}={before.get(name)!r}, and not {value!r}; "
                    "resume it with what it had, or give another folder"
                )

    def last(self) -> Path | None:
        """The newest checkpoint that was written to its end; those that were not are removed."""
        for folder in reversed(self._checkpoints()):
            try:
                json.loads((folder / _STATE).read_text(encoding="utf-8"))
            except (OSError, ValueError):
                shutil.rmtree(folder)
            else:
                return folder
        return None

    def _checkpoints(self) -> list[Path]:
        return sorted(self.folder.glob("checkpoint-*"), key=lambda folder: int(folder.name[11:]))

    def end(self) -> None:
        """Remove the checkpoints: the run is through."""
        shutil.rmtree(self.folder)


def fingerprint(lessons: Sequence[Lesson | Pair]) -> str:
    """A hash of all that is taught, in its order."""
    found = hashlib.sha256()
    for lesson in lessons:
        found.update(json.dumps([lesson.query, lesson.thought, *lesson.replies]).encode() + b"\n")
    return found.hexdigest()
