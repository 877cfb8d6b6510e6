"""Data -> calibration samples of a model, by one rule for every kind of it."""

from hashlib import sha256
from typing import Any

import torch

from statprune.anatomy.lookup import Anatomy
from statprune.calibration.given import check_ids, given, longest_ids, taken_by
from statprune.calibration.images import images
from statprune.calibration.pairs import pairs
from statprune.calibration.samples import CHARACTERS_PER_TOKEN, POOL_FACTOR, Samples, sentences, windows
from statprune.calibration.sound import sound
from statprune.checkpoint.unfinished import digest_tensors
from statprune.engine.backends import rows_seen
from statprune.engine.divergence import HOLD_OUT
from statprune.engine.trial import tokens_by_stack, tried
from statprune.errors import DataError
from statprune.inputs import Opened, are_batches, context_length, is_of_content, listed, records_of
from statprune.recipe import Recipe

FEWEST_SAMPLES = HOLD_OUT
"""Method refit holds every fourth sample out."""


def samples_of(opened: Opened, anatomy: Anatomy, recipe: Recipe, data: Any, seq_len: int) -> Samples:
    """The calibration samples that the recipe asks for, drawn from `data`; tried out where they may not fit.

    Raises:
        DataError: the data cannot be used.
    """
    data = listed(data)
    samples = _drawn(opened, anatomy, recipe, data, seq_len)
    count = int(samples.protocol["samples"])
    if recipe.method == "refit" and count < FEWEST_SAMPLES:
        raise DataError(
            f"{count} calibration samples: method refit holds every fourth one out. Give at least "
            f"{FEWEST_SAMPLES}, better hundreds, or use method stat."
        )
    check_ids(samples, getattr(opened.model.config, "vocab_size", None))
    own = are_batches(data) or anatomy.entry.kind == "encoder-decoder" or is_of_content(opened)
    return tried(opened.model, anatomy, samples) if own and opened.lender is None else samples


def _drawn(opened: Opened, anatomy: Anatomy, recipe: Recipe, data: Any, seq_len: int) -> Samples:
    if are_batches(data):
        samples = given(data, taken_by(opened.model))
        longest, positions = longest_ids(samples), context_length(opened)
        if positions is not None and longest > positions:
            raise DataError(f"the batches hold rows of {longest} tokens; this model reads {positions}.")
        return samples
    generator = torch.Generator().manual_seed(recipe.seed)
    if is_of_content(opened):
        return _of_content(data, opened, recipe, seq_len, generator)
    pool = POOL_FACTOR * recipe.samples * seq_len * CHARACTERS_PER_TOKEN
    records = records_of(data, opened, recipe.text_column, "train", pool)
    sizes: dict[str, Any] = {"samples": recipe.samples, "seq_len": seq_len, "generator": generator}
    if anatomy.entry.kind == "encoder-decoder":
        model = opened.model
        writes = model.can_generate() or model.base_model is model
        return pairs(records, opened.tokenizer, taken_by(model), writes=writes, **sizes)
    draw = windows if anatomy.entry.kind == "decoder" and not _reads_records(opened) else sentences
    return draw(records, opened.tokenizer, **sizes)


def _of_content(
    data: Any, opened: Opened, recipe: Recipe, seq_len: int, generator: torch.Generator
) -> Samples:
    takes = taken_by(opened.model)
    if takes.main == "pixel_values" and not takes.decodes:
        if isinstance(recipe.text_column, tuple) or recipe.seq_len is not None:
            raise DataError(
                f"{opened.name} reads images: they have one column, and a length of their own; leave out the "
                f"second column and seq_len."
            )
        column, count = recipe.text_column, recipe.samples
        return images(data, opened.processor, column=column, samples=count, generator=generator)
    if takes.main != "input_features":
        raise DataError(f"{opened.name} reads {takes.main}; give batches with them.")
    return sound(
        data,
        opened.processor,
        opened.tokenizer,
        takes,
        samples=recipe.samples,
        seq_len=seq_len,
        generator=generator,
    )


def _reads_records(opened: Opened) -> bool:
    """Whether the model's task is about one text at a time, not about running text."""
    return any(task in type(opened.model).__name__ for task in ("Classification", "QuestionAnswering"))


def short_of_rows(anatomy: Anatomy, samples: Samples, recipe: Recipe) -> tuple[str, ...]:
    """A note where there are fewer tokens, or rows of a sketch, than columns at some site; else none."""
    counts = tokens_by_stack(samples.batches)
    tokens_of = {
        site.name: counts[min(number, len(counts) - 1)]
        for number, run in enumerate(anatomy.runs)
        for site in anatomy.sites
        if run.start <= site.block < run.end
    }
    widest = max(anatomy.sites, key=lambda site: site.units * site.columns / tokens_of[site.name])
    columns, tokens = widest.units * widest.columns, tokens_of[widest.name]
    rows = rows_seen(recipe.backend, samples=samples.protocol["samples"], tokens=tokens)
    if rows >= columns:
        return ()
    what = "calibration tokens" if rows == tokens else f"rows of the {recipe.backend} sketch"
    return (
        f"{rows} {what} for {columns} columns at {widest.name}: units beyond the {rows}th cannot be told "
        f"apart. Give more samples{', or longer ones' if rows == tokens else ', or use the gram backend'}.",
    )


def digest_of(samples: Samples) -> str:
    """A digest of the samples' content: what was drawn, to the bit."""
    digest = sha256()
    for batch in samples.batches:
        digest_tensors(digest, batch)
    return digest.hexdigest()
