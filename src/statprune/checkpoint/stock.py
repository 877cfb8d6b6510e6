"""Which head counts, the same in every block, a stock config can say: those that need no code to load."""

from transformers import PreTrainedModel

from statprune.anatomy.lookup import Anatomy
from statprune.anatomy.sites import Site
from statprune.checkpoint import classes
from statprune.checkpoint.widths import accepts, copy_of_config, reencoded, write_stock


def stock_units(model: PreTrainedModel, anatomy: Anatomy) -> dict[str, list[int]]:
    """For every attention site the units that a stock config can say, if all sites have as many.

    Where the modelling files compute the size of a head from their number, that is all of them: none where
    some have been cut before.
    """
    sites = [site for site in anatomy.sites if site.kind == "attention"]
    if not sites:
        return {}
    if any(run.stack.widths.head_dim is None for run in anatomy.runs):
        return {site.name: [site.units] if _is_whole(site, anatomy, model) else [] for site in sites}
    stock_class = classes.stock_class_of(type(model))
    other = anatomy.entry.reencode.get(model.config.model_type)
    free = other is not None and reencoded(model, copy_of_config(model), stock_class, other) is not None
    said = []
    for units in range(1, max(site.units for site in sites) + 1):
        config = copy_of_config(model)
        widths = {
            name: [site.quantities(units)[quantity]]
            for site in sites
            for name, quantity in site.names.items()
        }
        write_stock(config, anatomy, widths)
        if free or accepts(config):
            said.append(units)
    return {site.name: [units for units in said if units <= site.units] for site in sites}


def _is_whole(site: Site, anatomy: Anatomy, model: PreTrainedModel) -> bool:
    heads = getattr(model.config, anatomy.stack_of(site).widths.heads)
    return bool(site.quantities(site.units)["heads"] == heads)
