"""Wrong answers that students really give, and the hint that names each mistake."""
import ast
import json
import linecache
import re
import symtable

import matplotlib
import pytest
import torch
from conftest import ROOT
from cosmoflow.lessons import Unfinished

WORKSHOP = ROOT / "nbs" / "workshop"
LESSONS = {int(p.name[:2]): p for p in sorted(WORKSHOP.glob("[0-9]*.ipynb"))}
SOLUTION = re.compile(
    r"^([ \t]*)### BEGIN SOLUTION\n.*?^[ \t]*### END SOLUTION", re.S | re.M)


def slips(right, table):
    "Wrong answers: whole ones, and the right one with one piece exchanged for another."
    for slip in table: assert isinstance(slip, str) or slip[0] in right, slip
    return {slip if isinstance(slip, str) else right.replace(*slip): words
            for slip, words in table.items()}


# (Lesson, exercise) -> what stands in place of the solution, and words of the hint that
# it must get. Lines of one answer are separated by ";"; where an exercise has two
# functions, their answers by "|".
WRONG = {}

WRONG[1, 1] = {
    "return maps / maps.mean() - 1": "own mean",
    "return maps / maps.mean((1, 2)) - 1": "hint: .*keepdim",
    "return maps / maps.mean((1, 2), keepdim=True)": "subtract 1",
    "return maps - maps.mean((1, 2), keepdim=True)": "divide by the mean",
    "m = maps.mean((1, 2), keepdim=True); return 1 - maps / m": "sign",
    "return maps / maps.mean(1, keepdim=True) - 1": "not one of each row or column",
    "return maps / maps.mean(2, keepdim=True) - 1": "not one of each row or column",
    "m = maps.mean((1, 2), keepdim=True); "
    "return (maps - m) / maps.std((1, 2), keepdim=True)":
        "not by the standard deviation",
    "return maps.mean((1, 2))": "one contrast per pixel",
}

WRONG[1, 2] = slips(
    "n = delta.shape[-1]; return (torch.fft.fft2(delta) * box / n**2).abs() ** 2", {
    "return torch.fft.fft2(delta).abs() ** 2": "factor L / N.2 is missing",
    ("(torch.fft.fft2(delta) * box / n**2).abs() ** 2",
     "torch.fft.fft2(delta).abs() ** 2 * box / n**2"): "inside the square",
    ("n**2", "n"): "by N.2, not by N",
    (" * box", ""): "not 1 / N.2",
    (".abs() ** 2", " ** 2"): "complex",
    (".abs()", ".real"): "area of a pixel",
    (".abs() ** 2", ".abs()"): r"\|L / N\^2",
    ("shape[-1]", "shape[0]"): "number of pixels on a side",
    ("fft2", "fft"): "fft2",
    ("fft2", "rfft2"): r"shape \(200, 64, 64\)",
    ("box", "25"): "use box",
})

WRONG[1, 3] = {
    "return torch.stack([p[:, ring == m].sum(1) for m in range(1, side // 2 + 1)], 1)":
        "not a sum",
    "return torch.stack([p[:, ring == m].mean(1) for m in range(side // 2)], 1)":
        "start with ring 1",
    "return torch.stack([p[:, ring == m].mean(1) for m in range(1, side // 2)], 1)":
        "rings 1 to 32",
    "return torch.stack([p[:, ring == m].mean(1) for m in range(1, side // 2 + 1)])":
        "rings 1 to 32 of each map",
    "return torch.stack([p[:, ring == m].mean() for m in range(1, side // 2 + 1)])":
        "rings 1 to 32 of each map",
    "return torch.stack([p[:, ring == m].mean(0) for m in range(1, side // 2 + 1)])":
        r"hint: .*p\[:, ring == m\]",
    "return torch.stack([p[ring == m].mean(1) for m in range(1, side // 2 + 1)], 1)":
        r"hint: .*p\[:, ring == m\]",
    "return torch.stack([p[:, ring <= m].mean(1) for m in range(1, side // 2 + 1)], 1)":
        "ring == m",
}

WRONG[1, 4] = {
    "mixed = modes": "nothing has moved",
    "mixed = modes.abs() * noise_modes": "keep its power",
    "mixed = noise_modes.abs() * modes / modes.abs()": "keep its power",
    "mixed = modes.abs() * torch.exp(2j * torch.pi * torch.rand(modes.shape))":
        "keep its power",
    "mixed = modes * noise_modes / noise_modes.abs()": "do not add",
    "other = torch.fft.fft2(torch.randn(delta.shape)); "
    "mixed = modes.abs() * other / other.abs()":
        "must be those of noise_modes",
    "answer = modes": "hint: .*called mixed",
}

