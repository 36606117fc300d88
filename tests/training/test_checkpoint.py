"""Checkpoints: bit-exact resume, saves that are killed, and files that are damaged or hostile."""

import json
import os
import struct

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from minillm.data import TokenWindows
from minillm.models.gpt import GPT, GPTConfig
from minillm.training import AdamW, checkpoint, train
from minillm.training.schedules import warmup_cosine


def gpt(seed=0, **options):
    torch.manual_seed(seed)
    sizes = {"vocab_size": 13, "max_seq_len": 8, "d_model": 12, "n_layers": 2, "n_heads": 3}
    model = GPT(GPTConfig(**sizes | {"dropout": 0.2} | options))
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.1 * torch.randn_like(p))
    return model


def updates(model, optimizer, steps, start=0):
    data = TokenWindows(torch.arange(500) % 13, 8, 4, seed=5)
    schedule = warmup_cosine(20, 4)
    for _ in train(model, data, optimizer=optimizer, steps=steps, start=start, schedule=schedule):
        pass


def bits(model, optimizer=None):
    """Every number that a run's future depends on."""
    found = {f"model.{k}": v.clone() for k, v in model.state_dict().items()}
    if optimizer is not None:
        for i, values in optimizer.state_dict()["state"].items():
            found |= {f"{i}.{k}": torch.as_tensor(v).clone() for k, v in values.items()}
        found["random"] = torch.get_rng_state()
    return found


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


@pytest.fixture
def saved(tmp_path):
    """A checkpoint after 3 updates, and a model and optimizer elsewhere to load it into."""
    model = gpt()
    optimizer = AdamW(model.parameters(), lr=1e-2)
    updates(model, optimizer, 3)
    path = checkpoint.save(tmp_path / "a.safetensors", model, optimizer, step=3)
    other = gpt(seed=1)
    return path, other, AdamW(other.parameters(), lr=1e-2)


# Resuming


@pytest.mark.parametrize("kind", [AdamW, torch.optim.AdamW])
def test_resume_is_bit_exact_with_dropout_and_data_order(tmp_path, kind):
    straight = gpt()
    optimizer = kind(straight.parameters(), lr=1e-2)
    torch.manual_seed(9)
    updates(straight, optimizer, 20)
    expected = bits(straight, optimizer)

    model = gpt()
    optimizer = kind(model.parameters(), lr=1e-2)
    torch.manual_seed(9)
    updates(model, optimizer, 11)
    path = checkpoint.save(
        tmp_path / "c.safetensors", model, optimizer, step=11, data_state={"seed": 5}, extra=["x"]
    )

    torch.manual_seed(77)  # another process: other weights, other random state
    resumed = gpt(seed=3)
    optimizer = kind(resumed.parameters(), lr=0.5)
    state = checkpoint.load(path, resumed, optimizer)
    assert state == {"step": 11, "data_state": {"seed": 5}, "extra": ["x"]}
    updates(resumed, optimizer, 20, start=state["step"])
    assert same(bits(resumed, optimizer), expected)


def test_wrong_version_without_random_state_is_seen(tmp_path):
    model = gpt()
    optimizer = AdamW(model.parameters(), lr=1e-2)
    updates(model, optimizer, 3)
    path = checkpoint.save(tmp_path / "c.safetensors", model, optimizer, step=3)
    updates(model, optimizer, 5, start=3)
    checkpoint.load(path, resumed := gpt(), other := AdamW(resumed.parameters(), lr=1e-2))
    torch.manual_seed(0)  # what a checkpoint without random state amounts to
    updates(resumed, other, 5, start=3)
    assert not same(bits(resumed), bits(model))


def test_weights_alone_leave_optimizer_and_random_state(saved):
    path, model, _ = saved
    random = torch.get_rng_state()
    checkpoint.load(path, model)
    assert torch.equal(torch.get_rng_state(), random)
    assert same({f"model.{k}": v for k, v in model.state_dict().items()}, {
        k: v for k, v in load_file(path).items() if k.startswith("model.")
    })  # fmt: skip


def test_tied_weights_stay_tied_and_are_stored_once(tmp_path):
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Embedding(5, 3), nn.Linear(3, 5, bias=False)
            self.b.weight = self.a.weight

    model, other = Tied(), Tied()
    path = checkpoint.save(tmp_path / "t.safetensors", model, step=0)
    assert [k for k in load_file(path) if k.startswith("model.")] == ["model.a.weight"]
    checkpoint.load(path, other)
    assert other.b.weight is other.a.weight and torch.equal(other.a.weight, model.a.weight)


