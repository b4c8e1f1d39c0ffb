"""Wrong answers that students really give: the check of every exercise refuses each of them, with the words that name the mistake."""
import ast
import json
import linecache
import re
import symtable

import matplotlib
import numpy as np
import pytest
import torch
from conftest import ROOT
from cosmoflow.lessons import Unfinished

LESSONS = {int(p.name[:2]): p for p in sorted((ROOT / "nbs/workshop").glob("[0-9]*.ipynb"))}
SOLUTION = re.compile(r"^([ \t]*)### BEGIN SOLUTION\n.*?^[ \t]*### END SOLUTION", re.S | re.M)

# Lesson -> exercise -> what stands in place of the solution, and words of the hint that it must get.
# Lines of one answer are separated by ";"; where an exercise has two functions, their answers by "|".
WRONG = {
    1: {1: {"return maps / maps.mean() - 1": "own mean",
            "return maps / maps.mean((1, 2)) - 1": "hint: .*keepdim",
            "return maps / maps.mean((1, 2), keepdim=True)": "subtract 1",
            "return maps - maps.mean((1, 2), keepdim=True)": "divide by the mean",
            "m = maps.mean((1, 2), keepdim=True); return 1 - maps / m": "sign",
            "return maps / maps.mean(1, keepdim=True) - 1": "not one of each row or column",
            "return maps / maps.mean(2, keepdim=True) - 1": "not one of each row or column",
            "m = maps.mean((1, 2), keepdim=True); return (maps - m) / maps.std((1, 2), keepdim=True)": "not by the standard deviation",
            "return maps.mean((1, 2))": "one contrast per pixel"},
        2: {"return torch.fft.fft2(delta).abs() ** 2": "factor L / N.2 is missing",
            "n = delta.shape[-1]; return torch.fft.fft2(delta).abs() ** 2 * box / n**2": "inside the square",
            "n = delta.shape[-1]; return (torch.fft.fft2(delta) * box / n).abs() ** 2": "by N.2, not by N",
            "n = delta.shape[-1]; return (torch.fft.fft2(delta) / n**2).abs() ** 2": "not 1 / N.2",
            "n = delta.shape[-1]; return (torch.fft.fft2(delta) * box / n**2) ** 2": "complex",
            "n = delta.shape[-1]; return (torch.fft.fft2(delta) * box / n**2).real ** 2": "area of a pixel",
            "n = delta.shape[-1]; return (torch.fft.fft2(delta) * box / n**2).abs()": r"\|L / N\^2",
            "n = delta.shape[0]; return (torch.fft.fft2(delta) * box / n**2).abs() ** 2": "number of pixels on a side",
            "n = delta.shape[-1]; return (torch.fft.fft(delta) * box / n**2).abs() ** 2": "fft2",
            "n = delta.shape[-1]; return (torch.fft.rfft2(delta) * box / n**2).abs() ** 2": r"shape \(200, 64, 64\)",
            "n = delta.shape[-1]; return (torch.fft.fft2(delta) * 25 / n**2).abs() ** 2": "use box"},
        3: {"return torch.stack([p[:, ring == m].sum(1) for m in range(1, side // 2 + 1)], 1)": "not a sum",
            "return torch.stack([p[:, ring == m].mean(1) for m in range(side // 2)], 1)": "start with ring 1",
            "return torch.stack([p[:, ring == m].mean(1) for m in range(1, side // 2)], 1)": "rings 1 to 32",
            "return torch.stack([p[:, ring == m].mean(1) for m in range(1, side // 2 + 1)])": "rings 1 to 32 of each map",
            "return torch.stack([p[:, ring == m].mean() for m in range(1, side // 2 + 1)])": "rings 1 to 32 of each map",
            "return torch.stack([p[:, ring == m].mean(0) for m in range(1, side // 2 + 1)])": r"hint: .*p\[:, ring == m\]",
            "return torch.stack([p[ring == m].mean(1) for m in range(1, side // 2 + 1)], 1)": r"hint: .*p\[:, ring == m\]",
            "return torch.stack([p[:, ring <= m].mean(1) for m in range(1, side // 2 + 1)], 1)": "ring == m"},
        4: {"mixed = modes": "nothing has moved",
            "mixed = modes.abs() * noise_modes": "keep its power",
            "mixed = noise_modes.abs() * modes / modes.abs()": "keep its power",
            "mixed = modes.abs() * torch.exp(2j * torch.pi * torch.rand(modes.shape))": "keep its power",
            "mixed = modes * noise_modes / noise_modes.abs()": "do not add",
            "other = torch.fft.fft2(torch.randn(delta.shape)); mixed = modes.abs() * other / other.abs()": "must be those of noise_modes",
            "answer = modes": "hint: .*called mixed"},
        5: {"return ring_mean((modes_a * modes_b.conj()).real)": "root of the product",
            "return ring_mean((modes_a * modes_b.conj()).real) / (ring_mean(modes_a.abs() ** 2) * ring_mean(modes_b.abs() ** 2))": "root of the product",
            "return ring_mean((modes_a * modes_b.conj()).real) / ring_mean(modes_a.abs() ** 2)": "both powers",
            "return ring_mean((modes_a * modes_b).real) / (ring_mean(modes_a.abs() ** 2) * ring_mean(modes_b.abs() ** 2)).sqrt()": "conjugated",
            "return ring_mean((modes_a * modes_b.conj()).abs()) / (ring_mean(modes_a.abs() ** 2) * ring_mean(modes_b.abs() ** 2)).sqrt()": "not the absolute value",
            "return ring_mean(modes_a * modes_b.conj()) / (ring_mean(modes_a.abs() ** 2) * ring_mean(modes_b.abs() ** 2)).sqrt()": "real",
            "return ring_mean((modes_a * modes_b.conj()).real / (modes_a.abs() * modes_b.abs()))": "ring means first"}},
    2: {1: {"means = x.reshape(len(x), 16, 4, 8, 8).mean((2, 4)); return means.repeat_interleave(4, 1).repeat_interleave(8, 2)": "yours is 4 and 8",
            "return x.reshape(len(x), 8, 8, 16, 4).mean((2, 4))": "spread over its block",
            "return x.reshape(len(x), 8, 8, 16, 4).mean((2, 4)).repeat(1, 8, 4)": "repeat_interleave, not repeat|8 pixels high",
            "return x.reshape(len(x), 8, 8, 16, 4).amax((2, 4)).repeat_interleave(8, 1).repeat_interleave(4, 2)": "the mean of each block",
            "return x.reshape(len(x), 8, 8, 16, 4).sum((2, 4)).repeat_interleave(8, 1).repeat_interleave(4, 2)": "the mean of each block",
            "return x.reshape(len(x), 8, 8, 16, 4).mean((1, 3)).repeat_interleave(8, 1).repeat_interleave(4, 2)": "spread over its block",
            "return x.reshape(8, 8, 16, 4).mean((1, 3))": "hint: .*8 rows of blocks",
            "return x": "at most 128 values"},
        2: {"mean = flat.mean(0); return mean, torch.linalg.svd(flat, full_matrices=False).Vh[:n]|": "subtract the mean before svd",
            "mean = flat.mean(0); return mean, torch.linalg.svd(flat - mean, full_matrices=False).Vh[-n:]|": "strongest",
            "mean = flat.mean(0); return mean, torch.linalg.svd(flat - mean, full_matrices=False).Vh[:, :n]|": "directions as rows",
            "mean = flat.mean(0); return mean, torch.linalg.svd(flat - mean, full_matrices=False).U[:, :n]|": "directions as rows",
            "mean = flat.mean(); return mean, torch.linalg.svd(flat - mean, full_matrices=False).Vh[:n]|": r"one mean per pixel",
            "mean = flat.mean(1); return mean, torch.linalg.svd(flat - mean, full_matrices=False).Vh[:n]|": "hint: .*mean",
            "return torch.linalg.svd(flat - flat.mean(0), full_matrices=False).Vh[:n]|": "2 results",
            "|return (((x.flatten(1) - mean) @ directions.mT) @ directions).reshape(x.shape)": "add the mean at the end",
            "|return ((x.flatten(1) @ directions.mT) @ directions + mean).reshape(x.shape)": "before you project",
            "|return (x.flatten(1) - mean) @ directions.mT": "maps again",
            "|return ((x.flatten(1) - mean) @ directions.mT) @ directions + mean": "maps again",
            "|return ((x.flatten(1) - mean) @ directions).reshape(x.shape)": "hint: .*columns",
            "|return ((x - mean) @ directions.mT).reshape(x.shape)": "hint: .*flat"},
        3: {"return (samples.mean(1) - truth).square().mean(), (samples - truth[:, None]).square().mean()": "the order is",
            "single = (samples.mean(1) - truth).square().mean(); return single, single": "square before you average",
            "single = (samples - truth[:, None]).square().mean(); return single, single": "average the samples, then square",
            "return (samples - truth[:, None]).mean().square(), (samples.mean(1) - truth).mean().square()": "square before you average",
            "return (samples - truth[:, None]).square().sum(), (samples.mean(1) - truth).square().sum()": "not sums",
            "return (samples - truth[:, None]).square().mean().sqrt(), (samples.mean(1) - truth).square().mean().sqrt()": "no root",
            "return (samples - truth).square().mean(), (samples.mean(1) - truth).square().mean()": r"hint: .*truth\[:, None\]",
            "return (samples - truth[:, None]).square().mean(), (samples.mean(0) - truth).square().mean()": r"hint: .*\(n, s, H, W\)",
            "return (samples - truth[:, None]).square().mean()": "two numbers"},
        4: {"return (model.encode(torch.roll(maps, (pixels, pixels), (1, 2))) - model.encode(maps)).abs().max().item()": "move the same way",
            "return (model.encode(torch.roll(maps, (pixels, pixels), (1, 2))) - torch.roll(model.encode(maps), (pixels, pixels), (2, 3))).abs().max().item()": "pixels // 16",
            "return (model.encode(torch.roll(maps, (pixels, pixels), (1, 2))) - torch.roll(model.encode(maps), (pixels // 16, pixels // 16), (0, 1))).abs().max().item()": "last two dimensions",
            "return (model.encode(torch.roll(maps, (-pixels, -pixels), (1, 2))) - torch.roll(model.encode(maps), (pixels // 16, pixels // 16), (2, 3))).abs().max().item()": "the same way",
            "return (model.encode(torch.roll(maps, (pixels, pixels), (1, 2))) - torch.roll(model.encode(maps), (pixels // 16, pixels // 16), (2, 3))).abs().mean().item()": "no mean",
            "return (model.encode(torch.roll(maps, (pixels, pixels), (1, 2))) - torch.roll(model.encode(maps), (pixels // 16, pixels // 16), (2, 3))).max().item()": "absolute value",
            "return (model.encode(maps) - model.encode(maps)).abs().max().item()": "shift the maps",
            "return (torch.roll(maps, (pixels, pixels), (1, 2)) - torch.roll(model.encode(maps), (pixels // 16, pixels // 16), (2, 3))).abs().max().item()": "hint: .*maps are"},
        5: {"return field.mean(1)": "eight numbers per map",
            "return field.mean((0, 2, 3))": "eight numbers per map",
            "return field.flatten(1)": "eight numbers per map",
            "return field.sum((2, 3))": "not a sum",
            "return field.amax((2, 3))": "mean over all places",
            "return field[:, :, 0, 0]": "mean over all places",
            "return field.mean((3, 4))": "hint: .*dimensions 2 and 3"}},
    3: {1: {"s = t[:, None]; return s * x0 + (1 - s) * x1, x1 - x0": "at t = 0",
            "s = t[:, None]; return (1 - s) * x0 + s * x1, x0 - x1": "points back",
            "s = t[:, None]; return (1 - s) * x0 + s * x1, s * (x1 - x0)": "same at all times",
            "s = t[:, None]; return (1 - s) * x0 + s * x1, x1": "not x1",
            "s = t[:, None]; return x0 + s * s * (x1 - x0), x1 - x0": "a quarter of the way",
            "s = t[:, None]; return x0 + s * x1 * 2, x1 - x0": "at t = 1",
            "return (1 - t) * x0 + t * x1, x1 - x0": r"hint: .*t\[:, None\]",
            "s = t[:, None]; return (1 - s) * x0 + s * x1": "2 results"},
        2: {"x0, t = torch.randn(x1.shape, generator=generator), torch.full((len(x1),), 0.5); x, u = straight_path(x0, x1, t); return (network(x, t) - u).square().mean()": "same time",
            "x0, t = torch.randn(x1.shape, generator=generator), torch.rand(1, generator=generator).expand(len(x1)); x, u = straight_path(x0, x1, t); return (network(x, t) - u).square().mean()": "same time",
            "x0, t = torch.randn(x1.shape, generator=generator), torch.rand(1, generator=generator); x, u = straight_path(x0, x1, t); return (network(x, t) - u).square().mean()": "a time for each point",
            "x0, t = torch.randn(x1.shape, generator=generator), torch.randn(len(x1), generator=generator); x, u = straight_path(x0, x1, t); return (network(x, t) - u).square().mean()": "not torch.randn",
            "x0, t = torch.randn(x1.shape, generator=generator), torch.randn(len(x1), generator=generator).sigmoid(); x, u = straight_path(x0, x1, t); return (network(x, t) - u).square().mean()": "uniform",
            "x0, t = torch.rand(x1.shape, generator=generator), torch.rand(len(x1), generator=generator); x, u = straight_path(x0, x1, t); return (network(x, t) - u).square().mean()": "standard normal",
            "x0, t = torch.zeros_like(x1), torch.rand(len(x1), generator=generator); x, u = straight_path(x0, x1, t); return (network(x, t) - u).square().mean()": "same noise",
            "x0, t = torch.randn(2, generator=generator).expand(x1.shape), torch.rand(len(x1), generator=generator); x, u = straight_path(x0, x1, t); return (network(x, t) - u).square().mean()": "same noise",
            "x0, t = torch.randn(len(x1), 1, generator=generator).expand(x1.shape), torch.rand(len(x1), generator=generator); x, u = straight_path(x0, x1, t); return (network(x, t) - u).square().mean()": "both components",
            "x0, t = torch.randn(x1.shape), torch.rand(len(x1)); x, u = straight_path(x0, x1, t); return (network(x, t) - u).square().mean()": "hand generator",
            "x0, t = torch.randn(x1.shape, generator=generator), torch.rand(len(x1), generator=generator); x, u = straight_path(x0, x1, t); return (network(x, t) - x1).square().mean()": "x1 - x0, not x1$",
            "x0, t = torch.randn(x1.shape, generator=generator), torch.rand(len(x1), generator=generator); x, u = straight_path(x0, x1, t); return (network(x, t) - x0).square().mean()": "x1 - x0, not x0",
            "x0, t = torch.randn(x1.shape, generator=generator), torch.rand(len(x1), generator=generator); x, u = straight_path(x0, x1, t); return (network(x, t) - (x1 - x)).square().mean()": "not x1 - x_t",
            "x0, t = torch.randn(x1.shape, generator=generator), torch.rand(len(x1), generator=generator); x, u = straight_path(x0, x1, t); return (network(x, t) + u).square().mean()": "not x0 - x1",
            "x0, t = torch.randn(x1.shape, generator=generator), torch.rand(len(x1), generator=generator); x, u = straight_path(x0, x1, t); return (network(x, t) - u).square().sum(1).mean()": "not their sum",
            "x0, t = torch.randn(x1.shape, generator=generator), torch.rand(len(x1), generator=generator); x, u = straight_path(x0, x1, t); return (network(x, t) - u).square().sum()": "not a sum",
            "x0, t = torch.randn(x1.shape, generator=generator), torch.rand(len(x1), generator=generator); x, u = straight_path(x0, x1, t); return (network(x, t) - u).abs().mean()": "not its absolute value",
            "x0, t = torch.randn(x1.shape, generator=generator), torch.rand(len(x1), generator=generator); x, u = straight_path(x0, x1, t); return (network(x, t) - u).square().mean().sqrt()": "no root",
            "x0, t = torch.randn(x1.shape, generator=generator), torch.rand(len(x1), generator=generator); x, u = straight_path(x0, x1, t); return (network(x, t) - u).square()": "one number",
            "x0, t = torch.randn(x1.shape, generator=generator), torch.rand(len(x1), generator=generator); x, u = straight_path(x0, x1, t); return (network(x1, t) - u).square().mean()": "x1 itself",
            "x0, t = torch.randn(x1.shape, generator=generator), torch.rand(len(x1), generator=generator); x, u = straight_path(x0, x1, t); return (network(x0, t) - u).square().mean()": "is it noise",
            "x0, t = torch.randn(x1.shape, generator=generator), torch.rand(len(x1), generator=generator); x, u = straight_path(x1, x0, t); return (network(x, t) - u).square().mean()": "the path at 1 - t",
            "x0, t = torch.randn(x1.shape, generator=generator), torch.rand(len(x1), generator=generator); x, u = straight_path(x0, x1, t); return (network(x, torch.rand(len(x1), generator=generator)) - u).square().mean()": "near t = 1|one draw of t",
            "x0, t = torch.randn(len(x1), generator=generator), torch.rand(len(x1), generator=generator); x, u = straight_path(x0, x1, t); return (network(x, t) - u).square().mean()": r"hint: .*noise are \(n, 2\)"},
        3: {"for i in range(steps):;    t = torch.full((len(x),), i / steps);    x = x + velocity(x, t);    path.append(x)": "1 / steps",
            "for i in range(steps):;    t = torch.full((len(x),), (i + 1) / steps);    x = x + velocity(x, t) / steps;    path.append(x)": "begin at the times",
            "for i in range(steps):;    t = torch.full((len(x),), float(i));    x = x + velocity(x, t) / steps;    path.append(x)": "begin at the times",
            "for s in torch.linspace(0, 1, steps):;    x = x + velocity(x, s.expand(len(x))) / steps;    path.append(x)": "begin at the times",
            "for i in range(steps):;    x = x + velocity(x, i / steps) / steps;    path.append(x)": "a time for each point",
            "for i in range(steps):;    x = x + velocity(x, torch.tensor(i / steps)) / steps;    path.append(x)": "a time for each point",
            "for i in range(steps):;    t = torch.full((len(x),), i / steps);    x = x - velocity(x, t) / steps;    path.append(x)": "backwards",
            "for i in range(steps):;    t = torch.full((len(x),), i / steps);    x += velocity(x, t) / steps;    path.append(x)": r"x \+= \.\.\.",
            "for i in range(steps):;    t = torch.full((len(x),), i / steps);    x = x + velocity(x, t) / steps": "the states after 4 steps",
            "for i in range(steps):;    t = torch.full((len(x),), i / steps);    path.append(x + velocity(x, t) / steps)": "moves by 1",
            "for i in range(steps):;    t = torch.full((len(x),), i / steps);    x = x + velocity(path[0], t) / steps;    path.append(x)": "velocity at the present x"},
        4: {"live = torch.ones(len(t), 2); live[:, last] = (t <= dark_from).float(); return live": "t < dark_from",
            "live = torch.ones(len(t), 2); live[:, last] = (t > dark_from).float(); return live": "yours is|dark when it should",
            "live = torch.ones(len(t), 2); live[:, last] = (t >= dark_from).float(); return live": "dark when it should be live",
            "return (t < dark_from).float()[:, None].expand(-1, 2)": "alone",
            "live = torch.ones(len(t), 2); live[:, 1] = (t < dark_from).float(); return live": "use last",
            "live = torch.ones(len(t), 2); live[:, last] = (t < 0.5).float(); return live": "not always at 0.5",
            "live = torch.ones(2, len(t)); live[last] = (t < dark_from).float(); return live": "one row per point",
            "live = torch.ones(len(t), 2); live[last] = (t < dark_from).float(); return live": "hint: .*live"},
        5: {"t = torch.full((len(x),), i / steps); x = x + velocity(x, t) / steps": "yours only halves",
            "t, h = torch.full((len(x),), i / steps), 1 / steps; half = x + h / 2 * velocity(x, t); x = x + h * velocity(half, t)": "second velocity at t",
            "t, h = torch.full((len(x),), i / steps), 1 / steps; half = x + h * velocity(x, t); x = x + h * velocity(half, t + h / 2)": "half a step first",
            "t, h = torch.full((len(x),), i / steps), 1 / steps; half = x + h / 2 * velocity(x, t); x = half + h * velocity(half, t + h / 2)": "starts at x",
            "t, h = torch.full((len(x),), i / steps), 1 / steps; half = x + h / 2 * velocity(x, t); x = x + velocity(half, t + h / 2)": "lasts 1 / steps",
            "t, h = torch.full((len(x),), i / steps), 1 / steps; half = x + h / 2 * velocity(x, t); x = x - h * velocity(half, t + h / 2)": "off by"}},
    4: {1: {"live = (channels - (channels * t).floor()).clamp_min(1); return (torch.arange(channels) >= channels - live[:, None]).float()": "wrong end",
            "live = channels - (channels * t).floor(); return (torch.arange(channels) < live[:, None]).float()": "stays to the end",
            "live = (channels - (channels * t).ceil()).clamp_min(1); return (torch.arange(channels) < live[:, None]).float()": "rounded down",
            "live = (channels - (channels * t).floor()).clamp_min(1); return (torch.arange(channels) < live).float()": r"hint: .*live\[:, None\]",
            "live = (channels - (channels * t).floor()).clamp_min(1); return (torch.arange(channels)[:, None] < live).float()": "one row per time",
            "live = (channels - (channels * t).floor()).clamp_min(1); return (torch.arange(channels) <= live[:, None]).float()": "no other|half of them",
            "live = (channels - (channels * t).floor()).clamp_min(1); return (torch.arange(channels) >= live[:, None]).float()": r"live \(1\)",
            "live = (8 - (8 * t).floor()).clamp_min(1); return (torch.arange(channels) < live[:, None]).float()": "use channels"},
        2: {"return torch.stack([times[(column >= 0.9).nonzero()[0, 0]] for column in r.T])": "not the first above",
            "return torch.stack([times[torch.cat([torch.tensor([0]), (column < 0.9).nonzero()[:, 0]]).max()] for column in r.T])": "one step on",
            "return torch.stack([torch.cat([torch.tensor([-1]), (column < 0.9).nonzero()[:, 0]]).max() + 1 for column in r.T]).float()": "number of the step",
            "return torch.stack([times[(column < 0.9).nonzero()[:, 0].max() + 1] for column in r.T])": "stops with",
            "return torch.stack([times[torch.cat([torch.tensor([0]), (column < 0.9).nonzero()[:, 0]]).max() + 1] for column in r.T])": "third ring",
            "return torch.stack([times[torch.cat([torch.tensor([-1]), (row < 0.9).nonzero()[:, 0]]).max() + 1] for row in r])": "one time per ring"},
        3: {"field_a[:, group] = field_b[:, group]; return field_a": "original has changed",
            "mixed = field_a; mixed[:, group] = field_b[:, group]; return mixed": "original has changed",
            "mixed = field_b.clone(); mixed[:, group] = field_a[:, group]; return mixed": "other way round",
            "mixed = field_a.clone(); mixed[group] = field_b[group]; return mixed": "maps 0 and 3",
            "return field_b[:, group]": "whole field",
            "return field_a.clone()": "must come from the second field",
            "mixed = field_a.clone(); mixed[:, :4] = field_b[:, :4]; return mixed": "must stay as in the first",
            "mixed = field_a.clone(); mixed[:, group] = field_b; return mixed": "hint: .*channels are dimension 1"},
        4: {"inside, outside = change[:, band].sum(1), change[:, ~band].sum(1); return inside / (inside + outside)": "not sums",
            "inside, outside = change[:, band].mean(1), change[:, ~band].mean(1); return inside / outside": "sum of both",
            "inside, outside = change[:, band].mean(1), change[:, ~band].mean(1); return outside / (inside + outside)": "exchanged",
            "return change[:, band].mean(1) / change.mean(1)": "sum of both",
            "inside, outside = change[:, band].mean(), change[:, ~band].mean(); return inside / (inside + outside)": "one share per map",
            "inside, outside = change[:, band].mean(), change[:, ~band].mean(); return (inside / (inside + outside)).expand(len(change))": "one share for each map",
            "inside, outside = change[:, band].mean(0), change[:, ~band].mean(0); return inside.mean() / (inside.mean() + outside)": "one share per map",
            "inside, outside = change[band].mean(1), change[~band].mean(1); return inside / (inside + outside)": r"hint: .*change\[:, band\]"},
        5: {"mixed = torch.where(is_coarse == coarse, a, b)": "other way round",
            "mixed = torch.where(is_coarse, b, a)": "use coarse",
            "mixed = a": "nothing was exchanged",
            "mixed = b": "must stay those of the first",
            "answer = torch.where(is_coarse == coarse, b, a)": "hint: .*called mixed"}},
    5: {1: {"in_test = torch.isin(simulation, test_sims); return in_test.nonzero()[:, 0], (~in_test).nonzero()[:, 0]": "first the training part",
            "in_test = torch.isin(simulation, test_sims); return ~in_test, in_test": "numbers of maps",
            "in_test = torch.isin(torch.arange(n_sims), test_sims); return (~in_test).nonzero()[:, 0], in_test.nonzero()[:, 0]": "numbers of maps",
            "in_test = torch.isin(torch.arange(15 * n_sims), test_sims); return (~in_test).nonzero()[:, 0], in_test.nonzero()[:, 0]": "3 simulations of 15",
            "n = 15 * len(test_sims); order = torch.randperm(15 * n_sims); return order[n:], order[:n]": "made of the simulations 1 and 3",
            "n = 15 * len(test_sims); maps = torch.arange(15 * n_sims); return maps[:-n], maps[-n:]": "made of the simulations 1 and 3",
            "in_test = torch.isin(simulation, test_sims); return torch.arange(45), in_test.nonzero()[:, 0]": "in both parts",
            "in_test = torch.isin(simulation, test_sims); return (~in_test).nonzero(), in_test.nonzero()": r"found shape \(45, 1\)"},
        2: {"return (x_train - x_train.mean(0)) / x_train.std(0), (x_test - x_test.mean(0)) / x_test.std(0)": "its own mean",
            "both = torch.cat([x_train, x_test]); return (x_train - both.mean(0)) / both.std(0), (x_test - both.mean(0)) / both.std(0)": "its own mean",
            "return (x_train - x_train.mean()) / x_train.std(), (x_test - x_train.mean()) / x_train.std()": "every column",
            "return x_train - x_train.mean(0), x_test - x_train.mean(0)": "standard deviation 1",
            "return (x_train - x_train.mean(0)) / x_train.var(0), (x_test - x_train.mean(0)) / x_train.var(0)": "standard deviation 1",
            "return (x_train - x_train.mean(0)) / x_train.std(0), x_test": "training part's mean and standard deviation",
            "return (x_train - x_train.mean(1)) / x_train.std(1), (x_test - x_train.mean(1)) / x_train.std(1)": "hint: .*one mean per column",
            "return (x_train - x_train.mean(0)) / x_train.std(0)": "both parts"},
        3: {"return x_test @ torch.linalg.lstsq(x_train, y_train).solution": "use terms",
            "return terms(x_test) @ torch.linalg.lstsq(x_train, y_train).solution": "hint: .*terms",
            "return quadratic(x_test) @ torch.linalg.lstsq(quadratic(x_train), y_train).solution": "terms that are handed in",
            "return terms(x_train) @ torch.linalg.lstsq(terms(x_train), y_train).solution": "100 test maps",
            "return terms(x_test) @ torch.linalg.lstsq(terms(x_train), y_train)": "hint: .*solution",
            "return torch.linalg.lstsq(terms(x_train), y_train).solution": "two parameters for each",
            "return terms(x_test) @ torch.linalg.lstsq(y_train, terms(x_train)).solution": "hint: .*lstsq"},
        4: {"e = (predicted - true).abs() / true; return e.mean(0), e.std(0) / len(e) ** 0.5": "four simulations, not sixty",
            "e = ((predicted - true) / true).reshape(-1, 15, true.shape[1]).mean(1); return e.mean(0), e.std(0) / len(e) ** 0.5": "cancel",
            "e = (predicted - true).abs().reshape(-1, 15, true.shape[1]).mean(1); return e.mean(0), e.std(0) / len(e) ** 0.5": "relative",
            "e = ((predicted - true).abs() / predicted).reshape(-1, 15, true.shape[1]).mean(1); return e.mean(0), e.std(0) / len(e) ** 0.5": "divide by the true value",
            "e = ((predicted - true).abs() / true).reshape(-1, 15, true.shape[1]).mean(1); return e.mean(0), e.std(0)": "root of four",
            "e = ((predicted - true).abs() / true).reshape(-1, 15, true.shape[1]).mean(1); return e.mean(0), e.std(0) / len(true) ** 0.5": "average each simulation first|root of four is",
            "e = ((predicted - true).abs() / true).reshape(15, -1, true.shape[1]).mean(1); return e.mean(0), e.std(0) / len(e) ** 0.5": "average each simulation first",
            "e = ((predicted - true).abs() / true).reshape(-1, 15, true.shape[1]).mean((1, 2)); return e.mean(0), e.std(0) / len(e) ** 0.5": "for each parameter",
            "e = ((predicted - true).abs() / true).reshape(-1, 15, true.shape[1]).mean(1); return e.mean(0)": "a mean and a standard error"},
        5: {"": "four rows",
            "table['mean'] = relative_error(theta[test].mean(0).expand_as(theta[test]), theta[test]); F = {'weak spectrum': (*reduce(spectra[train], spectra[test]), quadratic), 'spectrum': (*scale(spectra[train], spectra[test]), linear), 'summaries': (*scale(summaries[train], summaries[test]), quadratic)}; table |= {k: relative_error(fit_and_predict(a, theta[train], b, t), theta[test]) for k, (a, b, t) in F.items()}": "mean should give .* training part",
            "table['mean'] = relative_error(theta[train].mean(0).expand_as(theta[test]), theta[test]); F = {'weak spectrum': (*reduce(spectra[train], spectra[test]), quadratic), 'spectrum': (*scale(spectra[train], spectra[test]), quadratic), 'summaries': (*scale(summaries[train], summaries[test]), quadratic)}; table |= {k: relative_error(fit_and_predict(a, theta[train], b, t), theta[test]) for k, (a, b, t) in F.items()}": "spectrum should give .* linear",
            "table['mean'] = relative_error(theta[train].mean(0).expand_as(theta[test]), theta[test]); F = {'weak spectrum': (*reduce(spectra[train], spectra[test]), quadratic), 'spectrum': (*scale(spectra[train], spectra[test]), linear), 'summaries': (*scale(summaries[train], summaries[test]), linear)}; table |= {k: relative_error(fit_and_predict(a, theta[train], b, t), theta[test]) for k, (a, b, t) in F.items()}": "summaries should give .* quadratic",
            "table['mean'] = relative_error(theta[train].mean(0).expand_as(theta[test]), theta[test]); F = {'weak spectrum': (*reduce(spectra[train], spectra[test]), quadratic), 'spectrum': (*scale(spectra[train], spectra[test]), linear), 'summaries': (*scale(summaries[train], summaries[test]), quadratic)}; table |= {k: relative_error(fit_and_predict(b, theta[test], b, t), theta[test]) for k, (a, b, t) in F.items()}": "fitted on the training part",
            "table['mean'] = relative_error(theta[train].mean(0), theta[test])": "four rows"}},
}


