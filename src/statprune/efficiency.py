"""`benchmark`: sizes, memory and speed of a pruned model, beside the dense one in alternating runs."""

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any

import torch
import transformers
from torch import Tensor
from transformers import PreTrainedModel

from statprune.anatomy.lookup import Anatomy, anatomy_of
from statprune.budget.cost import Cost, macs_of_pass
from statprune.budget.size import size_of
from statprune.checkpoint.sentence_folder import place_of_transformer
from statprune.checkpoint.weight_files import one_line, weight_files
from statprune.efficiency_table import TIMINGS, Benchmark, Efficiency
from statprune.errors import DataError, InputError
from statprune.evaluation.devices import evaluating, place_of, takes, text_config
from statprune.evaluation.random_inputs import READS, lengths_of, random_inputs
from statprune.evaluation.rounding import GAIN, Perceptron, Roundings, products_timer, try_roundings
from statprune.evaluation.speed import Clock, Timing, decode_seconds, prefill_seconds, take_turns, waiting
from statprune.inputs import Opened, context_length, open_model
from statprune.peak_memory import HOW, Pass, in_fresh_process, on_gpu
from statprune.version import __version__

SEQ_LEN, DECODE_TOKENS = 128, 32

MOST = 2**24
"""Rows, tokens or runs at most: more is a mistake, and would not end."""


def benchmark(  # noqa: PLR0913 - the options of the command of this name
    pruned: PreTrainedModel | str | Path,
    *,
    against: PreTrainedModel | str | Path | None = None,
    batch: int = 1,
    seq_len: int | None = None,
    decode_tokens: int | None = None,
    repeats: int = 5,
    compiled: bool = False,
    dtype: str = "auto",
    device: str = "auto",
    seed: int = 0,
    clock: Clock = perf_counter,
) -> Benchmark:
    """Parameters, MACs, bytes, and tokens per second of a model, or of two in alternating runs.

    Inputs are random, without padding. A forward pass of a decoder makes logits of the last token alone.

    Args:
        pruned: a model, its folder, or its name on the hub; pruned or not.
        against: the dense one, to be measured beside it.
        batch: rows.
        seq_len: tokens in a row; by default 128, or what the context allows. Images have their own.
        decode_tokens: tokens to write after the first; by default 32 where the model can, 0 measures none.
        repeats: timed runs of each, after one that is not counted.
        compiled: time forward passes by torch.compile too.
        dtype: what weights are loaded as; "auto" keeps the checkpoint's.
        device: where to compute; "auto" takes a GPU where there is one.
        seed: draws the inputs.
        clock: seconds since any moment.

    Raises:
        ModelError: a model cannot be opened, or has no entry.
        InputError: a size cannot be used, or the two models cannot be compared.
    """
    _require_sizes({"batch": batch, "seq_len": seq_len, "repeats": repeats}, decode_tokens)
    given = {"pruned": pruned} | ({} if against is None else {"dense": against})
    opened = {name: open_model(each, dtype=dtype, device=device) for name, each in given.items()}
    anatomies = {name: anatomy_of(each.model) for name, each in opened.items()}
    _require_comparable(opened)
    length, written = _sizes(opened, seq_len, decode_tokens)
    inputs = {
        name: random_inputs(each.model, batch, length, torch.Generator().manual_seed(seed))
        for name, each in opened.items()
    }
    model = opened["pruned"].model
    if model.main_input_name == "pixel_values":
        length = lengths_of(model, [anatomies["pruned"].blocks[0]], inputs["pruned"])[0]
    now = waiting(place_of(model)[0], clock)
    calls: dict[str, Callable[[], float]] = {}
    for name, each in opened.items():
        for kind, call in _calls(each, inputs[name], written, compiled, now).items():
            calls[f"{kind} {name}"] = call
    seconds = take_turns(calls, repeats)
    measured = {}
    for name, each in opened.items():
        timings = {
            kind: Timing(batch * (written if kind == "decode" else length), seconds[f"{kind} {name}"])
            for kind in TIMINGS
            if f"{kind} {name}" in seconds
        }
        folder = isinstance(given[name], str | Path)
        on_disk = Pass(str(given[name]), batch, length, dtype, torch.get_num_threads()) if folder else None
        measured[name] = _efficiency(each, anatomies[name], inputs[name], on_disk, timings)
    protocol = _protocol(opened["pruned"], batch, length, written, repeats) | {"seed": seed}
    found = Benchmark(measured["pruned"], measured.get("dense"), None, protocol)
    if found.ratios.get("forward", GAIN) >= GAIN:
        return found
    return replace(found, rounding=_roundings(anatomies["pruned"], model, batch * length, now, repeats))


