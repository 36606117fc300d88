"""The table of families: every cell has a value, a work and a place; the page shows all of them."""

import copy
import functools
import importlib
import re
from pathlib import Path

import families
import pages
import pytest
from course import ROOT, Course

COURSE = Course(ROOT)
MODELS = families.load(ROOT / "book" / "data" / "families.yml")
KNOWN = families.references(COURSE)
CELLS = [(m["model"], column, *cell) for m in MODELS for column, cell in m["cells"].items()]
PAGE = pages.planned(COURSE)[ROOT / "book" / "families.md"]
CODE = [cell for cell in CELLS if cell[3] == "wolf2020transformers"]
FAMILIES = [
    "GPT-1", "GPT-2", "GPT-3", "GPT-4", "BERT", "RoBERTa", "T5", "BART", "GLM-Large", "GLM-130B",
    "ChatGLM2", "GLM-4", "LLaMA", "Llama", "Mistral", "Mixtral", "Qwen-", "Qwen2", "Qwen3",
    "Baichuan-7B", "Baichuan-13B", "Falcon", "BLOOM", "Gemma", "PaLM", "OPT", "DeepSeek-V2",
    "DeepSeek-V3", "DeepSeek-R1", "Kimi", "MiniMax", "Hunyuan", "ERNIE", "Spark", "Jurassic",
    "AlexaTM", "Minerva", "Phi", "OLMo", "SmolLM2",
]  # fmt: skip


def test_every_cell_has_a_value_a_work_and_a_place():
    assert families.problems(MODELS, KNOWN) == []


def test_the_families_that_the_course_names_are_there():
    names = [model["model"] for model in MODELS]
    assert [f for f in FAMILIES if not any(name.startswith(f) for name in names)] == []
    sides = [model["side"] for model in MODELS]
    assert len(MODELS) >= 30
    assert min(sides.count("East"), sides.count("West")) >= 10


def spoiled(change):
    """The problems found once `change` was made to a copy of the first two models."""
    models = copy.deepcopy(MODELS[:2])
    change(models)
    return families.problems(models, KNOWN)


WRONG = {
    "no norm": lambda m: m[0]["cells"].pop("norm"),
    "colour is no column": lambda m: m[0]["cells"].update(colour=["red", "devlin2019bert", "p. 1"]),
    "not in references.bib": lambda m: m[1]["cells"]["norm"].__setitem__(1, "nobody2020nothing"),
    "'' is empty": lambda m: m[0]["cells"]["who"].__setitem__(2, ""),
    "' ' is empty": lambda m: m[0]["cells"]["who"].__setitem__(0, " "),
    "is not [value, source, place]": lambda m: m[0]["cells"].update(who=["OpenAI", "x"]),
    "three strings": lambda m: m[0]["cells"]["context"].__setitem__(0, 512),
    "is not a year and month": lambda m: m[0]["cells"]["released"].__setitem__(0, "2018-13"),
    "does not start with a number": lambda m: m[0]["cells"]["parameters"].__setitem__(0, "many"),
    "side is 'North'": lambda m: m[0].update(side="North"),
    "occurs twice": lambda m: m[1].update(model=m[0]["model"]),
    "not model, side and cells": lambda m: m[0].update(note="not checked"),
}


@pytest.mark.parametrize("message", WRONG)
def test_a_wrong_table_is_named(message):
    found = spoiled(WRONG[message])
    assert any(message in problem for problem in found), found


def test_the_page_refuses_wrong_data(monkeypatch):
    monkeypatch.setattr(families, "references", lambda _: {})
    with pytest.raises(ValueError, match=r"families\.yml: .*references\.bib"):
        families.page(COURSE)


def test_the_page_says_where_each_cell_was_read():
    lines = PAGE.splitlines()
    for model, column, value, source, place in CELLS:
        anchor, title = families.slug(model, column), families.COLUMNS[column][0]
        start = f'- <a id="{anchor}"></a>'
        (line,) = (one for one in lines if one.startswith(start))
        assert line == f"{start}{title}: {value}. {{cite:t}}`{source}`, {place}"
        assert PAGE.count(f'href="#{anchor}"') == 1
        assert PAGE.count(f'id="{anchor}"') == 1
    assert f"\n{len(MODELS)} models" in PAGE
    assert f"{sum(cell[2] == 'unpublished' for cell in CELLS)} cells say" in PAGE


def test_a_number_stands_for_one_work():
    marks = re.findall(r'class="source" href="[^"]*" title="([^"]+?): [^"]*">(\d+)<', PAGE)
    assert len(marks) == len(CELLS)
    order = iter(model["cells"][column][1] for model in MODELS for column in families.COLUMNS)
    numbers = {}
    for (shown, number), source in zip(marks, order, strict=True):
        assert numbers.setdefault(source, number) == number
        assert shown == KNOWN[source].replace("'", "&#x27;")
    assert len(set(numbers.values())) == len(numbers)


def test_nothing_is_left_unchecked():
    for model, column, value, _, _ in CELLS:
        assert not re.search(r"check|\?|unknown|tbd|n/a", value, re.IGNORECASE), (model, column)


def test_rows_come_in_the_order_of_their_release():
    dates = [model["cells"]["released"][0] for model in MODELS]
    assert dates == sorted(dates)


