"""Right answers that students really give: each check accepts them all."""

import matplotlib
import pytest
import torch
from test_workshop_answers import (
    LESSONS, answer, cells, code_cells, refusal, run, through, worded)

# (Lesson, exercise) -> what may stand in place of the solution: loops, einsum, other
# functions of torch, other names, float64, plain numbers. Lines are separated by ";",
# and where an exercise has two functions, their answers by "|".
RIGHT = {}

RIGHT[1, 1] = [
    "mean = maps.mean(dim=(-2, -1), keepdim=True); return (maps - mean) / mean",
    "average = maps.mean((1, 2)); return maps / average[:, None, None] - 1",
    "return torch.stack([m / m.mean() - 1 for m in maps])",
    "total = torch.einsum('nij->n', maps); return maps / total.view(-1, 1, 1) * "
    "maps[0].numel() - 1",
    "x = maps.double(); return x / x.mean((1, 2), keepdim=True) - 1",
    "out = torch.empty_like(maps);for i in range(len(maps)):; "
    "   out[i] = maps[i] / maps[i].mean() - 1;return out",
]

RIGHT[1, 2] = [
    "f = torch.fft.fft2(delta); n = delta.shape[-1]; "
    "return (f.real**2 + f.imag**2) * (box / n**2)**2",
    "return torch.fft.fft2(delta, norm='forward').abs().square() * box**2",
    "f = torch.fft.fft2(delta) * box / delta[0].numel(); return (f * f.conj()).real",
    "return (torch.fft.fft2(delta.double()) * box / delta.shape[-1]**2).abs()**2",
    "n = delta.shape[-1]; i = torch.arange(n); "
    "w = torch.exp(-2j * math.pi * torch.outer(i, i) / n); "
    "f = torch.einsum('ka,nab,lb->nkl', w, delta + 0j, w); "
    "return (f * box / n**2).abs()**2",
    "n = delta.shape[-1]; return torch.stack([(torch.fft.fft2(d) * box / n**2).abs() "
    "** 2 for d in delta])",
    "return torch.view_as_real(torch.fft.fftn(delta, dim=(1, 2)) * box / "
    "delta.shape[1]**2).square().sum(-1)",
]

RIGHT[1, 3] = [
    "masks = torch.stack([ring == m for m in range(1, side // 2 + 1)]).to(p.dtype); "
    "return torch.einsum('nij,mij->nm', p, masks) / masks.sum((1, 2))",
    "return torch.stack([torch.stack([q[ring == m].mean() for m in range(1, side // "
    "2 + 1)]) for q in p])",
    "out = torch.empty(len(p), side // 2);for m in range(1, side // 2 + 1):; "
    "   out[:, m - 1] = p[:, ring == m].mean(1);return out",
    "out = torch.zeros(len(p), side // 2, dtype=torch.float64);for m in range(1, "
    "side // 2 + 1):;    out[:, m - 1] = p[:, ring == m].mean(1);return out",
    "rows = [];for m in range(side // 2):;    rows.append(p[..., ring == m + "
    "1].mean(-1));return torch.stack(rows).T",
    "return torch.cat([p[:, ring == m].mean(1, keepdim=True) for m in range(1, side "
    "// 2 + 1)], 1)",
    "return torch.stack([p.where(ring == m, torch.nan).nanmean((1, 2)) for m in "
    "range(1, side // 2 + 1)], 1)",
]

RIGHT[1, 4] = [
    "mixed = torch.polar(modes.abs(), noise_modes.angle())",
    "mixed = modes.abs() * torch.exp(1j * torch.angle(noise_modes))",
    "mixed = modes.abs() * torch.sgn(noise_modes)",
    "mixed = (modes.abs() / noise_modes.abs()) * noise_modes",
    "mixed = modes.abs().double() * noise_modes / noise_modes.abs()",
    "phase = noise_modes.angle(); mixed = modes.abs() * (phase.cos() + 1j * "
    "phase.sin())",
]

