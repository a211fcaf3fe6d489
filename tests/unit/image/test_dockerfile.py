"""The Dockerfile: who runs, what is fetched, what is left."""

import re

import pytest

from tests.image.dockerfile import DOCKERFILE, DOCKERIGNORE, ROOT, DockerfileError, Ignored, expand, read_stages

BUILD, FINAL = read_stages(DOCKERFILE.read_text(encoding="utf-8"))


def runs(stage):
    return [item.value for item in stage.instructions if item.keyword == "RUN"]


def lock_blocks(name):
    text = (ROOT / "requirements" / name).read_text(encoding="utf-8")
    return dict(re.findall(r"^([a-z0-9][a-z0-9-]*)(==.*?)(?=^[a-z0-9]|\Z)", text, re.MULTILINE | re.DOTALL))


def test_runs_as_a_number_that_is_not_root():
    user = FINAL.last("USER")
    assert user is not None
    uid, gid = map(int, user.value.split(":"))  # numbers: Kubernetes' runAsNonRoot cannot judge a name
    assert uid == gid == 10001


def test_base_is_a_full_version_and_both_stages_have_the_same():
    assert BUILD.base == FINAL.base
    assert re.fullmatch(r"python:3\.11\.\d+-slim-bookworm", BUILD.base)


def test_nothing_is_fetched_but_by_hash():
    commands = [part.strip() for run in runs(BUILD) + runs(FINAL) for part in run.split("&&")]
    installs = [command for command in commands if " install " in command and "--directory" not in command]
    assert len(installs) == 4
    for command in installs:
        from_lock = "--require-hashes" in command and re.search(r"-r requirements/\S+\.lock", command)
        own_wheel = "--no-deps --no-index" in command and "/wheel/" in command
        assert from_lock or own_wheel, command
        assert own_wheel or "--no-build" in command or "--only-binary :all:" in command, command
    assert not re.search(r"\b(curl|wget|git|apt-get)\b", " ".join(commands))


def test_no_stage_adds_from_an_address_and_only_the_result_is_copied():
    assert "ADD " not in DOCKERFILE.read_text(encoding="utf-8")
    copies = [item for item in FINAL.instructions if item.keyword == "COPY"]
    assert [(item.flags, item.words) for item in copies] == [({"from": "build"}, ["/opt/sub60", "/opt/sub60"])]


def test_health_is_asked_of_the_port_of_the_settings():
    health = FINAL.last("HEALTHCHECK")
    assert health is not None
    assert "/healthz" in health.value
    assert "SUB60_HTTP_PORT" in health.value
    assert FINAL.environment()["SUB60_HTTP_PORT"] == FINAL.last("EXPOSE").value == "8060"


def test_starts_every_role_unless_told_otherwise():
    assert FINAL.last("ENTRYPOINT").words == ["sub60"]
    assert FINAL.last("CMD").words == ["serve", "--role", "all"]
    assert FINAL.last("STOPSIGNAL").value == "SIGTERM"


def test_variables_are_settings():
    from service.settings import read_settings

    settings = read_settings({k: v for k, v in FINAL.environment().items() if k.startswith("SUB60_")})
    written = {str(settings.state_dir), settings.compiled_cache}
    assert written == set(FINAL.last("VOLUME").words)
    assert FINAL.environment()["NUMBA_CACHE_DIR"] == settings.compiled_cache


@pytest.mark.parametrize("name", ["build.lock", "postgres.lock"])
def test_small_locks_say_what_the_large_one_says(name):
    large, small = lock_blocks("dev.lock"), lock_blocks(name)
    assert small
    assert {package: large[package] for package in small} == small


def test_build_lock_has_all_that_the_build_backend_needs():
    from importlib.metadata import requires

    wanted = {re.match(r"[\w-]+", line)[0] for line in requires("hatchling") if "python_version < '3.11'" not in line}
    assert set(lock_blocks("build.lock")) == {"hatchling"} | wanted


@pytest.mark.parametrize(
    ("path", "is_out"),
    [
        ("core/pipeline.py", False),
        ("core/camera/data/testcam/camera.json", False),
        ("requirements/runtime.lock", False),
        ("core/__pycache__/pipeline.cpython-311.pyc", True),
        ("docker/.env", True),
        ("var/dataset/raws/one.fits", True),
        (".git/config", True),
        ("tests/unit/image/test_dockerfile.py", True),
    ],
)
def test_context_is_what_the_image_is_made_of(path, is_out):
    assert (path in Ignored(DOCKERIGNORE.read_text(encoding="utf-8").splitlines())) is is_out


def test_reader_joins_lines_and_keeps_flags():
    (stage,) = read_stages("ARG TAG=3\nFROM base:${TAG} AS one\nRUN a \\\n  # why\n  && b\nCOPY --from=x /a \\\n  /b\n")
    assert (stage.base, stage.name) == ("base:3", "one")
    assert stage.instructions[0].value == "a && b"
    assert (stage.instructions[1].flags, stage.instructions[1].words) == ({"from": "x"}, ["/a", "/b"])


@pytest.mark.parametrize("text", ["FROM a\nADD https://x /y", "FROM a\nRUN <<E\nx\nE", "RUN x\nFROM a"])
def test_what_is_not_understood_is_an_error(text):
    with pytest.raises(DockerfileError):
        read_stages(text)


def test_a_variable_without_a_value_is_an_error():
    with pytest.raises(DockerfileError, match="NAME"):
        expand("$NAME", {})
