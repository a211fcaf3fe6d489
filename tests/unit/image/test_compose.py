"""docker/compose.yaml: valid, hardened, without secrets, and told nothing that the service would refuse."""

import re

import pytest
import yaml

from service.embedded import cache_settings
from service.settings import read_settings
from service.topics import partition_counts
from tests.image.compose import COMPOSE, filled_example, problems, read_compose, read_example
from tests.image.dockerfile import DOCKERFILE, read_stages

FILLED = filled_example()
SERVICES = read_compose(FILLED)["services"]
OURS = {name: item for name, item in SERVICES.items() if item["image"].startswith("sub60:")}
ROLES = {name: item for name, item in OURS.items() if item.get("command", [""])[0] == "serve"}
IMAGE_ENVIRONMENT = read_stages(DOCKERFILE.read_text(encoding="utf-8"))[-1].environment()


def settings_of(service):
    variables = IMAGE_ENVIRONMENT | service.get("environment", {})
    return read_settings({name: value for name, value in variables.items() if name.startswith("SUB60_")})


def test_valid_by_the_compose_specification():
    assert problems(read_compose(FILLED)) == []


def test_the_schema_finds_a_word_it_does_not_know():
    wrong = read_compose(FILLED)
    wrong["services"]["api"]["read_onyl"] = True
    assert any("read_onyl" in line for line in problems(wrong))


@pytest.mark.parametrize("name", sorted(SERVICES))
def test_every_service_is_hardened(name):
    service = SERVICES[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert "cap_add" not in service
    assert "no-new-privileges:true" in service["security_opt"]
    assert service["mem_limit"]
    assert service["pids_limit"]
    assert not {"privileged", "network_mode", "pid", "ipc", "devices"} & set(service)


@pytest.mark.parametrize("name", sorted(SERVICES))
def test_images_have_a_tag_that_does_not_move(name):
    assert re.fullmatch(r"[\w./-]+:v?\d+\.\d+[\w.-]*(@sha256:[0-9a-f]{64})?", SERVICES[name]["image"])


@pytest.mark.parametrize("name", sorted(SERVICES))
def test_ports_are_published_on_loopback_only(name):
    for port in SERVICES[name].get("ports", []):
        assert re.fullmatch(r"127\.0\.0\.1:\d+:\d+", port)


@pytest.mark.parametrize("name", sorted(OURS))
def test_variables_are_settings(name):
    settings_of(OURS[name])  # refuses a variable that is none, and a value that cannot be


def test_every_role_runs_and_slots_differ():
    roles = [service["command"][-1] for service in ROLES.values()]
    assert sorted(roles) == ["api", "archive", "fanout", "prefetch", "worker", "worker"]
    slots = [settings_of(service).slot for service in ROLES.values() if service["command"][-1] == "worker"]
    assert sorted(slots) == list(range(len(slots)))
    assert len({settings_of(service).partitions for service in ROLES.values()}) == 1
    assert partition_counts(settings_of(ROLES["fanout"]).log_url, 4)["alerts"] == 4


def test_a_role_waits_for_what_it_cannot_do_without():
    for service in ROLES.values():
        waits = {name: item["condition"] for name, item in service["depends_on"].items()}
        assert waits["kafka"] == waits["cache"] == "service_healthy"
        assert waits["topics"] == waits["apdb"] == waits["kernels"] == "service_completed_successfully"
        assert "healthcheck" not in service  # the image's own


def test_only_the_archive_writes_the_state():
    writers = {name for name, item in OURS.items() if "state:/var/lib/sub60" in item.get("volumes", [])}
    assert writers == {"archive", "apdb"}
    for name in ROLES:
        if name != "api":
            assert f"{FILLED['DATASET_DIR']}:/data:ro" in ROLES[name]["volumes"]


def test_workers_memory_is_above_their_childs_limit():
    for service in ROLES.values():
        if service["command"][-1] == "worker":
            assert int(service["mem_limit"].removesuffix("g")) * 1024 > settings_of(service).child_memory_mb


def test_cache_has_the_settings_of_the_embedded_one():
    words = SERVICES["cache"]["command"][1:]
    given = dict(zip((word.removeprefix("--") for word in words[::2]), words[1::2], strict=True))
    wanted = cache_settings(int(FILLED["CACHE_MEMORY_MB"]))
    assert given == wanted | {"save": ""}  # the file's "" is the prompt's empty word


def test_no_secret_is_written_down():
    raw = yaml.safe_load(COMPOSE.read_text(encoding="utf-8"))
    for name, service in raw["services"].items():
        for variable, value in service.get("environment", {}).items():
            if re.search(r"PASSWORD|TOKEN|SECRET", variable):
                assert re.fullmatch(r"\$\{\w+:[?-][^}]*\}", str(value)), f"{name}: {variable}"
    secrets = {name: value for name, value in read_example().items() if re.search(r"PASSWORD|TOKEN", name)}
    assert secrets
    assert set(secrets.values()) == {""}


@pytest.mark.parametrize("name", ["POSTGRES_PASSWORD", "GRAFANA_PASSWORD", "DATASET_DIR"])
def test_it_does_not_start_without(name):
    with pytest.raises(KeyError, match=name):
        read_compose(FILLED | {name: ""})


def test_every_variable_is_in_the_example():
    used = set(re.findall(r"(?<!\$)\$\{(\w+)", COMPOSE.read_text(encoding="utf-8")))
    assert used == set(read_example())


def test_prometheus_asks_every_role():
    path = COMPOSE.parent / "prometheus" / "prometheus.yaml"
    (job,) = yaml.safe_load(path.read_text(encoding="utf-8"))["scrape_configs"]
    targets = {target: item["labels"]["role"] for item in job["static_configs"] for target in item["targets"]}
    assert targets == {f"{name}:{settings_of(item).http_port}": item["command"][-1] for name, item in ROLES.items()}


def test_grafana_finds_what_is_mounted():
    folder = COMPOSE.parent / "grafana"
    mounted = {item.split(":")[1] for item in SERVICES["grafana"]["volumes"]}
    (provider,) = yaml.safe_load((folder / "dashboards/sub60.yaml").read_text(encoding="utf-8"))["providers"]
    (source,) = yaml.safe_load((folder / "datasources/prometheus.yaml").read_text(encoding="utf-8"))["datasources"]
    assert provider["options"]["path"] in mounted
    assert source["url"] == "http://prometheus:9090"
    assert "prometheus" in SERVICES
