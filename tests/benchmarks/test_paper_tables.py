"""The scripts of the paper's tables, whole, on tiny models in local folders."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import statprune
from benchmarks.paper import cases, decoders, encoders, rows, seconds
from benchmarks.paper.page import cell, figures, lines
from statprune.evaluation.scoring import score
from statprune.evaluation.tasks import task_named
from tests.evaluation.task_files import labelled
from tests.saved import letter_tokenizer, save_tiny, sentences
from tests.tiny import tiny_model

SAMPLES, SEQ_LEN = 40, 32
SIZES = ["--samples", str(SAMPLES), "--seq-len", str(SEQ_LEN)]


def lines_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def write_lines(path: Path, made: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(one) + "\n" for one in made), encoding="utf-8")


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Models of MRPC and SST-2, their data, a causal model and a text."""
    folder = tmp_path_factory.mktemp("paper")
    for task in ("mrpc", "sst2"):
        save_tiny(folder / f"tiny-{task}", "bert", head="BertForSequenceClassification", num_labels=2)
        (folder / task).mkdir()
        entry = task_named(f"glue/{task}")
        for split, seed in (("train", 1), ("validation", 2)):
            write_lines(folder / task / f"{split}.jsonl", labelled(entry, 60, seed))
    save_tiny(folder / "tiny-llama", "llama")
    (folder / "text.txt").write_text("\n".join(sentences(120)), encoding="utf-8")
    return folder


def of_encoders(here: Path, out: Path, *more: str, tasks: tuple[str, ...] = ("mrpc", "sst2")) -> list[str]:
    given = ["--out", str(out), "--keep", "0.8", "0.6", *SIZES]
    for task in tasks:
        given += ["--task", f"glue/{task}={here / f'tiny-{task}'}", "--data", f"glue/{task}={here / task}"]
    return [*given, *more]


def table_of(page: Path) -> list[str]:
    return [line for line in page.read_text(encoding="utf-8").splitlines() if line.startswith("| tiny")]


def test_mean_and_spread_by_hand() -> None:
    assert cell([80.0, 82.0, 84.0]) == "82.00 ± 2.00"
    assert cell([1.0, 2.0]) == "1.50 ± 0.71 (2 seeds)"
    assert cell([1.5]) == "1.50 (1 seed)"
    assert cell([]) == ""


def test_encoders_score_as_the_library_does_and_the_page_shows_it(here: Path, tmp_path: Path) -> None:
    encoders.main(of_encoders(here, tmp_path, tasks=("mrpc",)))
    made = lines_of(tmp_path / "encoders.jsonl")
    assert len(made) == 1 + 2 * 2 * 3
    tokenizer, folder = letter_tokenizer("encoder"), here / "tiny-mrpc"
    dense = tiny_model("bert", head="BertForSequenceClassification", num_labels=2)
    judge = {"task": "glue/mrpc", "data": str(here / "mrpc"), "seq_len": SEQ_LEN}
    found = {(row["method"], row["keep"], row["seed"]): row for row in made if row["task"] == "glue/mrpc"}
    assert found["dense", 1.0, None]["metrics"] == score(dense, tokenizer, **judge).metrics
    for method, engine in (("ours", "refit"), ("stat", "stat")):
        narrow = statprune.compress(
            folder,
            data=str(here / "mrpc" / "train.jsonl"),
            text_column=("sentence1", "sentence2"),
            keep=0.6,
            of="macs",
            method=engine,
            widths="per-layer",
            samples=SAMPLES,
            seq_len=SEQ_LEN,
            seed=1,
        )
        row = found[method, 0.6, 1]
        assert row["metrics"] == score(narrow.model, tokenizer, **judge).metrics
        assert row["share"] == narrow.record["cost"]["macs"]["share"] <= 0.6
        assert row["widths"] == dict(narrow.plan.widths)
    shown = next(line for line in table_of(tmp_path / "encoders.md") if "mrpc" in line and "| ours |" in line)
    expected = cell([found["ours", 0.6, seed]["score"] for seed in (0, 1, 2)])
    assert shown.split(" | ")[1:4] == [
        "glue/mrpc, accuracy",
        "ours",
        f"{found['dense', 1.0, None]['score']:.2f}",
    ]
    heads = (tmp_path / "encoders.md").read_text(encoding="utf-8").split("## Other models")[1]
    column = heads.strip().splitlines()[0].split(" | ").index("0.6")
    assert shown.split(" | ")[column] == expected


