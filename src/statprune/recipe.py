"""Everything that determines a compression run, checked before anything is read."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, get_args

from statprune.budget.cost import Of
from statprune.budget.restrictions import Restrictions
from statprune.engine.backends import Backend
from statprune.errors import BudgetError, InputError, PlanError

Method = Literal["refit", "stat"]
WidthsRule = Literal["per-layer", "uniform", "stock"]


@dataclass(frozen=True)
class Recipe:
    """How a model is to be compressed.

    Attributes:
        keep: share of `of` to keep at most, in (0, 1]; None where `plan` says what to keep.
        of: what `keep` is a share of: parameters or multiply-accumulates of the prunable projections, or the
            time that the blocks take on this device (latency).
        plan: units to keep per site, or a file of them; None where `keep` says how much.
        method: how units are chosen and consumers corrected.
        widths: whether blocks may differ; None takes the rule that did less damage on models of the kind.
        samples: windows (decoders), records (encoders), pairs or images of calibration data.
        seq_len: tokens per sample, at most; None takes the smaller of 2048 and the model's context.
        text_column: the column, or for pairs the two columns, that hold the text; or the images.
        dtype: what weights are loaded as; "auto" keeps the checkpoint's.
        device: where to compute; "auto" takes a GPU where there is one.
        seed: draws samples, and sketches.
        backend: what activations are summed up in before they are factored (stat).
        multiple: neuron counts are multiples of this; full width is always legal.
        floors: least units to keep, by site or by kind of site (refit).
        protect: blocks that keep every unit; negative numbers count from the last (refit).
        pins: the width of a site, whatever the budget (refit).
        value_dim: columns that the values of every head keep (refit); None: with per-layer widths the number
            with which a budget loses least, else all.
        search: whether the plan is refined by trying its neighbours out (refit); slower.
    """

    keep: float | None = None
    of: Of = "params"
    plan: Mapping[str, int] | Path | None = None
    method: Method = "refit"
    widths: WidthsRule | None = None
    samples: int = 128
    seq_len: int | None = None
    text_column: str | tuple[str, str] | None = None
    dtype: str = "auto"
    device: str = "auto"
    seed: int = 0
    backend: Backend = "gram"
    multiple: int = 8
    floors: Mapping[str, int] = field(default_factory=dict)
    protect: Sequence[int] = ()
    pins: Mapping[str, int] = field(default_factory=dict)
    value_dim: int | None = None
    search: bool = False

    def __post_init__(self) -> None:
        self._check_budget()
        choices: dict[str, tuple[str, Any]] = {
            "of": (self.of, Of),
            "method": (self.method, Method),
            "backend": (self.backend, Backend),
        }
        if self.widths is not None:
            choices["widths"] = (self.widths, WidthsRule)
        for name, (value, allowed) in choices.items():
            if value not in get_args(allowed):
                raise InputError(f"{name} is {value!r}; choose one of {', '.join(get_args(allowed))}.")
        for name in ("samples", "multiple", "seq_len", "value_dim"):
            value = getattr(self, name)
            if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
                raise InputError(f"{name} is {value!r}; give a whole number of at least 1.")
        if isinstance(self.seed, bool) or not isinstance(self.seed, int) or not 0 <= self.seed < 2**63:
            raise InputError(f"seed is {self.seed!r}; give a whole number from 0 to 2^63 - 1.")
        self._check_restrictions()
        self._check_method()

    @property
    def restrictions(self) -> Restrictions:
        """Floors, protected blocks and pinned widths."""
        return Restrictions(self.floors, tuple(self.protect), self.pins)

    def _check_restrictions(self) -> None:
        by_name = "give units to keep by name, as in {'blocks.0.attention': 4}."
        wanted: dict[str, tuple[type, str]] = {
            "protect": (Sequence, "give a list of block numbers, as in [0, -1]."),
            "floors": (Mapping, by_name),
            "pins": (Mapping, by_name),
        }
        for name, (kind, remedy) in wanted.items():
            value = getattr(self, name)
            if isinstance(value, str) or not isinstance(value, kind):
                raise InputError(f"{name} is {value!r}; {remedy}")

    def _check_method(self) -> None:
        if self.plan is not None and (self.restrictions or self.search):
            raise PlanError(
                "a plan says every width; floors, pins, protected blocks and search go with keep."
            )
        if self.method == "stat" and (self.restrictions or self.search or self.of == "latency"):
            raise InputError(
                "method stat takes no floors, pins, protected blocks, search or latency; use method refit."
            )
        if self.widths == "stock" and self.value_dim is not None:
            raise InputError("no stock config can say a value_dim; leave it out, or take other widths.")
        if self.method == "stat" and self.value_dim is not None:
            raise InputError("method stat takes no value_dim; use method refit.")
        if self.method == "refit" and self.backend != "gram":
            raise InputError(f"backend {self.backend} goes with method stat; refit sums up Gram matrices.")

    @classmethod
    def of_options(cls, options: Mapping[str, Any]) -> "Recipe":
        """The recipe of keyword options; a plan given as text is a file's path.

        Raises:
            InputError: an option does not exist, or its value cannot be used.
        """
        known = [field.name for field in fields(cls)]
        for name in options:
            if name not in known:
                raise InputError(f"there is no option {name!r}; options are {', '.join(known)}.")
        plan = options.get("plan")
        return cls(**{**options, "plan": Path(plan) if isinstance(plan, str) else plan})

    def _check_budget(self) -> None:
        if self.plan is not None and self.keep is not None:
            raise BudgetError(f"both keep ({self.keep:g}) and a plan are given; give one of them.")
        if self.plan is not None and self.widths is not None:
            raise BudgetError(f"both widths ({self.widths}) and a plan are given; a plan says every width.")
        if self.plan is None and self.keep is None:
            raise BudgetError("nothing says how much to keep; give keep, a share in (0, 1], or a plan.")
        named = isinstance(self.plan, Path) or bool(self.plan) or self.value_dim is not None
        if self.plan is not None and not named:
            raise PlanError("the plan names no site; give units to keep for at least one.")
        if self.keep is not None and not (isinstance(self.keep, int | float) and 0 < self.keep <= 1):
            raise BudgetError(f"keep is {self.keep!r}; give a share above 0 and at most 1.")

    def to_json(self) -> dict[str, Any]:
        """JSON-able content; a plan file appears by its name."""
        content = asdict(self) | {"protect": list(self.protect)}
        if isinstance(self.plan, Path):
            content["plan"] = self.plan.name
        return content
