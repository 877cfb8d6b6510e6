"""ONNX folders: computed with by ONNX Runtime, at other sizes than those exported, against transformers."""

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from transformers import AutoTokenizer

import statprune.export.onnx as target
from statprune.anatomy.lookup import anatomy_of
from statprune.checkpoint.load import load
from statprune.cli.main import run
from statprune.errors import InputError, ModelError, OutputError, VerificationError
from statprune.export.onnx import FILE, export_onnx
from statprune.export.onnx_experts import each_in_turn
from tests.export.gguf_models import saved
from tests.saved import letter_tokenizer, save_tiny
from tests.tiny import MODEL_TYPES, narrow_values, tiny_batch, tiny_model, uneven_cut, uniform_cut


def session(folder: Path) -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(str(folder / FILE), providers=["CPUExecutionProvider"])


def test_a_decoder_reads_its_own_keys_and_values(tmp_path: Path) -> None:
    """Every block with its own number of heads; fed by hand, token by token, as a server would."""
    folder = saved(tmp_path / "model", uneven_cut(tiny_model("llama")))
    written = export_onnx(folder, tmp_path / "out")
    assert written.cache
    assert written.difference <= 1e-4 * written.largest
    onnx.checker.check_model(str(tmp_path / "out" / FILE))
    assert b".py" not in (tmp_path / "out" / FILE).read_bytes(), "paths of files on this machine"
    opened, model = session(tmp_path / "out"), load(folder).model
    heads = {each.name: each.shape[1] for each in opened.get_inputs() if each.name.endswith(".key")}
    assert heads == {f"past_key_values.{n}.key": count for n, count in enumerate((1, 2, 1))}
    ids = torch.randint(3, 64, (1, 11), generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        wanted = model(ids).logits[0].numpy()
    past = {
        each.name: np.zeros((1, each.shape[1], 0, 8), np.float32)
        for each in opened.get_inputs()
        if each.name.startswith("past_key_values")
    }
    for position in range(11):
        feed = {
            "input_ids": ids[:, position : position + 1].numpy(),
            "attention_mask": np.ones((1, position + 1), np.int64),
            "position_ids": np.array([[position]]),
            **past,
        }
        found = dict(zip((each.name for each in opened.get_outputs()), opened.run(None, feed), strict=True))
        np.testing.assert_allclose(found["logits"][0, 0], wanted[position], atol=2e-5)
        past = {name: found[name.replace("past_key_values", "present")] for name in past}
    assert past["past_key_values.0.key"].shape == (1, 1, 11, 8)


def test_an_encoder_with_its_tokenizer(tmp_path: Path) -> None:
    model = save_tiny(tmp_path / "model", "bert", head="BertForSequenceClassification")
    letter_tokenizer("encoder").save_pretrained(tmp_path / "model")
    written = export_onnx(tmp_path / "model", tmp_path / "out")
    assert (written.outputs, written.cache) == (("logits",), False)
    tokens = AutoTokenizer.from_pretrained(tmp_path / "out")(["a word", "some more words"], padding=True)
    opened = session(tmp_path / "out")
    feed = {
        each.name: np.array(tokens.get(each.name, np.zeros_like(tokens["input_ids"])))
        for each in opened.get_inputs()
    }
    with torch.no_grad():
        wanted = model(**{name: torch.from_numpy(value) for name, value in feed.items()}).logits.numpy()
    np.testing.assert_allclose(opened.run(None, feed)[0], wanted, atol=1e-5)


@pytest.mark.audit
def test_experts_that_nobody_picks(tmp_path: Path) -> None:
    """One token leaves out half of them; what was exported saw tokens for all."""
    folder = saved(tmp_path / "model", uneven_cut(tiny_model("mixtral")))
    written = export_onnx(folder, tmp_path / "out", cache=False)
    assert written.difference <= 1e-4 * written.largest
    opened, stock = session(tmp_path / "out"), load(folder).model
    for token in range(3, 13):
        ids = torch.tensor([[token]])
        with torch.no_grad():
            wanted = stock(ids).logits.numpy()
        feed = {"input_ids": ids.numpy(), "attention_mask": np.ones((1, 1), np.int64)}
        np.testing.assert_allclose(opened.run(None, feed)[0], wanted, atol=2e-5)


@pytest.mark.parametrize("model_type", ["mixtral", "qwen2_moe", "qwen3_moe"])
def test_experts_in_turn_are_the_experts_that_were_there(model_type: str) -> None:
    model = uneven_cut(tiny_model(model_type))
    anatomy, ids = anatomy_of(model), tiny_batch(model)["input_ids"]
    stock = [block.mlp.experts for block in anatomy.blocks]
    with torch.no_grad():
        wanted = model(ids).logits
        with each_in_turn(anatomy):
            assert all(block.mlp.experts is not own for block, own in zip(anatomy.blocks, stock, strict=True))
            torch.testing.assert_close(model(ids).logits, wanted, rtol=0, atol=1e-5)
    assert all(block.mlp.experts is own for block, own in zip(anatomy.blocks, stock, strict=True))


@pytest.mark.audit
@pytest.mark.parametrize("cut", [uniform_cut, narrow_values])
@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_every_family(model_type: str, cut, tmp_path: Path) -> None:
    written = export_onnx(saved(tmp_path / "model", cut(tiny_model(model_type))), tmp_path / "out")
    assert written.difference <= 1e-4 * written.largest


@pytest.mark.audit
@pytest.mark.parametrize(
    "head",
    [
        "BertModel",
        "BertForTokenClassification",
        "BertForQuestionAnswering",
        "DistilBertForSequenceClassification",
    ],
)
def test_every_head(head: str, tmp_path: Path) -> None:
    family = "distilbert" if head.startswith("Distil") else "bert"
    written = export_onnx(
        saved(tmp_path / "model", uneven_cut(tiny_model(family, head=head))), tmp_path / "out"
    )
    wanted = {"BertModel": "last_hidden_state", "BertForQuestionAnswering": "start_logits"}
    assert written.outputs[0] == wanted.get(head, "logits")


def test_a_graph_that_computes_something_else_does_not_get_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = saved(tmp_path / "model", uneven_cut(tiny_model("bert")))
    save = target._write

    def corrupted(graph, partial: Path) -> None:
        save(graph, partial)
        held = onnx.load(partial / FILE)
        weight = next(each for each in held.graph.initializer if len(each.dims) == 2)
        values = onnx.numpy_helper.to_array(weight).copy()
        values *= 1.01
        weight.CopyFrom(onnx.numpy_helper.from_array(values, weight.name))
        onnx.save(held, partial / FILE)

    monkeypatch.setattr(target, "_write", corrupted)
    with pytest.raises(VerificationError, match="differs from transformers by"):
        export_onnx(folder, tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_what_cannot_be_exported_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = saved(tmp_path / "model", uneven_cut(tiny_model("bert")))
    (tmp_path / "taken").mkdir()
    with pytest.raises(OutputError, match="exists"):
        export_onnx(folder, tmp_path / "taken")
    with pytest.raises(InputError, match=r"nothing does not exist"):
        export_onnx(tmp_path / "nothing", tmp_path / "out")

    def refuses(*_, **__):
        raise RuntimeError("no such operator")

    monkeypatch.setattr(torch.onnx, "export", refuses)
    with pytest.raises(ModelError, match="cannot export this model to ONNX: no such operator"):
        export_onnx(folder, tmp_path / "out")
    monkeypatch.setattr("statprune.export.target.find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"pip install 'statprune\[onnx\]'"):
        export_onnx(folder, tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model", "taken"]


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = saved(tmp_path / "model", uneven_cut(tiny_model("bert")))
    with pytest.raises(SystemExit) as ended:
        run(["export", str(folder), "--to", "onnx", "--out", str(tmp_path / "out")])
    assert ended.value.code == 0
    assert "ONNX Runtime" in capsys.readouterr().out
    assert (tmp_path / "out" / FILE).exists()