def test_bfloat16_and_buffers_round_trip(tmp_path):
    model = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3)).bfloat16()
    path = checkpoint.save(tmp_path / "b.safetensors", model, step=0)
    other = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3)).bfloat16()
    checkpoint.load(path, other)
    assert same(model.state_dict(), other.state_dict())


def test_latest_and_numbered(tmp_path):
    assert checkpoint.latest(tmp_path) is None
    model = nn.Linear(2, 2)
    for step in (9, 1000, 200):
        checkpoint.save(checkpoint.numbered(tmp_path, step), model, step=step)
    (tmp_path / ".step-00002000.safetensors.1.tmp").write_bytes(b"unfinished")
    (tmp_path / "step-best.safetensors").write_bytes(b"of somebody else")
    assert checkpoint.latest(tmp_path) == checkpoint.numbered(tmp_path, 1000)


# Saving


@pytest.mark.parametrize("where", ["replace", "fsync"])
def test_a_failing_disk_keeps_the_old_checkpoint(saved, monkeypatch, where):
    path, model, optimizer = saved
    before = path.read_bytes()

    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, where, full)
    with pytest.raises(OSError, match="No space"):
        checkpoint.save(path, model, optimizer, step=4)
    assert path.read_bytes() == before
    assert [p.name for p in path.parent.iterdir()] == [path.name]  # nothing half-written


def test_a_model_that_diverged_does_not_replace_a_good_checkpoint(saved):
    path, model, _ = saved
    before = path.read_bytes()
    with torch.no_grad():
        model.tokens.weight[2, 3] = float("nan")
    with pytest.raises(ValueError, match=r"was not written: model.tokens.weight holds 1 times nan"):
        checkpoint.save(path, model, step=4)
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"step": -1}, "step is -1"),
        ({"step": True}, "step is True"),
        ({"step": 1, "extra": {1: 2}}, "extra is .* gives back changed"),
        ({"step": 1, "data_state": (1, 2)}, "data_state is .* gives back changed"),
        ({"step": 1, "extra": {1, 2}}, "not JSON"),
        ({"step": 1, "extra": float("nan")}, "not JSON"),
        ({"step": 1, "data_state": torch.ones(2)}, "not JSON"),
    ],
)
def test_bad_arguments(tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        checkpoint.save(tmp_path / "x.safetensors", nn.Linear(2, 2), **options)
    assert not list(tmp_path.iterdir())


def test_old_leftovers_are_removed_and_fresh_ones_kept(saved):
    path, model, _ = saved
    old, fresh = (path.parent / f".{path.name}.{i}.tmp" for i in (1, 2))
    for leftover in (old, fresh):
        leftover.write_bytes(b"half")
    os.utime(old, (0, 0))
    checkpoint.save(path, model, step=4)
    assert not old.exists() and fresh.exists()


# Damaged and hostile files


def parts(path):
    raw = path.read_bytes()
    n = struct.unpack("<Q", raw[:8])[0]
    return json.loads(raw[8 : 8 + n]), raw[8 + n :]


def write(path, header, data, length=None):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text) if length is None else length) + text + data)


def refuses(saved, message, with_optimizer=True):
    """`load` raises a ValueError naming the file, and nothing has changed."""
    path, model, optimizer = saved
    before = bits(model, optimizer)
    with pytest.raises(ValueError, match=message) as caught:
        checkpoint.load(path, model, *([optimizer] if with_optimizer else []))
    assert str(path) in str(caught.value) and ";" in str(caught.value)  # the file, and a way out
    assert same(bits(model, optimizer), before)


@pytest.mark.parametrize("share", [0, 0.0005, 0.01, 0.3, 0.9, 0.9999])
def test_cut_short(saved, share):
    raw = saved[0].read_bytes()
    saved[0].write_bytes(raw[: int(share * len(raw))])
    refuses(saved, r"header would have|tensors take|not JSON")


def test_longer_than_it_says(saved):
    saved[0].write_bytes(saved[0].read_bytes() + b"\0" * 16)
    refuses(saved, "its tensors take")


def test_missing(saved):
    saved[0].unlink()
    refuses(saved, "No such file")


@pytest.mark.parametrize("length", [0, 1, 10**6, 2**40, 2**63, 2**64 - 1])
def test_wrong_header_length(saved, length):
    header, data = parts(saved[0])
    write(saved[0], header, data, length)
    refuses(saved, f"header would have {length} bytes")