CROSS = "ring_mean((modes_a * modes_b.conj()).real)"
POWERS = "(ring_mean(modes_a.abs() ** 2) * ring_mean(modes_b.abs() ** 2))"
WRONG[1, 5] = slips(f"return {CROSS} / {POWERS}.sqrt()", {
    f"return {CROSS}": "root of the product",
    (".sqrt()", ""): "root of the product",
    (f"{POWERS}.sqrt()", "ring_mean(modes_a.abs() ** 2)"): "both powers",
    (".conj()", ""): "conjugated",
    (".real", ".abs()"): "not the absolute value",
    (CROSS, "ring_mean(modes_a * modes_b.conj())"): "real",
    "return ring_mean("
    "(modes_a * modes_b.conj()).real / (modes_a.abs() * modes_b.abs()))":
        "ring means first",
})

SPREAD = ".repeat_interleave(8, 1).repeat_interleave(4, 2)"
WRONG[2, 1] = slips(f"return x.reshape(len(x), 8, 8, 16, 4).mean((2, 4)){SPREAD}", {
    "means = x.reshape(len(x), 16, 4, 8, 8).mean((2, 4)); "
    "return means.repeat_interleave(4, 1).repeat_interleave(8, 2)":
        "yours is 4 and 8",
    (SPREAD, ""): "spread over its block",
    (SPREAD, ".repeat(1, 8, 4)"): "repeat_interleave, not repeat|8 pixels high",
    ("mean", "amax"): "the mean of each block",
    ("mean", "sum"): "the mean of each block",
    ("mean((2, 4))", "mean((1, 3))"): "spread over its block",
    "return x.reshape(8, 8, 16, 4).mean((1, 3))": "hint: .*8 rows of blocks",
    "return x": "at most 128 values",
})

WRONG[2, 2] = slips(
    "mean = flat.mean(0); "
    "return mean, torch.linalg.svd(flat - mean, full_matrices=False).Vh[:n]|", {
    ("flat - mean", "flat"): "subtract the mean before svd",
    ("[:n]", "[-n:]"): "strongest",
    ("[:n]", "[:, :n]"): "directions as rows",
    ("Vh[:n]", "U[:, :n]"): "directions as rows",
    ("mean(0)", "mean()"): r"one mean per pixel",
    ("mean(0)", "mean(1)"): "hint: .*mean",
    "return torch.linalg.svd(flat - flat.mean(0), full_matrices=False).Vh[:n]|":
        "2 results",
}) | slips(
    "|return (((x.flatten(1) - mean) @ directions.mT) @ directions + mean)"
    ".reshape(x.shape)", {
    (" + mean", ""): "add the mean at the end",
    ("(x.flatten(1) - mean)", "x.flatten(1)"): "before you project",
    "|return (x.flatten(1) - mean) @ directions.mT": "maps again",
    "|return ((x.flatten(1) - mean) @ directions.mT) @ directions + mean": "maps again",
    "|return ((x.flatten(1) - mean) @ directions).reshape(x.shape)": "hint: .*columns",
    "|return ((x - mean) @ directions.mT).reshape(x.shape)": "hint: .*flat",
})

SINGLE = "(samples - truth[:, None]).square().mean()"
OF_MEAN = "(samples.mean(1) - truth).square().mean()"
WRONG[2, 3] = slips(f"return {SINGLE}, {OF_MEAN}", {
    f"return {OF_MEAN}, {SINGLE}": "the order is",
    f"single = {OF_MEAN}; return single, single": "square before you average",
    f"single = {SINGLE}; return single, single": "average the samples, then square",
    (".square().mean()", ".mean().square()"): "square before you average",
    ("square().mean()", "square().sum()"): "not sums",
    ("square().mean()", "square().mean().sqrt()"): "no root",
    ("truth[:, None]", "truth"): r"hint: .*truth\[:, None\]",
    ("mean(1)", "mean(0)"): r"hint: .*\(n, s, H, W\)",
    f"return {SINGLE}": "two numbers",
})

SHIFTED = "model.encode(torch.roll(maps, (pixels, pixels), (1, 2)))"
FOLLOWS = "torch.roll(model.encode(maps), (pixels // 16, pixels // 16), (2, 3))"
WRONG[2, 4] = slips(f"return ({SHIFTED} - {FOLLOWS}).abs().max().item()", {
    (FOLLOWS, "model.encode(maps)"): "move the same way",
    ("pixels // 16, pixels // 16", "pixels, pixels"): "pixels // 16",
    ("(2, 3)", "(0, 1)"): "last two dimensions",
    ("(pixels, pixels)", "(-pixels, -pixels)"): "the same way",
    (".max()", ".mean()"): "no mean",
    (".abs()", ""): "absolute value",
    "return (model.encode(maps) - model.encode(maps)).abs().max().item()":
        "shift the maps",
    (SHIFTED, "torch.roll(maps, (pixels, pixels), (1, 2))"): "hint: .*maps are",
})

