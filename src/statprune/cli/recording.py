"""`--record` of `statprune evaluate` and `statprune benchmark`."""

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from statprune import results
from statprune.card.dense_model import CARD
from statprune.card.renew import renew
from statprune.cli.show import say
from statprune.errors import StatpruneWarning


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
        """Write it, renew the folder's model card, and say where unless `quiet`.

        A card that cannot be renewed is left alone, and a note says why.
        """
        path = results.write(self.folder, kind, self.of, self.model, result)
        left_alone = renew(self.folder)
        if left_alone is not None and quiet:
            warnings.warn(left_alone, StatpruneWarning, stacklevel=2)
        if not quiet:
            say(f"kept in {path}")
            say(f"model card renewed: {self.folder / CARD}" if left_alone is None else f"note: {left_alone}")
