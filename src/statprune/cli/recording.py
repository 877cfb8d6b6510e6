"""`--record` of `statprune evaluate` and `statprune benchmark`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from statprune import results
from statprune.cli.show import say


@dataclass(frozen=True)
class Recording:
    """Where a result is kept, settled before it is measured."""

    folder: Path
    model: str
    of: results.Subject

    @staticmethod
    def asked(folder: Path | None, model: str) -> "Recording | None":
        """What --record asks for; None where it is not given.

        Raises:
            InputError: `folder` was not made of `model` and does not hold it, or cannot be written to.
        """
        if folder is None:
            return None
        return Recording(folder, model, results.subject_of(model, folder))

    def keep(self, kind: results.Kind, result: dict[str, Any], *, quiet: bool) -> None:
        """Write it, and say where unless `quiet`."""
        path = results.write(self.folder, kind, self.of, self.model, result)
        if not quiet:
            say(f"kept in {path}")
