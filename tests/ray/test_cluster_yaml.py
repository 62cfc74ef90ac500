"""cluster.yaml: Ray's own checks, and ours for what those let through."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
PROVIDER_KEYS = {"type", "region", "availability_zone", "cache_stopped_nodes"}


@pytest.fixture(scope="module")
def cluster() -> dict[str, Any]:
    return dict(yaml.safe_load((ROOT / "cluster.yaml").read_text()))


@pytest.mark.filterwarnings("ignore")
def test_ray_accepts_it(cluster: dict[str, Any]) -> None:
    from ray.autoscaler._private.util import prepare_config, validate_config

    validate_config(prepare_config(cluster))


@pytest.mark.filterwarnings("ignore")
def test_ray_would_refuse_a_mistake(cluster: dict[str, Any]) -> None:
    """The check above checks something."""
    from ray.autoscaler._private.util import prepare_config, validate_config

    with pytest.raises(Exception, match="nonsense"):
        validate_config(prepare_config({**cluster, "nonsense": 1}))


def test_provider_has_no_misspelt_key(cluster: dict[str, Any]) -> None:
    provider = cluster["provider"]
    assert set(provider) == PROVIDER_KEYS
    zones = provider["availability_zone"].split(",")
    assert all(re.fullmatch(re.escape(provider["region"]) + "[a-f]", zone) for zone in zones)


def test_node_configs_are_requests_that_ec2_understands(cluster: dict[str, Any]) -> None:
    """Names and types of every field, nested ones too, against Amazon's own description."""
    session = pytest.importorskip("botocore.session").get_session()
    from botocore.validate import ParamValidator

    shape = session.get_service_model("ec2").operation_model("RunInstances").input_shape
    for node_type in cluster["available_node_types"].values():
        request = {"MinCount": 1, "MaxCount": 1, **node_type["node_config"]}
        report = ParamValidator().validate(request, shape)
        assert not report.has_errors(), report.generate_report()
    wrong = {"MinCount": 1, "MaxCount": 1, "InstanceTyp": "m7i.large"}
    assert ParamValidator().validate(wrong, shape).has_errors()


def test_the_head_only_schedules_and_workers_are_gpus_on_spot(cluster: dict[str, Any]) -> None:
    types = cluster["available_node_types"]
    head = types.pop(cluster["head_node_type"])
    assert head["resources"] == {"CPU": 0}
    assert "InstanceMarketOptions" not in head["node_config"]
    for worker in types.values():
        assert worker["resources"]["GPU"] >= 1
        assert worker["min_workers"] == 0
        assert worker["node_config"]["InstanceMarketOptions"]["MarketType"] == "spot"
        assert "IamInstanceProfile" in worker["node_config"]
    assert sum(worker["max_workers"] for worker in types.values()) >= cluster["max_workers"]


def test_what_is_copied_exists_and_is_what_the_package_needs(cluster: dict[str, Any]) -> None:
    mounts = cluster["file_mounts"]
    for source in mounts.values():
        assert (ROOT / source).exists(), source
    mounted = {target.removeprefix("~/cflows_ray/") for target in mounts}
    assert {"pyproject.toml", "constraints.txt", "cflows_ray", "sweeps", "analysis"} <= mounted


def test_versions_are_those_of_the_constraints(cluster: dict[str, Any]) -> None:
    installs = [
        command
        for key in ("setup_commands", "worker_setup_commands")
        for command in cluster[key]
        if "pip install" in command
    ]
    assert len(installs) == 2
    assert all("-c ~/cflows_ray/constraints.txt" in command for command in installs)
    constraints = (ROOT / "constraints.txt").read_text()
    for name in ("ray", "jax", "orbax-checkpoint", "pyarrow"):
        assert re.search(rf"(?m)^{name}(\[.*\])?==", constraints), name