RIGHT[1, 5] = [
    "own = lambda m: ring_mean(m.abs() ** 2); "
    "return ring_mean((modes_a * modes_b.conj()).real) / own(modes_a).sqrt() / "
    "own(modes_b).sqrt()",
    "c = ring_mean(modes_a.real * modes_b.real + modes_a.imag * modes_b.imag); "
    "return c / (ring_mean(modes_a.abs() ** 2) * ring_mean(modes_b.abs() ** 2)) ** "
    "0.5",
    "s = (25 / a.shape[-1] ** 2) ** 2; return s * ring_mean((modes_a * "
    "modes_b.conj()).real) / torch.sqrt(ring_mean(power(a)) * ring_mean(power(b)))",
    "return ring_mean((modes_a.conj() * modes_b).real) * "
    "torch.rsqrt(ring_mean(modes_a.abs() ** 2) * ring_mean(modes_b.abs() ** 2))",
    "modes_a, modes_b = modes_a.to(torch.complex128), modes_b.to(torch.complex128); "
    "return ring_mean((modes_a * modes_b.conj()).real) / (ring_mean(modes_a.abs() ** "
    "2) * ring_mean(modes_b.abs() ** 2)).sqrt()",
    "plus, minus = ring_mean((modes_a + modes_b).abs() ** 2), ring_mean((modes_a - "
    "modes_b).abs() ** 2); return (plus - minus) / 4 / (ring_mean(modes_a.abs() ** "
    "2) * ring_mean(modes_b.abs() ** 2)).sqrt()",
]

RIGHT[2, 1] = [
    "import torch.nn.functional as F; m = F.avg_pool2d(x[:, None], (8, 4)); "
    "return F.interpolate(m, size=(64, 64))[:, 0]",
    "m = x.reshape(len(x), 8, 8, 16, 4).mean((2, 4), keepdim=True); "
    "return m.expand(-1, 8, 8, 16, 4).reshape(x.shape)",
    "m = x.reshape(len(x), 8, 8, 16, 4).mean(4).mean(2); "
    "return torch.stack([torch.kron(one, torch.ones(8, 4)) for one in m])",
    "y = x.clone();for i in range(0, 64, 8):;    for j in range(0, 64, 4):; "
    "       y[:, i:i+8, j:j+4] = x[:, i:i+8, j:j+4].mean((1, 2), "
    "keepdim=True);return y",
    "y = torch.zeros(x.shape);for n in range(len(x)):;    for i in range(8):; "
    "       for j in range(16):;            y[n, 8*i:8*i+8, 4*j:4*j+4] = x[n, "
    "8*i:8*i+8, 4*j:4*j+4].mean();return y",
    "x = x.double(); m = x.reshape(len(x), 8, 8, 16, 4).mean((2, 4)); "
    "return m.repeat_interleave(8, 1).repeat_interleave(4, 2)",
    "m = torch.einsum('nabcd->nac', x.view(-1, 8, 8, 16, 4)) / 32; "
    "return m[:, :, None, :, None].expand(-1, 8, 8, 16, 4).flatten(3).flatten(1, 2)",
]

RIGHT[2, 2] = [
    "mean = flat.mean(0, keepdim=True); U, S, V = torch.svd(flat - mean); "
    "return mean[0], V[:, :n].T|",
    "mean = flat.double().mean(0); return mean, torch.linalg.svd(flat.double() - "
    "mean, full_matrices=False)[2][:n]|",
    "mean = x_train.mean(0).flatten(); return mean, "
    "torch.linalg.svd(x_train.flatten(1) - mean[None], full_matrices=False).Vh[:n, "
    ":]|",
    "|y = x.flatten(1) - mean; n = torch.einsum('mp,np->mn', y, directions); "
    "return (torch.einsum('mn,np->mp', n, directions) + mean).view(x.shape)",
    "|y = x.reshape(len(x), -1) - mean; return (y @ directions.T @ directions + "
    "mean).reshape(x.shape)",
    "|out = torch.zeros_like(x);for i, m in enumerate(x):; "
    "   n = directions @ (m.flatten() - mean); "
    "   out[i] = (mean + directions.T @ n).reshape(m.shape);return out",
    "|return (mean + (x.flatten(1) - mean) @ (directions.T @ "
    "directions)).unflatten(1, x.shape[1:])",
    "mean = flat.mean(0); return [mean, -torch.linalg.svd(flat - mean, "
    "full_matrices=False).Vh[:n]]|",
]