WRONG[2, 5] = {
    "return field.mean(1)": "eight numbers per map",
    "return field.mean((0, 2, 3))": "eight numbers per map",
    "return field.flatten(1)": "eight numbers per map",
    "return field.sum((2, 3))": "not a sum",
    "return field.amax((2, 3))": "mean over all places",
    "return field[:, :, 0, 0]": "mean over all places",
    "return field.mean((3, 4))": "hint: .*dimensions 2 and 3",
}

WRONG[3, 1] = {
    "s = t[:, None]; return s * x0 + (1 - s) * x1, x1 - x0": "at t = 0",
    "s = t[:, None]; return (1 - s) * x0 + s * x1, x0 - x1": "points back",
    "s = t[:, None]; return (1 - s) * x0 + s * x1, s * (x1 - x0)": "same at all times",
    "s = t[:, None]; return (1 - s) * x0 + s * x1, x1": "not x1",
    "s = t[:, None]; return x0 + s * s * (x1 - x0), x1 - x0": "a quarter of the way",
    "s = t[:, None]; return x0 + s * x1 * 2, x1 - x0": "at t = 1",
    "return (1 - t) * x0 + t * x1, x1 - x0": r"hint: .*t\[:, None\]",
    "s = t[:, None]; return (1 - s) * x0 + s * x1": "2 results",
}

NOISE = "torch.randn(x1.shape, generator=generator)"
TIMES = "torch.rand(len(x1), generator=generator)"
LOSS = "(network(x, t) - u).square().mean()"
WRONG[3, 2] = slips(
    f"x0, t = {NOISE}, {TIMES}; x, u = straight_path(x0, x1, t); return {LOSS}", {
    (TIMES, "torch.full((len(x1),), 0.5)"): "same time",
    (TIMES, "torch.rand(1, generator=generator).expand(len(x1))"): "same time",
    (TIMES, "torch.rand(1, generator=generator)"): "a time for each point",
    (TIMES, "torch.randn(len(x1), generator=generator)"): "not torch.randn",
    (TIMES, "torch.randn(len(x1), generator=generator).sigmoid()"): "uniform",
    (NOISE, "torch.rand(x1.shape, generator=generator)"): "standard normal",
    (NOISE, "torch.zeros_like(x1)"): "same noise",
    (NOISE, "torch.randn(2, generator=generator).expand(x1.shape)"): "same noise",
    (NOISE, "torch.randn(len(x1), 1, generator=generator).expand(x1.shape)"):
        "both components",
    (f"{NOISE}, {TIMES}", "torch.randn(x1.shape), torch.rand(len(x1))"):
        "hand generator",
    ("- u", "- x1"): "x1 - x0, not x1$",
    ("- u", "- x0"): "x1 - x0, not x0",
    ("- u", "- (x1 - x)"): "not x1 - x_t",
    ("- u", "+ u"): "not x0 - x1",
    (".mean()", ".sum(1).mean()"): "not their sum",
    (".mean()", ".sum()"): "not a sum",
    (".square()", ".abs()"): "not its absolute value",
    (".mean()", ".mean().sqrt()"): "no root",
    (".mean()", ""): "one number",
    ("network(x, t)", "network(x1, t)"): "x1 itself",
    ("network(x, t)", "network(x0, t)"): "is it noise",
    ("path(x0, x1, t)", "path(x1, x0, t)"): "the path at 1 - t",
    ("network(x, t)", f"network(x, {TIMES})"): "near t = 1|one draw of t",
    (NOISE, "torch.randn(len(x1), generator=generator)"):
        r"hint: .*noise are \(n, 2\)",
})

EULER = (
    "for i in range(steps):;"
    "    t = torch.full((len(x),), i / steps);"
    "    x = x + velocity(x, t) / steps;"
    "    path.append(x)")
WRONG[3, 3] = slips(EULER, {
    ("velocity(x, t) / steps", "velocity(x, t)"): "1 / steps",
    ("i / steps", "(i + 1) / steps"): "begin at the times",
    ("i / steps", "float(i)"): "begin at the times",
    "for s in torch.linspace(0, 1, steps):;"
    "    x = x + velocity(x, s.expand(len(x))) / steps;"
    "    path.append(x)":
        "begin at the times",
    "for i in range(steps):;"
    "    x = x + velocity(x, i / steps) / steps;"
    "    path.append(x)":
        "a time for each point",
    "for i in range(steps):;"
    "    x = x + velocity(x, torch.tensor(i / steps)) / steps;"
    "    path.append(x)":
        "a time for each point",
    ("x + velocity", "x - velocity"): "backwards",
    ("x = x +", "x +="): r"x \+= \.\.\.",
    (";    path.append(x)", ""): "the states after 4 steps",
    ("x = x + velocity(x, t) / steps;    path.append(x)",
     "path.append(x + velocity(x, t) / steps)"): "moves by 1",
    ("velocity(x, t)", "velocity(path[0], t)"): "velocity at the present x",
})

