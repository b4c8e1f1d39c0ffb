"""What a step of training does, and what the log says of it, against what hooks saw."""
import csv
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from conftest import randomised
from torch.distributions import Normal, kl_divergence
from torch.optim.optimizer import (register_optimizer_step_post_hook,
                                   register_optimizer_step_pre_hook)

from cosmoflow import CosmoFlow, distill as distillation
from cosmoflow.bench import untrained
from cosmoflow.codec import train_for_rate
from cosmoflow.data import MapData, Normalizer, open_maps
from cosmoflow.distill import distill, flow_path, lesson, path_loss, spectral_loss
from cosmoflow.flow import flow_matching_loss
from cosmoflow.model import field_prior
from cosmoflow.points import PointFlow, open_points, point_loss, train_step
from cosmoflow.posterior import fit_flow
from cosmoflow.train import (MapLoader, TrainConfig, epoch_generator, lr_factor,
                             partly_pooled, sibling_loss, train, validation_loss)
from cosmoflow.vae import VAE, train_vae, vae_loss

NORM = Normalizer(11.0, 0.5, 1e8)
TRAINERS = "train", "vae", "distill"
STILL = 1e-15  # a learning rate that moves no weight
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def data(): return open_maps("PM", "LH", sims=slice(0, 10), pixels=16)


class Watch:
    "Norms of gradients, rates and weights at each step of any optimiser."
    def __init__(self):
        self.norms, self.rates, self.decays = [], [], []
        self.grads, self.weights = [], []

    def before(self, optimizer, args, kwargs):
        group, = optimizer.param_groups
        grads = [p.grad for p in group["params"] if p.grad is not None]
        self.norms.append(math.sqrt(sum(g.double().square().sum() for g in grads)))
        self.rates.append(group["lr"])
        self.decays.append(group["weight_decay"])
        self.grads.append([g.clone() for g in grads])

    def after(self, optimizer, args, kwargs):
        group, = optimizer.param_groups
        self.weights.append([p.detach().clone() for p in group["params"]])


@pytest.fixture()
def watch():
    watch = Watch()
    hooks = (register_optimizer_step_pre_hook(watch.before),
             register_optimizer_step_post_hook(watch.after))
    yield watch
    for hook in hooks: hook.remove()


def fresh(name="train"):
    torch.manual_seed(0)
    if name == "vae": return VAE(NORM, 16, width=8)
    if name == "distill": return untrained("tiny", CPU)
    return CosmoFlow.from_preset("tiny", NORM)


def work(name, data, out, model=None, **settings):
    "Trains one of the three; gives the model and the rows of its log."
    model = model or fresh(name)
    if name == "train":
        settings = {"epochs": 1, "batch_size": 60} | settings
        train(model, data, out, TrainConfig(**settings))
    elif name == "vae":
        train_vae(model, data, out, **{"epochs": 1, "batch_size": 60} | settings)
    else:
        distill(model, data, out, **{"epochs": 1, "fine": 1} | settings)
    with (out / "log.csv").open(encoding="utf-8") as f:
        rows = list(csv.DictReader(f))
    return model, [{k: float(v) for k, v in row.items()} for row in rows]


STEEP = {  # settings and models whose gradients are far longer than the limit
    "train": (dict(clip=1e-3), 1e-3),
    "vae": ({}, 1.0),
    "distill": (dict(spectral=1e4), 1.0),
}


@pytest.mark.parametrize("name", TRAINERS)
def test_no_step_takes_a_longer_gradient_than_the_limit(name, data, tmp_path, watch):
    settings, limit = STEEP[name]
    model = fresh(name)
    if name == "vae": torch.nn.init.constant_(model.log_var.bias, 12)
    work(name, data, tmp_path, model, **settings)
    assert watch.norms == pytest.approx([limit] * len(watch.norms), rel=1e-3)
    assert len(watch.norms) > 1 or name == "distill"


class Steep(torch.nn.Module):
    "In place of a posterior's flow, with a gradient of 1000."
    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))

    def loss(self, u, told): return 1000 * self.weight + 0 * u[:, 0]