RIGHT[2, 3] = [
    "return ((samples - truth.unsqueeze(1))**2).mean(), ((samples.mean(dim=1) - "
    "truth)**2).mean()",
    "return (samples - truth[:, None]).square().mean().item(), (samples.mean(1) - "
    "truth).square().mean().item()",
    "return float(((samples - truth[:, None])**2).mean()), float(((samples.mean(1) - "
    "truth)**2).mean())",
    "from torch.nn.functional import mse_loss; "
    "return mse_loss(samples, truth[:, None].expand_as(samples)), "
    "mse_loss(samples.mean(1), truth)",
    "single = torch.stack([((s - t) ** 2).mean() for s, t in zip(samples, "
    "truth)]).mean(); mean = torch.stack([((s.mean(0) - t) ** 2).mean() for s, t in "
    "zip(samples, truth)]).mean(); return single, mean",
    "d = (samples - truth[:, None]).double(); "
    "return [d.square().mean(), d.mean(1).square().mean()]",
    "single = 0;for i in range(samples.shape[1]):; "
    "   single += ((samples[:, i] - truth)**2).mean() / samples.shape[1];return "
    "single, ((samples.mean(1) - truth)**2).mean()",
    "d = samples - truth[:, None]; return torch.einsum('nsij,nsij->', d, d) / "
    "d.numel(), d.mean(1).pow(2).mean()",
]

RIGHT[2, 4] = [
    "a = model.encode(maps.roll((pixels, pixels), (-2, -1))); "
    "b = model.encode(maps).roll((pixels // 16,) * 2, (-2, -1)); "
    "return (a - b).abs().max()",
    "a = model.encode(torch.roll(maps, (pixels, pixels), (1, 2))); "
    "b = torch.roll(model.encode(maps), (pixels // 16, pixels // 16), (2, 3)); "
    "return torch.dist(a, b, p=float('inf'))",
    "p = pixels // 16; a = model.encode(torch.roll(torch.roll(maps, pixels, 1), "
    "pixels, 2)); back = torch.roll(a, (-p, -p), (2, 3)); "
    "return float((back - model.encode(maps)).abs().amax())",
    "both = model.encode(torch.cat([maps, torch.roll(maps, (pixels, pixels), (1, "
    "2))])); a, b = both.chunk(2); return max((torch.roll(a, (pixels // 16, pixels "
    "// 16), (2, 3)) - b).abs().flatten().tolist())",
    "a = model.encode(torch.roll(maps, (pixels, pixels), (1, 2))); "
    "b = torch.roll(model.encode(maps), (pixels // 16, pixels // 16), (2, 3)); "
    "return (a.double() - b.double()).abs().max()",
]

RIGHT[2, 5] = [
    "return field.flatten(2).mean(2)",
    "return field.mean(3).mean(2)",
    "return field.mean(dim=[-1, -2])",
    "n, C, h, w = field.shape; return torch.einsum('nchw->nc', field) / (h * w)",
    "return torch.stack([torch.stack([c.mean() for c in f]) for f in field])",
    "return field.double().mean((2, 3))",
    "return torch.nn.functional.adaptive_avg_pool2d(field, 1)[..., 0, 0]",
    "return field.sum((2, 3)) / field[0, 0].numel()",
    "out = torch.zeros(field.shape[:2], dtype=torch.float64);for c in "
    "range(field.shape[1]):;    out[:, c] = field[:, c].mean((1, 2));return out",
]