WRONG[3, 4] = {
    "live = torch.ones(len(t), 2); "
    "live[:, last] = (t <= dark_from).float(); "
    "return live":
        "t < dark_from",
    "live = torch.ones(len(t), 2); "
    "live[:, last] = (t > dark_from).float(); "
    "return live":
        "yours is|dark when it should",
    "live = torch.ones(len(t), 2); "
    "live[:, last] = (t >= dark_from).float(); "
    "return live":
        "dark when it should be live",
    "return (t < dark_from).float()[:, None].expand(-1, 2)": "alone",
    "live = torch.ones(len(t), 2); live[:, 1] = (t < dark_from).float(); return live":
        "use last",
    "live = torch.ones(len(t), 2); live[:, last] = (t < 0.5).float(); return live":
        "not always at 0.5",
    "live = torch.ones(2, len(t)); live[last] = (t < dark_from).float(); return live":
        "one row per point",
    "live = torch.ones(len(t), 2); live[last] = (t < dark_from).float(); return live":
        "hint: .*live",
}

WRONG[3, 5] = slips(
    "t, h = torch.full((len(x),), i / steps), 1 / steps; "
    "half = x + h / 2 * velocity(x, t); "
    "x = x + h * velocity(half, t + h / 2)", {
    "t = torch.full((len(x),), i / steps); x = x + velocity(x, t) / steps":
        "yours only halves",
    ("velocity(half, t + h / 2)", "velocity(half, t)"): "second velocity at t",
    ("x + h / 2 *", "x + h *"): "half a step first",
    ("x = x + h", "x = half + h"): "starts at x",
    ("h * velocity(half", "velocity(half"): "lasts 1 / steps",
    ("x = x + h", "x = x - h"): "off by",
})

WRONG[4, 1] = slips(
    "live = (channels - (channels * t).floor()).clamp_min(1); "
    "return (torch.arange(channels) < live[:, None]).float()", {
    ("< live[:, None]", ">= channels - live[:, None]"): "wrong end",
    ("(channels - (channels * t).floor()).clamp_min(1)",
     "channels - (channels * t).floor()"): "stays to the end",
    ("floor", "ceil"): "rounded down",
    ("live[:, None]", "live"): r"hint: .*live\[:, None\]",
    ("(channels) < live[:, None]", "(channels)[:, None] < live"): "one row per time",
    ("<", "<="): "no other|half of them",
    ("<", ">="): r"live \(1\)",
    ("channels - (channels * t)", "8 - (8 * t)"): "use channels",
})

LOW = "(column < 0.9).nonzero()[:, 0]"
LAST_LOW = f"torch.cat([torch.tensor([-1]), {LOW}]).max()"
WRONG[4, 2] = slips(f"return torch.stack([times[{LAST_LOW} + 1] for column in r.T])", {
    (f"{LAST_LOW} + 1", "(column >= 0.9).nonzero()[0, 0]"): "not the first above",
    ("[-1]), (column < 0.9).nonzero()[:, 0]]).max() + 1",
     "[0]), (column < 0.9).nonzero()[:, 0]]).max()"): "one step on",
    f"return torch.stack([{LAST_LOW} + 1 for column in r.T]).float()":
        "number of the step",
    (LAST_LOW, f"{LOW}.max()"): "stops with",
    ("[-1]", "[0]"): "third ring",
    "return torch.stack([times[torch.cat([torch.tensor([-1]), "
    "(row < 0.9).nonzero()[:, 0]]).max() + 1] for row in r])":
        "one time per ring",
})

WRONG[4, 3] = {
    "field_a[:, group] = field_b[:, group]; return field_a": "original has changed",
    "mixed = field_a; mixed[:, group] = field_b[:, group]; return mixed":
        "original has changed",
    "mixed = field_b.clone(); mixed[:, group] = field_a[:, group]; return mixed":
        "other way round",
    "mixed = field_a.clone(); mixed[group] = field_b[group]; return mixed":
        "maps 0 and 3",
    "return field_b[:, group]": "whole field",
    "return field_a.clone()": "must come from the second field",
    "mixed = field_a.clone(); mixed[:, :4] = field_b[:, :4]; return mixed":
        "must stay as in the first",
    "mixed = field_a.clone(); mixed[:, group] = field_b; return mixed":
        "hint: .*channels are dimension 1",
}

