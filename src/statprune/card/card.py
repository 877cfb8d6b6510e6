"""The model card of a folder, README.md: written when the folder is, its results renewed as they come.

Its bytes depend on the run and nothing else: a run that goes on ends in the same ones.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import ModelCard, ModelCardData

from statprune.card.dense_model import CARD, Base
from statprune.card.loading import Opening, how_to_load, other_programs
from statprune.card.markdown import block, code, escaped
from statprune.card.removed import calibration, damage, made_by, removed
from statprune.card.scores import comparison, numbers_of, speed
from statprune.checkpoint.save import SavedFolder
from statprune.repeat import PLAN_FILE, command_of
from statprune.results import Recorded

BEGIN, END = "<!-- statprune: results, written anew by --record -->", "<!-- statprune: end of results -->"


def write_card(
    folder: Path, saved: SavedFolder, *, record: Mapping[str, Any], base: Base, tokenizer: Any
) -> None:
    """Write README.md into `folder`, which is whole otherwise; `saved` says how it opens."""
    opening = Opening.of(folder, stock=saved.stock, reason=saved.reason)
    (folder / CARD).write_bytes(card_of(record, base, opening, tokenizer).encode("utf-8"))


def card_of(record: Mapping[str, Any], base: Base, opening: Opening, tokenizer: Any) -> str:
    """The whole README.md of a new folder, metadata first.

    Args:
        record: of the run, as in statprune.json.
        base: the dense model.
        opening: how the folder is opened.
        tokenizer: that lies in it, or None.
    """
    share = record["cost"]["params"]["share"]
    sections = {
        "Base model": f"{_told(base)}\n\nLicence: {base.licence_told}",
        "What was removed": f"{made_by(record)}\n\n{removed(record)}",
        "Calibration": calibration(record),
        "Results": f"{BEGIN}\n{results_section(record, [])}\n{END}",
        "How to load": how_to_load(opening),
        "Other programs": other_programs(opening, record, tokenizer),
        "How to reproduce": _reproduce(record),
        "Limits": LIMITS + "".join(f"\n- {escaped(note)}" for note in _notes(record)),
        "Card of the base model": _card_of_base(base) if opening.modules else "",
    }
    text = (
        f"# {code(base.name)}, pruned\n\n"
        f"{code(base.name)} with fewer attention heads and neurons: {share:.1%} of the parameters of its "
        f"attention and feed-forward projections are left. Made by statprune {escaped(record['statprune'])} "
        f"after training: no fine-tuning, no gradients.\n\n"
    )
    text += "\n\n".join(f"## {title}\n\n{content}" for title, content in sections.items() if content)
    return str(ModelCard(f"---\n{_metadata(base, opening).to_yaml()}\n---\n\n{text}\n"))


LIMITS = """\
- The model was not fine-tuned after pruning; what it has lost can in part be won back by training.
- Nothing besides what stands under Results was measured: no other task, no other language, and neither \
safety nor bias, which may differ from the base model's.
- What the base model's card says of limits, and of intended use, holds here too; scores that it names are \
those of the dense model."""


def _metadata(base: Base, opening: Opening) -> ModelCardData:
    inherited = {name: value for name, value in base.metadata.items() if name != "tags"}
    library = "sentence-transformers" if opening.modules else "transformers"
    tags = [*base.metadata.get("tags", ()), "statprune", "pruned"]
    tags += [] if opening.stock else ["custom_code"]
    return ModelCardData(
        **{"library_name": library, **inherited},
        base_model=base.repository,
        tags=list(dict.fromkeys(tags)),
    )


def _told(base: Base) -> str:
    if base.repository is None:
        return f"{code(base.name)}, a model whose name on the Hub, if it has one, was not known to the run."
    return f"{code(base.repository)} on the Hub."


def _reproduce(record: Mapping[str, Any]) -> str:
    versions = {"statprune": record["statprune"], **record["versions"]}
    told = ", ".join(f"{escaped(name)} {escaped(version)}" for name, version in versions.items())
    more = ""
    if record["recipe"].get("plan") is not None:
        more += f" The plan, here {code(PLAN_FILE)}, is {code('plan')} in that file."
    if (record["data"].get("source") or {}).get("source", "memory") == "memory":
        more += " The data was given in memory."
    return (
        f"{block(command_of(record), 'sh')}\n\nWith {told}. {code('statprune.json')} in this folder holds "
        f"the whole protocol: options, data, plan, and what was done at each site.{more}"
    )


def _notes(record: Mapping[str, Any]) -> Sequence[str]:
    return [*record.get("notes", ()), *record["trace"].get("warnings", ())]


def _card_of_base(base: Base) -> str:
    """Its text, in which no marker of ours is one any more."""
    if not base.text.strip():
        return ""
    text = base.text.replace(BEGIN, "").replace(END, "").strip()
    return f"What follows is the dense model's: **scores in it are not those of this model.**\n\n{text}"


def results_section(record: Mapping[str, Any], results: Sequence[Recorded]) -> str:
    """What stands between the markers."""
    numbers, timed = numbers_of(results), speed(results)
    pieces = [damage(record), _gate(record)]
    if numbers:
        pieces.append(comparison(numbers))
    else:
        pieces.append("No task was measured with this folder so far.")
    if timed:
        pieces += ["Size and speed:", timed]
    return "\n\n".join(piece for piece in pieces if piece)


def _gate(record: Mapping[str, Any]) -> str:
    """What the search of `--max-drop` found on its validation set."""
    gate = record.get("gate")
    if gate is None:
        return ""
    chosen = [trial for trial in gate["trials"] if trial["keep"] == gate["keep"]]
    source = gate["protocol"]["data"]["source"]
    return (
        f"The share kept was searched so that {escaped(gate['metric'])} of {escaped(gate['task'])} falls by "
        f"at most {gate['max_drop']:g} {escaped(gate['unit'])}: {chosen[0]['score']:.4f} with this model, "
        f"{gate['dense']:.4f} with the dense one, on {gate['examples']:,} examples of {code(source)}, which "
        f"the search has seen."
    )


@dataclass(frozen=True)
class Marked:
    """A card with our markers in it: what is before, between and behind them."""

    before: str
    behind: str

    @staticmethod
    def of(text: str) -> "Marked | None":
        """The parts of `text`; None unless each marker stands there once, in order."""
        if text.count(BEGIN) != 1 or text.count(END) != 1 or text.index(BEGIN) > text.index(END):
            return None
        before, _, rest = text.partition(BEGIN)
        return Marked(before, rest.partition(END)[2])

    def around(self, content: str, line_break: str) -> str:
        """The whole text with `content` between the markers."""
        middle = line_break.join([BEGIN, *content.split("\n"), END])
        return f"{self.before}{middle}{self.behind}"
