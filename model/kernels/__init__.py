"""What the engine computes with on a CPU, compiled by Numba: no compiler is needed, and no torch.

The first start on a machine compiles, later ones read Numba's cache.
"""
