"""The page: what is asked on the left, what the measurement answers on the right; below what comes of it.

A session's own state is the number of the compression that it has started; the measurement is only read.
"""

from pathlib import Path
from typing import Any

import gradio as gr

from statprune.explore import wording
from statprune.explore.choices import BUDGETS, WIDTHS, Explored, added
from statprune.explore.reactions import Reactions
from statprune.explore.runs import Runs
from statprune.explore.samples import MOST_CHARACTERS, MOST_TOKENS

STYLE = (Path(__file__).parent / "page.css").read_text(encoding="utf-8")
TITLE = "statprune explore"
EVERY = 0.5
"""Seconds between two looks at a compression."""

AT_ONCE = 4
"""Answers that are worked out at the same time."""

PROMPT = "Once upon a time"


def theme() -> Any:
    """The default one with fonts of the system: others would be fetched."""
    return gr.themes.Default(
        primary_hue="blue",
        font=["system-ui", "sans-serif"],
        font_mono=["ui-monospace", "monospace"],
    ).set(
        # Dark enough to be read on white; the default's are not.
        body_text_color_subdued="*neutral_600",
        body_text_color_subdued_dark="*neutral_300",
        block_info_text_color="*neutral_600",
        block_info_text_color_dark="*neutral_300",
        input_placeholder_color="*neutral_500",
        input_placeholder_color_dark="*neutral_400",
        button_primary_background_fill="*primary_700",
        button_primary_background_fill_dark="*primary_700",
        button_cancel_background_fill="*neutral_200",
        button_cancel_text_color="*neutral_900",
    )


def page(explored: Explored, runs: Runs) -> Any:
    """The blocks of the page, over a measurement; compressions are started in `runs`."""
    with gr.Blocks(title=TITLE, analytics_enabled=False) as blocks:
        gr.HTML(wording.headline(explored), padding=False)
        with gr.Row():
            with gr.Column(scale=2, min_width=300):
                asked = _asked(explored)
            with gr.Column(scale=3, min_width=300):
                numbers = gr.HTML(elem_id="numbers", padding=False)
                damage = gr.HTML(elem_id="damage", padding=False)
                widths = gr.HTML(elem_id="widths", padding=False)
        reactions = Reactions(explored, runs)
        thin = _compression(blocks, reactions, asked, (numbers, damage, widths))
        _samples(reactions, thin)
    return blocks


def _asked(explored: Explored) -> list[Any]:
    """Components of an `Asked`, in the order of its fields."""
    sites = [site.name for site in explored.found.sites]
    without = (
        "" if "latency" in explored.budgets else "Latency was not measured (`statprune plan --latency`)."
    )
    of = gr.Radio(
        [(BUDGETS[of], of) for of in explored.budgets],
        value="params",
        label="Budget of",
        info=without or None,
    )
    keep = gr.Slider(0.02, 1.0, value=0.75, step=0.005, label="Share to keep", elem_id="keep", buttons=[])
    rule = gr.Radio(list(WIDTHS), value=WIDTHS[0], label="Widths", info="Equal in every block, or not")
    multiple = gr.Number(8, precision=0, minimum=1, label="Neuron counts are multiples of")
    with gr.Accordion("Floors, pins and protected blocks", open=False):
        floors = gr.Textbox(
            label="Floors: least units", lines=2, placeholder="attention=2\nblocks.3.feed_forward=512"
        )
        pins = gr.Textbox(
            label="Pins: widths whatever the budget", lines=2, placeholder="blocks.0.attention=4"
        )
        with gr.Row():
            site = gr.Dropdown(sites, label="Site", value=sites[0], min_width=160)
            units = gr.Number(1, precision=0, minimum=1, label="Units", min_width=90)
        with gr.Row():
            floor = gr.Button("Set floor", size="sm", min_width=100)
            pin = gr.Button("Pin", size="sm", min_width=100)
        protect = gr.Dropdown(
            list(range(explored.blocks)),
            value=[],
            multiselect=True,
            label="Protected blocks: keep every unit",
        )
    for button, limits in ((floor, floors), (pin, pins)):
        button.click(added, [limits, site, units], limits, show_progress="hidden", api_visibility="private")
    return [keep, of, rule, multiple, floors, pins, protect]


def _compression(blocks: Any, reactions: Reactions, asked: list[Any], answers: tuple[Any, Any, Any]) -> Any:
    """The command, and its run; returns the folder that samples are read from."""
    gr.HTML("<h2>Compress</h2>", padding=False)
    with gr.Row():
        out = gr.Textbox(
            label="Output folder", placeholder="smaller", info="It must not exist yet", elem_id="out"
        )
        resume = gr.Checkbox(label="Go on with a run that did not end (--resume)")
    line = gr.Textbox(label="Command", lines=2, interactive=False, buttons=["copy"], elem_id="command")
    with gr.Row():
        start = gr.Button("Start", variant="primary", elem_id="start")
        cancel = gr.Button("Cancel", interactive=False, elem_id="cancel")
    shown = gr.HTML(wording.progress(None), elem_id="progress", padding=False)
    number, clock = gr.State(None), gr.Timer(EVERY, active=False)
    thin = gr.Textbox(label="Compressed folder", render=False, elem_id="thin")

    quiet: dict[str, Any] = {
        "show_progress": "hidden",
        "api_visibility": "private",
        "concurrency_limit": AT_ONCE,
    }
    given, outputs = [out, resume, *asked], [*answers, line]
    gr.on(
        [each.change for each in asked], reactions.answer, given, outputs, trigger_mode="always_last", **quiet
    )
    gr.on([out.change, resume.change], reactions.rename, given, line, trigger_mode="always_last", **quiet)
    start.click(reactions.begin, given, [number, shown, clock, start, cancel], **quiet)
    cancel.click(reactions.end, number, shown, **quiet)
    clock.tick(reactions.look, number, [shown, clock, start, cancel, thin], **quiet)
    blocks.load(reactions.answer, given, outputs, **quiet)
    return thin


def _samples(reactions: Reactions, thin: Any) -> None:
    """Text before and after, on demand."""
    gr.HTML("<h2>Text before and after</h2>", padding=False)
    if reactions.explored.mute:
        gr.HTML(wording.mute(reactions.explored), padding=False)
        return
    with gr.Row():
        prompt = gr.Textbox(PROMPT, label="Prompt", lines=2, max_length=MOST_CHARACTERS, elem_id="prompt")
        with gr.Column(min_width=240):
            thin.render()
            tokens = gr.Slider(1, MOST_TOKENS, value=60, step=1, label="New tokens, at most", buttons=[])
    ask = gr.Button("Write", elem_id="write")
    said = gr.HTML(elem_id="said", padding=False)
    with gr.Row():
        before = gr.Textbox(label="Dense", lines=6, interactive=False, elem_id="before")
        after = gr.Textbox(label="Compressed", lines=6, interactive=False, elem_id="after")

    # One at a time, whoever asks: no more than one model is in memory.
    ask.click(
        reactions.write, [thin, prompt, tokens], [said, before, after],
        concurrency_limit=1, concurrency_id="samples", api_visibility="private",
    )  # fmt: skip
