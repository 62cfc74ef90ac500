"""Settings for all tests: one CPU device, one thread per linear-algebra call."""

import os

# before NumPy and JAX are imported: on a busy machine, threads in tiny solves cost 100 times more
for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(name, "1")
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("MPLBACKEND", "Agg")