def globals_of(source):
    "The names that a cell makes, and those that it uses, inside functions too."
    tables = [symtable.symtable(source, "cell", "exec")]
    made = {s.get_name() for s in tables[0].get_symbols() if s.is_assigned() or s.is_imported()}
    used = set()
    while tables:
        table = tables.pop()
        used |= {s.get_name() for s in table.get_symbols() if s.is_global() or table.get_type() == "module"}
        tables += table.get_children()
    return made, used


def cells(lesson):
    "The code cells of a lesson: exercises, checks, and of the others those that define what these use."
    code = [c for c in json.loads(LESSONS[lesson].read_text(encoding="utf-8"))["cells"] if c["cell_type"] == "code"]
    code = [(c["metadata"].get("nbgrader", {}).get("grade_id", ""), "".join(c["source"])) for c in code if "find_spec" not in "".join(c["source"])]
    needed, chosen = set(), []
    for name, source in reversed(code):
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
    parts = iter(wrong.split("|")) if source.count("BEGIN SOLUTION") > 1 else iter([wrong])

    def put(found):
        lines = [line.removeprefix(" ") for line in next(parts).split(";")]
        return "\n".join(found[1] + line for line in lines) if any(lines) or source.count("BEGIN") == 1 else found[0]
    return SOLUTION.sub(put, source)


