"""Breaks the package in many small ways, one at a time, and asks if a test notices.

Use: python tests/mutate.py [WORD ...]    (those whose module or tests hold a WORD; all)

A mutant is a copy of the package in which one text is replaced by another. The tests
named beside it run against the copy, and one of them must fail. It ends with status 1
if a mutant survives, or if the text that it replaces is not there once.
"""
import os
import sys
from collections import Counter
from importlib import import_module
from pathlib import Path
from shutil import copytree, ignore_patterns
from tempfile import TemporaryDirectory
from time import time

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "cosmoflow"
DATA = "suite", "weights", "camels"  # folders that no mutant changes
LOADED_ONCE = ("accelerate.accelerator", "matplotlib.pyplot", "torch._dynamo",
               "torchdiffeq", "huggingface_hub", "safetensors.torch", "jax")

MUTANTS = [  # module, old text, new text, tests of which one must fail
    ("core", "by_sim.std(0, ddof=1)", "by_sim.std(0)", "errors: standard_error"),
    ("core", "by_sim.std(0) if",
     "by_sim.std(0, correction=0) if", "errors: standard_error"),
    ("core", "values.reshape(-1, each, *values.shape[1:]).mean(1)",
     "values", "errors: standard_error"),
    ("core", "spread / len(by_sim) ** 0.5",
     "spread / len(values) ** 0.5", "errors: standard_error"),
    ("core", "spread / len(by_sim) ** 0.5", "spread", "errors: standard_error"),
    ("core", "module.training = mode", "module.training = True", "values: every_mode"),
    ("core", "range(0, len(maps), size)",
     "range(0, len(maps) - 1, size)", "pairing: pieces"),
    ("core", "slice(start, start + size)",
     "slice(start + size - 1, start - 1 if start else None, -1)", "pairing: pieces"),
    ("core", "slice(start, start + size)", "slice(0, size)", "pairing: pieces"),
    ("core", 'getattr(maps, "mode", None) == "c"', "False", "data: changed"),
    ("core", "{name: known} | ", "", "run: without_a_box"),

    ("data", "np.repeat(self.params, self.maps_per_simulation, axis=0)",
     "np.tile(self.params, (self.maps_per_simulation, 1))", "data: parts_hold"),
    ("data", "np.repeat(self.params, self.maps_per_simulation, axis=0)",
     "np.repeat(self.params, 15, axis=0)", "data: parts_hold"),
    ("data", "self.params[i // self.maps_per_simulation]",
     "self.params[i // 15]", "data: parts_hold"),
    ("data", "each = data.maps_per_simulation", "each = 15", "data: partition"),
    ("data", "params=self.params[sims]",
     "params=self.params[np.sort(sims)[::-1]]", "data: parts_hold"),
    ("data", "block.mean((2, 4)) for",
     "block[:, :, 0, :, 0] for", "values: lower_resolution"),
    ("data", "(maps.clamp_min(self.floor).log10()",
     "(maps.clamp_min(1e-30).log10()", "values"),
    ("data", "((log - mean) ** 2).sum()",
     "((log - mean) ** 2).sum() * 1.1", "data: normalizer"),
    ("data", "1e-3 * total", "1e-2 * total", "data: normalizer"),
    ("data", "10 ** (x[:, 0] * self.std + self.mean)",
     "10 ** ((x[:, 0] + self.mean) * self.std)", "values: normaliser"),
    ("data", "cols = (shift_c + sign_c", "cols = (shift_c + sign_r", "data: augment"),
    ("data", "torch.where(swap[..., None].bool(), y.mT, y)", "y", "data: augment"),
    ("data", "params[start:stop]", "params[:stop - start]", "pairing: range_of"),
    ("data", "suite, set, field, box)", "suite, set, field)", "data: box"),
    ("data", "batch in _checked(maps, \"maps\"))", "batch in batches(maps))",
     "data: logarithm"),

    ("spectra", "power - ratio * reference", "power - reference", "errors: ratio"),
    ("spectra", "(power - ratio * reference) / reference.mean(0)",
     "power / reference", "errors: ratio"),
    ("spectra", "ratio = power.mean(0) / reference.mean(0)\n    off",
     "ratio = (power / reference).mean(0)\n    off", "errors: ratio"),
    ("spectra", "weight[:, 0] = 1 ", "weight[:, 0] = 2 ", "spectra: numpy"),
    ("spectra", "if side % 2 == 0: weight[:, -1] = 1", "pass", "spectra: numpy"),
    ("spectra", "length.round().long()", "length.long()", "spectra: numpy"),
    ("spectra", "[..., 1 : side // 2 + 1]", "[..., : side // 2]", "spectra: numpy"),
    ("spectra", "2 * math.pi / box * ring_mean",
     "math.pi / box * ring_mean", "spectra: numpy"),
    ("spectra", "(box / delta.shape[-1] ** 2)",
     "(box / delta.shape[-1])", "spectra: numpy"),
    ("spectra", "modes(contrast(m, of), box).abs()",
     "modes(contrast(m, of)).abs()", "values: larger_box"),
    ("spectra", "wavenumbers(maps.shape[-1], box).to",
     "wavenumbers(maps.shape[-1]).to", "values: larger_box"),
    ("spectra", "(a * b.conj()).real", "(a * b).real", "spectra: transfer"),
    ("spectra", "(a * b.conj()).real", "(a * b.conj()).abs()", "spectra: transfer"),
    ("spectra", "(power_a / power_b.to(power_a)).sqrt()",
     "(power_b / power_a.to(power_b)).sqrt()", "spectra: transfer"),
    ("spectra", "k <= 0.8 * k[-1]", "k <= 0.4 * k[-1]", "values: judged"),
    ("spectra", "(number + 0.5) * (high - low)",
     "number * (high - low)", "spectra: one_point"),
    ("spectra", "a, b = (log_values(m, maps[1]).flatten(1).sort(1).values",
     "a, b = (log_values(m, maps[1]).flatten(1)", "values: no_places"),
    ("spectra", "(1e-3 * mean).clamp(1e-30, 1.0)", "torch.ones_like(mean)",
     "values: no_places"),
    ("spectra", "(1e-3 * mean).clamp(1e-30, 1.0)", "1e-3 * mean", "values: empty"),

    ("layers", "[..., 4:4 + h, 4:4 + w]",
     "[..., 3:3 + h, 3:3 + w]", "values: transposed"),
    ("layers", "inner[..., w - n:] += left", "inner[..., w - n:] += right",
     "values: padding"),
    ("layers", "x[..., width:-width, width:-width]",
     "x[..., width - 1:-width - 1, width:-width]", "values: upsampling"),

    ("encoder", "F.relu(self.shortcut(x) + self.residual(x))",
     "F.relu(self.residual(x))", "values: block_adds"),
    ("encoder", "return field.mean((-2, -1))",
     "return field.amax((-2, -1))", "values: summary_is"),
    ("encoder", "waves + (means - summary(waves))", "waves + (means)",
     "model: waves_are_saved"),

    ("unet", "(1 + z_s) * t_b + z_b", "t_b + z_b", "values: formulas"),
    ("unet", "torch.logspace(0, 3, dim // 2",
     "torch.logspace(0, 2, dim // 2", "values: formulas"),
    ("unet", "return h + self.out(a", "return self.out(a", "values: attention"),
    ("unet", "upsample(h, 2), skips.pop()",
     "upsample(h, 2), skips.pop().flip(-1)", "model: shipped_weights"),

    ("flow", "channels - (channels * t).floor()",
     "channels - (channels * t).ceil()", "values: mask"),
    ("flow", "order < live[:, None]",
     "order >= channels - live[:, None]", "values: mask"),
    ("flow", ".floor()).clamp_min(1)", ".floor())", "values: mask"),
    ("flow", "(1 - s) * x0 + s * x1", "s * x0 + (1 - s) * x1", "model: equation"),
    ("flow", "s * x1, x1 - x0", "s * x1, x0 - x1", "model: equation"),
    ("flow", "(edges[-1] / edges.diff())[now]", "edges[-1].expand(len(t))",
     "timetable: derivative"),
    ("flow", "== now[:, None, None]", "<= now[:, None, None]", "timetable: coarser"),
    ("flow", "if self.name == \"nested\" and generator is not None",
     "if self.name == \"nested\"", "timetable: masks"),
    ("train", ", path=self.model.path)", ")", "timetable: follows"),
    ("train", "self.step(number * self.steps + step, *batch, live)",
     "self.step(number * self.steps + step, *batch)", "timetable: training"),
    ("flow", "t = torch.rand(len(x1),",
     "t = 0.5 * torch.rand(len(x1),", "steps: times"),
    ("flow", "t = torch.rand(len(x1),", "t = torch.rand(1,", "steps: times"),

    ("releases", '(size, sha) != (told["bytes"], told["sha256"])',
     'size != told["bytes"]', "hub: damaged"),
    ("model", 'name in released(): return', 'False: return', "hub: name"),
    ("model", ".repeat_interleave(samples, 0)",
     ".repeat(samples, 1, 1, 1)", "pairing: samples"),
    ("model", "field * live.to(field.dtype)", "field", "values: live_channels"),
    ("model", "zip(x0.split(batch_size), fields.split(batch_size))",
     "zip(x0.split(batch_size), fields.split(batch_size)[::-1])", "pairing: samples"),
    ("model", "maps.unflatten(1, (n, samples))",
     "maps.unflatten(1, (samples, n)).mT.mT.transpose(1, 2)", "pairing: samples"),
    ("model", "modes.conj()) / n", "modes.conj()) / (4 * n)", "values: prior"),
    ("model", "\"nchw,ndhw->hwcd\"", "\"nchw,ndhw->hwdc\"", "values: prior"),
    ("model", "double(piece) - mean[:, None, None]", "double(piece)", "values: prior"),
    ("model", "\"hwcd,ndhw->nchw\"", "\"hwdc,ndhw->nchw\"", "values: prior"),
    ("model", "norm=\"ortho\").real + mean[:, None, None]",
     "norm=\"ortho\").real", "values: prior"),
    ("model", "summary(f) for f in", "f[:, :, 0, 0] for f in", "model: round_trip"),
    ("model", "return self.decode(field, generator=generator, **kwargs)",
     "return self.decode(field.flip(0), generator=generator, **kwargs)",
     "pairing: new_maps"),

    ("train", "accelerator.clip_grad_norm_(self.objective.parameters(), config.clip)",
     "pass", "steps: longer"),
    ("train", "self.objective.parameters(), config.clip)",
     "self.objective.parameters(), 1.0)", "steps: longer"),
    ("train", "epoch_generator(0, 0, 0, val.device)",
     "epoch_generator(0, int(1e4 * self.total[0]), 0, val.device)", "steps: still"),
    ("train", "total += loss * len(which)",
     "total += loss * batch_size", "steps: mean_over"),
    ("train", "validation_loss(self.trained, val,",
     "validation_loss(self.model, val,", "steps: kept_weights"),
    ("train", "for part in (training, validation))",
     "for part in (training, training))", "steps: kept_weights"),
    ("train", "self.total / self.steps / self.epochs",
     "self.total / self.epochs", "steps: mean_of"),
    ("train", "flow + config.siblings * sibling", "flow + sibling", "steps: siblings"),
    ("train", "torch.stack([flow, sibling])",
     "torch.stack([sibling, flow])", "steps: mean_of"),
    ("train", "x1 = augment(loader(which), generator)",
     "x1 = loader(which)", "pairing: epoch_meets"),
    ("train", "t = torch.rand(len(x1), generator",
     "t = torch.rand(1, generator", "steps: times"),
    ("train", "t = torch.rand(len(x1), generator",
     "t = 0.9 * torch.rand(len(x1), generator", "steps: times"),
    ("train", "config.lr * lr_factor(number, config.epochs * self.steps)",
     "config.lr * lr_factor(number % self.steps, self.steps)", "steps: rates"),
    ("train", "plateau.step(val_loss)", "plateau.step(train_loss)", "steps: follows"),
    ("train", "weight_decay=config.weight_decay,",
     "weight_decay=0.01,", "steps: rates"),
    ("train", "min(most, (1 + step) / (10 + step))", "most", "steps: averaged"),
    ("train", "get_ema_multi_avg_fn(decay)",
     "get_ema_multi_avg_fn(1 - decay)", "train: an_average"),
    ("train", "field = self.encode(x1)\n",
     "field = self.encode(x1).detach()\n", "steps: encoder"),
    ("train", "- b).square().sum(-1)",
     "- b).square().mean(-1)", "train: against_a_loop"),
    ("train", "F.cross_entropy(logits.mT, answer)",
     "F.cross_entropy(logits, answer)", "train: against_a_loop"),
    ("train", "siblings.gather(1, order)",
     "torch.arange(n)[torch.randperm(n, generator=generator)].view_as(order)",
     "pairing: epoch_meets"),
    ("train", "(step - first) / max(1, total - first)",
     "step / total", "steps: cosine"),
    ("train", "torch.from_numpy(self.maps[which.cpu().numpy()])",
     "torch.from_numpy(self.maps[np.sort(which.cpu().numpy())])", "pairing: loader"),
    ("train", "each=training.maps_per_simulation", "each=8", "pairing: another"),
    ("train", '"pixels", "box"', '"pixels"', "run: refused_by_name"),
    ("train", "fit_prior(training.maps)",
     "fit_prior(validation.maps)", "steps: kept_weights"),

    ("inference", "/ true.abs()", "/ predicted.abs()", "errors: relative"),
    ("inference", "RelativeError(error.mean(0), standard_error(error, each))",
     "RelativeError(np.median(error, 0), standard_error(error, each))",
     "errors: relative"),
    ("inference", "x.std(0).clamp_min(1e-12)",
     "x.std().clamp_min(1e-12)", "values: columns"),
    ("inference", "x * self.std + self.mean",
     "x * self.std - self.mean", "values: columns"),
    ("inference", "if val_loss < best_loss: best", "if True: best", "values: best_is"),
    ("inference", "target[i],", "target[i.flip(0)],", "pairing: belong_together"),
    ("inference", "torch.arange(len(x), device=\"cpu\").split(size)]",
     "torch.arange(len(x), device=\"cpu\").split(size)[::-1]]", "pairing: estimates"),
    ("inference", "log.std((1, 2))", "log.var((1, 2))", "values: features"),

    ("evaluate", "stacked_ratio(p_rec, p_true, each)",
     "stacked_ratio(p_true, p_rec, each)", "errors: comparison"),
    ("evaluate", "standard_error(r, each).numpy()",
     "standard_error(r * r, each).numpy()", "errors: comparison"),
    ("evaluate", "standard_error(pdf, each).item()",
     "pdf.std().item()", "errors: comparison"),
    ("evaluate", "self.k <= 0.8 * self.k[-1]", "self.k <= self.k[-1]", "errors: worst"),
    ("evaluate", "part.targets[:, :2]",
     "part.targets[:, [1, 0]]", "pairing: inference"),
    ("evaluate", "fit(x_train, y_train, x_val, y_val, seed=seed)",
     "fit(x_train, y_train, x_test, y_test, seed=seed)", "pairing: inference"),
    ("evaluate", "model, test.maps, generator, sampling",
     "model, val.maps, generator, sampling", "pairing: test_maps"),
    ("evaluate", "y_test, test.maps_per_simulation", "y_test, 1", "pairing: another"),
    ("evaluate", "wavenumbers(test.pixels, test.box), each)",
     "wavenumbers(test.pixels, test.box), 1)", "pairing: another"),
    ("evaluate", "wavenumbers(test.pixels, test.box)", "wavenumbers(test.pixels)",
     "pairing: takes_the_box"),
    ("evaluate", "_measure(batch, made, box)", "_measure(batch, made)",
     "pairing: takes_the_box"),
    ("evaluate", "spectrum_features(part.maps, part.box)",
     "spectrum_features(part.maps)", "pairing: inference"),
    ("evaluate", "data.param_names[:2]", "data.param_names[1::-1]",
     "pairing: report_has"),
    ("evaluate", "max(0, kept - done)", "kept", "pairing: keeps"),
    ("evaluate", "_measure(batch, made, box)",
     "_measure(made, batch, box)", "pairing: test_maps"),

    ("vae", "+ kl / x[0].numel()", "+ kl / x.numel()", "steps: vae_s_loss"),
    ("vae", "+ kl / x[0].numel()", "+ 0.1 * kl / x[0].numel()", "steps: vae_s_loss"),
    ("vae", "0.5 * mse.log()", "mse.log()", "steps: vae_s_loss"),
    ("vae", "log_var.exp() - 1 - log_var", "log_var.exp() - 1", "steps: vae_s_loss"),
    ("vae", "(0.5 * log_var).exp() * noise", "log_var.exp() * noise", "steps: latents"),
    ("vae", "epoch_generator(seed, 0, 2, model.device)",
     "epoch_generator(seed, epoch, 2, model.device)", "steps: still"),
    ("vae", "nn.utils.clip_grad_norm_(model.parameters(), 1.0)",
     "pass", "steps: longer"),
    ("vae", ".item() * len(i)", ".item() * batch_size", "steps: vae_s_val"),
    ("vae", "train_loss, mse, kl = total.tolist()",
     "train_loss, kl, mse = total.tolist()", "steps: vae_s_log"),
    ("vae", "noise[i])[0]", "noise[:len(i)])[0]", "steps: vae_s_val"),

    ("distill", "(len(path) - 1) ** 2 * ", "", "steps: by_hand"),
    ("distill", "(path - true)[1:].square()",
     "(path - true).square()", "steps: by_hand"),
    ("distill", "true)).log().square().mean()",
     "true)).log().mean().square()", "steps: by_hand"),
    ("distill", ".abs().square()).mean(0)",
     ".abs().square()).log().mean(0).exp()", "steps: by_hand"),
    ("distill", "path[::fine]", "path[:steps + 1]", "steps: lesson"),
    ("distill", "(losses[0] + asked.spectral * losses[1])",
     "(losses[0] + losses[1])", "steps: student_s_step"),
    ("distill", "nn.utils.clip_grad_norm_(self.model.unet.parameters(), 1.0)",
     "pass", "steps: longer"),
    ("distill", "torch.randint(each, first.shape",
     "torch.randint(1, first.shape", "pairing: student"),
    ("distill", "each = data.maps_per_simulation", "each = 2", "pairing: another"),
    ("distill", "len(validation.maps), validation.maps_per_simulation,",
     "len(validation.maps), 2,", "pairing: another"),
    ("distill", "[path_loss(path, true), spectral",
     "[path_loss(path[1:], true[1:]), spectral", "steps: student_s_val"),
    ("distill", "student_losses(self.average, *exam)",
     "student_losses(self.model, *exam)", "steps: student_s_val"),

    ("scales", "(t**2 * power + (1 - t) ** 2)",
     "(t**2 * power + (1 - t))", "values: conditional"),
    ("scales", "root * until / (1 - until)", "root * until", "values: integral"),
    ("scales", "live / (noise**2 * power)", "live / noise**2", "values: conditional"),
    ("scales", "alone * (1 - live)", "alone * live", "values: conditional"),
    ("scales", "assignment(cost.cpu", "assignment(-cost.cpu", "values: best_order"),
    ("scales", "rows) / noise**2", "rows) / noise", "values: mixture"),
    ("scales", "mixed[:, group] = other[:, group]",
     "mixed[:, group[:1]] = other[:, group[:1]]", "values: swapped"),
    ("scales", "f, steps, solver, generator",
     "f, generator=generator", "values: swapped"),
    ("scales", "clamp_min(1e-30) / k", "clamp_min(1e-30)", "values: idle"),
    ("scales", "> 0.1 * changes.mean()", "> 0.01 * changes.mean()", "values: idle"),
    ("scales", "1 - 6 * distance", "1 - 3 * distance", "values: ranks"),
    ("scales", "(n * (n**2 - 1))", "(n * (n**2 + 1))", "values: ranks"),
    ("scales", "k.log() - mean[:, None]", "k.log()", "values: moments"),
    ("scales", "(1 - weight.square().sum())", "1", "values: selectivity"),
    ("scales", "share(fine, ~low)", "share(fine, low)", "values: sorting_score"),
    ("scales", "far >= far[which]", "far > far[which]", "values: halvings"),

    ("anomaly", "maps == F.max_pool2d", "maps <= F.max_pool2d", "anomaly: peaks"),
    ("inference", "z[:, i] * z[:, j]", "z[:, i] + z[:, j]", "anomaly: parabola"),
    ("anomaly", "solve(like, own).diag().mean()", "solve(like, own).diag().sum()",
     "anomaly: power"),
    ("anomaly", "residual.T @ residual / len(residual)",
     "residual.T @ residual / len(residual.T)", "anomaly: power"),
    ("anomaly", "seen = [x[~out]", "seen = [x[out]", "anomaly: did_not_see"),
    ("anomaly", "(1 + len(cold) - below)", "(len(cold) - below)",
     "anomaly: as_large"),
    ("anomaly", "height = (maps / mean)", "height = (maps)",
     "anomaly: peaks"),
    ("anomaly", 'mode="circular"', 'mode="replicate"', "anomaly: peaks"),
    ("anomaly", "count_peaks(maps).sqrt()", "count_peaks(maps)", "anomaly: peaks"),
    ("anomaly", "(1 - part) * own + part", "own + part", "anomaly: power"),
    ("anomaly", "whitened.square().sum(0)", "whitened.abs().sum(0)", "anomaly: power"),
    ("anomaly", ".mean(1), self.mean_scatter)", ".mean(1), self.scatter)",
     "anomaly: power"),
    ("anomaly", "self.score(maps, together, check))",
     "self.score(maps, together, check), right=True)", "anomaly: as_large"),
    ("anomaly", "scores.sort().values for", "scores for", "anomaly: promise"),
    ("anomaly", "if together and len(maps) % self.each:", "if False:",
     "anomaly: cannot_be_judged"),

    ("compress", "local_files_only=True", "local_files_only=False",
     "compress: download"),
    ("codec", "if len(unpacked) != size:", "if len(unpacked) < size:",
     "compress: tables"),
    ("codec", "modes.real - modes.imag", "modes.real", "compress: keep_the_length"),
    ("codec", "step * largest ** (1 - tilt) * scatter", "step * largest * scatter",
     "compress: tilt"),
    ("codec", "steps[0, 0] = means *", "steps[0, 0] = step *", "compress: tilt"),
    ("codec", "4 * odd + 2 * even", "2 * odd + 4 * even", "compress: a_table"),
    ("codec", "(int(mass * scale) + 1 for", "(int(mass * scale) for",
     "compress: every_machine"),
    ("codec", "(height[0] - height[-1]) / mass", "(height[0] + height[-1]) / mass",
     "compress: a_table"),
    ("codec", "float(self.zone)).floor()", "float(self.zone)).round()",
     "compress: keep_the_length"),
    ("codec", '"hwcd,nhwd->nchw", axes, size)', '"hwdc,nhwd->nchw", axes, size)',
     "compress: keep_the_length"),
    ("codec", "(hartley(waves) + mean).float()", "hartley(waves).float()",
     "compress: keep_the_length"),
    ("codec", "np.abs(group) - last", "np.abs(group) - last - 1",
     "compress: every_number"),
    ("codec", "np.sign(symbols[far]) * excess", "excess", "compress: every_number"),
    ("codec", "10 ** (asked - _mean_log(model, maps))",
     "10 ** (_mean_log(model, maps) - asked)", "compress: own_mean"),
    ("compress", "manual_seed((1_000_003 * seed + number) % 2**63)",
     "manual_seed(number)", "compress: other_seeds"),
    ("compress", "if zlib.crc32(content) != check:", "if False:", "compress: damaged"),
    ("compress", "if source: check_other_file", "if False: check_other_file",
     "compress: their_own_file"),

    ("posterior", "return -((high - low).log() + bell)",
     "return ((high - low).log() + bell)", "posterior: bell_curve"),
    ("posterior", "- math.log(2 * math.pi) / 2", "- math.log(2 * math.pi)",
     "posterior: bell_curve"),
    ("posterior", "(order < count[:, None])", "(order <= count[:, None])",
     "posterior: pooling"),
    ("posterior", "count.to(x).log()", "count.to(x)", "posterior: pooling"),
    ("posterior", "mean(1, keepdim=True) / 2).sqrt()", "mean(1, keepdim=True)).sqrt()",
     "posterior: heavy"),
    ("posterior", "2 * width.log()", "width.log()", "posterior: heavy"),
    ("posterior", "tail = (freedom + 2) / 2", "tail = (freedom + 1) / 2",
     "posterior: heavy"),
    ("posterior", "expm1(-2 / freedom", "expm1(-1 / freedom", "posterior: heavy"),
    ("posterior", "(1 - mass) / 2, (1 + mass) / 2", "1 - mass, mass",
     "posterior: interval"),
    ("posterior", "(rank - 0.5).abs() <= mass / 2", "(rank - 0.5).abs() <= mass",
     "posterior: coverage"),
    ("posterior", "[usual, self.expected.surprise(x, power)]", "[usual, usual]",
     "posterior: keeps_its_rate"),
    ("posterior", "unlike |= posterior.check.whole", "posterior.check.whole",
     "posterior: fifteen"),
    ("posterior", "quantile(1 - rate / 2, dim=0)", "quantile(1 - 5 * rate, dim=0)",
     "posterior: keeps_its_rate"),
    ("posterior", "<= self.limits[:2]).all(1)", "<= self.limits[:2]).any(1)",
     "posterior: keeps_its_rate"),
    ("posterior", "range(min(most, samples.shape[1]))", "range(samples.shape[1])",
     "posterior: corner"),

    ("simulate", "(pixels / box) - 0.5", "(pixels / box)", "values: particle_paints"),
    ("simulate", "(0, 1, (1 - du) * dv), (1, 0, du * (1 - dv))",
     "(1, 0, (1 - du) * dv), (0, 1, du * (1 - dv))", "values: particle_paints"),
    ("simulate", "(v + j) % pixels", "(v - j) % pixels", "values: particle_paints"),
    ("simulate", ".add(weight * count)", ".add(weight)", "values: empty_room"),
    ("simulate", "pos[:, axis] * (SLABS / box)",
     "pos[:, axis - 1] * (SLABS / box)", "values: centre_of"),
    ("simulate", "(particle_mass / (box / pixels) ** 2)",
     "(particle_mass / (box / pixels))", "simulate: any_order"),
    ("simulate", "(omega_m - OMEGA_B) * RHO_CRIT * spacing",
     "omega_m * RHO_CRIT * spacing", "simulate: any_order"),
    ("simulate", "(-5 / 1.2)", "(-5 / 2.4)", "values: warm"),
    ("simulate", "mass**-1.15", "mass**-1.11", "values: warm"),
    ("simulate", "(1 << (drop - 1)) - 1 + ",
     "(1 << (drop - 1)) + ", "values: rounding"),
    ("simulate", "fmt=\"%.5f\"", "fmt=\"%.3f\"", "simulate: any_order"),
    ("simulate", "np.savetxt(tmp_params, table.params[sims]",
     "np.savetxt(tmp_params, table.params[:len(sims)]", "simulate: some_simulations"),

    ("export", 'mode_s="wrap"', 'mode_s="edge"', "onnx: waves_are_a_matrix"),
    ("export", "return self.model.velocity(x, t, field)",
     "return self.model.unet(x, t, field)", "onnx: waves_are_a_matrix"),
    ("export", "t[None], field) / steps", "t[None], field)", "onnx: all_steps"),
    ("export", "if error.max() < LIMIT: break", "break", "onnx: err_too_much"),
    ("export", "deal_simulations(data.n_sims)[2]",
     "deal_simulations(data.n_sims)[0]", "onnx: maps_in_bytes"),
    ("export", "steps.round().astype", "steps.astype", "onnx: maps_in_bytes"),
    ("export", "type(layer).__name__.lower()", '"none"', "onnx: regressors"),
    ("export", "len(binary),", "i * len(steps),", "onnx: maps_in_bytes"),
    ("export", "sha256(content)",
     "sha256(content[1:])", "onnx: every_file"),

    ("points", "(way / box).round()", "(way / box).floor()", "points: nearest_image"),
    ("points", "len(one) * (len(one) - 1)", "len(one) ** 2", "points: by_hand"),
    ("points", "(dice.to(start) - 0.5)", "dice.to(start)", "points: way_ends"),
    ("points", "u[:, None, None].square() * way",
     "u[:, None, None] * way", "points: way_ends"),
    ("points", "[rank + 1 for rank in RANKS]", "list(RANKS)", "points: sorted_list"),
    ("points", "r[..., 0].log()", "r[..., 0]", "points: points_begin"),
    ("points", "sums(sin, cos, -1)", "sums(sin, cos, 1)", "points: waves_are"),
    ("points", "return numbers + self.out(hidden), arrows",
     "return self.out(hidden), arrows", "points: layer_adds"),
    ("points", "self.head(numbers.mean(1))",
     "self.head(numbers.amax(1))", "points: a_summary_is"),
    ("points", "summary * mask, mask]", "summary, mask]", "points: go_dark"),
    ("points", "2 * u * (1 - since)", "2 * u", "points: knows_the_way"),
    ("points", "noise + again**2 *", "noise + again *", "points: second_walk"),
    ("points", "others = data.draw(which,",
     "others = data.draw(which.flip(0),", "points: a_step_pairs"),
    ("points", "model.encode(others))", "model.encode(end))", "points: a_step_pairs"),
    ("points", '"scale": 0.1}', '"scale": 1.0}', "points: all_weights"),
    ("points", "train, _, held_out =", "train, held_out, _ =", "points: parts_are"),

    ("results", "1 - math.floor(math.log10(error))",
     "-math.floor(math.log10(error))", "errors: two_figures"),
    ("results", "(\"Omega_m\", 1.06), (\"sigma_8\", 1.37)",
     "(\"sigma_8\", 1.06), (\"Omega_m\", 1.37)", "errors: table"),

    ("bench", "times[:, :1] / times", "times / times[:, :1]", "values: race"),
    ("bench", "seconds(call, device) / items", "seconds(call, device)", "values: race"),

    ("cli", "\"box\": data.box, ", "", "pairing: takes_the_box"),
    ("cli", "network.decode(array, seed=seed, **options)",
     "network.decode(array, seed=0, **options)", "pairing: files"),
]


