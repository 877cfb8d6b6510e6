"""Folders opened by people: with transformers alone, with this package, and with the code in the folder."""

from collections.abc import Callable

from folders import Case

CHECK = """
import sys
import torch, transformers

def check(folder, opener, **options):
    model = getattr(transformers, "AutoModel" + opener).from_pretrained(folder, **options)
    batch, expected = torch.load(folder + ".pt", weights_only=True)
    with torch.no_grad():
        found = model(**batch)
    for name, value in expected.items():
        largest = max(1.0, float(value.abs().max()))
        torch.testing.assert_close(found[name], value, rtol=0, atol=1e-6 * largest)
    return model

pairs = [argument.rsplit(":", 1) for argument in sys.argv[1:]]
"""
WITHOUT = f"import sys; sys.modules['statprune'] = None\n{CHECK}"
STOCK = f"""{WITHOUT}
for folder, opener in pairs:
    model = check(folder, opener)
    assert type(model).__module__.startswith("transformers.models."), type(model)
print("done", len(pairs))
"""
IMPORTED = f"""import statprune
{CHECK}
for folder, opener in pairs:
    model = check(folder, opener)
    assert type(model).__name__.startswith("Statprune"), type(model)
    base = transformers.AutoModel.from_pretrained(folder)
    assert type(base).__name__.startswith("Statprune") and type(base).__name__.endswith("Model"), type(base)
trusted = check(*pairs[0], trust_remote_code=True)
assert type(trusted).__module__.startswith("statprune."), type(trusted)
print("done", len(pairs))
"""
TRUSTED = f"""{WITHOUT}
for folder, opener in pairs:
    model = check(folder, opener, trust_remote_code=True)
    assert type(model).__module__.startswith("transformers_modules."), type(model)
    base = transformers.AutoModel.from_pretrained(folder, trust_remote_code=True)
    assert type(base).__name__.endswith("Model"), type(base)
print("done", len(pairs))
"""
REFUSED = f"""{WITHOUT}
for folder, opener in pairs:
    try:
        getattr(transformers, "AutoModel" + opener).from_pretrained(folder)
    except RuntimeError as error:
        print(type(error).__name__)
    else:
        raise SystemExit(f"{{folder}} opened without its class")
print("done", len(pairs))
"""


def pairs(cases: list[Case], *, stock: bool) -> list[str]:
    return [f"{case.path}:{case.opener}" for case in cases if case.saved.stock is stock]


def test_stock_folders_need_transformers_alone(cases: list[Case], fresh_python: Callable[..., str]) -> None:
    folders = pairs(cases, stock=True)
    assert fresh_python(STOCK, *folders).split() == ["done", str(len(folders))]


def test_per_layer_folders_open_after_importing_us(
    cases: list[Case], fresh_python: Callable[..., str]
) -> None:
    folders = pairs(cases, stock=False)
    assert fresh_python(IMPORTED, *folders).split() == ["done", str(len(folders))]


def test_per_layer_folders_open_with_the_code_in_them(
    cases: list[Case], fresh_python: Callable[..., str]
) -> None:
    folders = pairs(cases, stock=False)
    assert fresh_python(TRUSTED, *folders).split() == ["done", str(len(folders))]


def test_per_layer_folders_fail_loudly_with_neither(
    cases: list[Case], fresh_python: Callable[..., str]
) -> None:
    folders = pairs(cases, stock=False)
    *errors, done, count = fresh_python(REFUSED, *folders).split()
    assert (done, count) == ("done", str(len(folders)))
    # A llama config must let its global widths be read; there the sizes of the weights tell.
    assert set(errors) == {"AmbiguousGlobalPerLayerAttributeError", "RuntimeError"}
