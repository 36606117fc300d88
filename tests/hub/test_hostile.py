"""Files that nobody vetted: whatever is in them, a ValueError comes soon and costs little."""

import functools
import json
import struct
import tempfile
import tracemalloc
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from minillm.hub import GgufFile, load_gguf, load_pretrained, load_tokenizer, save_gguf
from minillm.hub.folders import save_pretrained
from minillm.hub.gguf_write import write_gguf
from minillm.hub.shards import Tensors
from minillm.models.bloom import bloom
from minillm.models.llama import llama
from minillm.quantization.gguf_blocks import FORMATS

SIZES = {"vocab_size": 32, "max_seq_len": 8, "d_model": 32, "n_layers": 2, "n_heads": 2,
         "d_ff": 32}  # fmt: skip
VOCABULARY = {
    "tokenizer.ggml.model": "llama",
    "tokenizer.ggml.tokens": ["<unk>", "<s>", "</s>", "▁a", "b"],
    "tokenizer.ggml.scores": [0.0, 0.0, 0.0, -1.0, -2.0],
    "tokenizer.ggml.token_type": [2, 3, 3, 1, 1],
    "nested.arrays": [1, 2, 3],
}
MEMORY = 3_000_000  # bytes of Python objects; the files have some 20,000
few = settings(
    max_examples=40, deadline=None, database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)  # fmt: skip


@functools.cache
def folder():
    """A place with one good file of each kind."""
    made = Path(tempfile.mkdtemp(prefix="minillm-hostile-"))
    torch.manual_seed(0)
    model = llama(**SIZES)
    save_gguf(model, made / "good.gguf", kind="Q8_0", metadata=VOCABULARY)
    save_pretrained(model, made / "single")
    save_pretrained(model, made / "sharded", max_shard_bytes=12_000)
    for kind in ("single", "sharded"):
        load_pretrained(made / kind)
    load_gguf(made / "good.gguf")
    load_tokenizer(made / "good.gguf")
    return made


def survives(call):
    """Run `call`: it may succeed or raise ValueError, within the memory."""
    tracemalloc.start()
    try:
        call()
    except ValueError:
        pass
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak < MEMORY, f"{peak} bytes"


HUGE = [0, 1, 2**31 - 1, 2**32 - 1, 2**40, 2**62, 2**63, 2**64 - 1]


@st.composite
def damages(draw, size):
    """Some bytes replaced by others, or by a 64-bit number, and perhaps the end cut off."""
    changes = []
    for _ in range(draw(st.integers(0, 3))):
        place = draw(st.integers(0, size - 9))
        replacement = draw(
            st.binary(min_size=1, max_size=8)
            | st.sampled_from(HUGE).map(lambda n: struct.pack("<Q", n))
        )
        changes.append((place, replacement))
    end = draw(st.just(size) | st.integers(0, size))
    return changes, end


def damaged(data, damage):
    changes, end = damage
    out = bytearray(data)
    for place, replacement in changes:
        out[place : place + len(replacement)] = replacement
    return bytes(out[:end])


@few
@given(st.data())
def test_damaged_gguf(data):
    raw = (folder() / "good.gguf").read_bytes()
    head = raw.index(b"output_norm") + 60  # nearly all that can go wrong stands before the weights
    where = data.draw(st.sampled_from([head, head, len(raw)]))
    path = folder() / "bad.gguf"
    path.write_bytes(damaged(raw, data.draw(damages(where))) + raw[where:])

    def read():
        file = GgufFile(path)
        for name in file:
            file[name]

    survives(read)
    survives(lambda: load_gguf(path))
    survives(lambda: load_tokenizer(path))


@few
@given(st.data())
@pytest.mark.parametrize("kind", ["single", "sharded"])
def test_damaged_safetensors(kind, data):
    victim = data.draw(st.sampled_from(sorted((folder() / kind).glob("*.safetensors"))))
    raw = victim.read_bytes()
    head = 8 + int.from_bytes(raw[:8], "little")
    where = data.draw(st.sampled_from([head, head, len(raw)]))
    try:
        victim.write_bytes(damaged(raw, data.draw(damages(where))) + raw[where:])
        survives(lambda: load_pretrained(folder() / kind))
    finally:
        victim.write_bytes(raw)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 2**70) | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=5,
)


@few
@given(st.data())
@pytest.mark.parametrize("name", ["config.json", "model.safetensors.index.json"])
def test_json_with_other_values(name, data):
    path = folder() / "sharded" / name
    text = path.read_text()
    content = json.loads(text)
    place = content
    if name != "config.json" and data.draw(st.booleans()):
        place = content["weight_map"]
    for key in data.draw(st.lists(st.sampled_from(sorted(place)), min_size=1, max_size=2)):
        place[key] = data.draw(JSON)
    try:
        path.write_text(json.dumps(content))
        survives(lambda: load_pretrained(folder() / "sharded"))
    finally:
        path.write_text(text)


