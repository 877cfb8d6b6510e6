"""What people do with a per-layer folder: with this package imported, and with the code in the folder."""

from collections.abc import Callable
from typing import Any

import pytest
from tiny import MODEL_TYPES

from statprune.anatomy.lookup import anatomy_of
from statprune.anatomy.producers import module_at
from statprune.checkpoint.classes import stock_names
from tests.checkpoint.folders import Case

MODES = ("trusted", "imported")
USES = ("built", "compiled", "bfloat16", "offloaded", "checkpointed", "trained", "adapted")
ROWS = ("self_attn.q_proj", "self_attn.k_proj", "mlp.up_proj")
ROUTED = ("mixtral", "qwen2_moe", "qwen3_moe")
NOT_OFFLOADED = {"deberta-v2": "the stock model's scripted functions return what accelerate cannot move"}


def of_config(case: Case, found: Any) -> None:
    assert found["class"] == "transformers.models.llama.configuration_llama"
    blocks = anatomy_of(case.model).blocks
    rows = {path: [module_at(block, path).weight.shape[0] for block in blocks] for path in ROWS}
    assert [each["num_attention_heads"] * 8 for each in found["layers"]] == rows[ROWS[0]]
    assert [each["num_key_value_heads"] * 8 for each in found["layers"]] == rows[ROWS[1]]
    assert [each["intermediate_size"] for each in found["layers"]] == rows[ROWS[2]]
    assert found["shapes"] == [[each // 8 for each in rows[ROWS[1]]], 8]


def of_built(case: Case, found: Any) -> None:
    expected = {name: list(value.shape) for name, value in case.model.base_model.state_dict().items()}
    expected.pop("lm_head.weight", None)  # a T5 with a head is its own base model
    # A base model built alone may have a pooler that the head has none for.
    assert {name: size for name, size in found.items() if not name.startswith("pooler.")} == expected


def of_caches(case: Case, found: Any) -> None:
    assert found == dict.fromkeys(("dynamic", "static", "beams"), True)


def of_compiled(case: Case, found: Any) -> None:
    assert found < 1e-5


def of_bfloat16(case: Case, found: Any) -> None:
    assert found["dtype"] == "torch.bfloat16"
    # Rounding may send a token to other experts.
    assert 0 < found["relative"] < (0.5 if case.model.config.model_type in ROUTED else 0.2)


def of_offloaded(case: Case, found: Any) -> None:
    assert found["away"] > 20
    assert found["gap"] < 1e-6


def of_checkpointed(case: Case, found: Any) -> None:
    assert found < 1e-5


def of_trained(case: Case, found: Any) -> None:
    assert found["less"]
    assert found["gap"] < 1e-6
    assert found["architecture"] == f"Statprune{type(case.model).__name__}"
    assert found["base"] == f"Statprune{stock_names(case.model.config.model_type)['AutoModel']}"
    # The folder transformers wrote opens without this package, too.
    assert found["code"]
    assert {"AutoModel", f"AutoModel{case.opener}"} <= set(found["auto_map"])


def of_adapted(case: Case, found: Any) -> None:
    first, second, third = found["losses"]
    assert first > second > third
    assert found["unchanged"]
    assert found["moved"] > 1e-3
    assert found["adapter"] < 1e-6
    assert found["merged"] < 1e-3 * found["moved"] + 1e-5
    assert found["code"]


def of_piped(case: Case, found: Any) -> None:
    assert found["class"] == f"Statprune{type(case.model).__name__}"
    assert found["text"].startswith("abc")
    assert len(found["text"]) > 3


def check(
    child: Callable[..., Any], mode: str, wanted: list[tuple[Case, tuple[str, ...]]], **environment: str
) -> None:
    told = [f"{case.path}:{case.opener}:{','.join(uses)}" for case, uses in wanted]
    found = child("uses.py", mode, *told, **environment)
    for case, uses in wanted:
        for use in uses:
            came = found[f"{case.path.name} {use}"]
            if use == "offloaded" and case.model.config.model_type in NOT_OFFLOADED:
                continue
            assert not isinstance(came, str), f"{case.path.name} {use}: {came}"
            globals()[f"of_{use}"](case, came)


@pytest.mark.parametrize("mode", MODES)
def test_a_few_families_can_be_used(
    mode: str, uneven: Callable[[str], Case], child: Callable[..., Any]
) -> None:
    llama, bert = ("config", "caches", "piped", "built", "trained"), ("built", "offloaded", "trained")
    if mode == "trusted":
        llama += ("compiled", "bfloat16", "offloaded", "checkpointed", "adapted")
    check(child, mode, [(uneven("llama"), llama), (uneven("bert"), bert)])


@pytest.mark.audit
@pytest.mark.parametrize("mode", MODES)
def test_every_family_can_be_used(
    mode: str, uneven: Callable[[str], Case], child: Callable[..., Any]
) -> None:
    check(child, mode, [(uneven(model_type), USES) for model_type in MODEL_TYPES])


@pytest.mark.audit
@pytest.mark.parametrize("mode", MODES)
def test_every_family_that_generates_does_so_with_any_cache(
    mode: str, uneven: Callable[[str], Case], child: Callable[..., Any]
) -> None:
    cases = [uneven(model_type) for model_type in MODEL_TYPES]
    check(child, mode, [(case, ("caches",)) for case in cases if case.model.can_generate()])


@pytest.mark.audit
@pytest.mark.parametrize("mode", MODES)
def test_inductor_compiles_a_decoder_and_an_encoder(
    mode: str, uneven: Callable[[str], Case], child: Callable[..., Any]
) -> None:
    wanted = [(uneven(model_type), ("compiled",)) for model_type in ("llama", "bert")]
    check(child, mode, wanted, COMPILE_WITH="inductor")
