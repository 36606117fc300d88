"""Every registered family: no setting of transformers is overlooked, and folders round-trip."""

import inspect
import json
from dataclasses import fields, replace

import pytest
import torch
from transformers import CONFIG_MAPPING, AutoConfig

from minillm.hub import load_pretrained, save_pretrained
from minillm.hub.configs import check_fixed, config_fields, hf_config
from minillm.hub.families import FAMILIES, family_of
from minillm.models.bert import bert
from minillm.models.gpt import GPT2_FORMAT, GPTConfig
from minillm.models.llama import LLAMA_FORMAT, LlamaConfig, llama
from minillm.nn import TORCH_OPS

# A value for every field that a preset would make large; each config takes those that it has.
SMALL = {
    "vocab_size": 23, "max_seq_len": 12, "d_model": 16, "n_layers": 2, "n_heads": 2,
    "n_kv_heads": 1, "d_head": 8, "d_ff": 64, "n_labels": 3, "window": 4, "n_experts": 4,
    "top_k": 2, "d_expert": 8, "d_shared": 8, "n_dense": 1, "n_shared": 1, "n_groups": 2,
    "top_groups": 1, "kv_rank": 8, "q_rank": 8, "d_nope": 4, "d_rope": 4, "d_value": 4,
}  # fmt: skip
TINY: dict[str, dict] = {
    "falcon_rw": {"n_kv_heads": 2},  # one for each head
    **{key: {"n_labels": 2} for key in ("bert_for_pretraining", "bert_for_masked_lm", "roberta")},
}
# What a setting may say without changing what the model computes: ids and names for other programs,
# numerics, dropouts, heads of other classes, and what follows from other settings.
HARMLESS = {
    "_name_or_path", "architectures", "bos_token_id", "chunk_size_feed_forward", "dtype",
    "decoder_start_token_id", "eos_token_id", "forced_bos_token_id", "forced_eos_token_id",
    "id2label", "label2id", "initializer_factor", "initializer_range", "init_std",
    "keys_to_ignore_at_inference", "output_attentions", "output_hidden_states",
    "output_router_logits", "pad_token_id", "problem_type", "return_dict", "sep_token_id",
    "transformers_version", "use_cache", "is_encoder_decoder", "is_decoder",
    "reorder_and_upcast_attn", "attention_dropout", "activation_dropout", "classifier_dropout",
    "encoder_layerdrop", "decoder_layerdrop", "summary_type", "summary_use_proj",
    "summary_activation", "summary_proj_to_labels", "summary_first_dropout",
    "dense_act_fn", "is_gated_act", "qk_head_dim", "max_window_layers",
}  # fmt: skip


def label(family):
    return f"{family.hub_format.architecture}-{family.preset.__name__}"


every_family = pytest.mark.parametrize("family", FAMILIES, ids=label)


def tiny(family, **options):
    names = {field.name for field in fields(family.config)}
    sizes = {name: size for name, size in SMALL.items() if name in names}
    torch.manual_seed(0)
    model = family.preset(**{**sizes, **TINY.get(family.preset.__name__, {})}, **options)
    with torch.no_grad():
        for p in model.parameters():
            p.normal_(std=0.3)
    return model.eval()


def flat(settings, prefix=""):
    for name, value in settings.items():
        if isinstance(value, dict) and name not in ("id2label", "label2id"):
            yield from flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}"


# Settings that one preset's `fixed` ones switch off.
WITHOUT_EFFECT = {
    "qwen2": {"sliding_window"},
    "qwen3": {"sliding_window"},
    "falcon_40b": {"multi_query", "parallel_attn"},
    "falcon_rw": {"num_kv_heads", "num_ln_in_parallel_attn", "rope_parameters"},
    "falcon_7b": {"num_ln_in_parallel_attn"},
}


@every_family
def test_no_setting_of_transformers_is_overlooked(family):
    """Each is read, must have one value, or is known to change nothing."""
    known = family.hub_format
    names = {*known.config, *known.fixed, *known.accepted, *known.extra, *known.aliases, *HARMLESS}
    names |= WITHOUT_EFFECT.get(family.preset.__name__, set())
    config = CONFIG_MAPPING[known.fixed["model_type"]]()
    missed = [
        name
        for name in flat(config.to_dict())
        if name not in names and name.partition(".")[0] not in names
    ]
    assert not missed, f"{label(family)} says nothing of {missed}"


@every_family
def test_defaults_are_those_of_transformers(family):
    """A setting that a file leaves out means here what it means there."""
    known = family.hub_format
    theirs = CONFIG_MAPPING[known.fixed["model_type"]]().to_dict()
    read = {name for name, ours in known.config.items() if isinstance(ours, str)}
    kept = {k: v for k, v in known.defaults.items() if v is not None and k in read}
    for name, value in kept.items():
        head, _, rest = name.partition(".")
        expected = (theirs.get(head) or {}).get(rest, value) if rest else theirs.get(name, value)
        assert expected == value, f"{name}: {value} here, {expected} in transformers"


@every_family
def test_a_folder_and_back(family, tmp_path):
    model = tiny(family)
    save_pretrained(model, tmp_path)
    again = load_pretrained(tmp_path, ops=TORCH_OPS)
    assert type(again) is type(model) and again.config == model.config
    assert again.hub_format is model.hub_format
    own, other = model.state_dict(), again.state_dict()
    assert own.keys() == other.keys()
    assert all(torch.equal(own[name], other[name]) for name in own)


