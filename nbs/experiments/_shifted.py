"""Our own simulator, coarser, and with another background: a gentle foreign suite.

PM++ as in `cosmoflow.simulate`, with 64^3 particles, and with a baryon density, a
Hubble constant and a spectral index that no CAMELS simulation has. Use:

    python nbs/experiments/_shifted.py build/shifted 120

    open_maps("PM", "SB2", "build/shifted")
"""
import sys

import cosmoflow.simulate as ours

if __name__ == "__main__":
    # the compiled stages take these when they are first called
    ours.OMEGA_B, ours.HUBBLE, ours.N_S = 0.06, 0.74, 0.92
    ours.simulate("SB2", sys.argv[1], slice(0, int(sys.argv[2])), particles=64,
                  keep_bits=6)
