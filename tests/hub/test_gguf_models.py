"""Small LLaMAs into GGUF files and out of them, and what transformers and `gguf` make of those."""

import struct

import gguf
import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from minillm.hub import GgufFile, load_gguf, read_metadata, save_gguf, to_hf
from minillm.hub.gguf_write import write_gguf
from minillm.models.gpt import gpt2
from minillm.models.llama import llama
from minillm.models.llama_cousins import qwen2
from minillm.nn import TORCH_OPS
from minillm.quantization.gguf_blocks import FORMATS, dequantize, quantize

SIZES = {"vocab_size": 40, "max_seq_len": 24, "d_model": 32, "n_layers": 2, "n_heads": 4,
         "n_kv_heads": 2, "d_head": 8, "d_ff": 64, "norm_eps": 2.0**-17}  # fmt: skip


@pytest.fixture(params=[True, False], ids=["tied", "untied"])
def model(request):
    torch.manual_seed(0)
    made = llama(**SIZES, tied=request.param, rope_theta=5000.0)
    with torch.no_grad():
        for p in made.parameters():
            p.normal_(std=0.3)
    return made.eval()


def test_a_model_to_a_file_and_back(model, tmp_path):
    save_gguf(model, tmp_path / "m.gguf")
    again = load_gguf(tmp_path / "m.gguf", ops=TORCH_OPS)
    assert again.config == model.config and not again.training
    assert all(
        torch.equal(a, b) for a, b in zip(again.parameters(), model.parameters(), strict=True)
    )


@pytest.mark.parametrize("kind", ["F16", "BF16", "Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1"])
def test_matrices_are_rounded_and_vectors_are_not(model, kind, tmp_path):
    save_gguf(model, tmp_path / "m.gguf", kind=kind)
    again, own = load_gguf(tmp_path / "m.gguf").state_dict(), model.state_dict()
    for name, tensor in own.items():
        expected = tensor
        if tensor.ndim > 1:
            expected = dequantize(quantize(tensor, FORMATS[kind]), FORMATS[kind], tensor.shape)
        assert torch.equal(again[name], expected), name
    assert GgufFile(tmp_path / "m.gguf").infos["output_norm.weight"].kind.name == "F32"