def copy_package(folder: Path) -> Path:
    "The package's code in another folder, with links to its data."
    ignored = ignore_patterns(*DATA, "__pycache__")
    copy = copytree(PACKAGE, folder / "cosmoflow", ignore=ignored)
    for name in DATA: (copy / name).symlink_to(PACKAGE / name)
    return copy


def run_tests(folder: Path, tests: str) -> int:
    "Runs tests against the package in a folder; gives pytest's status."
    import pytest

    child = os.fork()  # torch is loaded already, the package is not
    if child: return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    os.environ["PYTHONPATH"] = str(folder)
    sys.path.insert(0, str(folder))
    sys.stdout = sys.stderr = open(folder / "log.txt", "w", encoding="utf-8")
    for number in (1, 2): os.dup2(sys.stdout.fileno(), number)
    file, _, words = tests.partition(": ")
    options = ["-qx", "-p", "no:cacheprovider", *(["-k", words] if words else [])]
    os._exit(pytest.main([str(ROOT / "tests" / f"test_{file}.py"), *options]))


def judge(folder: Path, module: str, old: str, new: str, tests: str) -> str:
    "Makes a mutant, asks its tests, and mends it; what came of it, in a word."
    path = folder / "cosmoflow" / f"{module}.py"
    code = path.read_text(encoding="utf-8")
    if code.count(old) != 1: return "OUTDATED"
    path.write_text(code.replace(old, new), encoding="utf-8")
    try:
        status = run_tests(folder, tests)
    finally:
        path.write_text(code, encoding="utf-8")
    return {0: "SURVIVED", 1: "caught"}.get(status, f"BROKEN ({status})")


def main(words: list[str]) -> None:
    for slow in LOADED_ONCE: import_module(slow)
    found: Counter[str] = Counter()
    with TemporaryDirectory() as name:
        copy_package(folder := Path(name))
        for module, old, new, tests in MUTANTS:
            if words and not any(w in f"{module} {tests}" for w in words): continue
            start, result = time(), judge(folder, module, old, new, tests)
            found[result] += 1
            text = " ".join(f"{module}: {old} -> {new} ({tests})".split())
            print(f"{result:8} {time() - start:5.1f} s  {text}", flush=True)
    print(", ".join(f"{n} {result}" for result, n in found.items()))
    sys.exit(found.keys() != {"caught"})


if __name__ == "__main__": main(sys.argv[1:])