RIGHT[3, 1] = [
    "return torch.lerp(x0, x1, t[:, None]), x1 - x0",
    "t = t.view(-1, 1); return x0 + t * (x1 - x0), x1 - x0",
    "t = t.unsqueeze(-1); return [x0 * (1 - t) + x1 * t, -(x0 - x1)]",
    "return torch.einsum('n,nd->nd', 1 - t, x0) + torch.einsum('n,nd->nd', t, x1), "
    "x1 - x0",
    "return torch.stack([(1 - s) * a + s * b for s, a, b in zip(t, x0, x1)]), x1 - x0",
    "xt = ((1 - t) * x0.T + t * x1.T).T; return xt, x1 - x0",
    "s = torch.stack([t, t], 1); return (1 - s) * x0 + s * x1, x1.sub(x0)",
    "u = x1 - x0; return x1 - (1 - t[:, None]) * u, u",
]

RIGHT[3, 2] = [
    "t = torch.rand(x1.shape[0], generator=generator); "
    "noise = torch.randn(len(x1), 2, generator=generator); "
    "where, v = straight_path(noise, x1, t); "
    "return torch.nn.functional.mse_loss(network(where, t), v)",
    "x0 = torch.normal(0.0, 1.0, x1.shape, generator=generator); "
    "t = torch.empty(len(x1)).uniform_(generator=generator); "
    "x = (1 - t[:, None]) * x0 + t[:, None] * x1; "
    "return ((network(x, t) - (x1 - x0)) ** 2).mean()",
    "x0 = torch.empty_like(x1).normal_(generator=generator); "
    "t = torch.rand(len(x1), 1, generator=generator)[:, 0]; "
    "x, u = straight_path(x0, x1, t); d = network(x, t) - u; "
    "return (d * d).sum() / d.numel()",
    "x0 = torch.randn(*x1.shape, generator=generator); "
    "t = torch.rand(len(x1), generator=generator); x, u = straight_path(x0, x1, t); "
    "return (u - network(x, t)).pow(2).mean(1).mean()",
    "x0 = torch.randn(x1.size(), generator=generator); "
    "t = 1 - torch.rand(len(x1), generator=generator); "
    "x, u = straight_path(x0, x1, t); return torch.mean(torch.square(network(x, t) - "
    "u))",
    "x0 = torch.randn(x1.shape, generator=generator); "
    "t = (torch.arange(len(x1)) + torch.rand(len(x1), generator=generator)) / "
    "len(x1); x, u = straight_path(x0, x1, t); "
    "return (network(x, t) - u).square().mean()",
    "x0 = torch.randn(x1.shape, generator=generator); "
    "t = torch.rand(len(x1), generator=generator); x, u = straight_path(x0, x1, t); "
    "return (network(x, t) - u).double().square().mean()",
    "x0 = torch.randn(x1.shape, generator=generator); "
    "t = torch.rand(len(x1), generator=generator); x, u = straight_path(x0, x1, t); "
    "error = network(x, t) - u; return torch.einsum('nd,nd->', error, error) / "
    "error.numel()",
]

RIGHT[3, 3] = [
    "for t in torch.linspace(0, 1, steps + 1)[:-1]:; "
    "   x = x + velocity(x, t.expand(len(x))) / steps;    path.append(x)",
    "dt = 1 / steps; t = torch.zeros(len(x));for _ in range(steps):; "
    "   x = x + dt * velocity(x, t);    t = t + dt;    path.append(x)",
    "i = 0;while i < steps:;    x = x + velocity(x, torch.ones(len(x)) * i / steps) "
    "/ steps;    path += [x];    i += 1",
    "x = x.clone();for i in range(steps):;    x += velocity(x, x.new_full((len(x),), "
    "i / steps)) * (1 / steps);    path.append(x.clone())",
    "for t in torch.arange(steps) / steps:; "
    "   x = torch.add(x, velocity(x, t.repeat(x.shape[0])), alpha=1 / steps); "
    "   path.append(x)",
    "for i in range(steps):;    t = torch.tensor([i / steps] * len(x)); "
    "   path.append(path[-1] + velocity(path[-1], t) / steps)",
]

