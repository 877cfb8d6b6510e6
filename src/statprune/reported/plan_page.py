"""What the page of a measurement says: curves, and damage against what is kept."""

from shlex import quote

from statprune.reported import network
from statprune.reported.facts import unit_of_damage
from statprune.reported.reading import Left
from statprune.reported.sections import Page, Section, curves_section
from statprune.reported.sites import cuts
from statprune.reported.wording import at, texts, told


def plan_page(left: Left) -> Page:
    """The page of a folder that `plan` has left; to be called where `drawing.style` holds."""
    record, found = left.record, cuts(left)
    model = told(record.get("model") or "a model without a name")
    model = model.rpartition("/")[2] if model.startswith("/") else model  # a private place stays private
    about = record.get("about")
    facts = [
        (name.replace("_", " "), told(value))
        for name, value in _items(about)
        if name not in ("notes", "stock_units")
    ]
    facts += [("fingerprint of the weights", told(record.get("fingerprint")))]
    facts += [
        (f"data: {name.replace('_', ' ')}", told(value))
        for name, value in _items(record.get("data"))
        if value is not None
    ]
    facts += [
        (f"latency: {name}", told(value)) for name, value in _items(at(record, "latency", "conditions"))
    ]
    folder = quote(left.label)
    budgets = Section(
        "budget",
        "Damage against what is kept",
        [
            "Every site keeps the same share of its units here; a plan of least damage does no more at "
            "the same share."
        ],
        [
            ("plans of least damage for any budget", f"statprune plan --from {folder} --keep 0.8 --keep 0.6"),
            ("a model by one of them", f"statprune compress --from {folder} --keep 0.6 --out DIR"),
        ],
        charts=network.damage_by_share(found, unit_of_damage(at(about, "damage"))),
    )
    notes = [told(each) for each in texts(at(about, "notes"))]
    made = [
        budgets,
        curves_section(found, marked=False),
        Section("notes", "Notes", [] if notes else ["None was raised."], listed=notes),
        Section("about", "What was measured, and how", facts=facts),
    ]
    says = [f"{model} was measured once; nothing is pruned yet. {len(found)} sites can be narrowed."]
    return Page(f"{left.label}: what pruning would cost", says, (), made)


def _items(content: object) -> list[tuple[str, object]]:
    return list(content.items()) if isinstance(content, dict) else []