WRONG[4, 4] = slips(
    "inside, outside = change[:, band].mean(1), change[:, ~band].mean(1); "
    "return inside / (inside + outside)", {
    ("mean(1)", "sum(1)"): "not sums",
    ("(inside + outside)", "outside"): "sum of both",
    ("return inside", "return outside"): "exchanged",
    "return change[:, band].mean(1) / change.mean(1)": "sum of both",
    ("mean(1)", "mean()"): "one share per map",
    "inside, outside = change[:, band].mean(), change[:, ~band].mean(); "
    "return (inside / (inside + outside)).expand(len(change))":
        "one share for each map",
    "inside, outside = change[:, band].mean(0), change[:, ~band].mean(0); "
    "return inside.mean() / (inside.mean() + outside)":
        "one share per map",
    ("[:, ", "["): r"hint: .*change\[:, band\]",
})

WRONG[4, 5] = {
    "mixed = torch.where(is_coarse == coarse, a, b)": "other way round",
    "mixed = torch.where(is_coarse, b, a)": "use coarse",
    "mixed = a": "nothing was exchanged",
    "mixed = b": "must stay those of the first",
    "answer = torch.where(is_coarse == coarse, b, a)": "hint: .*called mixed",
}

WRONG[5, 1] = {
    "in_test = torch.isin(simulation, test_sims); "
    "return in_test.nonzero()[:, 0], (~in_test).nonzero()[:, 0]":
        "first the training part",
    "in_test = torch.isin(simulation, test_sims); return ~in_test, in_test":
        "numbers of maps",
    "in_test = torch.isin(torch.arange(n_sims), test_sims); "
    "return (~in_test).nonzero()[:, 0], in_test.nonzero()[:, 0]":
        "numbers of maps",
    "in_test = torch.isin(torch.arange(15 * n_sims), test_sims); "
    "return (~in_test).nonzero()[:, 0], in_test.nonzero()[:, 0]":
        "3 simulations of 15",
    "n = 15 * len(test_sims); "
    "order = torch.randperm(15 * n_sims); "
    "return order[n:], order[:n]":
        "made of the simulations 1 and 3",
    "n = 15 * len(test_sims); "
    "maps = torch.arange(15 * n_sims); "
    "return maps[:-n], maps[-n:]":
        "made of the simulations 1 and 3",
    "in_test = torch.isin(simulation, test_sims); "
    "return torch.arange(45), in_test.nonzero()[:, 0]":
        "in both parts",
    "in_test = torch.isin(simulation, test_sims); "
    "return (~in_test).nonzero(), in_test.nonzero()":
        r"found shape \(45, 1\)",
}

TRAIN = "(x_train - x_train.mean(0)) / x_train.std(0)"
TEST = "(x_test - x_train.mean(0)) / x_train.std(0)"
WRONG[5, 2] = slips(f"return {TRAIN}, {TEST}", {
    (TEST, "(x_test - x_test.mean(0)) / x_test.std(0)"): "its own mean",
    "both = torch.cat([x_train, x_test]); "
    "return (x_train - both.mean(0)) / both.std(0), "
    "(x_test - both.mean(0)) / both.std(0)":
        "its own mean",
    ("(0)", "()"): "every column",
    "return x_train - x_train.mean(0), x_test - x_train.mean(0)":
        "standard deviation 1",
    ("std", "var"): "standard deviation 1",
    (TEST, "x_test"): "training part's mean and standard deviation",
    ("(0)", "(1)"): "hint: .*one mean per column",
    f"return {TRAIN}": "both parts",
})

WRONG[5, 3] = slips(
    "return terms(x_test) @ torch.linalg.lstsq(terms(x_train), y_train).solution", {
    "return x_test @ torch.linalg.lstsq(x_train, y_train).solution": "use terms",
    ("terms(x_train)", "x_train"): "hint: .*terms",
    ("terms", "quadratic"): "terms that are handed in",
    ("x_test", "x_train"): "100 test maps",
    (".solution", ""): "hint: .*solution",
    ("terms(x_test) @ ", ""): "two parameters for each",
    ("terms(x_train), y_train", "y_train, terms(x_train)"): "hint: .*lstsq",
})

