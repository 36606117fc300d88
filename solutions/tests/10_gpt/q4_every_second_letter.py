from otter.test_files import test_case

OK_FORMAT = False

name = "q4_every_second_letter"
points = 3

@test_case(points=None, hidden=False)
def test_what_it_teaches(training_loss):
    import torch
    windows = torch.arange(6)[None] + torch.tensor([[0], [2]])

    def sure_of(step):

        def model(tokens):
            assert tokens.shape == (2, 5), f'windows of t + 1 = 6 tokens: the model reads t = 5 of each, those that have a target in the window; it was given {tuple(tokens.shape)}'
            return 100.0 * torch.nn.functional.one_hot((tokens + step) % 16, 16).float()
        return model
    assert not float(training_loss(sure_of(2), windows)) < 1, 'a model that leaves out every second token gets a perfect loss: inputs and targets are shifted twice'
    assert not float(training_loss(sure_of(0), windows)) < 1, 'a model that copies what it has just read gets a perfect loss: the targets must be one token later than the inputs'
    assert not float(training_loss(sure_of(-1), windows)) < 1, 'a model that predicts the token before gets a perfect loss: the shift has the wrong direction'
    loss = float(training_loss(sure_of(1), windows))
    assert abs(loss) < 0.001, f'a model that is sure of every next token, and right, must have loss 0, not {loss:.4g}'

@test_case(points=None, hidden=False)
def test_all_positions_count(training_loss):
    import torch
    seen = []

    def model(tokens):
        seen.append(tuple(tokens.shape))
        torch.manual_seed(0)
        return torch.randn(3, 8, 11, dtype=torch.float64)[:, :tokens.shape[1]]
    torch.manual_seed(1)
    windows = torch.randint(11, (3, 9))
    loss = float(training_loss(model, windows))
    assert seen == [(3, 8)], f'the model reads the first t = 8 tokens of each window, once; it was given {seen}'
    log_p = model(windows[:, :-1]).log_softmax(-1)
    terms = torch.stack([-log_p[:, i].gather(-1, windows[:, i + 1, None])[:, 0] for i in range(8)])
    assert abs(loss - terms[:-1].mean().item()) > 1e-09, 'the last prediction of each window is left out: all t positions have a target'
    assert abs(loss - terms[1:].mean().item()) > 1e-09, 'the first prediction of each window is left out: all t positions have a target'
    assert abs(loss - terms.sum().item()) > 1e-09, 'take the mean over the predictions, not their sum'
    assert abs(loss - terms.mean().item()) < 1e-09, 'the loss is the mean of -log p(windows[:, i + 1]) given logits at i, over all i and windows'

@test_case(points=None, hidden=True)
def test_a_real_model_and_its_gradients(training_loss):
    import torch
    from minillm.models.gpt import GPT, GPTConfig
    torch.manual_seed(2)
    model = GPT(GPTConfig(vocab_size=13, max_seq_len=7, d_model=12, n_layers=2, n_heads=2)).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.3 * torch.randn_like(parameter)
    windows = torch.randint(13, (4, 8))
    right = -model(windows[:, :-1]).log_softmax(-1).gather(-1, windows[:, 1:, None]).mean()
    loss = training_loss(model, windows)
    assert getattr(loss, 'requires_grad', False), 'no gradient flows: return a tensor and do not detach anything'
    assert abs(loss.detach() - right.detach()).item() < 1e-09, 'wrong loss for a real model: compare all t logits with all t targets'
    parameters = list(model.parameters())
    ours, theirs = (torch.autograd.grad(x, parameters) for x in (loss, right))
    gap = max(((a - b).abs().max().item() for a, b in zip(ours, theirs)))
    assert gap < 1e-09, f"the gradients differ from the definition's by {gap:.2g}: do not detach anything"

