"""A model's modules without its weights: what `inspect` needs, from the config alone."""

from pathlib import Path

from transformers import PreTrainedModel

from statprune.checkpoint.config_file import class_for, config_of, parsed_config, weightless
from statprune.checkpoint.load import folder_of
from statprune.checkpoint.sentence_folder import MODULES_FILE, place_of_transformer


def skeleton(source: str | Path) -> PreTrainedModel:
    """The model of a folder or a hub name on the meta device: shapes and names, no weights.

    Raises:
        ModelError: there is no model there, or it is of a kind that cannot be pruned.
    """
    whole = folder_of(source, files=["config.json", "*/config.json", MODULES_FILE])
    folder = whole / place_of_transformer(whole)
    return weightless(class_for(config_of(folder), folder), parsed_config(folder))