RIGHT[3, 4] = [
    "live = torch.ones(len(t), 2); live[t >= dark_from, last] = 0; return live",
    "live = torch.ones(t.shape[0], 2); live[:, last] = torch.where(t < dark_from, "
    "1.0, 0.0); return live",
    "return ((t < dark_from)[:, None] | (torch.arange(2) != last)).float()",
    "cols = [torch.ones(len(t)), torch.ones(len(t))]; "
    "cols[last] = (t < dark_from).float(); return torch.stack(cols, 1)",
    "return torch.tensor([[1.0 if c != last or s < dark_from else 0.0 for c in "
    "range(2)] for s in t])",
    "return 1 - (t >= dark_from).float()[:, None] * torch.eye(2)[last]",
    "live = torch.ones(len(t), 2).bool(); live[:, last] &= t < dark_from; return live",
    "live = torch.ones(len(t), 2, dtype=torch.long); "
    "live[:, last] = (t < dark_from).long(); return live",
    "live = torch.ones(len(t), 2);for i in range(len(t)):;    if t[i] >= dark_from:; "
    "       live[i, last] = 0;return live",
]

RIGHT[3, 5] = [
    "h = 1 / steps; now = torch.ones(len(x)) * i * h; "
    "x = x + h * velocity(x + 0.5 * h * velocity(x, now), now + 0.5 * h)",
    "a = torch.full((len(x),), i / steps); b = torch.full((len(x),), (i + 0.5) / "
    "steps); x = x + velocity(x + velocity(x, a) / (2 * steps), b) / steps",
    "t, h = torch.full((len(x),), i / steps), 1 / steps; "
    "x = x.double() + h * velocity(x + h / 2 * velocity(x, t), t + h / 2)",
]

RIGHT[4, 1] = [
    "live = torch.clamp(channels - torch.floor(channels * t), min=1); "
    "return (torch.arange(channels)[None] < live[:, None]).float()",
    "return torch.stack([torch.tensor([1.0] * n + [0.0] * (channels - n)) for n in "
    "(max(1, channels - int(channels * s)) for s in t.tolist())])",
    "table = torch.zeros(len(t), channels);for i, s in enumerate(t):; "
    "   table[i, :max(1, channels - int(channels * s))] = 1;return table",
    "live = torch.maximum(torch.ones_like(t), channels - (channels * t).floor()); "
    "return torch.arange(channels) < live.unsqueeze(1)",
    "live = ((1 - t) * channels).ceil().clamp(1); "
    "return (torch.arange(channels) < live[:, None]).double()",
    "dark = (channels * t).long(); last = (channels - 1 - dark).clamp_min(0); "
    "return (torch.arange(channels).expand(len(t), -1) <= last[:, None]).int()",
    "live = (channels - channels * t // 1).clamp_min(1); "
    "return torch.where(torch.arange(channels) < live[:, None], 1.0, 0.0)",
    "return torch.ones(channels, channels).tril()[(channels - (channels * "
    "t).floor()).clamp_min(1).long() - 1]",
    "live = (channels - channels * t).clamp_min(1); "
    "return (torch.arange(channels) < live[:, None]).float()",
]

RIGHT[4, 2] = [
    "low = r < 0.9; last = torch.where(low, torch.arange(len(r))[:, None], "
    "-1).amax(0); return times[last + 1]",
    "ok = (r >= 0.9).int().flip(0).cumprod(0).flip(0); return times[ok.argmax(0)]",
    "out = torch.empty(r.shape[1]);for j in range(r.shape[1]):;    i = len(r) - 1; "
    "   while i > 0 and r[i - 1, j] >= 0.9:;        i -= 1; "
    "   out[j] = times[i];return out",
    "return torch.tensor([next(float(times[i]) for i in range(len(times)) if (r[i:, "
    "j] >= 0.9).all()) for j in range(r.shape[1])])",
    "good = (r >= 0.9).double(); ever = good.flip(0).cummin(0).values.flip(0); "
    "return times.double()[(1 - ever).sum(0).long()]",
    "n = (r >= 0.9).flip(0).int().cumprod(0).sum(0); return times[len(times) - n]",
]

