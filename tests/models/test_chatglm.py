"""ChatGLM2 and GLM-4: published sizes, causality, the cache that two key-value heads buy."""

import pytest
import torch

from minillm.models.chatglm import ChatGLMConfig, chatglm2, glm4

SMALL = {"vocab_size": 41, "max_seq_len": 32, "d_model": 24, "n_layers": 2, "n_heads": 4}
SMALL |= {"n_kv_heads": 2, "d_head": 6, "d_ff": 20, "rotary_share": 2 / 3}


def test_published_numbers_of_parameters():
    with torch.device("meta"):
        sizes = [sum(p.numel() for p in preset().parameters()) for preset in (chatglm2, glm4)]
    assert abs(sizes[0] / 6.24e9 - 1) < 0.01
    assert abs(sizes[1] / 9.4e9 - 1) < 0.01


def test_two_key_value_heads_serve_thirty_two():
    with torch.device("meta"):
        attention = chatglm2(n_layers=1).blocks[0].attention
    assert attention.query.weight.shape == (4096, 4096)
    assert attention.key.weight.shape == attention.value.weight.shape == (256, 4096)
    assert attention.key.bias is not None
    assert attention.output.bias is None


def test_causal_to_the_bit():
    torch.manual_seed(0)
    model = glm4(**SMALL).double().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
        tokens = torch.arange(11)[None]
        before = model(tokens)
        for place in range(11):
            after = model(tokens.index_fill(1, torch.tensor([place]), 30))
            assert torch.equal(before[:, :place], after[:, :place])
            assert not torch.equal(before[:, place:], after[:, place:])


def test_bad_numbers_are_named():
    with pytest.raises(ValueError, match="rotary_share"):
        ChatGLMConfig(**{**SMALL, "rotary_share": 0.0})
    with pytest.raises(ValueError, match="d_ff"):
        ChatGLMConfig(**{**SMALL, "d_ff": 0})
