"""The key maps beside the models name every parameter exactly once."""

import pytest

from minillm.models.gpt import gpt1, gpt2
from minillm.models.hub_format import HubFormat


@pytest.mark.parametrize("preset", [gpt1, gpt2])
def test_right_side_is_the_models_parameters(preset):
    model = preset(vocab_size=11, max_seq_len=5, d_model=6, n_layers=2, n_heads=3)
    assert isinstance(model.hub_format, HubFormat)
    named = []
    for ours in model.hub_format.keys.values():
        for name in [ours] if isinstance(ours, str) else ours:
            named += [name.format(i=i) for i in range(2)] if "{i}" in name else [name]
    assert sorted(named) == sorted(name for name, _ in model.named_parameters())
    assert set(model.hub_format.tied.values()) <= set(model.hub_format.keys)
