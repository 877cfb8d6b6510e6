"""`report`: what the page of a run says, that it is whole and safe, and that nothing is overwritten."""

import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import matplotlib
import pytest

import statprune
from tests.reported.left_behind import benchmark, gate, leave, perplexity, record, result, results

LIMIT = 2_000_000


class Parsed(HTMLParser):
    """Tags with their attributes, and the text outside of style."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self.text += " "

    def handle_data(self, data: str) -> None:
        if self.tags and self.tags[-1][0] != "style":
            self.text += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


def parsed(folder: Path) -> Parsed:
    return Parsed(Path(statprune.report(folder).out).read_text(encoding="utf-8"))


def test_it_says_what_the_run_left(tmp_path: Path) -> None:
    content = record(gate=gate())
    page = parsed(leave(tmp_path / "small", content, results()))
    words = " ".join(page.text.split())
    for part in ("parameters", "bytes"):
        assert content[part]["dense"] > content[part]["kept"]
    assert f"{content['parameters']['kept']:,}" in words
    assert f"{content['cost']['macs']['kept']:,}" in words
    assert "perplexity of test.txt 130.70 138.20 +5.7%" in words
    assert "accuracy of glue/mrpc 79.50 77.50 -2.00" in words
    assert "reading a prompt, tokens/s 128.00 204.80 +60.0%" in words
    for each in (
        "warning: blocks.1.attention: conditions are poor",
        "note: 16 windows asked, 12 available; all are used",
        "falls by at most 3.0 points from 79.50, on 400 examples",
        "statprune compress tiny-llama",
        "torch 2.13.0",
        "KL(dense || thin)",
        '"blocks.0.attention":',
    ):
        assert each in words.replace("\\ ", ""), each
    for measure in ("0.132", "0.091", "35.1 s", "3.4 GB"):
        assert measure in words


def test_every_chart_has_a_name_and_its_numbers(tmp_path: Path) -> None:
    page = parsed(leave(tmp_path / "small", record(gate=gate()), results()))
    charts = page.all("svg")
    assert len(charts) == 14
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    assert all(chart["role"] == "img" and chart["aria-labelledby"] in ids for chart in charts)
    assert len(page.all("figure")) == len(charts) == len(page.all("table")) - 1


def test_numbers_of_a_curve_are_those_of_the_record(tmp_path: Path) -> None:
    content = record()
    page = parsed(leave(tmp_path / "small", content))
    site = content["curves"]["blocks.1.feed_forward"]
    place = site["units"].index(content["plan"]["widths"]["blocks.1.feed_forward"])
    words = " ".join(page.text.split())
    row = f"feed-forward {site['units'][place]} of 96 (chosen) {site['error'][place]:.4g}"
    assert f"{row} {site['damage'][place]:.4g}" in words


def test_it_needs_nothing_from_elsewhere(tmp_path: Path) -> None:
    folder = leave(tmp_path / "small", record(gate=gate()), results())
    page = parsed(folder)
    text = (folder / "report.html").read_text()
    assert "default-src 'none'" in text
    assert not page.all("script")
    assert not page.all("link")
    for _, attributes in page.tags:
        for name in ("src", "href", "xlink:href", "action"):
            assert (attributes.get(name) or "#").startswith("#")
    assert not re.search(r"url\((?!#)", text)
    assert "@import" not in text


EVIL = "<script>alert(1)</script>'\"&{{7*7}}$\\frac{$\u0000\ud800"


def test_hostile_names_are_shown_and_do_nothing(tmp_path: Path) -> None:
    content = record(gate=gate() | {"metric": EVIL, "notes": [EVIL], "task": EVIL})
    content |= {"model": EVIL, "model_type": EVIL, "notes": [EVIL], EVIL: EVIL}
    content["data"]["source"] = {"source": EVIL, EVIL: EVIL}
    content["trace"]["warnings"] = [EVIL]
    content["trace"]["seconds"][EVIL] = 2.0
    content["versions"] = {EVIL: EVIL}
    for name in ("units", "curves"):
        content[name] = {site.replace("blocks", EVIL): value for site, value in content[name].items()}
    content["plan"]["widths"] = {site.replace("blocks", EVIL): 2 for site in content["plan"]["widths"]}
    evil = perplexity(3.0) | {"task": EVIL, "metric": EVIL, "score": 1.0, "higher_is_better": True}
    folder = leave(tmp_path / "<b onclick=x>", content, [result("evaluation", "this", evil)])
    page = parsed(folder)
    assert not page.all("script")
    assert not page.all("b")
    assert "<script>alert(1)</script>'\"&{{7*7}}$\\frac{$" in page.text
    assert "<b onclick=x>: what was pruned" in page.text
    assert not [each for _, attributes in page.tags for each in attributes if each.startswith("on")]
    both = statprune.report(folder, folder, out=tmp_path / "both.html")
    assert not Parsed(Path(both.out).read_text()).all("script")


def test_the_same_folder_gives_the_same_bytes_whatever_the_users_settings(tmp_path: Path) -> None:
    folder = leave(tmp_path / "small", record(gate=gate()), results())
    first = statprune.report(folder, out=tmp_path / "first.html")
    with matplotlib.rc_context({"font.size": 30, "axes.facecolor": "red", "svg.fonttype": "path"}):
        before = dict(matplotlib.rcParams)
        second = statprune.report(folder, out=tmp_path / "second.html", figures=tmp_path / "figures")
        assert dict(matplotlib.rcParams) == before
    assert Path(first.out).read_bytes() == Path(second.out).read_bytes()
    statprune.report(folder, out=tmp_path / "third.html", figures=tmp_path / "again")
    for path in (tmp_path / "figures").iterdir():
        assert path.read_bytes() == (tmp_path / "again" / path.name).read_bytes()


def test_figures_are_pictures_and_drawings_of_every_chart(tmp_path: Path) -> None:
    folder = leave(tmp_path / "small", record(), results())
    written = statprune.report(folder, figures=tmp_path / "figures")
    names = sorted(path.name for path in (tmp_path / "figures").iterdir())
    assert names == sorted(written.files)
    assert len(names) == 2 * written.charts
    for path in (tmp_path / "figures").iterdir():
        if path.suffix == ".png":
            assert path.read_bytes().startswith(b"\x89PNG")
        else:
            assert ElementTree.fromstring(path.read_bytes()).findall(".//{http://www.w3.org/2000/svg}text")


@pytest.mark.parametrize(("heads", "neurons"), [(32, 11008)])
def test_a_model_of_32_large_layers_stays_small(tmp_path: Path, heads: int, neurons: int) -> None:
    folder = leave(tmp_path / "large", record(32, neurons, heads), results())
    written = statprune.report(folder)
    assert written.charts == 32 + 10
    assert written.bytes == (folder / "report.html").stat().st_size < LIMIT


def test_an_old_record_gives_a_page_that_says_what_is_missing(tmp_path: Path) -> None:
    kept = ("units", "plan", "model", "cost", "trace")
    content = {name: part for name, part in record().items() if name in kept}
    del content["trace"]["memory"], content["trace"]["sites"]
    words = " ".join(parsed(leave(tmp_path / "it's old", content)).text.split())
    assert "does not hold parameters and bytes of the whole model" in words
    assert "Curves are not recorded" in words
    assert "Memory is not recorded" in words
    assert "The command cannot be told" in words
    assert "no evaluation is recorded" in words
    folder = "'it'\"'\"'s old'"
    assert f"statprune evaluate {folder} --data SOURCE --record {folder}" in words
    assert f"statprune benchmark {folder} --against tiny-llama --record {folder}" in words


def test_the_dense_evaluation_is_asked_for_where_it_is_missing(tmp_path: Path) -> None:
    recorded = [result("evaluation", "this", perplexity(12.5))]
    words = " ".join(parsed(leave(tmp_path / "small", record(), recorded)).text.split())
    assert "statprune evaluate tiny-llama --data SOURCE --record small" in words
    assert "perplexity of test.txt not recorded 12.50" in words


def test_of_two_results_by_one_protocol_the_later_counts(tmp_path: Path) -> None:
    slow = benchmark()
    slow["pruned"]["forward"]["tokens_per_second"] = 64.0
    recorded = [
        result("evaluation", "this", perplexity(12.5)),
        result("evaluation", "this", perplexity(13.5)),
        result("evaluation", "this", perplexity(99.5, seq_len=32)),
        result("benchmark", "this", benchmark()),
        result("benchmark", "this", slow),
    ]
    words = " ".join(parsed(leave(tmp_path / "small", record(), recorded)).text.split())
    assert "perplexity of test.txt not recorded 13.50" in words
    assert "perplexity of test.txt not recorded 99.50" in words
    assert "12.50" not in words
    assert "reading a prompt, tokens/s 128.00 64.00 -50.0%" in words


def test_figures_and_templates_load_when_they_are_needed() -> None:
    check = (
        "import sys, statprune, statprune.reported.write, statprune.reported.run_page;"
        "print([name for name in ('torch', 'matplotlib', 'jinja2') if name in sys.modules])"
    )
    ended = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True)
    assert ended.stdout.strip() == "[]"
