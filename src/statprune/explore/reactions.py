"""What the page does when something is moved, typed or pressed: values in, what is shown out."""

from typing import Any

import gradio as gr

from statprune.errors import InputError, StatpruneError
from statprune.explore import wording
from statprune.explore.choices import Asked, Explored, command, folder_of, told, words
from statprune.explore.runs import Runs
from statprune.explore.samples import sample


class Reactions:
    """Bound to components by `page`; keeps nothing between two calls.

    `given` are the components of an `Asked`, in the order of its fields.
    """

    def __init__(self, explored: Explored, runs: Runs) -> None:
        self.explored, self._runs = explored, runs

    def answer(self, out: str, resume: bool, *given: Any) -> tuple[str, str, str, str]:
        """Numbers, damage by budget, widths, and the command."""
        found = told(self.explored, _asked(given))
        numbers, widths = wording.numbers(found, self.explored), wording.widths(found, self.explored)
        if found.recipe is None:
            return numbers, wording.damage(found), widths, ""
        line = command(self.explored, found.recipe, out, resume=resume)
        return numbers, wording.damage(found), widths, line

    def rename(self, out: str, resume: bool, *given: Any) -> str:
        """The command."""
        return self.answer(out, resume, *given)[-1]

    def begin(self, out: str, resume: bool, *given: Any) -> tuple[Any, ...]:
        """The compression's number, how it goes, the clock, and the buttons to start and cancel."""
        try:
            if not out.strip():
                raise InputError("no output folder is named; type one that does not exist yet.")
            found = told(self.explored, _asked(given))
            if found.recipe is None:
                raise InputError(found.refused)
            made = words(self.explored, found.recipe, out, resume=resume)
            begun = self._runs.start(made, folder_of(out), resume=resume)
        except (StatpruneError, OSError) as error:
            return gr.skip(), wording.refused(str(error)), gr.skip(), gr.skip(), gr.skip()
        shown = wording.progress(self._runs[begun].seen())
        return begun, shown, gr.Timer(active=True), _button(False), _button(True)

    def look(self, begun: int | None) -> tuple[Any, ...]:
        """How it goes, the clock, the two buttons, and the folder when it is done."""
        if begun is None:
            return gr.skip(), gr.Timer(active=False), _button(True), _button(False), gr.skip()
        seen = self._runs[begun].seen()
        others = [each for number, each in self._runs.going_on() if number != begun]
        shown = wording.progress(seen) + wording.others(others)
        done = str(seen.out) if seen.code == 0 else gr.skip()
        buttons = _button(not seen.running), _button(seen.running)
        return shown, gr.Timer(active=seen.running), *buttons, done

    def end(self, begun: int | None) -> str:
        """Interrupt the tab's own compression."""
        if begun is None:
            return wording.progress(None)
        self._runs[begun].interrupt()
        return wording.progress(self._runs[begun].seen())

    def write(self, thin: str, prompt: str, tokens: float) -> tuple[str, str, str]:
        """Why there is no text, or that of the dense and of the compressed model."""
        try:
            found = sample(self.explored, thin, prompt, int(tokens))
        except StatpruneError as error:
            return wording.refused(str(error)), "", ""
        return "", found.dense, found.thin


def _asked(given: tuple[Any, ...]) -> Asked:
    keep, of, rule, multiple, floors, pins, protect = given
    return Asked(keep, of, rule, multiple, floors or "", pins or "", tuple(protect or ()))


def _button(active: bool) -> Any:
    return gr.Button(interactive=active)
