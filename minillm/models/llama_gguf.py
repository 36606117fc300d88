"""What a LLaMA's tensors and numbers are called in a GGUF file (llama.cpp, `gguf-py/constants.py`).

llama.cpp turns neighboring pairs of a head's numbers (as in LLaMA's own files), we turn halves, so
the rows of every query and key matrix stand in another order.
"""

from dataclasses import dataclass

from torch import Tensor

from minillm.models.hub_format import HubFormat, Setting
from minillm.models.llama import LlamaConfig
from minillm.nn.rotary import halves_to_pairs, pairs_to_halves


@dataclass(frozen=True)
class HeadsInPairs:
    """Theirs is ours with each head's rows reordered, for rotations of neighboring pairs.

    `heads` is the field of the config that counts the heads of this matrix.
    """

    heads: str

    def split(self, tensor: Tensor, config: LlamaConfig) -> tuple[Tensor, ...]:
        """Ours, in halves."""
        return (pairs_to_halves(tensor, getattr(config, self.heads)),)

    def join(self, parts: tuple[Tensor, ...], config: LlamaConfig) -> Tensor:
        """Theirs, in pairs."""
        return halves_to_pairs(parts[0], getattr(config, self.heads))


_LAYER = {
    "attn_norm": "attention_norm",
    "attn_q": "attention.query",
    "attn_k": "attention.key",
    "attn_v": "attention.value",
    "attn_output": "attention.output",
    "ffn_norm": "ffn_norm",
    "ffn_gate": "ffn.gate",
    "ffn_up": "ffn.up",
    "ffn_down": "ffn.down",
}
LLAMA_GGUF = HubFormat(
    keys={
        "token_embd.weight": "tokens.weight",
        **{
            f"blk.{{i}}.{theirs}.weight": f"blocks.{{i}}.{ours}.weight"
            for theirs, ours in _LAYER.items()
        },
        "output_norm.weight": "final_norm.weight",
        "output.weight": "output.weight",
    },
    tied={"output.weight": "token_embd.weight"},
    layouts={
        "attn_q.weight": HeadsInPairs("n_heads"),
        "attn_k.weight": HeadsInPairs("n_kv_heads"),
    },
    config={
        "llama.vocab_size": "vocab_size",
        "llama.context_length": "max_seq_len",
        "llama.embedding_length": "d_model",
        "llama.block_count": "n_layers",
        "llama.attention.head_count": "n_heads",
        "llama.attention.head_count_kv": "n_kv_heads",
        "llama.attention.key_length": "d_head",
        "llama.attention.value_length": "d_head",
        "llama.rope.dimension_count": "d_head",
        "llama.feed_forward_length": "d_ff",
        "llama.attention.layer_norm_rms_epsilon": Setting("norm_eps", float, float),
        "llama.rope.freq_base": Setting("rope_theta", float, float),
        "tied": "tied",  # no entry says so: the file has an output.weight, or it has none
    },
    fixed={"general.architecture": "llama"},
    accepted={"llama.rope.scaling.type": "none", "llama.expert_count": 0},
    defaults={
        "llama.attention.head_count_kv": None,
        "llama.rope.freq_base": 10000.0,
    },
)