def _require_sizes(sizes: Mapping[str, int | None], decode_tokens: int | None) -> None:
    for name, value in sizes.items():
        if value is not None and value < 1:
            raise InputError(f"{name} is {value}; give at least 1.")
        if value is not None and value > MOST:
            raise InputError(f"{name} is {value}; give at most {MOST}.")
    if decode_tokens is not None and not 0 <= decode_tokens <= MOST:
        raise InputError(f"decode_tokens is {decode_tokens}; give 0 for none, or up to {MOST}.")


def _calls(
    opened: Opened, inputs: Mapping[str, Tensor], written: int, compiled: bool, now: Clock
) -> dict[str, Callable[[], float]]:
    """What is timed, by the names of `TIMINGS`."""
    model = opened.model
    calls: dict[str, Callable[[], float]] = {"forward": partial(prefill_seconds, model, inputs, model, now)}
    if written:
        prompt = {key: value for key, value in inputs.items() if not key.startswith("decoder_")}
        calls["decode"] = partial(decode_seconds, model, prompt, written, now)
    if compiled:
        calls["compiled"] = _compiled(opened, inputs, now)
    return calls


def _require_comparable(opened: Mapping[str, Opened]) -> None:
    for each in opened.values():
        main = each.model.main_input_name
        if main != "input_ids" and main not in READS:
            raise InputError(
                f"{each.name} reads {main}, which cannot be drawn; known are {', '.join(READS)}."
            )
    if "dense" not in opened:
        return
    pruned, dense = opened["pruned"], opened["dense"]
    for what, one, other, remedy in (
        ("class of head", _writes(pruned), _writes(dense), "give both with the head of the same task"),
        ("main input", pruned.model.main_input_name, dense.model.main_input_name, "give models of one kind"),
        (
            "vocabulary",
            text_config(pruned.model, "vocab_size"),
            text_config(dense.model, "vocab_size"),
            "give the model that it was pruned from",
        ),
        ("dtype", place_of(pruned.model)[1], place_of(dense.model)[1], "give --dtype"),
    ):
        if one != other:
            raise InputError(
                f"{what}: {one} in {pruned.name}, but {other} in {dense.name}; to compare them, {remedy}."
            )


def _writes(opened: Opened) -> str:
    model = opened.model
    writes = model.can_generate() and model.main_input_name == "input_ids"
    return "writes text" if writes else "writes none"


