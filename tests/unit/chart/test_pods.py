"""What is rendered for each role: security, settings, probes, volumes, and that names meet."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Final

import pytest
import yaml
from click.testing import CliRunner
from pydantic import SecretStr

from service.cli import main
from service.commands.serve import MODULES
from service.settings import KEEP_MEMORY, PREFIX, THREADS, Settings, read_settings
from tests.support.chart import Document, environment, kinds, pods, run_helm

Objects = tuple[Document, ...]
Rendered = Callable[[str], Objects]

ROLES: Final = set(MODULES) - {"all"}
WRITABLE: Final = {"/tmp", "/var/lib/sub60", "/var/cache/sub60"}
MEBIBYTES: Final = {"Mi": 1, "Gi": 1024}


def mebibytes(quantity: str) -> float:
    return float(quantity[:-2]) * MEBIBYTES[quantity[-2:]]


def test_every_role_has_its_workload(objects: Objects) -> None:
    assert set(pods(objects)) - {"topics"} == ROLES
    for role, pod in pods(objects).items():
        (container,) = pod["spec"]["containers"]
        if role == "topics":
            assert container["args"] == ["topics", "create"]
        else:
            assert container["args"] == ["serve", "--role", role]
        assert CliRunner().invoke(main, [*container["args"], "--help"]).exit_code == 0


def test_workloads_are_of_the_kind_their_role_needs(objects: Objects) -> None:
    sets = {d["metadata"]["labels"]["app.kubernetes.io/component"]: d for d in kinds(objects, "StatefulSet")}
    assert set(sets) == {"worker", "prefetch"}  # those with a slot
    assert all(found["spec"]["podManagementPolicy"] == "Parallel" for found in sets.values())
    (archive,) = (d for d in kinds(objects, "Deployment") if d["metadata"]["name"].endswith("-archive"))
    assert archive["spec"]["replicas"] == 1
    assert archive["spec"]["strategy"] == {"type": "Recreate"}


def test_pods_meet_the_restricted_standard(objects: Objects) -> None:
    for pod in pods(objects).values():
        spec = pod["spec"]
        assert spec["automountServiceAccountToken"] is False
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert spec["securityContext"]["runAsUser"] == 10001
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert not {"hostNetwork", "hostPID", "hostIPC", "initContainers"} & set(spec)
        for container in spec["containers"]:
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "runAsNonRoot": True,
                "capabilities": {"drop": ["ALL"]},
            }
        kinds_of_volumes = {next(iter(set(volume) - {"name"})) for volume in spec["volumes"]}
        assert kinds_of_volumes <= {"emptyDir", "secret", "configMap", "persistentVolumeClaim"}


def test_variables_are_settings_that_start_the_role(objects: Objects) -> None:
    for role, pod in pods(objects).items():
        variables = environment(pod)
        settings = read_settings({name: value for name, value in variables.items() if name.startswith(PREFIX)})
        assert pod["spec"]["enableServiceLinks"] is False, "a Service named sub60-… would add unknown variables"
        if role != "topics":
            assert (settings.http_host, settings.http_port) == ("0.0.0.0", 8060)
            assert {str(settings.state_dir), settings.compiled_cache, "/tmp"} == WRITABLE
        assert (settings.slot == 7) == (role in ("worker", "prefetch"))


def test_every_secret_comes_by_reference(objects: Objects) -> None:
    secret = {PREFIX + n.upper() for n, field in Settings.model_fields.items() if field.annotation is SecretStr}
    assert not kinds(objects, "Secret")
    for pod in pods(objects).values():
        for variable in pod["spec"]["containers"][0]["env"]:
            if variable["name"] in secret or re.search("PASSWORD|TOKEN|CREDENTIAL", variable["name"]):
                assert set(variable) == {"name", "valueFrom"}, variable["name"]
                assert set(variable["valueFrom"]) == {"secretKeyRef"}


def test_the_operators_token_goes_to_the_api_alone(rendered: Rendered) -> None:
    having = {role for role, pod in pods(rendered("survey")).items() if "SUB60_HTTP_TOKEN" in environment(pod)}
    assert having == {"api"}


def test_topics_are_made_by_their_own_user(rendered: Rendered) -> None:
    objects = rendered("survey")
    (job,) = kinds(objects, "Job")
    assert "pre-install" in job["metadata"]["annotations"]["helm.sh/hook"]
    users = {role: environment(pod)["SUB60_KAFKA_USER"] for role, pod in pods(objects).items()}
    assert users == dict.fromkeys(ROLES, "sub60") | {"topics": "sub60-admin"}
    partitions = {environment(pod)["SUB60_PARTITIONS"] for pod in pods(objects).values()}
    assert partitions == {"189"}


def test_probes_leave_time_for_the_warm_up_and_ask_what_the_service_answers(objects: Objects) -> None:
    for role, pod in pods(objects).items():
        if role == "topics":
            continue
        (container,) = pod["spec"]["containers"]
        variables = environment(pod)
        settings = read_settings({name: value for name, value in variables.items() if name.startswith(PREFIX)})
        assert container["livenessProbe"]["httpGet"] == {"path": "/healthz", "port": "http"}
        assert container["readinessProbe"]["httpGet"] == {"path": "/readyz", "port": "http"}
        startup = container["startupProbe"]
        assert startup["periodSeconds"] * startup["failureThreshold"] > settings.warm_up_limit_s
        assert pod["spec"]["terminationGracePeriodSeconds"] >= settings.drain_s + 20
        assert container["ports"] == [{"name": "http", "containerPort": settings.http_port, "protocol": "TCP"}]


def test_mounts_and_volumes_meet(objects: Objects) -> None:
    for role, pod in pods(objects).items():
        (container,) = pod["spec"]["containers"]
        volumes = {volume["name"]: volume for volume in pod["spec"]["volumes"]}
        mounts = {mount["mountPath"]: mount for mount in container["volumeMounts"]}
        assert {mount["name"] for mount in mounts.values()} == set(volumes)
        assert len(mounts) == len(container["volumeMounts"])
        written = {path for path, mount in mounts.items() if not mount.get("readOnly")}
        if role == "topics":
            assert written == {"/tmp"}
        elif role == "archive":
            assert written - {"/data"} == WRITABLE
        else:
            assert written == WRITABLE
        for name, value in environment(pod).items():
            if value.startswith("/"):  # a file or folder that a setting names is mounted
                assert any(value == path or Path(path) in Path(value).parents for path in mounts), name


def test_the_archive_keeps_its_files_and_nobody_else_writes_the_dataset(rendered: Rendered) -> None:
    for case, archive_writes in (("laptop", True), ("survey", False)):
        found = pods(rendered(case))
        volumes = {volume["name"]: volume for volume in found["archive"]["spec"]["volumes"]}
        assert "persistentVolumeClaim" in volumes["state"]
        assert volumes["dataset"]["persistentVolumeClaim"].get("readOnly", False) is not archive_writes
        for role in ("fanout", "prefetch", "worker"):
            volumes = {volume["name"]: volume for volume in found[role]["spec"]["volumes"]}
            assert volumes["dataset"]["persistentVolumeClaim"]["readOnly"] is True
        assert "dataset" not in {volume["name"] for volume in found["api"]["spec"]["volumes"]}


def test_a_worker_has_more_memory_than_its_child_may_map(objects: Objects) -> None:
    worker = pods(objects)["worker"]
    resources = worker["spec"]["containers"][0]["resources"]
    limit = Settings.model_fields["child_memory_mb"].default
    assert mebibytes(resources["limits"]["memory"]) >= limit + 1024
    assert "cpu" not in resources["limits"]


def test_prefetch_gets_the_environment_that_a_child_gets(objects: Objects) -> None:
    variables = environment(pods(objects)["prefetch"])
    wanted = dict.fromkeys(THREADS, "1") | KEEP_MEMORY
    assert {name: value for name, value in variables.items() if not name.startswith((PREFIX, "LSST_"))} == wanted


def test_selectors_find_their_pods(objects: Objects) -> None:
    labels = {role: pod["metadata"]["labels"].items() for role, pod in pods(objects).items()}
    for document in kinds(objects, "Service"):
        role = document["metadata"]["labels"]["app.kubernetes.io/component"]
        assert document["spec"]["selector"].items() <= labels[role]
    for document in [*kinds(objects, "PodDisruptionBudget"), *kinds(objects, "NetworkPolicy")]:
        selector = document["spec"].get("selector", document["spec"].get("podSelector"))["matchLabels"].items()
        found = {role for role, own in labels.items() if selector <= own}
        role = document["metadata"]["labels"].get("app.kubernetes.io/component")
        assert found == ({role} if role else set(labels))
    for document in kinds(objects, "StatefulSet"):
        (service,) = (d for d in kinds(objects, "Service") if d["metadata"]["name"] == document["spec"]["serviceName"])
        assert service["spec"]["clusterIP"] == "None"


def test_network_policies_deny_all_and_open_what_a_role_needs(rendered: Rendered) -> None:
    policies = {
        d["metadata"]["name"].removeprefix("night-sub60-"): d["spec"]
        for d in kinds(rendered("everything"), "NetworkPolicy")
    }
    assert set(policies) == {"deny", "topics", *ROLES}
    assert set(policies["deny"]) == {"podSelector", "policyTypes"}
    ports = {
        role: {port["port"] for rule in spec["egress"] for port in rule["ports"]}
        for role, spec in policies.items()
        if role != "deny"
    }
    kafka, cache, apdb, mpsky, registry = {9092, 9093}, {6379}, {5432}, {443}, {8081}
    assert ports == {
        "topics": {53} | kafka,
        "fanout": {53} | kafka,
        "api": {53} | kafka | registry,
        "prefetch": {53} | kafka | cache | apdb | mpsky,
        "archive": {53} | kafka | cache | apdb | registry,
        "worker": {53} | kafka | cache | apdb | mpsky | registry,
    }
    in_laptop = kinds(rendered("laptop"), "NetworkPolicy")
    opened = {port["port"] for d in in_laptop for rule in d["spec"].get("egress", ()) for port in rule["ports"]}
    assert opened == {53, 6379, 6380}  # no mpSky, no registry, SQLite


def test_who_may_ask_a_role(rendered: Rendered) -> None:
    monitoring = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}
    for document in kinds(rendered("survey"), "NetworkPolicy"):
        role = document["metadata"]["labels"].get("app.kubernetes.io/component")
        asking = [peer for rule in document["spec"].get("ingress", ()) for peer in rule["from"]]
        wanted = {None: [], "topics": [], "api": [monitoring, {"podSelector": {}}]}
        assert asking == wanted.get(role, [monitoring])


def test_an_empty_list_of_askers_lets_nobody_in() -> None:
    servers = "log.url=redis://log:6379,cache.url=redis://cache:6379"
    nobody = "networkPolicy.monitoring.from=[],networkPolicy.api.from=[]"
    done = run_helm("--set", servers, "--set-json", nobody)
    assert done.returncode == 0, done.stderr
    policies = kinds(tuple(yaml.safe_load_all(done.stdout)), "NetworkPolicy")
    assert policies
    assert not [policy for policy in policies if "ingress" in policy["spec"]]


def test_disruption_budgets_let_a_node_with_the_only_replica_be_drained(rendered: Rendered) -> None:
    budgets = kinds(rendered("one-server"), "PodDisruptionBudget")
    assert {d["metadata"]["labels"]["app.kubernetes.io/component"] for d in budgets} == {
        "worker",
        "prefetch",
        "fanout",
        "api",
    }
    assert all(set(d["spec"]) & {"minAvailable", "maxUnavailable"} == {"maxUnavailable"} for d in budgets)


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ("log.url=", "log.url is needed"),
        ("cache.url=", "cache.url is needed"),
        ("log.user=sub60", "log.passwordSecret.name"),
        ("log.tls=true", "rediss://"),
        ("worker.resources.limits.memory=6Gi", "1 GiB above the child's limit"),
        ("keda.enabled=true,keda.maxReplicas=5,partitions=4", "no work"),
        ("keda.enabled=true,keda.night.desiredReplicas=9", "keda.maxReplicas"),
        ("worker.replica=3", "replica"),
    ],
)
def test_values_that_cannot_work_are_refused_with_a_reason(values: str, reason: str) -> None:
    redis = "log.url=redis://log:6379,cache.url=redis://cache:6379"
    done = run_helm("--set", f"{redis},{values}")
    assert done.returncode != 0
    assert reason in done.stderr


def test_large_numbers_stay_numbers(rendered: Rendered) -> None:
    assert environment(pods(rendered("everything"))["topics"])["SUB60_KEEP_PARTITION_MB"] == "2000000"
