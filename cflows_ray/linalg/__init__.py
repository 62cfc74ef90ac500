"""Dense and matrix-free algebra on arrays: eigenpairs, symmetric matrices, complementarity.

Hands out `top_eigenpairs` (warm-started, of a matrix given by its products, `Matvecs`; its status
is `EIG_CONVERGED` or another number), `svec` and `smat` (symmetric matrices as vectors, inner
products kept), and `solve_sdcp` (X ⪰ 0, Y = A + B[X] ⪰ 0, <X, Y> = 0; status `SDCP_CONVERGED` or
another). Nothing here knows of losses, optimizers or flows.
"""

from cflows_ray.linalg.eigen import EIG_CONVERGED, EigenResult, Matvecs, top_eigenpairs
from cflows_ray.linalg.sdcp import SDCP_CONVERGED, SDCPResult, solve_sdcp
from cflows_ray.linalg.symmetric import num_pairs, pair_indices, smat, svec

__all__ = [
    "EIG_CONVERGED",
    "SDCP_CONVERGED",
    "EigenResult",
    "Matvecs",
    "SDCPResult",
    "num_pairs",
    "pair_indices",
    "smat",
    "solve_sdcp",
    "svec",
    "top_eigenpairs",
]
