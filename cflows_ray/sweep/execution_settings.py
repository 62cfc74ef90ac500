"""How a sweep is carried out: none of it changes a number or a run id."""

from __future__ import annotations

from dataclasses import dataclass

from cflows_ray.checks import integer, number, positive, require


@dataclass(frozen=True)
class Execution:
    """How a sweep is carried out. None of this changes a number or a run id.

    Attributes:
        storage: folder or URI (s3://bucket/folder, ...) that holds a folder for each sweep.
        chunk_steps: optimizer steps in one compiled chunk; progress is reported after each.
        checkpoint_every: chunks between two checkpoints; a fault costs at most this much work.
        workers: most runs at the same time; None for as many as fit.
        pack: most runs of one kind in one batched program; None for 1 on CPUs, and on GPUs for as
            many as fit into memory and measurably gain. Numbers are those of single runs up to
            rounding.
        cpus_per_run: CPU cores that a run, or a pack of runs, holds.
        gpus_per_run: GPUs, or the fraction of one, that a run holds; None for 1 if there are GPUs.
        memory_gb_per_run: memory that a run reserves; 0 for none.
        max_failures: how often a run is tried again after a lost process or machine; -1 for ever.
        autoscaling: do not refuse a run that fits on no machine yet; clusters of Ray's own launcher
            are known to grow without this.
        address: Ray cluster to use ("auto", host:port); None for the one that this machine belongs
            to, or else a private one on this machine.
        compile_cache: folder for compiled programs; None for the user's cache, "" for none.
    """

    storage: str = "results"
    chunk_steps: int = 100
    checkpoint_every: int = 1
    workers: int | None = None
    pack: int | None = None
    cpus_per_run: float = 1.0
    gpus_per_run: float | None = None
    memory_gb_per_run: float = 0.0
    max_failures: int = 5
    autoscaling: bool = False
    address: str | None = None
    compile_cache: str | None = None

    def __post_init__(self) -> None:
        require(bool(str(self.storage).strip()), "storage", "a folder or URI", self.storage)
        for name in ("chunk_steps", "checkpoint_every"):
            integer(name, getattr(self, name), 1)
        for name in ("workers", "pack"):
            if getattr(self, name) is not None:
                integer(name, getattr(self, name), 1)
        integer("max_failures", self.max_failures, -1)
        positive("cpus_per_run", self.cpus_per_run)
        number("memory_gb_per_run", self.memory_gb_per_run, ">= 0", 0.0)
        if self.gpus_per_run is not None:
            gpus = number("gpus_per_run", self.gpus_per_run, ">= 0", 0.0)
            whole = gpus <= 1 or gpus == int(gpus)  # Ray has fractions only below one GPU
            require(whole, "gpus_per_run", "a fraction below 1 or a whole number", gpus)