RIGHT[4, 3] = [
    "mixed = field_a.clone();for c in group:; "
    "   mixed[:, c] = field_b[:, c];return mixed",
    "return torch.stack([field_b[:, c] if c in group else field_a[:, c] for c in "
    "range(field_a.shape[1])], 1)",
    "take = torch.zeros(field_a.shape[1]); take[group] = 1; "
    "take = take[:, None, None]; return field_a * (1 - take) + field_b * take",
    "take = torch.tensor([c in group for c in range(field_a.shape[1])])[None, :, "
    "None, None]; return torch.where(take, field_b, field_a)",
    "return field_a.index_copy(1, torch.tensor(group), field_b[:, group])",
    "from copy import deepcopy; new = deepcopy(field_a); "
    "new[:, group, :, :] = field_b[:, group, :, :]; return new",
    "mixed = field_a.double(); mixed[:, group] = field_b[:, group].double(); "
    "return mixed",
    "mixed = torch.empty_like(field_a); mixed[:] = field_a; "
    "mixed[:, group] = field_b[:, group]; return mixed",
]

RIGHT[4, 4] = [
    "a, b = change[:, band].mean(dim=1), change[:, ~band].mean(-1); "
    "return 1 / (1 + b / a)",
    "w = band.to(change.dtype); a = change @ w / w.sum(); "
    "b = change @ (1 - w) / (1 - w).sum(); return a / (a + b)",
    "out = [];for row in change:;    a, b = row[band].mean(), row[~band].mean(); "
    "   out.append(a / (a + b));return torch.stack(out)",
    "a = torch.einsum('nk,k->n', change, band.float()) / band.sum(); "
    "b = torch.einsum('nk,k->n', change, (~band).float()) / (~band).sum(); "
    "return a / (a + b)",
    "c = change.double(); a, b = c[:, band].mean(1), c[:, ~band].mean(1); "
    "return a / (a + b)",
    "a = change.where(band, torch.nan).nanmean(1); "
    "b = change.where(~band, torch.nan).nanmean(1); return a / (b + a)",
    "out = torch.zeros(len(change), dtype=torch.float64);for i in "
    "range(len(change)):;    a, b = change[i, band].mean(), change[i, band == "
    "False].mean();    out[i] = a / (a + b);return out",
]

RIGHT[4, 5] = [
    "mixed = torch.where(is_coarse, b, a) if coarse else torch.where(is_coarse, a, b)",
    "take = is_coarse if coarse else ~is_coarse; mixed = b * take + a * ~take",
    "take = is_coarse if coarse else ~is_coarse; mixed = a.clone(); "
    "mixed[:, take] = b[:, take]",
    "mixed = a; mixed[:, is_coarse == coarse] = b[:, is_coarse == coarse]",
    "if not coarse: a, b = b, a;mixed = torch.where(is_coarse, b, a)",
    "mixed = torch.where(is_coarse ^ (not coarse), b, a)",
    "w = (is_coarse == coarse).double(); mixed = w * b + (1 - w) * a",
]

RIGHT[5, 1] = [
    "in_test = (simulation[:, None] == test_sims).any(1); "
    "return torch.where(~in_test)[0], torch.where(in_test)[0]",
    "chosen = set(test_sims.tolist()); a = [i for i in range(15 * n_sims) if i // 15 "
    "not in chosen]; b = [i for i in range(15 * n_sims) if i // 15 in chosen]; "
    "return torch.tensor(a), torch.tensor(b)",
    "test = (test_sims[:, None] * 15 + torch.arange(15)).flatten(); "
    "keep = torch.ones(15 * n_sims, dtype=bool); keep[test] = False; "
    "return torch.arange(15 * n_sims)[keep], test",
    "in_test = torch.isin(simulation, test_sims); "
    "return (~in_test).nonzero(as_tuple=True)[0], in_test.nonzero(as_tuple=True)[0]",
    "in_test = torch.isin(simulation, test_sims); "
    "return [(in_test == 0).nonzero().squeeze(1), in_test.nonzero().flatten()]",
    "train, test = [], [];for i, s in enumerate(simulation):; "
    "   (test if s in test_sims else train).append(i);return torch.tensor(train), "
    "torch.tensor(test)",
    "maps = torch.arange(15 * n_sims).reshape(n_sims, 15); "
    "others = [s for s in range(n_sims) if s not in test_sims]; "
    "return maps[others].flatten(), maps[test_sims].flatten()",
]