PER_SIMULATION = ".reshape(-1, 15, true.shape[1]).mean(1)"
WRONG[5, 4] = slips(
    f"e = ((predicted - true).abs() / true){PER_SIMULATION}; "
    "return e.mean(0), e.std(0) / len(e) ** 0.5", {
    "e = (predicted - true).abs() / true; "
    "return e.mean(0), e.std(0) / len(e) ** 0.5":
        "four simulations, not sixty",
    (".abs()", ""): "cancel",
    ("((predicted - true).abs() / true)", "(predicted - true).abs()"): "relative",
    ("/ true)", "/ predicted)"): "divide by the true value",
    (" / len(e) ** 0.5", ""): "root of four",
    ("len(e)", "len(true)"): "average each simulation first|root of four is",
    ("-1, 15", "15, -1"): "average each simulation first",
    ("mean(1)", "mean((1, 2))"): "for each parameter",
    (", e.std(0) / len(e) ** 0.5", ""): "a mean and a standard error",
})

WRONG[5, 5] = slips(
    "table['mean'] = "
    "relative_error(theta[train].mean(0).expand_as(theta[test]), theta[test]); "
    "F = {'weak spectrum': (*reduce(spectra[train], spectra[test]), quadratic), "
    "'spectrum': (*scale(spectra[train], spectra[test]), linear), "
    "'summaries': (*scale(summaries[train], summaries[test]), quadratic)}; "
    "table |= {k: relative_error(fit_and_predict(a, theta[train], b, t), theta[test]) "
    "for k, (a, b, t) in F.items()}", {
    "": "four rows",
    ("theta[train].mean", "theta[test].mean"): "mean should give .* training part",
    ("linear", "quadratic"): "spectrum should give .* linear",
    ("summaries[test]), quadratic", "summaries[test]), linear"):
        "summaries should give .* quadratic",
    ("fit_and_predict(a, theta[train]", "fit_and_predict(b, theta[test]"):
        "fitted on the training part",
    "table['mean'] = relative_error(theta[train].mean(0), theta[test])": "four rows",
})

# What once was accepted, or got a hint that led astray: numbers of the lesson written
# out, sums of sixteen, functions that change what they are given, results that training
# cannot use, and answers that are right only where a check is too simple.
CHANGES_ITSELF = "changed {} itself, .*copy, .clone"
WRONG[1, 1] |= {
    "maps /= maps.mean((1, 2), keepdim=True); maps -= 1; return maps":
        CHANGES_ITSELF.format("four"),
}
WRONG[1, 2] |= {
    "return (torch.fft.fft2(delta) * box / 64**2).abs() ** 2": "not always 64",
}
WRONG[1, 3] |= {
    "return torch.stack([p[:, ring == m].mean(1) for m in range(1, 33)], 1)":
        "use side, not 64",
}
WRONG[1, 5] |= {
    "return ring_mean(a * b) / (ring_mean(a ** 2) * ring_mean(b ** 2)).sqrt()":
        "rings of the modes, not of the maps",
}
LOOP = ("for i in range(0, 64, 8):;    for j in range(0, 64, 4):;        "
        "{y}[:, i:i+8, j:j+4] = x[:, i:i+8, j:j+4].mean((1, 2), keepdim=True);"
        "return {y}")