@every_family
def test_transformers_understands_the_config(family, tmp_path):
    model = tiny(family)
    save_pretrained(model, tmp_path)
    theirs = AutoConfig.from_pretrained(tmp_path)
    assert type(theirs) is CONFIG_MAPPING[family.hub_format.fixed["model_type"]]
    theirs.save_pretrained(tmp_path / "back")
    config = json.loads((tmp_path / "back" / "config.json").read_text())
    config["architectures"] = [family.hub_format.architecture]
    numbers = config_fields(family.hub_format, config, family.config)
    assert family.config(**numbers) == model.config
    assert family_of(config).hub_format == family.hub_format


@every_family
def test_a_preset_takes_every_field(family):
    """`load_pretrained` calls it with all fields of the config, and nothing else but ops."""
    parameters = inspect.signature(family.preset).parameters
    assert "ops" in parameters
    assert any(p.kind is p.VAR_KEYWORD for p in parameters.values())


TIED_LATER = replace(
    GPT2_FORMAT,
    keys={**GPT2_FORMAT.keys, "lm_head.weight": "output.weight"},
    aliases={"n_ctx": "n_positions"},
    accepted={"layers": lambda value: value == [1]},
    extra={"pad_token_id": 0},
    defaults={"n_layer": 12, "activation_function": "relu"},
)
GOOD = {
    "vocab_size": 9,
    "n_positions": 5,
    "n_embd": 8,
    "n_head": 2,
    "activation_function": "gelu_new",
}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"n_ctx": 7}, "n_positions=5 and n_ctx=7 contradict each other"),
        ({"layers": [2]}, r"layers=\[2\] is not supported"),
        ({"activation_function": None}, "activation_function=None is not supported"),
        ({"n_embd": None}, "n_embd=None is not a whole number"),
        ({"layer_norm_epsilon": True}, "layer_norm_epsilon=True is not a finite number"),
    ],
)
def test_what_a_format_refuses(change, message):
    with pytest.raises(ValueError, match=message):
        config_fields(TIED_LATER, GOOD | change, GPTConfig)


def test_aliases_defaults_and_what_is_missing():
    numbers = config_fields(TIED_LATER, GOOD | {"n_ctx": 5, "layers": [1]}, GPTConfig)
    assert numbers["n_layers"] == 12 and numbers["dropout"] == 0.0 and numbers["d_ff"] is None
    old = {k: v for k, v in GOOD.items() if k != "n_positions"} | {"n_ctx": 5}
    assert config_fields(TIED_LATER, old, GPTConfig)["max_seq_len"] == 5
    del old["n_ctx"]
    with pytest.raises(ValueError, match="n_positions is missing"):
        config_fields(TIED_LATER, old, GPTConfig)
    with pytest.raises(ValueError, match="activation_function='relu' is not supported"):
        check_fixed(TIED_LATER, {})  # a missing setting has transformers' default


LLAMA_FIELDS = ("vocab_size", "max_seq_len", "d_model", "n_layers", "n_heads")


def test_files_of_transformers_4_and_5_say_the_same():
    new = {"vocab_size": 9, "max_position_embeddings": 5, "hidden_size": 8, "num_hidden_layers": 1,
           "num_attention_heads": 2, "rope_parameters": {"rope_theta": 5e5}}  # fmt: skip
    old = {**new, "rope_theta": 5e5, "rope_scaling": None}
    del old["rope_parameters"]
    numbers = config_fields(LLAMA_FORMAT, new, LlamaConfig)
    assert numbers == config_fields(LLAMA_FORMAT, old, LlamaConfig)
    assert numbers["rope_theta"] == 5e5
    for scaled in ({"type": "linear", "factor": 2.0}, {"rope_type": "yarn"}):
        with pytest.raises(ValueError, match=r"rope_type='(linear|yarn)' is not supported"):
            config_fields(LLAMA_FORMAT, {**old, "rope_scaling": scaled}, LlamaConfig)
    with pytest.raises(ValueError, match="rope_parameters=7 is not an object"):
        config_fields(LLAMA_FORMAT, {**new, "rope_parameters": 7}, LlamaConfig)
    written = hf_config(llama(**{k: SMALL[k] for k in LLAMA_FIELDS}))
    assert written["rope_parameters"] == {"rope_type": "default", "rope_theta": 10000.0}
    assert written["bos_token_id"] is None


def test_the_family_is_found_by_settings_where_the_class_is_shared():
    shared = {"model_type": "llama", "architectures": ["LlamaForCausalLM"]}
    scaled = {"rope_type": "llama3", "original_max_position_embeddings": 8192,
              "low_freq_factor": 1.0, "high_freq_factor": 4.0, "factor": 8.0}  # fmt: skip
    assert family_of(shared).preset.__name__ == "llama"
    assert family_of({**shared, "rope_scaling": scaled}).preset.__name__ == "llama3_1"
    assert family_of({"model_type": "bert", "architectures": ["BertModel"]}).preset is bert
    with pytest.raises(ValueError, match="model_type 'mamba' is not known here; known: "):
        family_of({"model_type": "mamba"})
