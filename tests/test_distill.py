"""Distillation: the student takes few steps, and all but the steps stays as it was."""
import pytest
import torch

import cosmoflow.distill as module
from cosmoflow.bench import untrained
from cosmoflow.data import Normalizer, open_maps
from cosmoflow.distill import (Student, distill, flow_path, path_loss,
                               spectral_loss)
from cosmoflow.flow import integrate
from cosmoflow.model import CosmoFlow
from cosmoflow.train import train


@pytest.fixture(scope="module")
def data(): return open_maps("PM", "LH", sims=slice(0, 10), pixels=32)


def test_mean_velocities_make_euler_exact():
    """dx/dt = 2 t x has x(t) = x0 exp(t^2).

    With its mean velocity, two steps of Euler end where the flow ends."""
    euler = lambda velocity: integrate(velocity, x0, 2, "euler", trajectory=True)
    velocity = lambda t, x: 2 * t * x
    mean = lambda t, x: x * (torch.exp((t + 0.5) ** 2 - t**2) - 1) / 0.5
    x0 = torch.linspace(-1, 1, 8, dtype=torch.float64)[:, None, None, None]
    true = integrate(velocity, x0, 512, "midpoint", trajectory=True)[::256]
    assert path_loss(euler(mean), true) < 1e-9
    assert path_loss(euler(velocity), true) > 0.1


def test_a_student_learns_its_teachers_steps(tmp_path):
    "Six updates: far from taught, but the power that two untaught steps lose returns."
    data = open_maps("PM", "LH", sims=slice(0, 10))
    model = CosmoFlow.from_pretrained("mini")
    before = {k: v.clone() for k, v in model.state_dict().items()}
    student = distill(model, data, tmp_path, steps=2, epochs=3, batch_size=4, fine=4)

    maps = data.split()[1].maps[::5]
    field = model.encode(maps)
    x0 = torch.randn(3, 1, 64, 64, generator=torch.Generator().manual_seed(9))
    with torch.no_grad():
        true = flow_path(model, x0, field, 8, "midpoint")[::4]
        untaught = flow_path(model, x0, field, 2, "euler")
        taught = flow_path(student, x0, field, 2, "euler")
    assert path_loss(taught, true) < 0.7 * path_loss(untaught, true)
    of_untaught = spectral_loss(untaught[-1], true[-1])
    assert spectral_loss(taught[-1], true[-1]) < 0.1 * of_untaught

    for k, v in model.state_dict().items():
        assert torch.equal(v, before[k])  # the teacher stays,
        if k.startswith("encoder."):  # and so does the field
            assert torch.equal(v, student.state_dict()[k])
    again, calls = CosmoFlow.from_pretrained(tmp_path), []
    again.unet.register_forward_hook(lambda *_: calls.append(1))
    decode = lambda m, **kwargs: m.decode(
        field, generator=torch.Generator().manual_seed(0), **kwargs)
    assert torch.equal(decode(again), decode(student, steps=2, solver="euler"))
    assert len(calls) == 2


def test_gradients_reach_both_steps(data):
    model = untrained("tiny", torch.device("cpu"))
    x0 = torch.randn(2, 1, 32, 32, generator=torch.Generator().manual_seed(0))
    x0.requires_grad_()
    flow_path(model, x0, model.encode(data.maps[:2]), 2, "euler")[-1].sum().backward()
    assert x0.grad.abs().min() > 0


def test_a_student_is_no_teacher(data, tmp_path):
    normalizer = Normalizer.fit(data.maps)
    student = CosmoFlow.from_preset("tiny", normalizer, steps=1, solver="euler")
    message = "distilled to 1 step.* expected the model that taught it"
    for run in (distill, train):
        with pytest.raises(ValueError, match=message):
            run(student, data, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_an_exam_takes_a_few_large_maps_at_a_time(data, monkeypatch):
    "The same lesson and the same losses as in one piece, of which memory may be short."
    model = CosmoFlow.from_preset("tiny", Normalizer.fit(data.maps))
    settings = dict(epochs=1, batch_size=4, lr=1e-3, spectral=1.0, pooled=0.5, ema=0.9,
                    fine=2, seed=0)

    def examined():
        student = Student(model, data, 2, **settings)
        exam = student.exam(data)
        return exam, student.judge(exam)

    whole, scores = examined()
    assert len(whole[0]) == 10
    seen = []
    watch = lambda _, args: seen.append(len(args[0]))
    model.encoder.register_forward_pre_hook(watch)
    model.unet.register_forward_pre_hook(watch)
    monkeypatch.setattr(module, "maps_at_once", lambda shape: 1)
    pieces, again = examined()
    assert set(seen) == {1}
    for one, other in zip(whole, pieces): torch.testing.assert_close(one, other)
    assert again == pytest.approx(scores, rel=1e-4)