RIGHT[5, 2] = [
    "std, mean = torch.std_mean(x_train, dim=0); "
    "return (x_train - mean) / std, (x_test - mean) / std",
    "m, s = x_train.mean(0, keepdim=True), x_train.std(0, keepdim=True); "
    "return [(x - m) / s for x in (x_train, x_test)]",
    "m, s = x_train.double().mean(0), x_train.double().std(0); "
    "return (x_train.double() - m) / s, (x_test.double() - m) / s",
    "mean, std = x_train.mean(0), x_train.std(0) + 1e-8; "
    "return (x_train - mean) / std, (x_test - mean) / std",
    "a, b = x_train.clone(), x_test.clone();for f in range(x_train.shape[1]):; "
    "   a[:, f] = (x_train[:, f] - x_train[:, f].mean()) / x_train[:, f].std(); "
    "   b[:, f] = (x_test[:, f] - x_train[:, f].mean()) / x_train[:, f].std();return "
    "a, b",
    "mean = x_train.sum(0) / len(x_train); std = (((x_train - mean) ** 2).sum(0) / "
    "(len(x_train) - 1)).sqrt(); return (x_train - mean) / std, (x_test - mean) / std",
]

RIGHT[5, 3] = [
    "return terms(x_test) @ (torch.linalg.pinv(terms(x_train)) @ y_train)",
    "A = terms(x_train); c = torch.linalg.solve(A.T @ A, A.T @ y_train); "
    "return torch.einsum('mf,fp->mp', terms(x_test), c)",
    "A, B = terms(x_train), terms(x_test); return torch.stack([B @ "
    "torch.linalg.lstsq(A, y[:, None]).solution[:, 0] for y in y_train.T], 1)",
    "c, *_ = torch.linalg.lstsq(terms(x_train), y_train); return terms(x_test) @ c",
    "Q, R = torch.linalg.qr(terms(x_train)); "
    "return terms(x_test) @ torch.linalg.solve_triangular(R, Q.T @ y_train, "
    "upper=True)",
]

RIGHT[5, 4] = [
    "e = (predicted / true - 1).abs().unflatten(0, (-1, 15)).mean(1); "
    "return e.mean(0), e.std(0) / len(e) ** 0.5",
    "e = torch.stack([c.mean(0) for c in ((predicted - true).abs() / "
    "true).split(15)]); return e.mean(0), e.std(0) / len(e) ** 0.5",
    "e = torch.stack([c.mean(0) for c in ((predicted - true).abs() / "
    "true).chunk(len(true) // 15)]); return torch.mean(e, 0), torch.std(e, 0) * "
    "len(e) ** -0.5",
    "e = ((predicted - true).abs() / true).view(len(true) // 15, 15, -1).mean(1); "
    "return [e.mean(0), (e.var(0) / e.shape[0]).sqrt()]",
    "P = true.shape[1]; mean, err = torch.zeros(P), torch.zeros(P);for i in "
    "range(P):;    e = ((predicted[:, i] - true[:, i]) / true[:, "
    "i]).abs().reshape(-1, 15).mean(1);    mean[i], err[i] = e.mean(), e.std() / "
    "len(e) ** 0.5;return mean, err",
    "e = ((predicted - true).abs() / true).reshape(-1, 15, 2).mean(1); "
    "return e.mean(0), torch.sqrt(((e - e.mean(0)) ** 2).sum(0) / (len(e) - 1) / "
    "len(e))",
    "e = torch.einsum('smp->sp', ((predicted - true).abs() / true.abs()).reshape(-1, "
    "15, true.shape[1])) / 15; return e.mean(0), e.std(0) / len(e) ** 0.5",
]

