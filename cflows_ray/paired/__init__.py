"""One paired run, without Ray: an optimizer and its flows side by side from one point.

Hands out `run_paired` (a call), `PairedRun` (the same chunk by chunk, with a state that can be
saved), `PairedPack` (several runs in one batched program), `PairedOptions` and `PairedResult`.
"""

from cflows_ray.paired.call import PairedResult, run_paired
from cflows_ray.paired.options import PairedOptions
from cflows_ray.paired.pack import PairedPack, choose_pack_size
from cflows_ray.paired.run import PairedRun, forget_programs

__all__ = [
    "PairedOptions",
    "PairedPack",
    "PairedResult",
    "PairedRun",
    "choose_pack_size",
    "forget_programs",
    "run_paired",
]