@pytest.mark.parametrize("name, limit", [("codec", 1), ("points", 3), ("posterior", 5)])
def test_a_long_gradient_is_cut_in_all_other_trainings(
        name, limit, data, tmp_path, monkeypatch):
    norms = []

    def noted(optimizer, args, kwargs):
        groups = optimizer.param_groups[:1 if name == "codec" else 2]  # not the steps
        grads = [p.grad for g in groups for p in g["params"] if p.grad is not None]
        norms.append(math.sqrt(sum(g.double().square().sum() for g in grads)))

    def steep(loss): return lambda *given, **more: 1e5 * loss(*given, **more)
    monkeypatch.setattr("cosmoflow.codec.flow_matching_loss", steep(flow_matching_loss))
    monkeypatch.setattr("cosmoflow.points.point_loss", steep(point_loss))
    hook = register_optimizer_step_pre_hook(noted)
    try:
        if name == "codec":
            model = fresh("distill").fit_prior(data.maps)
            train_for_rate(model, data, tmp_path, epochs=1, batch_size=60)
        elif name == "points":
            model, dice = PointFlow(4, 8, 4, 1, 2), torch.Generator().manual_seed(0)
            adamw = torch.optim.AdamW(model.parameters())
            for _ in range(2): train_step(model, open_points(), adamw, dice, count=60)
        else:
            x, theta = torch.ones(9, 3, 2), torch.tensor([[0.3, 0.8]]).expand(9, 2)
            fit_flow(Steep(), x, theta, x, theta, epochs=1)
    finally: hook.remove()
    assert len(norms) > 1 and norms == pytest.approx([limit] * len(norms), rel=1e-3)


def test_a_gradient_within_the_limit_is_left_alone(data, tmp_path, watch):
    work("train", data, tmp_path, clip=1e6)
    assert all(1e-2 < norm < 1e3 for norm in watch.norms)


def test_rates_and_decay_are_those_asked_for(data, tmp_path, watch):
    settings = dict(epochs=3, batch_size=20, lr=1e-3, weight_decay=0.5)
    _, log = work("train", data, tmp_path, schedule="cosine", **settings)
    expected = [1e-3 * lr_factor(i, 18) for i in range(18)]
    assert watch.rates == pytest.approx(expected) and watch.decays == [0.5] * 18
    assert [row["lr"] for row in log] == pytest.approx(expected[5::6])


