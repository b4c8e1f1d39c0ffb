"""What comes in at the door, in any form: plain arrays pass, nonsense is refused."""
import importlib
import inspect
import pkgutil
from dataclasses import astuple, is_dataclass
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from conftest import randomised
from matplotlib.figure import FigureBase
from torch import Tensor

import cosmoflow
from cosmoflow import CosmoFlow
from cosmoflow.anomaly import Detector, Expectation
from cosmoflow.codec import Codec, train_for_rate
from cosmoflow.core import Fields, Maps, MapView
from cosmoflow.data import Normalizer, lower_resolution, open_maps
from cosmoflow.distill import distill
from cosmoflow.evaluate import evaluate
from cosmoflow.export import export
from cosmoflow.inference import relative_error
from cosmoflow.model import field_prior
from cosmoflow.posterior import Posterior
from cosmoflow.train import train
from cosmoflow.vae import VAE

NORM = Normalizer(11.0, 0.5, 1e8)
DOUBLE = torch.float64, torch.complex128


def asks(parameter, *kinds):
    "Whether a parameter takes maps or fields, or is of other kinds that are named."
    annotation = parameter.annotation  # other unions are equal to these: hence `is`
    if any(annotation is kind for kind in kinds or (Maps, Fields)): return True
    return not kinds and annotation == dict[str, Maps]


def methods(thing):
    "By name, the public methods of a class, and `__call__`."
    public = [k for k in vars(thing) if k == "__call__" or k[0] != "_"]
    found = {k: getattr(thing, k) for k in public}
    return {k: method for k, method in found.items()
            if inspect.isfunction(method) or inspect.ismethod(method)}


def doors(*kinds):
    "Every public function or method, with each parameter that `asks`."
    for info in pkgutil.iter_modules(cosmoflow.__path__):
        if info.name.startswith("__"): continue
        module = importlib.import_module(f"cosmoflow.{info.name}")
        for name in getattr(module, "__all__", ()):
            thing = getattr(module, name)
            parts = {name: thing} if inspect.isfunction(thing) else {}
            if inspect.isclass(thing):
                parts |= {f"{name}.{k}": f for k, f in methods(thing).items()}
            if name in ("to_tensor", "pieces", "in_pieces"): continue
            for path, function in parts.items():
                for parameter in inspect.signature(function).parameters.values():
                    if asks(parameter, *kinds): yield function, path, parameter.name


DOORS = list(doors())
each_door = pytest.mark.parametrize(
    "function, path, name", DOORS, ids=[f"{path}-{name}" for _, path, name in DOORS])


def test_the_list_is_long():
    paths = {path for _, path, _ in DOORS}
    assert {
        "CosmoFlow.encode", "CosmoFlow.summarise", "CosmoFlow.reconstruct",
        "CosmoFlow.decode", "CosmoFlow.fit_prior", "VAE.reconstruct", "field_prior",
        "power_spectrum", "cross_correlation", "transfer_ratio", "spectrum_error",
        "one_point_pdf", "pdf_distance", "spectrum_features", "compare",
        "Normalizer.fit", "Normalizer.__call__", "Normalizer.inverse",
        "Normalizer.check", "show_maps", "figure", "plot_spectra", "lower_resolution",
    } <= paths


@cache
def plain():
    "By parameter, 15 small stacks of whole numbers, so that integers hold them."
    maps = np.rint(lower_resolution(open_maps("PM", "LH", sims=slice(0, 1)).maps, 32))
    moved = np.roll(maps, 1, 0) * 2
    field = np.random.default_rng(0).integers(-3, 4, (15, 8, 2, 2)).astype(np.float32)
    stacks = {"maps": maps, "maps_b": moved, "reference": moved, "rec": moved,
              "others": moved, "field": field, "kept": field[:, :3]}
    stacks["x"] = np.rint(stacks["field"].repeat(8, 3).reshape(15, 1, 16, 16))
    for stack in stacks.values(): stack.setflags(write=False)
    return stacks


