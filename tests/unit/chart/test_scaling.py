"""KEDA's objects: the cron floor, the lag on top, and names that are those of the code."""

from collections.abc import Callable
from zoneinfo import ZoneInfo

from service.log.kafka_wire import group_id
from service.roles.run_worker import GROUP
from service.topics import WORK
from tests.support.chart import CASES, Document, environment, kinds, load, pods

Rendered = Callable[[str], tuple[Document, ...]]

CRON = {"timezone", "start", "end", "desiredReplicas"}
KAFKA = {
    "bootstrapServers",
    "consumerGroup",
    "topic",
    "lagThreshold",
    "activationLagThreshold",
    "offsetResetPolicy",
    "allowIdleConsumers",
    "excludePersistentLag",
    "sasl",
    "tls",
}
"""What KEDA 2.19 reads of a trigger, of what we say: its scalers ignore the rest in silence."""


def scaled(objects: tuple[Document, ...]) -> Document:
    (document,) = kinds(objects, "ScaledObject")
    return document


def worker_set(objects: tuple[Document, ...]) -> Document:
    (document,) = (d for d in kinds(objects, "StatefulSet") if d["metadata"]["name"].endswith("-worker"))
    return document


def test_keda_and_replicas_exclude_each_other(objects: tuple[Document, ...]) -> None:
    has_keda = bool(kinds(objects, "ScaledObject"))
    assert ("replicas" in worker_set(objects)["spec"]) is not has_keda
    if has_keda:
        target = scaled(objects)["spec"]["scaleTargetRef"]
        assert target == {
            "apiVersion": "apps/v1",
            "kind": "StatefulSet",
            "name": worker_set(objects)["metadata"]["name"],
        }


def test_a_survey_has_a_floor_by_night_and_follows_lag(rendered: Rendered) -> None:
    objects = rendered("survey")
    spec = scaled(objects)["spec"]
    night, lag = spec["triggers"]
    assert (night["type"], lag["type"]) == ("cron", "kafka")
    assert set(night["metadata"]) == CRON
    ZoneInfo(night["metadata"]["timezone"])
    assert set(lag["metadata"]) == KAFKA
    assert lag["metadata"]["consumerGroup"] == group_id(GROUP, WORK)
    assert lag["metadata"]["topic"] == WORK
    assert f"kafka://{lag['metadata']['bootstrapServers']}" == environment(pods(objects)["worker"])["SUB60_LOG_URL"]
    for trigger in spec["triggers"]:
        assert all(isinstance(value, str) for value in trigger["metadata"].values())
    assert int(night["metadata"]["desiredReplicas"]) <= spec["maxReplicaCount"] <= 189


def test_keda_logs_in_as_the_workers_do(rendered: Rendered) -> None:
    objects = rendered("survey")
    (authentication,) = kinds(objects, "TriggerAuthentication")
    assert scaled(objects)["spec"]["triggers"][1]["authenticationRef"]["name"] == authentication["metadata"]["name"]
    worker = pods(objects)["worker"]["spec"]["containers"][0]
    variables = {variable["name"] for variable in worker["env"]}
    for part in authentication["spec"]["env"]:
        assert part["containerName"] == worker["name"]
        assert part["name"] in variables
    assert scaled(objects)["spec"]["triggers"][1]["metadata"]["sasl"] == "scram_sha512"


def test_a_redis_log_has_the_floor_alone(rendered: Rendered) -> None:
    spec = scaled(rendered("redis-log"))["spec"]
    assert [trigger["type"] for trigger in spec["triggers"]] == ["cron"]
    assert "fallback" not in spec


def test_by_night_every_worker_of_a_profile_has_a_partition() -> None:
    for path in CASES.values():
        values = load(path)
        workers = values.get("keda", {}).get("night", {}).get("desiredReplicas") or values.get("worker", {}).get(
            "replicas", 0
        )
        assert workers <= values.get("partitions", 8)
