"""The models that a checkpoint may hold: which preset builds it, found by what its config says."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from minillm.hub.configs import check_fixed, config_fields, names_of
from minillm.hub.state_dicts import copy_in
from minillm.models.bart import BART_FORMAT, bart
from minillm.models.bert import BERT_FORMAT, BertConfig, bert
from minillm.models.bert_heads import (
    CLASSIFIER_FORMAT,
    TAGGER_FORMAT,
    bert_classifier,
    bert_tagger,
)
from minillm.models.bert_pretraining import (
    MASKED_LM_FORMAT,
    PRETRAINING_FORMAT,
    bert_for_masked_lm,
    bert_for_pretraining,
)
from minillm.models.bloom import BLOOM_FORMAT, BloomConfig, bloom
from minillm.models.chatglm import GLM4_FORMAT, ChatGLMConfig, glm4
from minillm.models.deepseek import DeepSeekConfig, deepseek_v2, deepseek_v3
from minillm.models.deepseek_format import V2_FORMAT, V3_FORMAT
from minillm.models.encdec import EncDecConfig
from minillm.models.falcon import (
    FALCON_7B_FORMAT,
    FALCON_40B_FORMAT,
    FALCON_RW_FORMAT,
    FalconConfig,
    falcon_7b,
    falcon_40b,
    falcon_rw,
)
from minillm.models.gpt import GPT1_FORMAT, GPT2_FORMAT, GPTConfig, gpt1, gpt2
from minillm.models.gpt3 import GPT_NEO_FORMAT, BandedConfig, gpt_neo
from minillm.models.gpt_heads import (
    GPT1_CHOICE_FORMAT,
    GPT1_CLASSIFIER_FORMAT,
    GPT2_CHOICE_FORMAT,
    GPT2_CLASSIFIER_FORMAT,
    GPTClassifierConfig,
    gpt1_choices,
    gpt1_classifier,
    gpt2_choices,
    gpt2_classifier,
)
from minillm.models.hub_format import HubFormat
from minillm.models.llama import (
    LLAMA3_FORMAT,
    LLAMA_FORMAT,
    Llama3Config,
    LlamaConfig,
    llama,
    llama3_1,
)
from minillm.models.llama_cousins import (
    GEMMA_FORMAT,
    MISTRAL_0_2_FORMAT,
    MISTRAL_FORMAT,
    QWEN2_FORMAT,
    QWEN3_FORMAT,
    MistralConfig,
    gemma,
    mistral,
    mistral_0_2,
    qwen2,
    qwen3,
)
from minillm.models.marian import MARIAN_FORMAT, marian
from minillm.models.moe import (
    MIXTRAL_FORMAT,
    QWEN2_MOE_FORMAT,
    MixtralConfig,
    QwenMoEConfig,
    mixtral,
    qwen2_moe,
)
from minillm.models.roberta import (
    ROBERTA_CLASSIFIER_FORMAT,
    ROBERTA_FORMAT,
    roberta,
    roberta_classifier,
)
from minillm.models.t5 import T5_1_1_FORMAT, T5_FORMAT, T5Config, t5, t5_1_1
from minillm.nn.ops import Ops


@dataclass(frozen=True)
class Family:
    """`preset(ops=, **fields of the config)` builds what `hub_format` describes."""

    preset: Callable[..., nn.Module]
    config: type
    hub_format: HubFormat


# One entry a family. Several may share an architecture (Falcon 7B and 40B): the first whose fixed
# settings fit is taken, so the more particular stands first.
FAMILIES: tuple[Family, ...] = (
    Family(glm4, ChatGLMConfig, GLM4_FORMAT),
    Family(gpt1, GPTConfig, GPT1_FORMAT),
    Family(gpt2, GPTConfig, GPT2_FORMAT),
    Family(gpt1_classifier, GPTClassifierConfig, GPT1_CLASSIFIER_FORMAT),
    Family(gpt2_classifier, GPTClassifierConfig, GPT2_CLASSIFIER_FORMAT),
    Family(gpt1_choices, GPTConfig, GPT1_CHOICE_FORMAT),
    Family(gpt2_choices, GPTConfig, GPT2_CHOICE_FORMAT),
    Family(gpt_neo, BandedConfig, GPT_NEO_FORMAT),
    Family(marian, EncDecConfig, MARIAN_FORMAT),
    Family(bert, BertConfig, BERT_FORMAT),
    Family(bert_for_pretraining, BertConfig, PRETRAINING_FORMAT),
    Family(bert_for_masked_lm, BertConfig, MASKED_LM_FORMAT),
    Family(bert_classifier, BertConfig, CLASSIFIER_FORMAT),
    Family(bert_tagger, BertConfig, TAGGER_FORMAT),
    Family(roberta, BertConfig, ROBERTA_FORMAT),
    Family(roberta_classifier, BertConfig, ROBERTA_CLASSIFIER_FORMAT),
    Family(t5, T5Config, T5_FORMAT),
    Family(t5_1_1, T5Config, T5_1_1_FORMAT),
    Family(bart, EncDecConfig, BART_FORMAT),
    Family(llama, LlamaConfig, LLAMA_FORMAT),
    Family(llama3_1, Llama3Config, LLAMA3_FORMAT),
    Family(mistral_0_2, LlamaConfig, MISTRAL_0_2_FORMAT),
    Family(mistral, MistralConfig, MISTRAL_FORMAT),
    Family(qwen2, LlamaConfig, QWEN2_FORMAT),
    Family(qwen3, LlamaConfig, QWEN3_FORMAT),
    Family(gemma, LlamaConfig, GEMMA_FORMAT),
    Family(falcon_7b, FalconConfig, FALCON_7B_FORMAT),
    Family(falcon_40b, FalconConfig, FALCON_40B_FORMAT),
    Family(falcon_rw, FalconConfig, FALCON_RW_FORMAT),
    Family(bloom, BloomConfig, BLOOM_FORMAT),
    Family(mixtral, MixtralConfig, MIXTRAL_FORMAT),
    Family(qwen2_moe, QwenMoEConfig, QWEN2_MOE_FORMAT),
    Family(deepseek_v2, DeepSeekConfig, V2_FORMAT),
    Family(deepseek_v3, DeepSeekConfig, V3_FORMAT),
)


def family_of(config: Mapping[str, Any]) -> Family:
    """The family that a config.json describes; ValueError naming what is not known here.

    `model_type` decides, and `architectures` between several classes of one type.
    """
    kind, named = config.get("model_type"), config.get("architectures")
    found = [family for family in FAMILIES if family.hub_format.fixed["model_type"] == kind]
    if not found:
        known = dict.fromkeys(f.hub_format.fixed["model_type"] for f in FAMILIES)
        raise ValueError(f"model_type {kind!r:.80} is not known here; known: {', '.join(known)}")
    classes = named if isinstance(named, list) else []
    found = [family for family in found if family.hub_format.architecture in classes] or found
    for family in found[:-1]:
        try:
            check_fixed(family.hub_format, config)
            return family
        except ValueError:
            continue
    return found[-1]


def template(
    family: Family, config: Mapping[str, Any], names: Iterable[str]
) -> tuple[dict[str, Any], nn.Module]:
    """The preset's arguments, and the model on the meta device: all shapes, and no memory.

    `names` are those of the tensors in the file, which must be those of as many layers.
    """
    numbers = config_fields(family.hub_format, config, family.config)
    layers = _count_layers(family.hub_format, names)
    if numbers.get("n_layers", layers) != layers:  # before building: it may be 10⁷
        said = names_of(family.hub_format, "n_layers")
        raise ValueError(
            f"{said}={numbers['n_layers']}, but the tensors are those of {layers} layers; "
            "copy all files from the same checkpoint"
        )
    try:
        with torch.device("meta"), _NoRandomWeights():
            return numbers, family.preset(**numbers)
    except ValueError:
        raise
    except Exception as error:  # sizes beyond 64 bits, and what else no config should say
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise ValueError(f"{numbers} describe no model: {reason:.120}; correct them") from error


def filled(
    family: Family, numbers: Mapping[str, Any], values: Mapping[str, Tensor], ops: Ops | None
) -> nn.Module:
    """The model with `values` (`matched` made them) as its weights, in evaluation mode."""
    with _NoRandomWeights():
        model = family.preset(ops=ops, **numbers)
    copy_in(model, values)
    return model.eval()


class _NoRandomWeights(TorchFunctionMode):
    """Leave out the drawing of first weights, the slower half of loading: all are replaced.

    PyTorch's initializers do nothing. A draw outside of them gives one number, mean or lower bound,
    not what was in memory before: `trunc_normal_` draws again until all numbers are in range.
    """

    SKIPPED = (nn.init.normal_, nn.init.uniform_, nn.init.kaiming_uniform_)

    def __torch_function__(
        self, func: Callable, types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func in self.SKIPPED:
            return args[0] if args else kwargs["tensor"]
        if func in (Tensor.normal_, Tensor.uniform_):
            named = kwargs.get("mean", kwargs.get("from", 0))
            return args[0].fill_(args[1] if len(args) > 1 else named)
        return func(*args, **kwargs)


def _count_layers(hub_format: HubFormat, names: Iterable[str]) -> int:
    """How many tensors fill the place of the first key that every layer has."""
    key = next(key for key in hub_format.keys if "{i}" in key)
    head, tail = key.removeprefix(hub_format.prefix).split("{i}")
    bare = (name.removeprefix(hub_format.prefix) for name in names)
    return sum(n.startswith(head) and n.endswith(tail) for n in bare)
