"""The nonlinear matter power that the set CV is held against.

It is HMCode-2020, as CAMB computes it. Use: pip install camb==2.0.5, then

    python nbs/course/_hmcode.py cosmoflow/suite/HMCode_CV.txt
"""
import sys

import camb
import numpy as np

H, N_S, OMEGA_B, OMEGA_M, SIGMA_8 = 0.6711, 0.9624, 0.049, 0.3, 0.8  # as all of CV


def results(amplitude: float) -> camb.CAMBdata:
    "CAMB's results for a primordial amplitude A_s; no neutrino has a mass."
    params = camb.CAMBparams()
    params.set_cosmology(H0=100 * H, ombh2=OMEGA_B * H**2, mnu=0, omk=0,
                         omch2=(OMEGA_M - OMEGA_B) * H**2, num_massive_neutrinos=0)
    params.InitPower.set_params(As=amplitude, ns=N_S)
    params.set_matter_power(redshifts=[0.0], kmax=200)
    params.NonLinear = camb.model.NonLinear_both
    params.NonLinearModel.set_params(halofit_version="mead2020")
    return camb.get_results(params)


if __name__ == "__main__":
    first = 2e-9
    found = results(first * (SIGMA_8 / results(first).get_sigma8_0()) ** 2)
    assert abs(found.get_sigma8_0() - SIGMA_8) < 1e-6
    k, _, power = found.get_matter_power_spectrum(minkh=0.01, maxkh=50, npoints=112)
    header = (f"Nonlinear matter power today: HMCode-2020, CAMB {camb.__version__}; "
              f"made by nbs/course/_hmcode.py\n"
              f"Omega_m {OMEGA_M}, Omega_b {OMEGA_B}, h {H}, n_s {N_S}, "
              f"sigma_8 {SIGMA_8}, no massive neutrinos\nk [h/Mpc]  P(k) [(Mpc/h)^3]")
    np.savetxt(sys.argv[1], np.column_stack([k, power[0]]), fmt="%.5g", header=header)
