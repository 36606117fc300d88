import dataclasses
import inspect

import pytest
import torch

from minillm.nn import TORCH_OPS, Ops


def test_every_field_has_a_fused_version_with_the_same_parameters():
    for field in dataclasses.fields(Ops):
        reference, fused = getattr(Ops(), field.name), getattr(TORCH_OPS, field.name)
        assert reference is not fused, field.name
        assert list(inspect.signature(reference).parameters) == list(
            inspect.signature(fused).parameters
        )


def test_ops_cannot_be_changed_in_place():
    with pytest.raises(dataclasses.FrozenInstanceError):
        Ops().attention = None


def test_fused_attention_builds_no_mask_for_a_single_query(monkeypatch):
    import minillm.nn.ops as module

    def refuse(*args, **kwargs):
        raise AssertionError("a mask was built")

    monkeypatch.setattr(module, "causal_mask", refuse)
    q, k = torch.randn(1, 2, 1, 4), torch.randn(1, 2, 9, 4)
    TORCH_OPS.attention(q, k, k, causal=True)
    TORCH_OPS.attention(k, k, k, causal=True)
    with pytest.raises(AssertionError, match="a mask was built"):
        TORCH_OPS.attention(k[:, :, :3], k, k, causal=True)