def detector(model, pixels, channels=8):
    "One that expects noise, of maps of this size."
    noise = (torch.randn(300, n) for n in (channels, pixels // 2 + 11))
    cold = torch.arange(1.0, 100).double()
    return Detector(model, Expectation.fit(*noise), (cold, cold), pixels=pixels)


@cache
def model():
    "A model with a prior of its fields."
    found = randomised(steps=1)
    found.prior = field_prior(plain()["field"])
    return found


@cache
def codec():
    "One for fields as those of `plain`."
    return Codec.from_prior(field_prior(plain()["field"]))


@cache
def posterior(pixels=32, channels=8):
    "One that has learned nothing, for maps of this size."
    return Posterior(channels, pixels // 2 + 2, pixels)


@cache
def owner(path):
    torch.manual_seed(0)
    makers = {"VAE": lambda: VAE(NORM, pixels=32, width=8), "Normalizer": lambda: NORM,
              "Detector": lambda: detector(randomised(), 32), "Codec": codec}
    return makers.get(path.split(".")[0], randomised)()


def call(function, path, name, stack, more=None):
    "The function on plain stacks, but for this one."
    takes = inspect.signature(function).parameters
    given = {"pixels": 16} if "pixels" in takes else {}
    if "model" in takes: given["model"] = model()
    if "self" in takes: given["self"] = owner(path)
    if "codec" in takes: given["codec"] = codec()
    if "posterior" in takes: given["posterior"] = posterior()
    if "prior" in takes:
        given["prior"] = field_prior(plain()["field"])
        given["generator"] = torch.Generator().manual_seed(0)
    noise = {"seed": 0, "steps": 1}
    given |= {k: v for k, v in noise.items() if {k, "kwargs"} & set(takes)}
    for other, parameter in takes.items():
        if not asks(parameter): continue
        value = stack if other == name else plain().get(other, plain()["maps"])
        several = parameter.annotation == dict[str, Maps]
        given[other] = {other: value} if several else value
    given |= more or {}
    if "out" not in takes: return numbers(function(**given))
    with TemporaryDirectory() as folder:
        function(**given, out=Path(folder) / "out")
        return [np.frombuffer((Path(folder) / "out").read_bytes(), np.uint8)]


@cache
def expected_of(function, path, name):
    return call(function, path, name, plain().get(name, plain()["maps"]))


def numbers(result):
    "All that a function found, as arrays."
    if isinstance(result, FigureBase):
        axes = [ax for figure in (result, *result.subfigs) for ax in figure.axes]
        result = [image.get_array().data for ax in axes for image in ax.images]
        result += [np.asarray(line.get_ydata(), float)
                   for ax in axes for line in ax.lines]
        plt.close("all")
    if isinstance(result, CosmoFlow): result = result.prior
    if is_dataclass(result): result = astuple(result)
    if isinstance(result, Tensor): return [result.detach().numpy()]
    if isinstance(result, tuple | list) or inspect.isgenerator(result):
        return [n for part in result for n in numbers(part)]
    return [] if result is None or isinstance(result, str) else [np.asarray(result)]


class Foreign:
    "An array of another library."
    def __init__(self, array): self.array = array
    def __array__(self, dtype=None, copy=None):
        return self.array.astype(dtype or self.array.dtype)


def of_jax(array): return pytest.importorskip("jax.numpy").asarray(array)


KINDS = {
    "big-endian": lambda a: a.astype(">f4"),
    "big-endian double": lambda a: a.astype(">f8"),
    "backwards": lambda a: a[:, ::-1].copy()[:, ::-1],
    "Fortran": np.asfortranarray,
    "double": lambda a: a.astype(np.float64),
    "integers": lambda a: a.astype(np.int64),
    "view": lambda a: MapView(a, slice(None)),
    "JAX": of_jax,
    "foreign": Foreign,
    "tensor": lambda a: torch.tensor(a),
    "double tensor": lambda a: torch.tensor(a).double(),
    "with a gradient": lambda a: torch.tensor(a, requires_grad=True),
    "bfloat16": lambda a: torch.tensor(a).bfloat16(),
    "strided tensor": lambda a: torch.tensor(a).mT.contiguous().mT,
}


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("kind", KINDS)
@each_door
def test_any_array_is_the_plain_array(function, path, name, kind):
    array = plain().get(name, plain()["maps"])
    given = KINDS[kind](array)
    if kind == "bfloat16":  # which rounds the array itself
        expected = call(function, path, name, given.float().numpy())
    else:
        expected = expected_of(function, path, name)
    before = KINDS[kind](plain().get(name, plain()["maps"]))
    found = call(function, path, name, given)
    assert [f.shape for f in found] == [e.shape for e in expected]
    for f, e in zip(found, expected):
        atol = max(1e-6, 2e-4 * np.nan_to_num(np.abs(e)).max())
        np.testing.assert_allclose(f, e, rtol=2e-4, atol=atol)
    other_order = "integers", "Fortran", "strided tensor"  # of the terms of sums
    if "double" not in kind and kind not in other_order:
        for f, e in zip(found, expected): np.testing.assert_array_equal(f, e)
    same = lambda stack: (stack.detach().float() if isinstance(stack, Tensor)
                          else np.asarray(stack))
    assert (same(given) == same(before)).all()


WRONG = {
    "one of them": (lambda a: a[0],
                    r"expected shape \(.*found \(.*give {name}\[None\]"),
    "none": (lambda a: a[:0], "expected shape .*it is empty"),
    "a list": (list, "expected an array .*found list; stack"),
    "nothing": (lambda a: None,
                "expected an array or tensor of shape .*found NoneType"),
    "a file's name": (lambda a: "maps.npy", "expected an array .*found str; open"),
    "data": (lambda a: SimpleNamespace(maps=a),
             "expected an array .*found SimpleNamespace; give its maps: data.maps"),
    "truths": (lambda a: a > 0, "expected real numbers, found bool"),
    "complex numbers": (lambda a: torch.tensor(a) + 0j,
                        "expected real numbers, found complex64"),
    "five axes": (lambda a: a.reshape(1, 1, 1, 1, -1), "expected shape .*found .*; "),
    "masked": (lambda a: np.ma.masked_greater(a, np.median(a)),
               r"expected a number in every pixel, found masked ones; .*\.filled"),
}


@pytest.mark.parametrize("kind", WRONG)
@each_door
def test_what_is_no_stack_is_refused_in_our_words(function, path, name, kind):
    change, message = WRONG[kind]
    array = plain().get(name, plain()["maps"])
    with pytest.raises(ValueError, match=f"^{name}: " + message.format(name=name)):
        call(function, path, name, change(array))


def test_a_mask_that_hides_nothing_changes_nothing():
    bare = np.ma.masked_array(plain()["maps"], mask=False)
    assert (lower_resolution(bare, 16) == lower_resolution(plain()["maps"], 16)).all()


# These hand on what they get, number by number, or look at no map of the right size.
HAND_ON = ("batches", "lower_resolution", "Normalizer.__call__", "Normalizer.inverse",
           "make_codec")


@pytest.mark.parametrize("value", (np.nan, np.inf))
@pytest.mark.parametrize(
    "function, path, name", [door for door in DOORS if door[1] not in HAND_ON])
def test_a_pixel_that_is_no_number_is_refused(function, path, name, value):
    "Whatever is measured, counted or drawn from it would be wrong, and look right."
    array = np.array(plain().get(name, plain()["maps"]))
    array[1].flat[3] = value
    words = "NaN|infinity|not finite|lies too far"
    with pytest.raises(ValueError, match=words): call(function, path, name, array)
    plt.close("all")


# What cannot be, of parameters that many functions have.
NONSENSE = {"box": (0, -25.0, np.nan, np.inf, "25", None),
            "seed": (-1, 2**63, 0.5, "0"),
            "each": (0, -15, 1.5, "15", None)}


def takes(function, name):
    "Whether a function has a parameter, or hands it on to `decode`."
    parameters = inspect.signature(function).parameters
    return name in parameters or (name == "seed" and "kwargs" in parameters)


@pytest.mark.parametrize(
    "function, path, name, parameter",
    [(function, path, name, parameter) for function, path, name in DOORS
     for parameter in NONSENSE if takes(function, parameter)])
def test_a_parameter_that_cannot_be_is_refused(function, path, name, parameter):
    default = getattr(inspect.signature(function).parameters.get(parameter),
                      "default", None)
    for value in NONSENSE[parameter]:
        if value is default: continue  # None: not known
        with pytest.raises(ValueError, match=f"^{parameter}={value!r}: expected "):
            call(function, path, name, plain().get(name, plain()["maps"]),
                 {parameter: value})
        plt.close("all")


@pytest.mark.parametrize("function, path, name", list({
    door[0]: door for door in DOORS if takes(door[0], "seed")}.values()))
def test_a_seed_of_numpy_is_a_seed(function, path, name):
    "As a loop over seeds gives it."
    array = plain().get(name, plain()["maps"])
    found = call(function, path, name, array, {"seed": np.int64(0)})
    for f, e in zip(found, expected_of(function, path, name), strict=True):
        np.testing.assert_array_equal(f, e)


@pytest.fixture
def double_by_default():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@each_door
def test_the_caller_s_default_dtype_changes_nothing(function, path, name, request):
    array = plain().get(name, plain()["maps"])
    expected = expected_of(function, path, name)
    request.getfixturevalue("double_by_default")
    found = call(function, path, name, array)
    for f, e in zip(found, expected, strict=True):
        assert f.dtype == e.dtype
        np.testing.assert_array_equal(f, e)


@pytest.fixture
def nowhere_by_default():
    "A device that holds no numbers: whatever is made there by default is lost."
    torch.set_default_device("meta")
    yield
    torch.set_default_device(None)


@pytest.mark.parametrize(  # the flow that `infer` draws from is another library's
    "function, path, name", [door for door in DOORS if door[1] != "infer"])
def test_the_caller_s_default_device_changes_no_measure(function, path, name, request):
    array = plain().get(name, plain()["maps"])
    expected = expected_of(function, path, name)
    request.getfixturevalue("nowhere_by_default")
    found = call(function, path, name, array)
    for f, e in zip(found, expected, strict=True): np.testing.assert_array_equal(f, e)


def test_loading_a_model_leaves_the_caller_s_torch_alone(nowhere_by_default):
    "Neither where it makes numbers, nor which random ones come next."
    before = torch.get_rng_state()
    model = CosmoFlow.from_pretrained("mini", "cpu")
    assert torch.equal(torch.get_rng_state(), before)
    assert {p.device.type for p in model.parameters()} == {"cpu"}


def test_models_are_single_precision_whatever_the_default(double_by_default):
    maps = open_maps("PM", "CV").maps[:2]
    model, vae = CosmoFlow.from_pretrained("mini"), VAE(NORM, width=8)
    for each in (model, vae):
        assert {p.dtype for p in each.parameters()} == {torch.float32}
    for found in (model.encode(maps), model.reconstruct(maps, seed=0, steps=1),
                  model.generate(1, seed=0, steps=1)):
        assert found.dtype == torch.float32


@pytest.mark.parametrize("dtype", (torch.bfloat16, torch.float16, torch.float64))
def test_models_in_another_precision(dtype):
    maps = lower_resolution(open_maps("PM", "CV").maps[:2], 32)
    single = CosmoFlow.from_pretrained("mini")
    other = CosmoFlow.from_pretrained("mini").to(dtype)
    for ask in (lambda m: m.encode(maps),
                lambda m: m.reconstruct(maps, seed=0).log10(),
                lambda m: m.generate(1, seed=0, steps=2).log10()):
        expected, found = ask(single), ask(other)
        assert found.dtype == torch.float32
        assert (found - expected).square().mean().sqrt() < 0.1 * expected.std()
    vae = VAE(NORM, pixels=32, width=8)
    expected = vae.reconstruct(maps).log10()
    found = vae.to(dtype).reconstruct(maps).log10()
    assert found.dtype == torch.float32
    assert (found - expected).abs().max() < 0.05


class Single(Tensor):
    """A tensor on a device without double precision, such as an Apple GPU.

    `.cpu()` brings it back; all else that would be double raises."""
    @classmethod
    def __torch_function__(cls, function, types, args=(), kwargs=None):
        result = super().__torch_function__(function, types, args, kwargs or {})
        if function is Tensor.cpu: return result.as_subclass(Tensor)
        if isinstance(result, Tensor) and result.dtype in DOUBLE:
            raise TypeError("this device has no float64")
        return result


def test_double_precision_is_computed_on_the_cpu():
    field = torch.randn(30, 8, 4, 4, generator=torch.Generator().manual_seed(0))
    there = field.as_subclass(Single)
    with pytest.raises(TypeError, match="no float64"): there.double()
    assert torch.equal(field_prior(there), field_prior(field))
    predicted, true = field.flatten(1)[:, :2], 3 + field.flatten(1)[:, 2:4].abs()
    expected = relative_error(predicted, true)
    found = relative_error(predicted.as_subclass(Single), true.as_subclass(Single))
    np.testing.assert_array_equal(found.mean, expected.mean)


def test_a_seed_is_a_generator():
    model, field = randomised(), torch.randn(2, 8, 4, 4)
    maps, many = (open_maps("PM", "CV").maps[:n] for n in (2, 30))
    model.fit_prior(many)
    for ask in (lambda **noise: model.decode(field, 1, **noise),
                lambda **noise: model.reconstruct(maps, steps=1, **noise),
                lambda **noise: model.generate(2, steps=1, **noise)):
        three = ask(seed=3)
        assert torch.equal(three, ask(generator=torch.Generator().manual_seed(3)))
        assert torch.equal(three, ask(seed=np.int64(3)))
        assert not torch.equal(three, ask(seed=4))
        for wrong, message in (
                (dict(generator=0), "generator=0: expected a torch.Generator or None; "
                                    "give a number as seed="),
                (dict(seed=0.5), "seed=0.5: expected a whole number"),
                (dict(seed=0, generator=torch.Generator()),
                 "seed=0: expected None beside a generator")):
            with pytest.raises(ValueError, match=message): ask(**wrong)


def test_counts_are_one_or_more():
    model, vae = randomised(), VAE(NORM, width=8)
    maps = open_maps("PM", "CV").maps[:30]
    field = model.fit_prior(maps).encode(maps[:1])
    counted = {"samples": lambda n: model.decode(field, samples=n),
               "n": lambda n: model.generate(n),
               "batch_size": lambda n: model.decode(field, batch_size=n)}
    for ask in counted.values(): ask(np.int64(1))
    for n in (0, -1, 1.5):
        for name, ask in counted.items():
            message = f"^{name}={n}: expected a whole number of 1 or more"
            with pytest.raises(ValueError, match=message): ask(n)
        for ask in (model.encode, model.summarise, vae.reconstruct):
            with pytest.raises(ValueError, match=f"^batch_size={n}: expected"):
                ask(maps[:1], batch_size=n)


SENSELESS = {
    "not a number": (lambda m: np.where(m == m.max(), np.nan, m), "NaN or infinity"),
    "infinite": (lambda m: np.where(m == m.max(), np.inf, m), "NaN or infinity"),
    "negative": (lambda m: np.where(m == m.max(), -m, m), "are they contrasts"),
    "log10": (lambda m: np.log10(m + 1), r"are they log10 maps\? Give 10\*\*maps"),
    "over the mean": (lambda m: m / m.mean(),
                      r"were they divided by their mean\? Multiply"),
    "contrast": (lambda m: m / m.mean() - 1, "are they contrasts"),
    "empty": (lambda m: 0 * m, "found a mean of 0"),
    "other units": (lambda m: m * 1e10, "other units"),
}


@pytest.mark.parametrize("kind", SENSELESS)
def test_maps_that_cannot_be_right_are_refused(kind):
    change, reason = SENSELESS[kind]
    model = CosmoFlow.from_pretrained("mini")
    vae = VAE(model.normalizer, width=8)
    maps = change(np.array(open_maps("PM", "CV").maps[:2]))
    for ask in (model.encode, model.summarise, model.reconstruct, model.fit_prior,
                vae.reconstruct):
        message = f"^maps: expected surface density .*{reason}"
        with pytest.raises(ValueError, match=message): ask(maps)
    for ask in (model.encode, model.summarise, vae.reconstruct):
        assert len(ask(maps, check=False)) == 2
    if kind != "not a number": return
    field = model.encode(maps, check=False)
    for solver in ("midpoint", "dopri5"):
        message = "^field: expected finite numbers, found NaN"
        with pytest.raises(ValueError, match=message):
            model.decode(field, solver=solver)


@pytest.mark.parametrize("set", ("LH", "1P", "CV", "WDM", "CDM"))
@pytest.mark.parametrize("name", ("mini", "base"))
def test_no_shipped_map_is_refused(set, name):
    check = CosmoFlow.from_pretrained(name).normalizer.check
    maps = open_maps("PM", set).maps
    for one in maps: check(one[None])
    check(maps * 0.5**8), check(maps * 2.0**6)  # such a factor is no reason yet


def test_a_figure_of_nothing_says_so():
    message = r"no pixel above 0; log10 maps are drawn as 10\*\*maps"
    with pytest.raises(ValueError, match=message):
        cosmoflow.plot.show_maps(np.zeros((1, 4, 4)))


def users_of_models():
    "Public functions that take a model and either maps or data, by name."
    for function in {function: None for function, _, _ in DOORS if
                     inspect.isfunction(function)}:
        if takes(function, "model"): yield function
    yield from (train, evaluate, distill, export, train_for_rate)


@pytest.mark.parametrize("function", list(users_of_models()), ids=lambda f: f.__name__)
def test_a_name_or_another_network_is_no_model(function, tmp_path):
    given = {"maps": plain()["maps"], "others": plain()["maps"], "codec": codec(),
             "posterior": None, "data": open_maps("PM", "CV"), "out": tmp_path / "out"}
    given = {k: v for k, v in given.items() if takes(function, k)}
    message = r"^model: expected a CosmoFlow, found str; load .*from_pretrained\('mini'"
    with pytest.raises(ValueError, match=message): function(model="mini", **given)
    with pytest.raises(ValueError, match="^model: expected a CosmoFlow, found VAE$"):
        function(model=VAE(NORM, pixels=32, width=8), **given)
    if "data" in given:
        message = "^data: expected a MapData, found ndarray"
        with pytest.raises(ValueError, match=message):
            function(model=model(), **given | {"data": plain()["maps"]})
    assert not list(tmp_path.iterdir())
