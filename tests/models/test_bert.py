"""What BERT is, beyond its numbers: sizes, both directions, padding, heads on trained encoders."""

import pytest
import torch

from minillm.data.masking import PreTrainingBatch
from minillm.models.bert import Bert, BertConfig, bert, minilm_l6
from minillm.models.bert_heads import (
    SentenceEncoder,
    SequenceClassifier,
    TokenClassifier,
    classification_loss,
    embed,
    mean_pool,
)
from minillm.models.bert_pretraining import (
    BertForMaskedLM,
    BertForPreTraining,
    masked_lm_loss,
    pretraining_loss,
)
from minillm.models.roberta import roberta, roberta_encoder
from minillm.nn import TORCH_OPS, cross_entropy

ONE = torch.ones(1, 3).long()
SIZES = {"vocab_size": 53, "max_seq_len": 19, "d_model": 12, "n_layers": 2, "n_heads": 3}


@pytest.fixture
def encoder():
    torch.manual_seed(0)
    model = bert(**SIZES).eval()
    with torch.no_grad():
        for p in model.parameters():
            p += 0.3 * torch.randn_like(p)
    return model


def count(build, **options):
    with torch.device("meta"):
        return sum(p.numel() for p in build(**options).parameters())


def test_sizes_are_the_papers():
    """110M and 340M with the pooler and heads (3); the encoders alone, MiniLM's 22.7M with it."""
    with torch.device("meta"):
        base, large = (BertForPreTraining(bert(size)) for size in ("base", "large"))
    assert sum(p.numel() for p in base.parameters()) == 110_106_428
    assert sum(p.numel() for p in large.parameters()) == 336_226_108
    assert count(minilm_l6) == 22_713_216 - 384 * 385
    assert count(roberta) == 124_697_433