@pytest.mark.parametrize(
    ("column", "value", "key"),
    [
        ("parameters", "1.5 B", 1.5e9),
        ("parameters", "671 B, 37 B active", 671e9),
        ("tokens", "about 22 T", 22e12),
        ("tokens", "over 3 T", 3e12),
        ("tokens", "0.8 B words", 0.8e9),
        ("context", "2,048", 2048),
        ("context", "1 M in training, 4 M in use", 1e6),
        ("context", "128 K", 128 * 1024),
        ("tokens", "40 GB of text", None),
        ("tokens", "unpublished", None),
    ],
)
def test_numbers_sort_as_numbers(column, value, key):
    got = families.sort_key(column, value)
    assert got == "" if key is None else float(got) == key


def test_words_sort_as_words():
    assert families.sort_key("norm", "RMSNorm, pre") == "rmsnorm, pre"
    assert families.sort_key("norm", "unpublished") == ""


@pytest.mark.parametrize(
    ("authors", "shown"),
    [
        ("{{OpenAI}}", "OpenAI, 2020"),
        ("{Zhang, Biao and Sennrich, Rico}", "Zhang and Sennrich, 2020"),
        ("{Rozi{\\`e}re, B and Gehring, J and others}", "Roziere et al., 2020"),
        ("{von Werra, Leandro and others}", "von Werra et al., 2020"),
    ],
)
def test_a_mark_names_the_work_in_short(authors, shown):
    assert (
        families.short(f"\n  author = {authors},\n  title = {{A}},\n  year = {{2020}},\n") == shown
    )


@functools.cache
def files(place):
    """The names that a place in transformers gives, and the text of that model's files."""
    family, names = re.fullmatch(r"models/(\w+), (.+)", place).groups()
    folder = Path(importlib.import_module("transformers.models").__file__).parent / family
    text = "\n".join(path.read_text("utf8") for path in folder.glob("*_*.py"))
    return re.split(r", | and ", names.partition(", the class")[0]), text


@pytest.mark.parametrize("cell", CODE, ids=[families.slug(*cell[:2]) for cell in CODE])
def test_a_place_in_transformers_is_there(cell):
    names, text = files(cell[4])
    for name in names:
        assert re.search(rf"\b{name}\b", text), f"no {name} in the files of {cell[4]}"


# What the code says where a cell rests on it: a piece of text that the model's files must hold.
EVIDENCE = {
    "learned": r"position_embeddings = nn\.Embedding\(|LearnedPositionalEmbedding\(nn\.Embedding\)",
    "SwiGLU": r'hidden_act: str = "silu"',
    "GELU": r'(activation|hidden_act): str (\| None )?= "gelu"',
    "GeGLU": r'hidden_activation: str = "gelu_pytorch_tanh"',
    "RoPE": r"apply_rotary(_pos)?_emb",
    "RMSNorm, pre": r"hidden_states = self\.input_layernorm\(hidden_states\)",
    "LayerNorm, pre": r"LayerNorm",
    "LayerNorm, post": r"(LayerNorm\(hidden_states \+ input_tensor\)"
    r"|residual \+ hidden_states\n\s+hidden_states = self\.self_attn_layer_norm)",
}


@pytest.mark.parametrize("cell", CODE, ids=[families.slug(*cell[:2]) for cell in CODE])
def test_the_code_says_what_the_cell_says(cell):
    _, text = files(cell[4])
    for start in sorted(EVIDENCE, key=len, reverse=True):
        if re.match(rf"{start}\b", cell[2]):
            assert re.search(EVIDENCE[start], text), f"{cell[:3]}: nothing like {EVIDENCE[start]}"
            return
    assert cell[1] in {"context", "attention", "experts", "position"}, cell


# Values that are a default of the configuration class in transformers.
DEFAULTS = {
    ("BART-large", "context"): ("BartConfig", {"max_position_embeddings": 1024}),
    ("BART-large", "attention"): ("BartConfig", {"encoder_attention_heads": 16}),
    ("Falcon-7B", "attention"): ("FalconConfig", {"num_attention_heads": 71, "multi_query": True}),
    ("GLM-4-9B", "attention"): (
        "GlmConfig",
        {"num_attention_heads": 32, "num_key_value_heads": 2, "attention_bias": True},
    ),
    ("GLM-4.5", "context"): ("Glm4MoeConfig", {"max_position_embeddings": 128 * 1024}),
    ("Llama 4 Maverick", "attention"): (
        "Llama4TextConfig",
        {"num_attention_heads": 40, "num_key_value_heads": 8, "attention_chunk_size": 8192},
    ),
    ("Llama 4 Maverick", "position"): ("Llama4TextConfig", {"no_rope_layer_interval": 4}),
    ("OPT-175B", "norm"): ("OPTConfig", {"do_layer_norm_before": True}),
}


@pytest.mark.parametrize("where", DEFAULTS, ids=[families.slug(*where) for where in DEFAULTS])
def test_a_default_of_transformers_is_the_value(where):
    name, expected = DEFAULTS[where]
    config = getattr(importlib.import_module("transformers"), name)()
    assert {key: getattr(config, key) for key in expected} == expected
    (cell,) = (cell for cell in CELLS if cell[:2] == where)
    assert all(key in cell[4] for key in expected if key != "num_attention_heads")
