"""The family table and the library's presets describe the same models: sizes, heads, lengths."""

import re

import families
import pytest
import torch
from course import ROOT

from minillm.models import (
    bart,
    bert,
    bloom,
    chatglm,
    deepseek,
    falcon,
    glm,
    gpt,
    gpt3,
    llama,
    moe,
    t5,
)
from minillm.models import llama_cousins as cousins

MODELS = families.load(ROOT / "book" / "data" / "families.yml")
TABLE = {model["model"]: {c: cell[0] for c, cell in model["cells"].items()} for model in MODELS}
PRESETS = {
    "GPT-1": lambda: gpt.gpt1(),
    "GPT-2 1.5B": lambda: gpt.gpt2("xl"),
    "GPT-3 175B": lambda: gpt3.gpt3("175b"),
    "BERT-Large": lambda: bert.bert("large"),
    "T5-11B": lambda: t5.t5("11b"),
    "BART-large": lambda: bart.bart("large"),
    "BLOOM 176B": lambda: bloom.bloom("176b"),
    "GLM-Large": lambda: glm.glm("large"),
    "GLM-130B": lambda: glm.glm_130b(),
    "ChatGLM2-6B": lambda: chatglm.chatglm2(),
    "GLM-4-9B": lambda: chatglm.glm4(),
    "LLaMA 65B": lambda: llama.llama1("65b"),
    "Llama 2 70B": lambda: llama.llama2("70b"),
    "Llama 3.1 405B": lambda: llama.llama3_1("405b"),
    "SmolLM2-135M": lambda: llama.smollm2("135m"),
    "Mistral 7B": lambda: cousins.mistral("7b"),
    "Qwen2-72B": lambda: cousins.qwen2("72b"),
    "Gemma 7B": lambda: cousins.gemma("7b"),
    "Baichuan-7B": lambda: cousins.baichuan_7b(),
    "Baichuan-13B": lambda: cousins.baichuan_13b(),
    "Falcon-7B": lambda: falcon.falcon_7b(),
    "Falcon-40B": lambda: falcon.falcon_40b(),
    "Mixtral 8x7B": lambda: moe.mixtral("8x7b"),
    "DeepSeek-V2": lambda: deepseek.deepseek_v2("236b"),
    "DeepSeek-V3": lambda: deepseek.deepseek_v3(),
}
# Where the preset is the model as it was pretrained, or as the code ships it, and the table names
# the length that was reached later or that the paper gives.
OTHER_LENGTH = {"Qwen2-72B", "DeepSeek-V2", "DeepSeek-V3", "Mistral 7B", "T5-11B"}
SPARSE = {"Mixtral 8x7B", "DeepSeek-V2", "DeepSeek-V3"}


def number(text: str) -> float:
    """The number that a cell starts with."""
    return float(families.sort_key("parameters", text))


def said(pattern: str, text: str) -> int | None:
    """The number before some words of a cell, where it names one."""
    match = re.search(rf"(\d+) {pattern}", text)
    return int(match[1]) if match else None


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_is_the_model_of_its_row(name):
    with torch.device("meta"):  # shapes only: the largest has 671 billion weights
        model = PRESETS[name]()
    row, config = TABLE[name], model.config
    weights = sum(p.numel() for p in model.parameters())
    assert weights == pytest.approx(number(row["parameters"]), rel=0.05), row["parameters"]
    if name not in OTHER_LENGTH:
        assert config.max_seq_len == number(row["context"])
    for pattern, value in (("heads", config.n_heads), ("key-value", config.n_kv_heads)):
        assert said(pattern, row["attention"]) in (None, value), row["attention"]
    sharing = {"MQA": config.n_kv_heads == 1, "GQA": 1 < config.n_kv_heads < config.n_heads}
    sharing |= {"MHA": config.n_kv_heads == config.n_heads, "MLA": name.startswith("DeepSeek")}
    (kind,) = re.findall(r"\b(M[HQL]A|GQA)\b", row["attention"])
    assert sharing[kind], f"{name}: {row['attention']}"
    assert (row["experts"] == "dense") == (name not in SPARSE)
    if name in SPARSE:
        check_experts(config, row["experts"])


def check_experts(config, cell: str) -> None:
    """The experts of a preset are those of the cell: routed, used, shared."""
    (routed,) = re.findall(r"(\d+)(?: routed)?, \d+ used", cell)
    assert config.n_experts == int(routed)
    assert config.top_k == said("used", cell)
    assert getattr(config, "n_shared", 0) == (said("shared", cell) or 0)