def test_every_token_sees_every_other(encoder):
    tokens = torch.randint(53, (1, 9), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        before = encoder(tokens)
        for place in range(9):
            other = tokens.clone()
            other[0, place] = (other[0, place] + 1) % 53
            assert ((encoder(other) - before).abs().amax(-1) > 1e-4).all()


def test_padding_on_the_right_changes_nothing(encoder):
    tokens = torch.randint(53, (2, 9))
    mask = torch.ones(2, 9).bool()
    mask[1, 5:] = False
    with torch.no_grad():
        padded = encoder(tokens, attention_mask=mask)
        alone = encoder(tokens[1:, :5])
        other = encoder(tokens.masked_fill(~mask, 7), attention_mask=mask)
    assert torch.allclose(padded[1, :5], alone[0], atol=1e-5)
    assert torch.equal(padded[mask], other[mask]), "what stands at padding must not matter"


def test_dropout_acts_only_while_training(encoder):
    tokens = torch.randint(53, (2, 9))
    assert torch.equal(encoder(tokens), encoder(tokens))
    encoder.train()
    assert not torch.equal(encoder(tokens), encoder(tokens))


def test_initial_weights_are_small_and_cut_off():
    torch.manual_seed(0)
    model = BertForPreTraining(bert(**SIZES | {"d_model": 48}))
    for name, p in model.named_parameters():
        if name.endswith("bias"):
            assert (p == 0).all(), name
        elif "norm" in name:
            assert (p == 1).all(), name
        else:
            assert p.abs().max() <= 0.04, name
            assert 0.01 < p.std() < 0.025, name


@pytest.mark.parametrize(
    "head",
    [
        BertForPreTraining,
        BertForMaskedLM,
        SentenceEncoder,
        lambda e: SequenceClassifier(e, 3),
        lambda e: TokenClassifier(e, 3),
    ],
)
def test_a_new_head_leaves_the_encoder_as_it_was(encoder, head):
    before = [p.clone() for p in encoder.parameters()]
    model = head(encoder)
    pairs = zip(before, encoder.parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)
    assert model.encoder is encoder


def test_scores_at_chosen_places_are_those_of_all_places(encoder):
    tokens = torch.randint(53, (3, 9))
    at = torch.rand(3, 9) < 0.4
    for model in (BertForPreTraining(encoder).eval(), BertForMaskedLM(encoder).eval()):
        some, all_ = model(tokens, at=at), model(tokens)
        some, all_ = (some.mlm, all_.mlm) if hasattr(some, "mlm") else (some, all_)
        assert torch.allclose(some, all_[at], atol=1e-5)


def test_losses_count_masked_tokens_and_add_the_second_task(encoder):
    tokens, at = torch.randint(53, (3, 9)), torch.rand(3, 9) < 0.4
    targets = tokens.masked_fill(~at, -100)
    mask, labels = torch.ones(3, 9).bool(), torch.tensor([0, 1, 1])
    batch = PreTrainingBatch(tokens, targets, torch.zeros_like(tokens), mask, labels)
    model = BertForPreTraining(encoder).eval()
    both, n = pretraining_loss(model, batch)
    first, _ = pretraining_loss(model, batch, next_sentence=False)
    logits = model(tokens, attention_mask=mask)
    assert n == at.sum()
    assert torch.allclose(first / n, cross_entropy(logits.mlm, targets), atol=1e-5)
    assert torch.allclose((both - first) / n, cross_entropy(logits.nsp, labels), atol=1e-4)
    alone = BertForMaskedLM(encoder).eval()
    alone.mlm = model.mlm
    loss, m = masked_lm_loss(alone, (tokens, targets))
    assert m == n
    assert torch.allclose(loss, first, atol=1e-3)


def test_classification_loss_passes_over_ignored_labels(encoder):
    model = TokenClassifier(encoder, 4).eval()
    tokens, labels = torch.randint(53, (2, 5)), torch.randint(4, (2, 5))
    labels[:, 0] = -100
    loss, n = classification_loss(model, ({"tokens": tokens}, labels))
    assert n == 8
    assert torch.allclose(loss, cross_entropy(model(tokens)[:, 1:], labels[:, 1:]) * 8, atol=1e-4)


def test_mean_pool_ignores_padding_and_refuses_rows_without_tokens():
    hidden = torch.randn(2, 4, 3)
    mask = torch.tensor([[True] * 4, [True, True, False, False]])
    pooled = mean_pool(hidden, mask)
    assert torch.allclose(pooled[0], hidden[0].mean(0))
    assert torch.allclose(pooled[1], hidden[1, :2].mean(0))
    with pytest.raises(ValueError, match="padding alone"):
        mean_pool(hidden, torch.zeros(2, 4).bool())


def test_embed_keeps_the_order_cuts_long_texts_and_gives_unit_vectors(encoder):
    model = SentenceEncoder(encoder).eval()

    def encode(text):
        return [1, *(3 + ord(c) % 50 for c in text), 2]

    texts = ["a long long text of more than nineteen", "b", "middle one", "b"]
    vectors = embed(model, encode, texts, batch_size=2, max_len=19)
    one = [embed(model, encode, [text], max_len=19)[0] for text in texts]
    assert torch.allclose(vectors, torch.stack(one), atol=1e-5)
    assert torch.allclose(vectors.norm(dim=-1), torch.ones(4))
    assert torch.allclose(vectors[1], vectors[3])
    cut = torch.tensor([[*encode(texts[0])[:18], 2]])
    assert torch.allclose(vectors[0], model(cut)[0], atol=1e-5)


def test_robertas_first_two_rows_are_never_used():
    model = roberta_encoder(**SIZES)
    model(torch.randint(53, (2, 19))).sum().backward()
    assert model.positions.weight.shape == (21, 12)
    used = model.positions.weight.grad.abs().sum(1) > 0
    assert used.tolist() == [False, False] + [True] * 19


def test_the_fast_kernels_agree(encoder):
    fast = Bert(encoder.config, ops=TORCH_OPS, activation=torch.nn.functional.gelu).eval()
    fast.load_state_dict(encoder.state_dict())
    tokens = torch.randint(53, (2, 19))
    mask = torch.arange(19) < torch.tensor([[19], [7]])
    pairs = (model(tokens, attention_mask=mask)[mask] for model in (encoder, fast))
    assert torch.allclose(*pairs, atol=1e-4)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: bert("huge"), "choose from base, large"),
        (lambda: BertConfig(**SIZES | {"n_heads": 5}), "not divisible"),
        (lambda: BertConfig(**SIZES, n_labels=0), "n_labels"),
        (lambda: bert(**SIZES)(torch.ones(2, 20).long()), "exceed max_seq_len 19"),
        (lambda: bert(**SIZES)(53 * ONE), "token ids must lie in 0 … 52"),
        (
            lambda: bert(**SIZES)(torch.ones(1, 3).long(), segments=torch.full((1, 3), 2)),
            "segments",
        ),
    ],
)
def test_bad_input_is_told(call, words):
    with pytest.raises(ValueError, match=words):
        call()