WRONG[2, 1] |= {
    LOOP.format(y="x"): CHANGES_ITSELF.format("x"),
    "y = x;" + LOOP.format(y="y"): CHANGES_ITSELF.format("x"),
}
WRONG[2, 2] |= slips(
    "mean = flat.mean(0); "
    "return mean, torch.linalg.svd(flat - mean, full_matrices=False).Vh[:n]|", {
    ("mean(0);", "median(0).values;"): "every map counts in the mean",
    "mean = flat.mean(0); flat -= mean; "
    "return mean, torch.linalg.svd(flat, full_matrices=False).Vh[:n]|":
        "changes the maps themselves",
    "mean = flat.mean(0); U, S, Vh = torch.linalg.svd(flat - mean); "
    "return mean, (S[:, None] * Vh)[:n]|": "length 1: the first rows of Vh",
    "mean = flat.mean(0); return mean, (flat - mean)[:n]|": "length 1: the first rows",
}) | {
    "|return x": "what no direction describes must be lost",
    "|m = x.flatten(1).mean(0); "
    "return (((x.flatten(1) - m) @ directions.mT) @ directions + m).reshape(x.shape)":
        "the mean that is handed in",
    "|flat = x.flatten(1); flat -= mean; "
    "return ((flat @ directions.mT) @ directions + mean).reshape(x.shape)":
        "an original has changed",
}
WRONG[2, 3] |= {
    "return samples.square().mean(), samples.mean(1).square().mean()":
        "measured from the truth",
    "samples -= truth[:, None]; "
    "return samples.square().mean(), samples.mean(1).square().mean()":
        CHANGES_ITSELF.format("samples"),
}
WRONG[2, 4] |= slips(f"return ({SHIFTED} - {FOLLOWS}).abs().max().item()", {
    (f"({SHIFTED} - {FOLLOWS}).abs()", f"({FOLLOWS} - {SHIFTED})"): "absolute value",
    (".abs()", ".square()"): "no square",
    (".max()", ".sum()"): "no sum",
    "a = model.encode(torch.roll(maps, pixels, 1)); "
    "b = torch.roll(model.encode(maps), pixels // 16, 2); "
    "return (a - b).abs().max().item()": "both axes",
})
WRONG[2, 5] |= {
    "return field.sum((2, 3)) / 16": "the mean of ones is one",
    "return field.mean((2, 3))[:, :8]": "one number per channel of another field",
}
STATE = "s = t[:, None]; x = (1 - s) * x0 + s * x1; "
WRONG[3, 1] |= {
    STATE + "return x, (x1 - x0).abs()": "same at all times",
    STATE + "x1 -= x0; return x, x1": "write x = x - ...",
    STATE + "return x.double(), (x1 - x0).double()": "float32",
}
WRONG[3, 2] |= slips(
    f"x0, t = {NOISE}, {TIMES}; x, u = straight_path(x0, x1, t); return {LOSS}", {
    (".mean()", ".mean().item()"): "needs the gradient",
    ("network(x, t)", "network(x, t).detach()"): "needs the gradient",
    (f"return {LOSS}", f"with torch.no_grad():;    return {LOSS}"):
        "needs the gradient",
    ("x0, t =", "generator = torch.Generator().manual_seed(0); x0, t ="): "draw new",
    (TIMES, "torch.linspace(0, 1, len(x1))"): "draw new times",
    (".mean()", ".median()"): "not a median",
    (".square().mean()", ".mean().square()"): "square before you average",
    (LOSS, f"{LOSS} / 2"): "no half",
})
WRONG[3, 3] |= slips(EULER, {
    ("x = x + velocity(x, t) / steps;    path.append(x)",
     "path.append(x);    x = x + velocity(x, t) / steps"): "go the step, then append",
    ("velocity(x, t)", "velocity(x, t).double()"): "float32",
})
WRONG[3, 4] |= {
    "live = torch.ones(len(t), 2); live[t >= dark_from, last:] = 0; return live":
        "with last = 0 channel 1 must stay live",
    "live = torch.ones(len(t), 2).double(); "
    "live[t >= dark_from, last] = 0; return live": "float32",
}
MIXED = "mixed = field_a.clone(); mixed[:, group] {}; return mixed"
WRONG[4, 3] |= {MIXED.format(wrong): "each channel must go to its own place"
                for wrong in ("= field_b[:, group].mean(0)",
                              "= field_b[:, group].flip(1)",
                              "= field_b[:, group].flip(0)",
                              "= field_b[:1, group]",
                              "= field_b[:, :len(group)]")}
WRONG[4, 3] |= {MIXED.format("+= field_b[:, group]"): "must come from the second field"}
WRONG[4, 4] |= {
    "a, b = change[:, :2].mean(1), change[:, 2:].mean(1); return a / (a + b)":
        "use band, not the first rings",
    "a, b = change[:, band].mean(1), change[:, ~band].mean(1); return a > b":
        "same change everywhere gives 1/2",
}
WRONG[5, 1] |= slips(
    "in_test = torch.isin(simulation, test_sims); "
    "test = in_test.nonzero()[:, 0]; return (~in_test).nonzero()[:, 0], test", {
    ("], test", "], test[torch.randperm(len(test))]"): "stand in a row",
    ("], test", "], test.reshape(-1, 15).T.flatten()"): "stand in a row",
    ("], test", "], test.float()"): "whole numbers",
})
WRONG[5, 2] |= {
    "x_train -= x_train.mean(0); x_train /= x_train.std(0); "
    "x_test -= x_train.mean(0); x_test /= x_train.std(0); return x_train, x_test":
        "training part's mean and standard deviation",
}
WRONG[5, 3] |= {
    "return terms(x_test) @ np.linalg.lstsq(terms(x_train), y_train)[0]":
        "is np spelt right, and defined or imported",
}
WRONG[5, 4] |= slips(
    f"e = ((predicted - true).abs() / true){PER_SIMULATION}; "
    "return e.mean(0), e.std(0) / len(e) ** 0.5", {
    (".mean(1)", ".median(1).values"): "no median",
    (PER_SIMULATION, f".square(){PER_SIMULATION}.sqrt()"): "no squares",
    ("/ true)", "/ true.mean(0))"): "map by map",
    ("e = ((predicted - true).abs()", "predicted -= true; e = (predicted.abs()"):
        "changes predicted itself",
})
ROWS = next(iter(wrong for wrong in WRONG[5, 5] if "theta[test].mean" in wrong))
WRONG[5, 5] |= slips(ROWS, {
    ("theta[test].mean", "theta.mean"): "nothing of the test part",
    ("theta[test].mean(0)", "theta[train].median(0).values"): "mean parameters",
})