def test_the_cosine_is_one():
    "Up in a line over the first twentieth, then half a wave of a cosine."
    assert [lr_factor(i, 1000) for i in (0, 24, 49, 50)] == [0.02, 0.5, 1, 1]
    assert lr_factor(525, 1000) == pytest.approx(0.5)
    assert lr_factor(50 + 950 // 3, 1000) == pytest.approx(0.75, abs=1e-3)
    assert lr_factor(50 + 950 * 2 // 3, 1000) == pytest.approx(0.25, abs=1e-3)


def halved(losses, lr, patience):
    "The rate after each loss: half if more than `patience` in a row are no better."
    best, waited, rates = math.inf, 0, []
    for loss in losses:
        if loss < best * (1 - 1e-4): best, waited = loss, 0
        else: waited += 1
        if waited > patience: lr, waited = lr / 2, 0
        rates.append(lr)
    return rates


@pytest.mark.parametrize("name", ["train", "vae"])
def test_the_rate_follows_the_validation_loss(name, data, tmp_path, watch):
    lr = 1e-2
    _, log = work(name, data, tmp_path, epochs=8, batch_size=120, lr=lr, patience=0)
    val, seen = ([row[key] for row in log] for key in ("val_loss", "train_loss"))
    expected = [lr, *halved(val, lr, 0)][:8]
    assert expected != [lr, *halved(seen, lr, 0)][:8]  # else the test could not tell
    assert watch.rates == pytest.approx(expected)
    assert [row["lr"] for row in log] == pytest.approx(expected)


@pytest.mark.parametrize("name", TRAINERS)
def test_weights_that_stand_still_have_one_validation_loss(name, data, tmp_path):
    settings = {"norm_epochs": 0} if name == "train" else {}
    _, log = work(name, data, tmp_path, epochs=3, lr=STILL, **settings)
    for key in log[0].keys() & {"val_loss", "val_path", "val_spectral"}:
        values = [row[key] for row in log]
        assert values == pytest.approx([values[0]] * 3, rel=1e-6), key
    first = "path" if name == "distill" else "train_loss"
    assert len({row[first] for row in log}) == 3  # training draws new noise


@pytest.mark.parametrize("name", [*TRAINERS, "codec"])
def test_every_epoch_has_its_own_order_and_noise(name, data, tmp_path, monkeypatch):
    "From the seed of the run; the validation part meets one noise in all epochs."
    asked, draw = [], epoch_generator

    def noted(seed, epoch, stream, device):
        asked.append((seed, epoch, stream))
        return draw(seed, epoch, stream, device)

    monkeypatch.setattr(f"cosmoflow.{name}.epoch_generator", noted)
    validation = {"train": {(0, 0, 0)}, "codec": set()}.get(name, {(3, 0, 2)})
    if name == "codec":
        model = fresh("distill").fit_prior(data.maps)
        train_for_rate(model, data, tmp_path, epochs=2, batch_size=60, seed=3)
    else: work(name, data, tmp_path, epochs=2, seed=3)
    streams = {(3, epoch, stream) for epoch in (0, 1) for stream in (0, 1)}
    assert set(asked) == streams | validation


def test_a_training_pools_its_share_of_each_batch(data, tmp_path, monkeypatch):
    pooled, pool = [], partly_pooled
    noted = lambda field, n: (pooled.append((len(field), n)), pool(field, n))[1]
    monkeypatch.setattr("cosmoflow.train.partly_pooled", noted)
    work("train", data, tmp_path, batch_size=20, pooled=0.2)
    assert pooled == 6 * [(20, 4)]


def test_validation_loss_is_the_mean_over_maps(data):
    "Whatever is left for the last batch counts for as much as it is."
    model, loader = randomised(), MapLoader(data.split()[1], NORM, CPU)
    generator = torch.Generator().manual_seed(5)
    found = validation_loss(model, loader, generator, np.int64(4))  # of a loop, perhaps
    generator, losses = torch.Generator().manual_seed(5), []
    for maps in NORM(loader.maps[:]).split(4):
        t = torch.rand(len(maps), generator=generator)
        x0 = torch.randn(maps.shape, generator=generator)
        for one in range(len(maps)):
            s = slice(one, one + 1)
            with torch.no_grad():
                loss = flow_matching_loss(model, maps[s], t=t[s], x0=x0[s])
            losses.append(loss.item())
    assert len(losses) == 15 and found == pytest.approx(np.mean(losses), rel=1e-5)


def test_the_log_tells_the_validation_loss_of_the_kept_weights(data, tmp_path):
    "Of the averaged weights, on the validation part, with noise that no run changes."
    work("train", data, tmp_path, epochs=2, lr=3e-2, ema=0.9, seed=3)
    _, log = work("train", data, tmp_path / "2", epochs=2, lr=3e-2, ema=0.9, seed=3)
    kept = CosmoFlow.from_pretrained(tmp_path / "2")
    maps = NORM(data.split()[1].maps)
    generator = epoch_generator(0, 0, 0, CPU)
    with torch.no_grad(): loss = flow_matching_loss(kept, maps, generator)
    assert log[-1]["val_loss"] == pytest.approx(loss.item(), rel=1e-5)
    prior = field_prior(kept.encode(data.split()[0].maps))
    torch.testing.assert_close(kept.prior, prior, rtol=1e-3, atol=1e-4)


def test_the_log_tells_the_vae_s_validation_loss(data, tmp_path):
    "That of all 15 maps at once, though they come as 8 and 7."
    model, log = work("vae", data, tmp_path, batch_size=8, lr=1e-3, seed=3)
    maps = NORM(data.split()[1].maps)
    noise = torch.randn(15, 8, generator=epoch_generator(3, 0, 2, CPU))
    with torch.no_grad(): whole = vae_loss(maps, *model(maps, noise))[0].item()
    assert log[-1]["val_loss"] == pytest.approx(whole, rel=1e-5)


def test_the_log_tells_the_student_s_validation_losses(data, tmp_path):
    "Of the averaged student, in two steps, on one map of each held-out simulation."
    settings = dict(epochs=2, steps=2, fine=3, lr=1e-2, seed=3)
    model, log = work("distill", data, tmp_path, **settings)
    student = CosmoFlow.from_pretrained(tmp_path)
    x1 = NORM(data.split()[1].maps[::15])
    x0 = torch.randn(x1.shape, generator=epoch_generator(3, 0, 2, CPU))
    field = model.encode(data.split()[1].maps[::15])
    with torch.no_grad():
        true = flow_path(model, x0, field, 6, "midpoint")[::3]
        path = flow_path(student, x0, field, 2, "euler")
    by_path, by_spectrum = path_loss(path, true), spectral_loss(path[-1], true[-1])
    assert log[-1]["val_path"] == pytest.approx(by_path.item(), rel=1e-4)
    assert log[-1]["val_spectral"] == pytest.approx(by_spectrum.item(), rel=1e-4)


class Seen:
    "What the encoder and the UNet of a model met in each step of training."
    def __init__(self, model):
        self.x1, self.field, self.x, self.t, self.velocity = [], [], [], [], []
        model.encoder.register_forward_hook(self.encoded)
        model.unet.register_forward_hook(self.flowed)

    def encoded(self, _, inputs, field):
        if not torch.is_grad_enabled(): return
        self.x1.append(inputs[0].detach())
        self.field.append(field.detach())

    def flowed(self, _, inputs, velocity):
        if not torch.is_grad_enabled(): return
        self.x.append(inputs[0].detach())
        self.t.append(inputs[1].detach())
        self.velocity.append(velocity.detach())

    def losses(self):
        "On a straight line, velocity is the rest of the way over the rest of the time."
        left = [(x1 - x) / (1 - t)[:, None, None, None]
                for x1, x, t in zip(self.x1, self.x, self.t, strict=True)]
        return [F.mse_loss(v, w).item() for v, w in zip(self.velocity, left)]


def test_the_log_tells_the_mean_of_the_losses_of_its_steps(data, tmp_path):
    model = fresh()
    seen = Seen(model)
    settings = dict(epochs=2, batch_size=28, siblings=0.5, lr=1e-3)
    _, log = work("train", data, tmp_path, model, **settings)
    flow = seen.losses()
    siblings = [sibling_loss(f.mean((2, 3))).item() for f in seen.field]
    assert len(flow) == 8
    for row, start in zip(log, (0, 4), strict=True):
        steps = slice(start, start + 4)
        assert row["train_loss"] == pytest.approx(np.mean(flow[steps]), rel=1e-3)
        assert row["siblings_loss"] == pytest.approx(np.mean(siblings[steps]), rel=1e-3)


def uniform(values):
    "Whether numbers fill [0, 1) evenly: their Kolmogorov-Smirnov distance is small."
    values = values.sort().values
    steps = torch.arange(1, len(values) + 1) / len(values)
    return (values - steps).abs().max() < 1.63 / len(values) ** 0.5 and values[-1] < 1


def test_times_are_uniform_and_noise_is_normal(data, tmp_path):
    model = fresh()
    seen = Seen(model)
    work("train", data, tmp_path, model, epochs=5, lr=1e-4)
    t, x, x1 = (torch.cat(part) for part in (seen.t, seen.x, seen.x1))
    assert len(t) == len(t.unique()) == 600 and uniform(t)
    early = t < 0.9
    s = t[early][:, None, None, None]
    x0 = (x[early] - s * x1[early]) / (1 - s)
    assert abs(x0.mean()) < 0.01 and abs(x0.std() - 1) < 0.01
    assert x0.flatten(1).corrcoef().fill_diagonal_(0).abs().max() < 0.4


def test_times_of_the_loss_are_uniform():
    times = []

    def velocity(x, t, x1):
        times.append(t)
        return x

    generator = torch.Generator().manual_seed(0)
    flow_matching_loss(velocity, torch.zeros(2000, 1, 1, 1), generator)
    assert len(times[0].unique()) > 1990 and uniform(times[0])


def test_the_siblings_loss_counts_with_its_weight(data, tmp_path, watch):
    "One step on all pairs, not clipped: gradients differ by the difference of weights."
    def apart():
        "A model whose summaries differ, so that the loss pulls."
        model = fresh()
        model.encoder[-1].weight.data *= 30
        return model

    x1 = []
    for weight in (0.5, 2.0):
        model = apart()
        seen = Seen(model)
        settings = dict(batch_size=112, clip=1e9, lr=STILL, norm_epochs=0)
        out = tmp_path / str(weight)
        work("train", data, out, model, siblings=weight, **settings)
        x1.append(seen.x1[0])
    assert torch.equal(*x1)
    model = apart().eval()
    loss = sibling_loss(model.encoder(x1[0]).mean((2, 3)))
    expected = torch.autograd.grad(loss, list(model.encoder.parameters()))
    small, large = watch.grads
    for g, a, b in zip(expected, small, large):  # the encoder's come first
        torch.testing.assert_close(b - a, 1.5 * g, rtol=1e-2, atol=1e-4)
    assert max(g.abs().max() for g in expected) > 0.05
    for a, b in zip(small[len(expected):], large[len(expected):]):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


def test_the_encoder_learns_from_the_flow(data, tmp_path, watch):
    model = randomised()
    work("train", data, tmp_path, model)
    assert len(watch.grads[0]) == len(list(model.parameters()))  # each has one
    encoder = watch.grads[0][:len(list(model.encoder.parameters()))]
    assert sum(g.abs().sum() for g in encoder) > 0


@pytest.mark.parametrize("name", ["train", "distill"])
def test_averaged_weights_start_fast(name, data, tmp_path, watch):
    "The decay grows from 1/10 to its limit, by hand from the weights after each step."
    batch = {"train": 20, "distill": 2}[name]
    model, _ = work(name, data, tmp_path, epochs=2, lr=1e-2, ema=0.3, batch_size=batch)
    trained = lambda model: (model if name == "train" else model.unet).parameters()
    average = [p.detach().double() for p in trained(fresh(name))]
    for step, after in enumerate(watch.weights):
        decay = min(0.3, (1 + step) / (10 + step))
        average = [decay * a + (1 - decay) * p for a, p in zip(average, after)]
    assert len(watch.weights) >= 8
    kept = CosmoFlow.from_pretrained(tmp_path)
    for a, b in zip(average, trained(kept), strict=True):
        torch.testing.assert_close(b, a.float(), rtol=1e-4, atol=1e-6)


def test_the_vae_s_log_tells_the_means_of_its_parts(data, tmp_path):
    model, steps = fresh("vae"), []

    def outputs(_, inputs, results):
        if not torch.is_grad_enabled(): return
        (x, _), (rec, mean, log_var) = inputs, results
        mse = (rec - x).square().mean().item()
        latent = Normal(mean, (0.5 * log_var).exp())
        kl = kl_divergence(latent, Normal(0, 1)).sum(1).mean().item()
        steps.append((0.5 * math.log(mse) + kl / 256, mse, kl))

    model.register_forward_hook(outputs)
    _, log = work("vae", data, tmp_path, model, epochs=2, batch_size=30, lr=1e-2)
    assert len(steps) == 8
    for row, part in zip(log, (steps[:4], steps[4:]), strict=True):
        found = row["train_loss"], row["mse"], row["kl"]
        assert found == pytest.approx(np.mean(part, 0), rel=1e-3)


def test_the_vae_s_loss_and_its_gradient_are_the_formula_s():
    "Nats a pixel: half the log of the mean square, and the divergence over the pixels."
    generator = torch.Generator().manual_seed(0)
    draw = lambda *shape: torch.randn(shape, generator=generator, dtype=torch.double)
    x, rec, mean, log_var = draw(3, 1, 4, 4), draw(3, 1, 4, 4), draw(3, 5), draw(3, 5)
    given = [v.requires_grad_() for v in (rec, mean, log_var)]
    loss, mse, kl = vae_loss(x, *given)
    divergence = kl_divergence(Normal(mean, (log_var / 2).exp()), Normal(0, 1))
    torch.testing.assert_close(kl, divergence.sum(1).mean())
    torch.testing.assert_close(mse, ((rec - x) ** 2).sum() / 48)
    torch.testing.assert_close(loss, mse.log() / 2 + kl / 16)
    gradient = torch.autograd.grad(loss, given)
    expected = (rec - x) / 48 / mse, mean / 48, (log_var.exp() - 1) / 96
    for one, other in zip(gradient, expected): torch.testing.assert_close(one, other)


def test_the_vae_draws_latents_as_wide_as_it_says():
    model = fresh("vae")
    torch.nn.init.zeros_(model.log_var.weight)
    torch.nn.init.constant_(model.log_var.bias, 2 * math.log(3))
    x, noise = torch.randn(4, 1, 16, 16), torch.randn(4, 8)
    rec, mean, log_var = model(x, noise)
    torch.testing.assert_close(log_var, torch.full((4, 8), 2 * math.log(3)))
    torch.testing.assert_close(mean, model.mean(model.encoder(x)))
    torch.testing.assert_close(rec, model.decoder(mean + 3 * noise))


class Growing:
    "A teacher whose flow is known: dx/dt = 2 t x, so x(t) = x0 exp(t^2)."
    encoder = staticmethod(lambda x: x.mean((2, 3), keepdim=True))
    velocity = staticmethod(lambda x, t, field: 2 * t * x)


@pytest.mark.parametrize("steps", [1, 2, 4])
def test_a_lesson_tells_where_the_flow_leads(steps):
    x1 = torch.randn(4, 1, 16, 16)
    generator = torch.Generator().manual_seed(0)
    x0, field, path = lesson(Growing, x1, generator, steps, 32, 0.0)
    assert torch.equal(field[:, 0, 0, 0], x1.mean((1, 2, 3)))
    t = torch.arange(steps + 1)[:, None, None, None, None] / steps
    torch.testing.assert_close(path, x0 * (t**2).exp(), rtol=2e-3, atol=2e-3)


def test_a_part_of_a_lesson_is_told_the_summary_alone():
    teacher = randomised()
    x1 = torch.randn(8, 1, 32, 32, generator=torch.Generator().manual_seed(1))
    generator = torch.Generator().manual_seed(0)
    x0, field, path = lesson(teacher, x1, generator, 1, 2, 0.25)
    with torch.no_grad():
        own = teacher.encoder(x1)
        expected = flow_path(teacher, x0, field, 2, "midpoint")[::2]
    mean = own.mean((2, 3), keepdim=True).expand_as(own)
    torch.testing.assert_close(field, torch.cat([mean[:2], own[2:]]))
    assert (own - mean).abs().amax((1, 2, 3)).min() > 0.1 * own.std()
    torch.testing.assert_close(path, expected)


def test_losses_of_a_student_by_hand():
    generator = torch.Generator().manual_seed(0)
    draw = lambda *shape: torch.randn(shape, generator=generator, dtype=torch.double)
    path, true = draw(3, 2, 1, 8, 8), draw(3, 2, 1, 8, 8)
    squares = ((path - true) ** 2)[1:].flatten().tolist()
    by_hand = 4 * sum(squares) / len(squares)
    assert path_loss(path, true).item() == pytest.approx(by_hand)
    x, y = draw(6, 1, 8, 8), 3 * draw(6, 1, 8, 8)
    index = np.fft.fftfreq(8, 1 / 8)
    ring = np.hypot(index[:, None], index).round()
    logs = []
    for i in range(1, 5):
        modes = (np.abs(np.fft.fft2(m[:, 0]))[:, ring == i] for m in (x, y))
        power = [(m**2).mean() for m in modes]
        logs.append(math.log(power[0] / power[1]))
    found = spectral_loss(x, y).item()
    assert found == pytest.approx(sum(log**2 for log in logs) / 4)


@pytest.mark.parametrize("spectral", [0.0, 100.0])
def test_a_student_s_step_is_the_sum_of_both_losses(data, tmp_path, watch, monkeypatch,
                                                   spectral):
    "The first gradient by hand, from the noise, fields and states of its lesson."
    taught, teach = [], distillation.lesson

    def watched(*args, **kwargs):
        taught.append(teach(*args, **kwargs))
        return taught[-1]

    monkeypatch.setattr(distillation, "lesson", watched)
    model, log = work("distill", data, tmp_path, steps=2, spectral=spectral)
    _, (x0, field, true) = taught  # the first is for validation
    path = flow_path(model, x0, field, 2, "euler")
    by_path, by_spectrum = path_loss(path, true), spectral_loss(path[-1], true[-1])
    assert log[0]["path"] == pytest.approx(by_path.item(), rel=1e-3)
    assert log[0]["spectral"] == pytest.approx(by_spectrum.item(), rel=1e-3)
    loss = by_path + spectral * by_spectrum
    grads = torch.autograd.grad(loss, list(model.unet.parameters()))
    length = math.sqrt(sum(g.double().square().sum() for g in grads))
    for one, other in zip(watch.grads[0], grads, strict=True):
        torch.testing.assert_close(one, other / max(1, length), rtol=1e-2, atol=1e-5)
    assert length > 1e-3 and 100 * by_spectrum > by_path


@pytest.mark.parametrize("shape, message", [
    ((16, 32), "expected square maps, found 16 x 32 pixels; cut them to squares"),
    ((24, 24), "a multiple of 16, found 24")])
def test_maps_of_a_shape_that_a_training_cannot_use(shape, message, tmp_path):
    "They are refused before the folder is made."
    data = MapData(np.ones((30, *shape), np.float32), np.ones((30, 2)))
    model = untrained("tiny", CPU)
    with pytest.raises(ValueError, match=message):
        train(model, data, tmp_path / "run", TrainConfig(epochs=1))
    with pytest.raises(ValueError, match=message):
        distill(model, data, tmp_path / "run", epochs=1)
    assert not (tmp_path / "run").exists()