HEADERS = [
    b"not json at all",
    b"[1, 2]",
    b"null",
    b"{" * 5000,
    b"[" * 100_000,
    b'{"a": 1}',
    b'{"a": {"dtype": "F32"}}',
    b'{"a": {"dtype": "P7", "shape": [], "data_offsets": [0, 4]}}',
    b'{"a": {"dtype": ["F32"], "shape": [], "data_offsets": [0, 4]}}',
    b'{"a": {"dtype": "F32", "shape": [-1], "data_offsets": [0, 4]}}',
    b'{"a": {"dtype": "F32", "shape": [1.0], "data_offsets": [0, 4]}}',
    b'{"a": {"dtype": "F32", "shape": [true], "data_offsets": [0, 4]}}',
    b'{"a": {"dtype": "F32", "shape": "1", "data_offsets": [0, 4]}}',
    b'{"a": {"dtype": "F32", "shape": [1], "data_offsets": [0]}}',
    b'{"a": {"dtype": "F32", "shape": [1], "data_offsets": [4, 0]}}',
    b'{"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4, 8]}}',
    b'{"a": {"dtype": "F32", "shape": [99999999999, 99999999999], "data_offsets": [0, 4]}}',
    b'{"__metadata__": {"minillm": 7}}',
    b'{"__metadata__": []}',
    b'{"a": 1, "a": 2}',
    b"\xff\xfe{}",
]


@pytest.mark.parametrize("header", HEADERS, ids=lambda h: h[:40])
def test_hostile_headers(saved, header):
    write(saved[0], header, b"\0" * 4)
    refuses(saved, "not a usable safetensors file")


@pytest.mark.parametrize(
    ("shift", "message"), [(-4, "overlaps"), (4, "gap"), (10**9, "gap|overlaps")]
)
def test_offsets_that_overlap_or_point_away(saved, shift, message):
    header, data = parts(saved[0])
    names = sorted(
        (k for k in header if k != "__metadata__"), key=lambda k: header[k]["data_offsets"]
    )
    start, end = header[names[3]]["data_offsets"]
    header[names[3]]["data_offsets"] = [start + shift, end + shift]
    write(saved[0], header, data)
    refuses(saved, message)


def test_two_tensors_at_one_place(saved):
    header, data = parts(saved[0])
    names = [k for k in header if k.startswith("model.") and header[k]["shape"] == [12]]
    header[names[1]]["data_offsets"] = header[names[0]]["data_offsets"]
    write(saved[0], header, data)
    refuses(saved, "overlaps")


def edit(path, change):
    """Rewrite the checkpoint with changed tensors or state."""
    header, _ = parts(path)
    tensors, state = load_file(path), json.loads(header["__metadata__"]["minillm"])
    changed = change(tensors, state)
    text = changed if isinstance(changed, str) else json.dumps(state)
    save_file(tensors, path, {"minillm": text})


WEIGHT, MOMENT = "model.tokens.weight", "optimizer.0.exp_avg"


def put(name, value):
    def change(tensors, state):
        tensors[name] = value(tensors[name]) if callable(value) else value

    return change


def spoil(name, number):
    def change(tensors, state):
        tensors[name].view(-1)[0] = number

    return change


def drop(name):
    def change(tensors, state):
        del tensors[name]

    return change


TENSORS = [
    (spoil(WEIGHT, float("nan")), "model.tokens.weight holds 1 times nan"),
    (spoil(WEIGHT, float("-inf")), "model.tokens.weight holds 1 times -inf"),
    (spoil(MOMENT, float("nan")), "optimizer.0.exp_avg holds 1 times nan"),
    (spoil("optimizer.0.exp_avg_sq", -1.0), "optimizer.0.exp_avg_sq holds -1.0, below 0"),
    (spoil("optimizer.0.step", -5.0), "optimizer.0.step holds -5.0, below 0"),
    (spoil("optimizer.0.step", float("nan")), "optimizer.0.step holds 1 times nan"),
    (put(WEIGHT, lambda t: t[:-1].clone()), r"model.tokens.weight is torch.float32 \(12, 12\)"),
    (put(WEIGHT, lambda t: t.mT.contiguous()), r"\(12, 13\), the model's is .*\(13, 12\)"),
    (put(WEIGHT, lambda t: t.double()), "float64 .*model's is torch.float32"),
    (put(MOMENT, lambda t: t[:-1].clone()), r"optimizer.0.exp_avg is"),
    (drop(WEIGHT), "missing tokens.weight, unknown none"),
    (put("model.intruder", torch.ones(1)), "missing none, unknown intruder"),
    (put("optimizer.9999.exp_avg", torch.ones(1)), "of no parameter"),
    (put("optimizer.x.exp_avg", torch.ones(1)), "of no parameter"),
    (drop(MOMENT), "uneven parts"),
    (put("optimizer.0.other", torch.tensor(1.0)), "uneven parts"),
    (drop("random.cpu"), "random state is not usable"),
    (put("random.cpu", torch.zeros(7, dtype=torch.uint8)), "random state is not usable"),
    (put("random.cpu", torch.zeros(5056)), "random state is not usable"),
]