@pytest.mark.parametrize("field", ["n_head", "hidden_size", "vocab_size", "n_layer"])
def test_absurd_sizes_are_refused_before_anything_is_made(field, tmp_path):
    """BLOOM computes one slope per head: a billion heads must not be counted out."""
    save_pretrained(bloom(**{k: SIZES[k] for k in ("vocab_size", "d_model", "n_layers",
                                                   "n_heads")}), tmp_path)  # fmt: skip
    config = json.loads((tmp_path / "config.json").read_text())
    sizes = {field: 10**9} if field != "n_head" else {"n_head": 10**9, "hidden_size": 10**9}
    (tmp_path / "config.json").write_text(json.dumps(config | sizes))
    with pytest.raises(ValueError, match=r"1000000000|10{9}|differ"):
        load_pretrained(tmp_path)


@pytest.mark.parametrize(
    ("places", "message"),
    [
        ("../single/model.safetensors", "which is no file of its folder"),
        ("/etc/passwd", "which is no file of its folder"),
        ("..\\model.safetensors", "which is no file of its folder"),
        ("weights.bin", "which is no file of its folder"),
        ("model-00009-of-00009.safetensors", "is missing; model.safetensors.index.json names it"),
        (7, "names 7, which is no file"),
        ("model-00001-of-00008.safetensors", "disagree about model.norm.weight"),
    ],
)
def test_an_index_names_only_files_of_its_folder(places, message):
    path = folder() / "sharded" / "model.safetensors.index.json"
    text = path.read_text()
    content = json.loads(text)
    content["weight_map"]["model.norm.weight"] = places
    try:
        path.write_text(json.dumps(content))
        with pytest.raises(ValueError, match=message):
            load_pretrained(folder() / "sharded")
    finally:
        path.write_text(text)


def info(name, *, shape=(32,), code=0, place=0):
    head = struct.pack("<Q", len(name)) + name + struct.pack(f"<I{len(shape)}Q", len(shape), *shape)
    return head + struct.pack("<IQ", code, place)


def gguf_of(*infos, n=None, entries=b"", n_entries=0, data=bytes(256)):
    head = b"GGUF" + struct.pack("<IQQ", 3, len(infos) if n is None else n, n_entries) + entries
    head += b"".join(infos)
    return head + bytes(-len(head) % 32) + data


ALIGNED = struct.pack("<Q", 17) + b"general.alignment" + struct.pack("<I", 4)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (gguf_of(info(b"a"), info(b"b", place=64)), r"overlaps the tensor before it"),
        (gguf_of(info(b"a"), info(b"a", place=128)), "the tensor 'a' appears twice"),
        (gguf_of(info(b"a", place=4)), "a lies at"),
        (gguf_of(info(b"a", place=224)), "of 288 bytes|lies at"),
        (gguf_of(info(b"a", place=1 << 63)), "a lies at"),
        (gguf_of(info(b"a", shape=(1 << 63, 1 << 63))), "a lies at"),
        (gguf_of(info(b"a", shape=(0,))), "which is empty"),
        (gguf_of(info(b"a", shape=())), "has 0 axes"),
        (gguf_of(info(b"a", shape=(1,) * 5)), "has 5 axes"),
        (gguf_of(info(b"a", code=99)), "is in format 99; F32, F16"),
        (gguf_of(info(b"a", shape=(33,), code=8)), "rows of 33 weights"),
        (gguf_of(n=1 << 61), "cannot fit"),
        (gguf_of(info(b"a"), n_entries=1, entries=ALIGNED + struct.pack("<I", 3)),
         "alignment is 3"),
        (gguf_of(info(b"a"), n_entries=1, entries=ALIGNED + struct.pack("<I", 1 << 31)),
         "alignment is 2147483648"),
    ],
)  # fmt: skip
def test_tensor_infos_that_lie(content, message, tmp_path):
    path = tmp_path / "bad.gguf"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message):
        GgufFile(path)


def test_a_tensor_is_read_only_when_asked_for(tmp_path):
    """Opening maps 64 MB and reads none of it; a tensor's bytes are the file's own."""
    path = tmp_path / "large.gguf"
    weights = torch.randn(1 << 12, 1 << 12)
    write_gguf(path, {}, {"a": (weights, FORMATS["F32"]), "b": (weights[:1], FORMATS["F32"])})
    before = anonymous()
    file = GgufFile(path)
    assert torch.equal(file["b"], weights[:1])
    assert anonymous() - before < 8_000_000
    assert torch.equal(file["a"], weights)


def test_shards_are_read_only_when_asked_for(tmp_path):
    big = llama(**SIZES | {"vocab_size": 1 << 19})
    save_pretrained(big, tmp_path, max_shard_bytes=70_000_000)
    assert len(list(tmp_path.glob("*.safetensors"))) == 2
    before = anonymous()
    tensors = Tensors(tmp_path)
    kept = dict(tensors)
    assert anonymous() - before < 8_000_000
    assert torch.equal(kept["lm_head.weight"], big.output.weight)


def anonymous():
    """Bytes of this process's memory that no file backs."""
    status = Path("/proc/self/status")
    if not status.exists():
        pytest.skip("only Linux tells")
    line = next(line for line in status.read_text().splitlines() if line.startswith("RssAnon"))
    return int(line.split()[1]) * 1024