def refusal(names, exercise, check):
    "What a student reads who runs these two cells."
    names = dict(names)
    run(exercise, names, "exercise")
    try: run(check, names, "check")
    except Unfinished as error: return str(error)
    return None


def worded(result, change):
    "A result with every tensor in it changed."
    if isinstance(result, dict): return {k: worded(v, change) for k, v in result.items()}
    if isinstance(result, tuple): return tuple(worded(v, change) for v in result)
    return change(torch.as_tensor(result))


# What no check may answer in torch's words: nothing, an array of NumPy's, another shape.
KINDS = {"nothing": (lambda result: None, "nothing back|2 results.*found NoneType|gives back the dictionary"),
         "NumPy": (lambda result: worded(result, np.asarray), "NumPy"),
         "shape": (lambda result: worded(result, lambda x: x[None]), "found shape")}


@pytest.mark.parametrize("lesson", LESSONS)
def test_wrong_answers_get_the_hint_that_names_the_mistake(lesson):
    matplotlib.use("agg")
    names, trouble, tried = {"__name__": "__main__"}, [], 0
    stubs = {c["metadata"]["nbgrader"]["grade_id"]: "".join(c["source"]) for c in json.loads((ROOT / "nbs" / "workshop" / "_students" / LESSONS[lesson].name).read_text(encoding="utf-8"))["cells"] if "nbgrader" in c["metadata"]}
    for name, source in cells(lesson):
        if name.startswith("exercise"): exercise = source
        if not name.startswith("check"):
            run(source, names, name or "provided")
            continue
        number = int(name.removeprefix("check-"))
        function = [n.name for n in ast.parse(exercise).body if isinstance(n, ast.FunctionDef)][-1]
        for wrong, words in WRONG[lesson][number].items():
            said = refusal(names, answer(exercise, wrong), source)
            tried += 1
            if not said or not re.search(words, said, re.S | re.M): trouble.append((name, wrong, words, said))
        for kind, (change, words) in KINDS.items():
            wrapped = f"{exercise}\n_f = {function}\ndef {function}(*args): return _change(_f(*args))"
            said = refusal(names | {"_change": change}, wrapped, source)
            tried += 1
            if not said or not re.search(words, said): trouble.append((name, kind, words, said))
        for stub in (stubs[f"exercise-{number}"], SOLUTION.sub(r"\1raise NotImplementedError()", exercise)):  # ours, and nbgrader's
            said = refusal(names, stub, source)
            if said != str(names["lesson"].not_started(number)): trouble.append((name, stub, "not started", said))
        run(f"lesson.catch_up({number})", names, "caught up")
        run(source, names, name)
    assert not trouble, "\n\n".join(f"{n}: {w}\n  wanted: {words}\n  said: {said}" for n, w, words, said in trouble)
    assert tried > 25
