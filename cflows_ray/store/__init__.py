"""A sweep's files: any filesystem, a lock, the Parquet tables, checkpoints.

Hands out `Storage` (files that appear whole or not at all), `SweepLock`, `Results` (the only writer
of Parquet) and `Checkpoints` (the only user of Orbax). Knows nothing of how numbers are made.
"""

from cflows_ray.store.checkpoint import Checkpoint, CheckpointDamaged, Checkpoints, begun_runs
from cflows_ray.store.folding import fold
from cflows_ray.store.lock import SweepLock, SweepLocked, is_alive, read_lock
from cflows_ray.store.storage import Storage, StorageError, is_uri
from cflows_ray.store.tables import OtherSchema, Results, ResultsDamaged, runs_schema, steps_table

__all__ = [
    "Checkpoint",
    "CheckpointDamaged",
    "Checkpoints",
    "OtherSchema",
    "Results",
    "ResultsDamaged",
    "Storage",
    "StorageError",
    "SweepLock",
    "SweepLocked",
    "begun_runs",
    "fold",
    "is_alive",
    "is_uri",
    "read_lock",
    "runs_schema",
    "steps_table",
]