def _sizes(opened: Mapping[str, Opened], seq_len: int | None, decode_tokens: int | None) -> tuple[int, int]:
    """Tokens to read in a row, and to write."""
    pruned = opened["pruned"]
    model, writes = pruned.model, all(_writes(each) == "writes text" for each in opened.values())
    if decode_tokens and not writes:
        raise DataError(
            f"decode_tokens is {decode_tokens}, but {pruned.name}, a {type(model).__name__}, writes no text "
            f"here. Leave it out."
        )
    if model.main_input_name == "pixel_values" and seq_len is not None:
        raise DataError(f"seq_len is {seq_len}, but {pruned.name} reads images of one size. Leave it out.")
    limits = [limit for each in opened.values() if (limit := context_length(each)) is not None]
    context = min(limits, default=SEQ_LEN + DECODE_TOKENS + 1)
    if not limits and seq_len is not None:
        context = seq_len + (decode_tokens if decode_tokens is not None else DECODE_TOKENS) + 1
    apart = bool(model.config.is_encoder_decoder)  # what is written does not follow what was read
    written = decode_tokens if decode_tokens is not None else (DECODE_TOKENS if writes else 0)
    if decode_tokens is None and not apart:
        written = max(0, min(written, context - (seq_len or context // 2) - 1))
    room = context - (written + 1 if written and not apart else 0)
    length = seq_len if seq_len is not None else max(1, min(SEQ_LEN, room))
    if length > room or written >= context:
        raise DataError(
            f"sequence length {length} and {written} tokens to decode do not fit {pruned.name}, which has "
            f"{context} positions. Take less."
        )
    return length, written


def _compiled(opened: Opened, inputs: Mapping[str, Tensor], now: Clock) -> Callable[[], float]:
    """A forward pass by torch.compile, compiled."""
    made = torch.compile(opened.model, dynamic=False)
    run = partial(prefill_seconds, made, inputs, opened.model, now)
    try:
        run()
    except Exception as error:  # compilers raise whatever they like
        raise InputError(
            f"{opened.name}: torch.compile fails here: {one_line(error)}. Leave out --compile."
        ) from error
    return run


def _efficiency(
    opened: Opened,
    anatomy: Anatomy,
    inputs: dict[str, Tensor],
    on_disk: Pass | None,
    timings: Mapping[str, Timing],
) -> Efficiency:
    model = opened.model
    firsts = [run.blocks[0] for run in anatomy.runs]
    rows = len(next(iter(inputs.values())))
    memory = None
    if model.device.type == "cuda":
        memory = on_gpu(model, inputs)
    elif on_disk is not None:
        memory = in_fresh_process(on_disk)
    size = size_of(model)
    return Efficiency(
        model=opened.name,
        parameters=size.parameters,
        block_parameters=Cost("params", 1).dense(anatomy.sites),
        macs=macs_of_pass(anatomy, rows, lengths_of(model, firsts, inputs)),
        file_bytes=None if on_disk is None or opened.source is None else _file_bytes(opened.source),
        weight_bytes=size.bytes,
        cache_bytes_per_token=_cache_bytes(model),
        forward_bytes=memory,
        **timings,
    )


def _file_bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in weight_files(folder / place_of_transformer(folder)))


def _cache_bytes(model: Any) -> int | None:
    """Bytes of keys and values for each token, all blocks together, as a cache of two tokens holds them."""
    if not model.can_generate() or not takes(model, "use_cache"):
        return None
    inputs = random_inputs(model, 1, 2, torch.Generator().manual_seed(0))
    with evaluating(model):
        cache = model(**inputs, use_cache=True).past_key_values
    cache = getattr(cache, "self_attention_cache", cache)
    held = [(layer.keys, layer.values) for layer in cache.layers if layer.keys is not None]
    return int(sum(keys.nbytes + values.nbytes for keys, values in held)) // 2


def _roundings(
    anatomy: Anatomy, model: PreTrainedModel, tokens: int, now: Clock, repeats: int
) -> Roundings | None:
    perceptrons = Counter(
        Perceptron(
            neurons=site.units,
            hidden=site.macs_per_unit // (1 + sum(each.rows for each in site.producers)),
            rows=sum(each.rows for each in site.producers),
        )
        for site in anatomy.sites
        if site.kind == "feed_forward" and not site.experts
    )
    if not perceptrons:
        return None
    device, dtype = place_of(model)
    with torch.no_grad():
        return try_roundings(perceptrons, products_timer(tokens, device, dtype, now, repeats))


def _protocol(opened: Opened, batch: int, length: int, written: int, repeats: int) -> dict[str, Any]:
    model = opened.model
    device, dtype = place_of(model)
    gpu = device.type == "cuda"
    return {
        "batch": batch,
        "seq_len": length,
        "decode_tokens": written,
        "repeats": repeats,
        "order": "alternating, after one run of each that is not counted; medians, and ratios of medians",
        "forward": "logits of the last token alone" if takes(model, "logits_to_keep") else "all outputs",
        "macs": "of the prunable projections and the scores between tokens, as in statprune/budget/cost.py",
        "peak_memory": HOW[device.type],
        "dtype": str(dtype).removeprefix("torch."),
        "device": torch.cuda.get_device_name(device) if gpu else "cpu",
        "threads": None if gpu else torch.get_num_threads(),
        "attention": model.config._attn_implementation,
        "versions": f"statprune {__version__}, torch {torch.__version__}, "
        f"transformers {transformers.__version__}",
    }