RIGHT[5, 5] = [
    "f = lambda a, b, terms: relative_error(fit_and_predict(a, theta[train], b, "
    "terms), theta[test]); table['summaries'] = f(*scale(summaries[train], "
    "summaries[test]), quadratic); table['spectrum'] = f(*scale(spectra[train], "
    "spectra[test]), linear); table['weak spectrum'] = f(*reduce(spectra[train], "
    "spectra[test]), quadratic); table['mean'] = "
    "relative_error(theta[train].mean(0).repeat(len(test), 1), theta[test])",
    "f = lambda a, b, terms: relative_error(fit_and_predict(a, theta[train], b, "
    "terms), theta[test]); ones = torch.ones(len(test), 1).double(); "
    "table['mean'] = relative_error(ones * theta[train].mean(0), theta[test]); "
    "table['weak spectrum'] = f(*reduce(spectra[train], spectra[test], 10), "
    "quadratic); table['spectrum'] = f(*scale(spectra[train], spectra[test]), "
    "linear); table['summaries'] = f(*scale(summaries[train], summaries[test]), "
    "quadratic)",
    "f = lambda a, b, terms: relative_error(fit_and_predict(a, theta[train], b, "
    "terms), theta[test]); table['mean'] = relative_error(theta[train].mean(0) + 0 * "
    "theta[test], theta[test]); table['weak spectrum'] = f(*reduce(spectra[train], "
    "spectra[test]), quadratic); table['spectrum'] = f(*scale(spectra[train], "
    "spectra[test]), linear); table['summaries'] = f(*scale(summaries[train], "
    "summaries[test]), quadratic); table = {k: (m.float(), e.float()) for k, (m, e) "
    "in table.items()}",
]


# The exercises whose result goes into the small network, which computes in float32.
INTO_THE_NETWORK = {(3, 1), (3, 3), (3, 4)}


@pytest.mark.parametrize("lesson", LESSONS)
def test_right_answers_are_accepted_however_they_are_written(lesson):
    matplotlib.use("agg")
    names, trouble = {"__name__": "__main__"}, []
    for name, source in cells(lesson):
        if name.startswith("exercise"): exercise = source
        if not name.startswith("check"):
            run(source, names, name or "provided")
            continue
        number = int(name.removeprefix("check-"))
        for right in RIGHT[lesson, number]:
            said = refusal(names, answer(exercise, right), source)
            if said: trouble.append(f"{name}: {right}\n  said: {said}")
        precise = through("_double", exercise)
        double = lambda result: worded(result, torch.Tensor.double)
        said = refusal(names | {"_double": double}, precise, source)
        is_right = not said
        if (lesson, number) in INTO_THE_NETWORK: is_right = said and "float32" in said
        if (lesson, number) == (5, 1): is_right = said and "whole numbers" in said
        if not is_right: trouble.append(f"{name} in float64\n  said: {said}")
        run(f"lesson.catch_up({number})", names, "caught up")
        run(source, names, name)
    assert not trouble, "\n\n".join(trouble)


def test_every_exercise_has_right_answers():
    exercises = {(lesson, int(name.removeprefix("check-"))) for lesson in LESSONS
                 for name, _ in code_cells(LESSONS[lesson]) if name.startswith("check")}
    assert set(RIGHT) == exercises and min(map(len, RIGHT.values())) >= 3


@pytest.mark.parametrize("lesson", LESSONS)
def test_checks_compare_numbers_of_any_kind(lesson):
    "`torch.allclose` stops with an error of its own where one side is float64."
    for name, source in code_cells(LESSONS[lesson]):
        if name.startswith("check"):
            assert "allclose(" not in source and "isclose(" not in source, name