@pytest.mark.parametrize(("change", "message"), TENSORS)
def test_tensors_that_do_not_fit(saved, change, message):
    edit(saved[0], change)
    refuses(saved, message)


def setting(key, value):
    def change(tensors, state):
        state["groups"][0][key] = value

    return change


def entry(key, value):
    def change(tensors, state):
        state[key] = value

    return change


STATES = [
    (lambda t, s: "{broken", "not JSON"),
    (lambda t, s: "[" * 100_000, "not JSON"),
    (lambda t, s: '{"format": 1, "step": NaN}', "NaN is not a JSON number"),
    (lambda t, s: "[]", r"format is \[\]"),
    (entry("format", 2), "format is 2, not 1"),
    (entry("step", "7"), "step is '7'"),
    (entry("step", -1), "step is -1"),
    (entry("step", True), "step is True"),
    (entry("aliases", ["a"]), "aliases are"),
    (entry("aliases", {"a": 1}), "aliases are"),
    (entry("aliases", {"tokens.weight2": "tokens.weight"}), "unknown tokens.weight2"),
    (entry("groups", None), "without an optimizer"),
    (entry("groups", [1]), "groups are"),
    (entry("groups", []), r"groups hold \[\] parameters"),
    (setting("count", 3), r"groups hold \[3\] parameters"),
    (setting("lr", -1.0), "setting lr is -1.0"),
    (setting("lr", "fast"), "setting lr is 'fast'"),
    (setting("lr", [0.1]), "setting lr is"),
    (setting("betas", [0.9]), "setting betas is"),
    (setting("betas", 0.9), "setting betas is"),
    (setting("betas", [0.9, "x"]), "setting betas is"),
    (setting("weight_decay", True), "setting weight_decay is True"),
]


@pytest.mark.parametrize(("change", "message"), STATES)
def test_state_that_is_garbage(saved, change, message):
    edit(saved[0], change)
    refuses(saved, message)


def test_a_file_without_our_entry_is_not_a_checkpoint(saved):
    save_file({"a": torch.ones(2)}, saved[0])
    refuses(saved, "not a checkpoint", with_optimizer=False)


def test_another_models_checkpoint(saved):
    path, _, _ = saved
    for options in ({"d_model": 24}, {"n_layers": 3}, {"vocab_size": 14}):
        model = gpt(**options)
        refuses((path, model, AdamW(model.parameters())), "configuration")


def test_random_bytes_never_do_anything_but_raise(saved):
    """Flip bytes of the header at random: either refused and unchanged, or still valid."""
    path, model, _ = saved
    raw = bytearray(path.read_bytes())
    n = 8 + struct.unpack("<Q", raw[:8])[0]
    generator = torch.Generator().manual_seed(0)
    messages = []
    for _ in range(150):
        changed = bytearray(raw)
        for _ in range(3):
            place, value = (int(torch.randint(k, (), generator=generator)) for k in (n, 256))
            changed[place] = value
        path.write_bytes(changed)
        before = bits(model)
        try:
            checkpoint.load(path, model)
        except ValueError as error:
            messages.append(str(error))
            refused = True
        else:
            refused = False
        assert not refused or same(bits(model), before)
    assert len(messages) > 100 and all(str(path) in message for message in messages)


def test_settings_are_restored_but_not_how_they_are_computed(saved):
    path, model, _ = saved
    optimizer = torch.optim.AdamW(model.parameters(), lr=9.0, betas=(0.1, 0.2), fused=True)
    checkpoint.load(path, model, optimizer)
    [group] = optimizer.param_groups
    assert group["fused"] is True and group["betas"] == (0.9, 0.999)
    assert group["initial_lr"] == 1e-2 and 0 < group["lr"] <= 1e-2
    updates(model, optimizer, 5, start=3)
