"""Configs, tokenizers, plans and entries that are none."""

from tests.cli import hostile as do
from tests.cli.hostile import BERT, COMPRESS, DEEP, ENTRY, PLAN, SITE, Deed, Row


def of_units(value: object) -> Deed:
    return do.write("plan.json", {"widths": {SITE: value}})


CONFIGS: dict[str, Row] = {
    "no heads": (
        do.config(num_attention_heads=0),
        COMPRESS,
        ("config.json", "Correct it | Check that config.json"),
    ),
    "no key heads": (
        do.config(num_key_value_heads=0),
        COMPRESS,
        ("LlamaForCausalLM", "Correct it | config.json"),
    ),
    "negative size": (do.config(hidden_size=-1), COMPRESS, ("config.json",)),
    "a size of 10^12": (
        do.config(intermediate_size=10**12),
        COMPRESS,
        ("do not fit", "Check that config.json"),
    ),
    "a size of 1e30": (do.config(intermediate_size=1e30), COMPRESS, ("config.json",)),
    "10^9 blocks": (
        do.config(num_hidden_layers=10**9),
        "inspect llama",
        ("says 1000000000 blocks", "Correct it"),
    ),
    "class is a number": (
        do.config(architectures=[3]),
        COMPRESS,
        ("architectures is [3], and not a list of names",),
    ),
    "class is an object": (do.config(architectures={"a": 1}), COMPRESS, ("architectures is {'a': 1}",)),
    "class of another kind": (do.config(architectures=["BertModel"]), COMPRESS, ("BertModel", "config.json")),
    "type is a list": (
        do.config(model_type=["llama"]),
        COMPRESS,
        ("model_type is ['llama'], and not a name",),
    ),
    "auto_map is a text": (do.config(auto_map="x.y"), COMPRESS, ("auto_map is 'x.y', and not an object",)),
    "widths are a text": (do.config(per_layer_config="x"), COMPRESS, ("config.json", "Correct it")),
    "float8": (do.config(dtype="float8_e4m3fn"), COMPRESS, ("do not fit", "Check that config.json")),
    "no such dtype": (do.config(dtype="nope"), COMPRESS, ("nope", "config.json")),
    "fp8, said so": (
        do.config(quantization_config={"quant_method": "fp8"}),
        COMPRESS,
        ("is quantised (fp8)",),
    ),
    "attention from the hub": (
        do.config(attn_implementation="someone/kernel"),
        COMPRESS,
        (
            "attn_implementation is 'someone/kernel', code from the hub, which is never run",
            "Remove that line",
        ),
    ),
    "attention from the hub, within": (
        do.config(text_config={"_attn_implementation": {"": "someone/kernel"}}),
        "inspect llama",
        ("_attn_implementation is 'someone/kernel'",),
    ),
    "a pad that is no token": (do.config(pad_token_id=999), COMPRESS, ("Padding_idx", "config.json")),
    "deep": (
        do.write("llama/config.json", '{"a":' * 100_000),
        "inspect llama",
        ("nested too deeply", "Restore it"),
    ),
    "5000 digits": (
        do.write("llama/config.json", '{"hidden_size":' + "9" * 5000 + "}"),
        "inspect llama",
        ("is not a JSON object", "Restore it"),
    ),
    "UTF-16": (
        do.write("llama/config.json", "{}".encode("utf-16")),
        "inspect llama",
        ("is not a JSON object",),
    ),
    "adapter beside": (
        do.write("llama/adapter_config.json", {}),
        COMPRESS,
        ("an adapter beside its weights", "merge"),
    ),
    "generation is a list": (
        do.write("llama/generation_config.json", "[]"),
        COMPRESS,
        ("generation_config.json",),
    ),
    "tokenizer is broken": (
        do.write("llama/tokenizer.json", "{"),
        COMPRESS,
        ("its tokenizer cannot be opened", "Repair"),
    ),
    "tokenizer is deep": (
        do.write("llama/tokenizer.json", DEEP),
        COMPRESS,
        ("its tokenizer cannot be opened",),
    ),
    "tokenizer's length is a word": (
        do.changed("llama/tokenizer_config.json", "model_max_length", to="many"),
        COMPRESS,
        ("model_max_length is 'many'", "Give it a whole number"),
    ),
    "processor is broken": (
        do.write("llama/preprocessor_config.json", "{"),
        COMPRESS,
        ("its processor cannot",),
    ),
    "modules are deep": (do.write("bert/modules.json", DEEP), BERT, ("is no list of modules", "Restore it")),
}
PLANS: dict[str, Row] = {
    **{
        f"{name} of units": (of_units(value), PLAN, (f"{SITE}: cannot keep {value!r} units", "from 1 to 40"))
        for name, value in {
            "a fraction": 8.5,
            "a float": 8.0,
            "a text": "8",
            "true": True,
            "-1": -1,
            "1e30": 1e30,
            "null": None,
            "a list": [8],
            "10^300": 10**300,
        }.items()
    },
    "5000 digits": (
        do.write("plan.json", '{"widths":{"a":' + "9" * 5000 + "}}"),
        PLAN,
        ("not a readable plan file",),
    ),
    "deep": (do.write("plan.json", DEEP), PLAN, ("nested too deeply",)),
    "deep objects": (do.write("plan.json", '{"widths":' * 100_000), PLAN, ("nested too deeply",)),
    "a site twice": (
        do.write("plan.json", f'{{"widths": {{"{SITE}": 8, "{SITE}": 40}}}}'),
        PLAN,
        (f"it says '{SITE}' twice",),
    ),
    "huge": (do.write("plan.json", b" " * (2**24 + 1)), PLAN, ("it is larger than 16777216 bytes",)),
    "UTF-16": (do.write("plan.json", "{}".encode("utf-16")), PLAN, ("not a readable plan file",)),
    "a folder": (do.folder_at("plan.json"), PLAN, ("plan.json: not a readable plan file",)),
    "steers the terminal": (
        do.write("plan.json", {"widths": {"\x1b[31mred\r\n": 1}}),
        PLAN,
        ("the plan names '\\x1b[31mred\\r\\n'",),
    ),
    "entry is empty": (do.write("entry.toml", ""), ENTRY, ("stacks is missing", "[[stacks]]")),
    "entry is deep": (
        do.write("entry.toml", "a=" + "[" * 20_000),
        ENTRY,
        ("is not TOML", "nested too deeply"),
    ),
    "entry of 5000 digits": (do.write("entry.toml", "a=" + "9" * 5000), ENTRY, ("is not TOML",)),
    "entry is a folder": (do.folder_at("entry.toml"), ENTRY, ("entry.toml cannot be read",)),
    "entry has a key twice": (do.write("entry.toml", "a=1\na=2"), ENTRY, ("is not TOML",)),
}
