"""Universes of another code, JaxPM, in the layout of our own.

They are the foreign suite of the lab report on transfer.
Box, slabs, pixels and painting are those of `cosmoflow.simulate`. What differs is what
simulates: the fit to the linear power, the particles, the force, and the integrator. A
stopped run goes on. Use, in an environment of its own (each universe takes seconds):

    pip install jaxpm==0.1.6 jax_cosmo==0.1.0 diffrax cosmoflow
    python nbs/experiments/_jaxpm.py build/jaxpm --sims 0:250

    open_maps("JaxPM", "LH", "build/jaxpm")
"""
import argparse
from importlib.metadata import version
from pathlib import Path

import diffrax
import jax
import jax.numpy as jnp
import jax_cosmo as jc
import numpy as np
from jaxpm.pm import linear_field, lpt, make_diffrax_ode
from scipy.stats import qmc

from cosmoflow.core import (BOX, MAPS_PER_SIMULATION, atomic_path, progress,
                            write_json)
from cosmoflow.data import map_path, param_path, write_maps
from cosmoflow.simulate import (HUBBLE, N_S, OMEGA_B, RHO_CRIT, paint_slabs,
                                round_mantissa)

PIXELS, SIDE, STEPS, A_START = 64, 96, 24, 0.1  # pixels and particles a side
SEED = 60_000  # of the phases; none of ours is near


def table(n: int) -> np.ndarray:
    "Omega_m and sigma_8 of the first n universes: Sobol points in LH's rectangle."
    unit = qmc.Sobol(2, scramble=True, rng=29).random(1024)[:n]
    return (np.array([0.1, 0.6]) + 0.4 * unit).round(5)


def universe(omega_m: float, sigma_8: float) -> jc.Cosmology:
    "A flat universe, as CAMELS has it, for jax_cosmo."
    return jc.Cosmology(Omega_c=omega_m - OMEGA_B, Omega_b=OMEGA_B, h=HUBBLE, n_s=N_S,
                        sigma8=sigma_8, Omega_k=0.0, w0=-1.0, wa=0.0)


def linear_power(omega_m: float, sigma_8: float) -> tuple[jax.Array, jax.Array]:
    "Wavenumbers and power today. We set sigma_8: jax_cosmo's is up to 2 % off."
    k = jnp.logspace(-4, 2.5, 1024)
    power = jc.power.linear_matter_power(universe(omega_m, sigma_8), k)
    x = 8 * k
    ball = jnp.where(x < 0.1, 1.0, 3 * (jnp.sin(x) - x * jnp.cos(x)) / x**3)
    variance = jnp.trapezoid(power * ball**2 * k**3 / (2 * jnp.pi**2), jnp.log(k))
    return k, power * sigma_8**2 / variance


def initial(omega_m: float, sigma_8: float, seed: int, side: int = SIDE) -> jax.Array:
    "Linear density today on the mesh, (side, side, side)."
    k, power = linear_power(omega_m, sigma_8)
    interpolate = lambda x: jnp.exp(jnp.interp(
        jnp.log(jnp.maximum(x, 1e-4)), jnp.log(k), jnp.log(power)))
    return linear_field((side,) * 3, (BOX,) * 3, interpolate, jax.random.key(seed))


def positions(omega_m: float, sigma_8: float, seed: int, side: int = SIDE,
              steps: int = STEPS) -> jax.Array:
    "Particles today, in cells of the mesh, (side**3, 3)."
    grid = jnp.stack(jnp.meshgrid(*[jnp.arange(side, dtype=float)] * 3, indexing="ij"),
                     -1)
    delta = initial(omega_m, sigma_8, seed, side)
    # a universe of its own each time: both libraries keep growth tables in it
    dx, p, _ = lpt(universe(omega_m, sigma_8), delta, grid, a=A_START, order=2)
    ode = diffrax.ODETerm(make_diffrax_ode((side,) * 3))
    found = diffrax.diffeqsolve(
        ode, diffrax.LeapfrogMidpoint(), A_START, 1.0, (1 - A_START) / steps,
        jnp.stack([grid + dx, p]), universe(omega_m, sigma_8),
        saveat=diffrax.SaveAt(t1=True),
        adjoint=diffrax.DirectAdjoint(), max_steps=2 * steps)
    return found.ys[0, 0].reshape(-1, 3)


@jax.jit
def maps(omega_m: float, sigma_8: float, seed: int) -> jax.Array:
    "Surface density of 15 slabs, (15, PIXELS, PIXELS), (Msun/h)/(Mpc/h)^2."
    pos = positions(omega_m, sigma_8, seed) * (BOX / SIDE)
    mass = (omega_m - OMEGA_B) * RHO_CRIT * (BOX / SIDE) ** 3
    return paint_slabs(pos, PIXELS) * (mass / (BOX / PIXELS) ** 2)


def assemble(out: Path, keep_bits: int) -> None:
    "Joins the universes that are there, from the first to the first missing one."
    n = 0
    while (out / "parts" / f"{n:04d}.npy").exists(): n += 1
    if not n: return  # the first ones are made elsewhere, or later
    parts = (np.load(out / "parts" / f"{i:04d}.npy") for i in range(n))
    shape = n * MAPS_PER_SIMULATION, PIXELS, PIXELS
    write_maps(map_path(out, "JaxPM", "LH"), shape, parts)
    with atomic_path(param_path(out, "JaxPM", "LH")) as tmp:
        np.savetxt(tmp, table(n), fmt="%.5f", header="Omega_m sigma_8")
    names = "jaxpm", "jax_cosmo", "diffrax", "jax", "numpy"
    write_json(out / "manifest_LH.json", {
        "settings": {"box": BOX, "particles": SIDE, "pixels": PIXELS, "steps": STEPS,
                     "a_start": A_START, "keep_bits": keep_bits, "seed": SEED},
        "simulations": n, "versions": {name: version(name) for name in names}})


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("out", type=Path, help="folder of maps, parameters and parts")
    parser.add_argument("--sims", default="0:250", help="which universes")
    parser.add_argument("--keep-bits", type=int, default=6, help="mantissa bits kept")
    given = parser.parse_args()
    first, last = map(int, given.sims.split(":"))
    params = table(last)
    for i in progress(range(first, last), desc="universes", unit="sim", every=10):
        part = given.out / "parts" / f"{i:04d}.npy"
        if part.exists(): continue
        made = np.asarray(maps(*params[i], SEED + i), np.float32)
        made = round_mantissa(made, given.keep_bits)
        with atomic_path(part) as tmp: np.save(tmp, made)
        if (i + 1) % 10 == 0: assemble(given.out, given.keep_bits)
    assemble(given.out, given.keep_bits)