def test_interrupted_and_resumed_gives_the_same_table_from_one_measurement_a_seed(
    here: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, parts, measured = tmp_path / "whole", tmp_path / "parts", []
    asked = [of_encoders(here, out, "--seed", "0", "1", tasks=("mrpc",)) for out in (whole, parts)]
    encoders.main(asked[0])
    plan, narrowed = statprune.plan, cases.narrowed

    def counted(*given: Any, **options: Any) -> Any:
        measured.append(options["out"])
        return plan(*given, **options)

    monkeypatch.setattr(statprune, "plan", counted)
    for allowed in (1, 3):
        left = iter(range(allowed))

        def stopped(*given: Any, left: Any = left) -> Any:
            if next(left, None) is None:
                raise KeyboardInterrupt
            return narrowed(*given)

        monkeypatch.setattr(rows, "narrowed", stopped)
        with pytest.raises(KeyboardInterrupt):
            encoders.main(asked[1])
    monkeypatch.setattr(rows, "narrowed", narrowed)
    encoders.main(asked[1])
    assert table_of(parts / "encoders.md") == table_of(whole / "encoders.md")
    assert len(measured) == len(set(measured)) == 2  # two seeds
    done = lines_of(parts / "encoders.jsonl")
    assert len(done) == len(lines_of(whole / "encoders.jsonl"))
    encoders.main(asked[1])
    assert lines_of(parts / "encoders.jsonl") == done


def test_a_model_or_data_that_is_not_there_is_told_in_one_line_and_the_others_go_on(
    here: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mrpc = ["--task", f"glue/mrpc={here / 'tiny-mrpc'}", "--data", f"glue/mrpc={here / 'mrpc'}"]
    missing = ["--task", "glue/rte=nobody/none", "--task", f"glue/sst2={here / 'tiny-sst2'}"]
    encoders.main([*missing, *mrpc, "--out", str(tmp_path), "--keep", "0.8", "--seed", "0", *SIZES])
    told = [line for line in capsys.readouterr().err.splitlines() if line.startswith("not run: ")]
    assert len(told) == 2
    assert "nobody/none on glue/rte" in told[0]
    assert "hf download nobody/none" in told[0]
    assert "tiny-sst2 on glue/sst2: hub data set 'nyu-mll/glue' (config sst2, split validation)" in told[1]
    assert "load_dataset" in told[1]
    made = {(row["task"], row["method"]) for row in lines_of(tmp_path / "encoders.jsonl")}
    assert made == {("glue/mrpc", method) for method in ("dense", "ours", "stat")}
    page = (tmp_path / "encoders.md").read_text(encoding="utf-8")
    assert all(f"- {line}" in page for line in told)


def test_a_share_out_of_reach_leaves_its_cell_empty(
    here: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = of_encoders(here, tmp_path, "--seed", "0", "--method", "stat")
    given[given.index("0.6")] = "0.001"
    encoders.main(given)
    assert "keep 0.001, seed 0" in capsys.readouterr().err
    made = lines_of(tmp_path / "encoders.jsonl")
    assert [row["keep"] for row in made] == [1.0, 0.8, 1.0, 0.8]
    assert all(line.endswith("|  |") for line in table_of(tmp_path / "encoders.md"))


def test_minutes_stop_cleanly_and_a_later_call_goes_on(
    here: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter(range(0, 10_000, 40))  # seconds, a call each
    monkeypatch.setattr(rows, "monotonic", lambda: next(clock))
    given = of_encoders(here, tmp_path, "--seed", "0", "--method", "stat")
    encoders.main([*given, "--minutes", "2"])
    assert "minutes are over" in capsys.readouterr().out
    before = lines_of(tmp_path / "encoders.jsonl")
    assert 0 < len(before) < 6
    encoders.main(given)
    after = lines_of(tmp_path / "encoders.jsonl")
    assert (after[: len(before)], len(after)) == (before, 6)
    with pytest.raises(SystemExit, match="more than 0"):
        encoders.main([*given, "--minutes", "0"])
    with pytest.raises(SystemExit):
        encoders.main(["--task", "glue/sst", "--out", str(tmp_path)])
    assert "did you mean glue/sst2" in capsys.readouterr().err


def of_decoders(here: Path, out: Path, *more: str) -> list[str]:
    text = str(here / "text.txt")
    return [
        *("--model", str(here / "tiny-llama"), "--task", "wikitext2", "c4", "--data", f"wikitext2={text}"),
        *("--calibration", text, "--out", str(out), "--keep", "0.7", "--seed", "0", *SIZES, *more),
    ]


def test_decoders_go_on_without_one_text_and_add_it_later(
    here: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    decoders.main(of_decoders(here, tmp_path))
    assert "tiny-llama on c4: hub data set 'allenai/c4'" in capsys.readouterr().err
    first = lines_of(tmp_path / "decoders.jsonl")
    assert [(row["task"], row["method"]) for row in first] == [
        ("wikitext2", method) for method in ("dense", "ours", "stat")
    ]
    decoders.main(of_decoders(here, tmp_path, "--data", f"c4={here / 'text.txt'}", "--limit", "c4=320"))
    after = lines_of(tmp_path / "decoders.jsonl")
    assert after[:3] == first
    assert [(row["task"], row["limit"]) for row in after[3:]] == [("c4", 320)] * 3
    whole = statprune.evaluate(
        here / "tiny-llama", data=str(here / "text.txt"), seq_len=SEQ_LEN, max_tokens=320
    )
    assert after[3]["score"] == whole.perplexity
    assert after[3]["judged"]["examples"] == "the first 10 windows"


def test_what_is_run_otherwise_is_another_row(here: Path, tmp_path: Path) -> None:
    given = ["--seed", "0", "--method", "stat", "--keep", "0.8"]
    encoders.main(of_encoders(here, tmp_path, *given))
    encoders.main(of_encoders(here, tmp_path, *given, "--limit", "glue/mrpc=20"))
    made = lines_of(tmp_path / "encoders.jsonl")
    assert [(row["method"], row["limit"]) for row in made if row["task"] == "glue/mrpc"] == [
        *(("dense", None), ("stat", None), ("dense", 20), ("stat", 20))
    ]
    assert "20 of 60, drawn by seed 0" in (tmp_path / "encoders.md").read_text(encoding="utf-8")


def test_seconds_of_every_stage_and_of_a_plain_pass(here: Path, tmp_path: Path) -> None:
    given = ["--encoder", f"glue/mrpc={here / 'tiny-mrpc'}", "--data", f"glue/mrpc={here / 'mrpc'}"]
    seconds.main([*given, "--out", str(tmp_path), *SIZES])
    ours, stat = lines_of(tmp_path / "seconds.jsonl")
    assert (ours["method"], stat["method"]) == ("ours", "stat")
    for row in (ours, stat):
        inside = sum(took for stage, took in row["seconds"].items() if stage.startswith("of which"))
        assert 0 < inside <= row["seconds"]["compress"]
        assert row["score"] == pytest.approx(row["seconds"].get("measure", 0) + row["seconds"]["compress"])
        assert row["plain"] > 0
        assert row["tokens"] > SAMPLES
    assert ours["seconds"]["measure"] > 0
    assert "measure" not in stat["seconds"]
    page = (tmp_path / "seconds.md").read_text(encoding="utf-8")
    assert "under three hours on one GPU" in page
    assert f"| {ours['score']:.1f} s |" in page


def test_pages_show_what_was_not_run_as_empty_cells(tmp_path: Path) -> None:
    encoders.main(["--report", "--out", str(tmp_path)])
    page = (tmp_path / "encoders.md").read_text(encoding="utf-8")
    for base, models in encoders.MODELS.items():
        assert base in page
        assert len(models) == 8
        for task, model in models.items():
            assert f"| {model} | {task} |  |  |  |  |  |  |  |  |" in page
    assert "Empty cells have not been run" in page


def test_figures_of_others_stand_beside_the_same_model_task_and_length_only() -> None:
    row = {"model": decoders.LLAMA, "task": "wikitext2", "method": "dense", "keep": 1.0, "seed": None}
    row |= {"data": "hub", "seq_len": 2048, "limit": None, "of": "params", "examples": None}
    row |= {"calibration": None, "metric": "perplexity", "score": 5.47}
    beside = lines([row], (0.9, 0.8), [])
    assert [line[3:] for line in beside] == [
        ["5.47", "", ""],
        ["5.47", "5.89", "6.64"],
        ["5.47", "5.96", "6.86"],
    ]
    assert len(lines([row | {"seq_len": 4096}], (0.9, 0.8), [])) == 1
    assert all(one["source"] for kind in ("scores", "seconds") for one in figures(kind))


def test_names_of_folders_and_the_split_to_calibrate_on(here: Path) -> None:
    data = str(here / "mrpc")
    assert cases.shown(data) == "mrpc"
    assert cases.shown(f"{data}@test") == "mrpc@test"
    assert cases.shown("textattack/bert-base-uncased-SST-2") == "textattack/bert-base-uncased-SST-2"
    assert encoders.training_of(None, "nyu-mll/glue:mnli@validation_matched") == "nyu-mll/glue:mnli@train"
    assert encoders.training_of(data, "") == encoders.training_of(f"{data}@test", "") == f"{data}@train"


def test_outputs_without_names_are_read_in_the_order_that_is_given(tmp_path: Path) -> None:
    save_tiny(tmp_path / "nli", "bert", head="BertForSequenceClassification", num_labels=3)
    entry = task_named("glue/mnli-matched")
    data = labelled(entry, 60)
    for split in ("train", "validation_matched"):
        write_lines(tmp_path / f"{split}.jsonl", data)
    given = ["--task", f"{entry.name}={tmp_path / 'nli'}", "--data", f"{entry.name}={tmp_path}", *SIZES]
    order = ",".join(encoders.LABELS["textattack/bert-base-uncased-MNLI"])
    scores = []
    for name, more in (("as-numbered", []), ("as-named", ["--labels", f"{entry.name}={order}"])):
        out = tmp_path / name
        encoders.main([*given, "--out", str(out), "--method", "stat", "--keep", "0.8", "--seed", "0", *more])
        scores.append(lines_of(out / "encoders.jsonl")[0]["score"])
    turned = [row | {"label": {0: 1, 1: 2, 2: 0}[row["label"]]} for row in data]  # as textattack numbers them
    dense = tiny_model("bert", head="BertForSequenceClassification", num_labels=3)
    plain = score(dense, letter_tokenizer("encoder"), entry.name, turned, seq_len=SEQ_LEN).score
    assert scores[1] == plain != scores[0]


def test_offline_is_said_before_the_hub_is_imported() -> None:
    code = "import os, sys; sys.argv.append('--offline'); import benchmarks.paper; print(os.environ)"
    clean = {"PATH": "", "PYTHONPATH": str(Path(__file__).parents[2])}
    assert b"'HF_HUB_OFFLINE': '1'" in subprocess.check_output([sys.executable, "-c", code], env=clean)