def test_transformers_reads_the_file_and_computes_the_same(model, tmp_path):
    save_gguf(model, tmp_path / "m.gguf", kind="Q8_0")
    again = load_gguf(tmp_path / "m.gguf")
    theirs = AutoModelForCausalLM.from_pretrained(
        tmp_path, gguf_file="m.gguf", dtype=torch.float32, attn_implementation="eager"
    ).eval()
    expected, found = theirs.state_dict(), to_hf(again)
    assert all(torch.equal(found[name], expected[name]) for name in found)
    tokens = torch.randint(40, (2, 11), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        error = (theirs(tokens).logits - again(tokens)).abs().max()
        assert error < 1e-4 < 1e-2 < (again(tokens) - model(tokens)).abs().max()


def test_byte_for_byte_what_the_gguf_package_writes(tmp_path):
    weights = torch.randn(3, 64, generator=torch.Generator().manual_seed(2))
    metadata = {"general.architecture": "llama", "small": 7, "large": 1 << 40, "below": -3,
                "half": 0.5, "yes": True, "text": "naïve", "numbers": [1, 2], "signed": [-1, 4],
                "texts": ["a", ""], "fractions": [0.25, 1.5]}  # fmt: skip
    kinds = {"a": "Q4_0", "b": "F32", "c": "Q8_0", "d": "F16"}
    write_gguf(tmp_path / "ours", metadata, {n: (weights, FORMATS[k]) for n, k in kinds.items()})
    theirs = gguf.GGUFWriter(tmp_path / "theirs", "llama")
    for name, value in list(metadata.items())[1:]:
        kind = {"small": "uint32", "large": "uint64", "below": "int32", "half": "float32",
                "yes": "bool", "text": "string"}.get(name, "array")  # fmt: skip
        if name == "numbers":  # the package writes such lists as signed numbers
            theirs.add_key_value(
                name, value, gguf.GGUFValueType.ARRAY, sub_type=gguf.GGUFValueType.UINT32
            )
        else:
            getattr(theirs, f"add_{kind}")(name, value)
    for name, kind in kinds.items():
        q = gguf.GGMLQuantizationType[kind]
        data = gguf.quants.quantize(weights.numpy(), q)
        theirs.add_tensor(name, data, raw_dtype=q)
    theirs.write_header_to_file()
    theirs.write_kv_data_to_file()
    theirs.write_tensors_to_file()
    theirs.close()
    assert (tmp_path / "ours").read_bytes() == (tmp_path / "theirs").read_bytes()
    assert read_metadata(tmp_path / "ours") == metadata


def test_tensors_are_read_as_the_gguf_package_reads_them(model, tmp_path):
    save_gguf(model, tmp_path / "m.gguf", kind="Q5_1", metadata={"general.name": "toy"})
    ours, theirs = GgufFile(tmp_path / "m.gguf"), gguf.GGUFReader(tmp_path / "m.gguf")
    assert len(ours) == len(theirs.tensors) and ours.metadata["general.name"] == "toy"
    for tensor in theirs.tensors:
        info = ours.infos[tensor.name]
        assert info.start == tensor.data_offset and info.shape == tuple(tensor.shape[::-1])
        assert np.array_equal(ours.raw(tensor.name).numpy(), tensor.data.view(np.uint8).ravel())


def test_what_cannot_be_written(model, tmp_path):
    sizes = {k: SIZES[k] for k in ("vocab_size", "max_seq_len", "d_model", "n_layers", "n_heads")}
    cases = [
        (lambda: save_gguf(gpt2(**sizes), tmp_path / "m"), "a GPT2LMHeadModel cannot be written"),
        (lambda: save_gguf(qwen2(**sizes), tmp_path / "m"), "a Qwen2ForCausalLM cannot be"),
        (lambda: save_gguf(model, tmp_path / "m", kind="Q4_K"), "unknown format 'Q4_K'"),
        (lambda: save_gguf(llama(**SIZES | {"d_ff": 48}), tmp_path / "m", kind="Q8_0"),
         "rows of 48 weights"),
        (lambda: write_gguf(tmp_path / "m", {"x": None}, {}), r"the entry 'x' is \[None\]"),
        (lambda: write_gguf(tmp_path / "m", {"x": [1, "a"]}, {}), "the entry 'x'"),
        (lambda: write_gguf(tmp_path / "m", {"general.alignment": 64}, {}), "must be 32"),
    ]  # fmt: skip
    for call, message in cases:
        with pytest.raises(ValueError, match=message):
            call()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"general.architecture": "mamba"}, "general.architecture 'mamba' is not known"),
        ({"general.architecture": [1]}, r"general.architecture \[1\] is not known"),
        ({"llama.block_count": 3}, "llama.block_count=3, but the tensors are those of 2"),
        ({"llama.attention.head_count": 3}, "head_count|divide|describe no model|fit"),
        ({"llama.embedding_length": 48}, "has shape"),
        ({"llama.rope.scaling.type": "yarn"}, "llama.rope.scaling.type='yarn' is not supported"),
        ({"llama.attention.key_length": 16}, "differs from"),
        ({"llama.rope.freq_base": "x"}, "could not convert|freq_base"),
        ({"llama.vocab_size": 1 << 50}, "has shape"),
    ],
)
def test_settings_that_do_not_fit_the_tensors(model, change, message, tmp_path):
    save_gguf(model, tmp_path / "m.gguf", metadata=change)
    with pytest.raises(ValueError, match=rf"m\.gguf' cannot be loaded: .*({message})"):
        load_gguf(tmp_path / "m.gguf")


def test_a_nan_scale_is_noticed(model, tmp_path):
    path = tmp_path / "m.gguf"
    save_gguf(model, path, kind="Q8_0")
    start = GgufFile(path).infos["blk.1.ffn_up.weight"].start
    data = bytearray(path.read_bytes())
    data[start : start + 2] = struct.pack("<e", float("nan"))
    path.write_bytes(data)
    with pytest.raises(ValueError, match=r"blk.1.ffn_up.weight holds 32 times nan"):
        load_gguf(path)
