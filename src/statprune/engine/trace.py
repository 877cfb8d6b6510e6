"""What was done at each site, and what it cost."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from time import perf_counter
from typing import Any

from statprune.anatomy.sites import Site
from statprune.engine.progress import Facts
from statprune.engine.resident import peak_memory


@dataclass(frozen=True)
class SiteTrace:
    """One site's cut.

    `relative_error` is ||(Z - Z_kept T) W^T||_F / ||Z W^T||_F over the calibration tokens; of a refit that of
    its target, over all tokens that its fits see, weighted. `condition` is that of the triangle solved with,
    `rank` the independent columns among those kept. Of experts `kept` has a row for each.
    """

    site: str
    units: int
    kept: Sequence[int] | Sequence[Sequence[int]]
    relative_error: float
    condition: float
    rank: int


@dataclass
class Trace:
    """A run, site by site and stage by stage."""

    sites: list[SiteTrace] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)
    """Wall time by stage."""
    memory: dict[str, int] = field(default_factory=dict)
    """The most memory that the process had taken when a stage ended, in bytes; on a GPU that of the GPU."""
    curves: dict[str, Any] = field(default_factory=dict)
    """Error, and damage predicted, against width, by site (budget/curves.py); of what was measured."""
    warnings: list[str] = field(default_factory=list)
    search: list[dict[str, Any]] = field(default_factory=list)
    """Plans that a search has tried: widths, and the divergence measured."""
    predicted: float | None = None
    """Divergence of the outputs that the plan was expected to cause (engine/divergence.py)."""
    damage: str = ""
    """What these two numbers are, in words."""
    divergence: float | None = None
    """What was measured afterwards, on every fourth calibration sample; None for methods that do not."""
    spliced: int = 0
    """Samples made of two each, which fits saw besides the calibration samples (engine/few_tokens.py)."""

    def ended(self, stage: str, started: float) -> None:
        """Note what a stage that began at `started` (perf_counter) has taken."""
        self.seconds[stage] = perf_counter() - started
        most = peak_memory()
        if most is not None:
            self.memory[stage] = most

    def add(
        self,
        site: Site,
        kept: Sequence[int] | Sequence[Sequence[int]],
        relative_error: float,
        condition: float,
        rank: int,
    ) -> None:
        """Note the cut of one site."""
        self.sites.append(SiteTrace(site.name, site.units, kept, relative_error, condition, rank))

    def facts(self, *, recalled: bool = False) -> Facts:
        """The site that was narrowed last, and its error."""
        if not self.sites:
            return Facts(recalled=recalled)
        return Facts(self.sites[-1].site, self.sites[-1].relative_error, recalled=recalled)

    def note_unseen(self, site: Site, experts: Sequence[int]) -> None:
        """Warn of experts that were given too few tokens to be fitted, if there are any."""
        if experts:
            self.warnings.append(
                f"{site.name}: of {site.experts} experts {', '.join(map(str, experts))} got too few "
                f"calibration tokens to tell their neurons apart: the largest stay, uncorrected. Give more "
                f"samples."
            )

    def to_json(self) -> dict[str, Any]:
        """JSON-able content; without the curves, which a record has beside it."""
        return {name: value for name, value in asdict(self).items() if name != "curves"}

    @staticmethod
    def of_json(content: Mapping[str, Any]) -> "Trace":
        """What `to_json` gave."""
        return Trace(**{**content, "sites": [SiteTrace(**each) for each in content["sites"]]})