def globals_of(source):
    "The names that a cell makes, and those that it uses, inside functions too."
    tables = [symtable.symtable(source, "cell", "exec")]
    made = {s.get_name() for s in tables[0].get_symbols()
            if s.is_assigned() or s.is_imported()}
    used = set()
    while tables:
        table = tables.pop()
        used |= {s.get_name() for s in table.get_symbols()
                 if s.is_global() or table.get_type() == "module"}
        tables += table.get_children()
    return made, used


def code_cells(path):
    "Name (that nbgrader knows, or none) and source of each code cell of a notebook."
    notebook = json.loads(path.read_text(encoding="utf-8"))
    code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    names = [cell["metadata"].get("nbgrader", {}).get("grade_id", "") for cell in code]
    return [(name, "".join(cell["source"])) for name, cell in zip(names, code)]


def cells(lesson):
    "Exercises and checks of a lesson, and the cells that define what these use."
    needed, chosen = set(), []
    for name, source in reversed(code_cells(LESSONS[lesson])):
        if "find_spec" in source: continue
        made, used = globals_of(source)
        if not (name or made & needed or "import" in source): continue
        needed |= used - made
        chosen.insert(0, (name, source))
    return chosen


def run(source, names, where):
    linecache.cache[where] = len(source), None, source.splitlines(keepends=True), where
    exec(compile(source, where, "exec"), names)


def answer(source, wrong):
    "The exercise's cell with this answer in place of the solution."
    several = source.count("BEGIN SOLUTION") > 1
    parts = iter(wrong.split("|") if several else [wrong])

    def put(found):
        lines = [line.removeprefix(" ") for line in next(parts).split(";")]
        if several and not any(lines): return found[0]
        return "\n".join(found[1] + line for line in lines)
    return SOLUTION.sub(put, source)


def refusal(names, exercise, check):
    "What a student reads who runs these two cells; an answer may change its input."
    names = {name: value.clone() if torch.is_tensor(value) else value
             for name, value in names.items()}
    run(exercise, names, "exercise")
    try: run(check, names, "check")
    except Unfinished as error: return str(error)
    return None


def worded(result, change):
    "A result with every tensor in it changed."
    if isinstance(result, dict):
        return {k: worded(v, change) for k, v in result.items()}
    if isinstance(result, tuple): return tuple(worded(v, change) for v in result)
    return change(torch.as_tensor(result))


# What no check may answer in torch's words: nothing, NumPy's array, another shape.
KINDS = {
    "nothing": (lambda result: None,
                "nothing back|2 results.*found NoneType|gives back the dictionary"),
    "NumPy": (lambda result: worded(result, lambda x: x.detach().numpy()), "NumPy"),
    "shape": (lambda result: worded(result, lambda x: x[None]), "found shape"),
}


def through(name, exercise):
    "An exercise that passes what its last function gives back through another one."
    *_, function = [node.name for node in ast.parse(exercise).body
                    if isinstance(node, ast.FunctionDef)]
    return (f"{exercise}\n_f = {function}\n"
            f"def {function}(*args): return {name}(_f(*args))")


@pytest.mark.parametrize("lesson", LESSONS)
def test_wrong_answers_get_the_hint_that_names_the_mistake(lesson):
    matplotlib.use("agg")
    names, trouble, tried = {"__name__": "__main__"}, [], 0
    stubs = dict(code_cells(WORKSHOP / "_students" / LESSONS[lesson].name))

    def expect(words, name, what, *cells):
        said = refusal(*cells)
        if not said or not re.search(words, said, re.S | re.M):
            trouble.append(f"{name}: {what}\n  wanted: {words}\n  said: {said}")

    for name, source in cells(lesson):
        if name.startswith("exercise"): exercise = source
        if not name.startswith("check"):
            run(source, names, name or "provided")
            continue
        number = int(name.removeprefix("check-"))
        for wrong, words in WRONG[lesson, number].items():
            expect(words, name, wrong, names, answer(exercise, wrong), source)
            tried += 1
        changed = through("_change", exercise)
        for kind, (change, words) in KINDS.items():
            expect(words, name, kind, names | {"_change": change}, changed, source)
            tried += 1
        ours = stubs[f"exercise-{number}"]
        nbgraders = SOLUTION.sub(r"\1raise NotImplementedError()", exercise)
        not_started = re.escape(str(names["lesson"].not_started(number)))
        for stub in (ours, nbgraders):
            expect(rf"\A{not_started}\Z", name, stub, names, stub, source)
        run(f"lesson.catch_up({number})", names, "caught up")
        run(source, names, name)
    assert not trouble, "\n\n".join(trouble)
    assert tried > 25
