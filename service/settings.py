"""Settings of every role: one frozen object, built once in ``main`` from ``SUB60_*`` variables and passed down."""

import os
import tempfile
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any, Final, Literal, Self

from pydantic import Field, SecretStr, ValidationError, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from core.errors import ConfigurationError

PREFIX: Final = "SUB60_"
THREADS: Final = (
    "OPENBLAS_NUM_THREADS",
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "NUMBA_NUM_THREADS",
    "BLOSC_NTHREADS",
)
CHILD_BASE_MB: Final = 5000
"""Address space of a compute child beside its cache: kernels, libraries, two decoded bundles, the frames of a visit."""
FOREIGN: Final = frozenset({"SUB60_REFERENCE_DATA", "SUB60_TEST_KAFKA"})
"""Variables of the test suite: not settings, but no reason to refuse either."""


class Settings(BaseSettings):
    """Everything the service can be told. A variable ``SUB60_…`` that is not here refuses to start."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True, extra="forbid", hide_input_in_errors=True)

    dataset: Path = Field(default=Path("var/dataset"), description="Folder with raws, calibrations, templates, …")
    state_dir: Path = Field(default=Path("var/state"), description="Folder for alert files and embedded servers.")
    apdb_config: str = Field(default="", description="APDB configuration; empty: the dataset's apdb/config.yaml.")
    log_url: str = Field(default="", description="redis://… or kafka://host:port; empty: an embedded Valkey.")
    cache_url: str = Field(default="", description="redis://… of the cache; empty: an embedded Valkey.")
    kafka_user: str = Field(default="", description="SASL user, if the broker wants one; its password goes over TLS.")
    kafka_password: SecretStr = Field(default=SecretStr(""), description="SASL password of that user.")
    kafka_mechanism: Literal["SCRAM-SHA-512", "SCRAM-SHA-256", "PLAIN"] = Field(
        default="SCRAM-SHA-512", description="How the password is proved to the broker."
    )
    kafka_tls: bool = Field(
        default=False, description="TLS to the broker; on by itself with a user, CA or certificate."
    )
    kafka_ca: str = Field(default="", description="PEM file of the CA that signed the broker; empty: the system's.")
    kafka_certificate: str = Field(default="", description="PEM file of our certificate, if the broker asks for one.")
    kafka_key: str = Field(default="", description="PEM file of that certificate's key, unencrypted, mode 0600.")
    redis_user: str = Field(default="", description="Redis ACL user of log and cache; empty: the default user.")
    redis_password: SecretStr = Field(
        default=SecretStr(""), description="Its password; goes over rediss:// or unix://."
    )
    redis_ca: str = Field(default="", description="PEM file of the CA behind rediss://; empty: the system's.")
    cache_user: str = Field(default="", description="Redis ACL user of the cache, where the log's is another.")
    cache_password: SecretStr = Field(default=SecretStr(""), description="Its password.")
    plaintext_passwords: bool = Field(default=False, description="Let passwords travel without TLS: trusted networks.")
    raw_roots: str = Field(default="", description="Folders raws may lie in, colon-separated; empty: the dataset.")
    raw_max_mb: int = Field(default=256, ge=1, le=2048, description="Largest raw file that is read [MB].")
    partitions: int = Field(default=4, ge=1, le=512, description="Partitions of the work topic.")
    workers: int = Field(default=2, ge=1, le=256, description="Workers of --role all.")
    slot: int = Field(default=0, ge=0, description="Number of this worker; fixes its transactional identity.")
    http_host: str = Field(default="127.0.0.1", description="Address the HTTP server binds to.")
    http_port: int = Field(default=8060, ge=0, le=65535, description="Port of the HTTP server; --role all counts up.")
    http_rate_per_s: float = Field(default=50.0, ge=0, description="Requests a second and client; 0: no limit.")
    http_token: SecretStr = Field(
        default=SecretStr(""), description="Who has it may hold and release alerts over HTTP; empty: nobody."
    )
    detectors_off: str = Field(
        default="", pattern=r"^(\d+(,\d+)*)?$", description="Detectors that are not processed: 12,94."
    )
    schema_registry: str = Field(
        default="", pattern=r"^(https?://\S+)?$", description="http(s)://… of a registry to compare our schema with."
    )
    mpsky_url: str = Field(
        default="",
        pattern=r"^(https?://\S+)?$",
        description="http(s)://…/ephemerides/ of mpSky; empty: the dataset's ephemerides.",
    )
    mpsky_timeout_s: float = Field(
        default=10.0, gt=0, description="Prefetch waits this long for an answer of mpSky, workers at most 1 s [s]."
    )
    keep_days: float = Field(default=7.0, gt=0, description="Kafka keeps records of topics that we make so long [d].")
    keep_partition_mb: int = Field(default=0, ge=0, description="And so much of each partition [MB]; 0: no limit.")
    start_checks: bool = Field(default=True, description="Check at the start what `sub60 check` checks.")
    log_memory_mb: int = Field(default=4096, ge=64, description="Memory of the embedded log [MB].")
    cache_memory_mb: int = Field(default=3072, ge=64, description="Memory of the embedded cache [MB].")
    alerts_keep_mb: int = Field(default=1024, ge=1, description="Alerts kept on Redis beyond what is archived [MB].")
    alert_files_s: float = Field(default=10.0, gt=0, description="An alert file is closed after this time [s].")
    log_level: str = Field(default="info", pattern="^(debug|info|warning|error)$", description="Least level logged.")
    deadline_s: float = Field(default=60.0, gt=0, description="From end of readout to committed alerts [s].")
    clock_suspect_s: float = Field(
        default=30.0, gt=0, description="Receipt this far from t0 makes the clock suspect [s]."
    )
    expire_s: float = Field(default=43200.0, gt=0, description="Readouts older than this are not processed [s].")
    prepare_expire_s: float = Field(default=120.0, gt=0, description="Prepares older than this are ignored [s].")
    job_limit_s: float = Field(default=45.0, gt=0, description="A child that computes longer is replaced [s].")
    warm_up_limit_s: float = Field(default=600.0, gt=0, description="A child that warms up longer is replaced [s].")
    prefetch_wait_s: float = Field(
        default=20.0, ge=0, description="A worker waits this long for prefetch's bundle [s]."
    )
    raw_wait_s: float = Field(default=5.0, ge=0, description="How long a raw that is not there yet is tried [s].")
    redis_timeout_ms: float = Field(default=100.0, gt=0, description="Bound of each Redis call after t0 [ms].")
    max_attempts: int = Field(default=3, ge=1, description="Failed attempts at a visit-detector before it is given up.")
    max_dia_sources: int = Field(default=5000, ge=1, description="More in a detector: held, not sent.")
    max_new_objects: int = Field(
        default=2500, ge=1, description="More new DIAObjects in a detector are not believed: held, not sent."
    )
    min_reliability: float = Field(default=0.0, ge=0, le=1, description="Alerts below are not sent.")
    compute_threads: int = Field(default=2, ge=1, le=16, description="Threads that share a detector's long loops.")
    child_memory_mb: int = Field(
        default=6144, ge=256, description="Address-space limit of the compute child, its cache included [MB]."
    )
    history_base_s: int = Field(
        default=3600, ge=1, description="History read from the APDB stays in the cache this long [s]."
    )
    history_prune_s: float = Field(
        default=900.0, ge=0, description="Results leave the cache's tail this long after a base held them [s]."
    )
    cache_mb: int = Field(default=768, ge=16, description="Compressed arrays a process holds [MB].")
    compute: str = Field(default="service.compute:build", description="What the child runs, module:function.")
    pipeline: str = Field(
        default="", description="TOML or JSON file that changes fields of the pipeline's configuration."
    )
    compiled_cache: str = Field(default="", description="Folder for compiled kernels; empty: one that can be written.")
    measure_reference: bool = Field(default=False, description="Time SEP's background on each detector, after it.")
    failpoints: str = Field(default="", description="For tests of faults: folder of steps at which a process dies.")
    drain_s: float = Field(default=20.0, ge=0, description="Time for work under way at SIGTERM [s].")

    @model_validator(mode="after")
    def _child_holds_its_cache(self) -> Self:
        """A child that cannot hold its cache dies of it in the middle of the night."""
        least = self.cache_mb + CHILD_BASE_MB
        if self.child_memory_mb < least:
            raise ValueError(f"SUB60_CHILD_MEMORY_MB must be SUB60_CACHE_MB + {CHILD_BASE_MB} or more: {least}")
        return self


def switched_off(settings: Settings) -> frozenset[int]:
    """Detectors that ``SUB60_DETECTORS_OFF`` names."""
    return frozenset(int(name) for name in settings.detectors_off.split(",") if name)


def allowed_roots(settings: Settings) -> tuple[Path, ...]:
    """Folders of ``SUB60_RAW_ROOTS``, by default the dataset; a relative address counts from the first."""
    named = tuple(Path(name) for name in settings.raw_roots.split(":") if name)
    if any(not root.is_absolute() or root == Path("/") for root in named):
        raise ConfigurationError("SUB60_RAW_ROOTS must name absolute folders below /", code="bad_setting")
    return named or (settings.dataset,)


def read_settings(environment: Mapping[str, str] | None = None, **overrides: Any) -> Settings:
    """Settings from the environment, ``overrides`` first; a bad or unknown variable is a configuration error."""
    variables = os.environ if environment is None else environment
    known = {PREFIX + name.upper() for name in Settings.model_fields} | FOREIGN
    unknown = sorted(name for name in variables if name.upper().startswith(PREFIX) and name.upper() not in known)
    if unknown:
        raise ConfigurationError(f"unknown variables: {', '.join(unknown)}", code="unknown_variable")
    try:
        if environment is None:
            return Settings(**overrides)
        values = {
            name: variables[PREFIX + name.upper()]
            for name in Settings.model_fields
            if PREFIX + name.upper() in variables
        }
        return Settings(**(values | overrides))
    except ValidationError as error:
        problems = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        raise ConfigurationError(problems, code="bad_setting") from error


def to_environment(settings: Settings) -> dict[str, str]:
    """The process environment that gives a child process these settings."""
    inherited = {name: value for name, value in os.environ.items() if not name.upper().startswith(PREFIX)}
    own = {PREFIX + name.upper(): _text(getattr(settings, name)) for name in Settings.model_fields}
    return inherited | own


KEEP_MEMORY: Final = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": str(2**31 - 1), "MALLOC_ARENA_MAX": "1"}
"""Freed planes stay with the process (glibc, mallopt(3)): touching new pages costs a visit up to half its time."""


def compute_environment(settings: Settings) -> dict[str, str]:
    """Environment of a process that handles planes: one thread a library, freed memory kept, kernels cached."""
    environment = to_environment(settings) | dict.fromkeys(THREADS, "1") | KEEP_MEMORY
    if (folder := compiled_cache(settings)) is not None:
        environment["NUMBA_CACHE_DIR"] = str(folder)
    return environment


def compiled_cache(settings: Settings) -> Path | None:
    """Folder for compiled kernels; None leaves them beside their source, which is writable in a checkout."""
    if settings.compiled_cache:
        return Path(settings.compiled_cache)
    if "NUMBA_CACHE_DIR" in os.environ:
        return Path(os.environ["NUMBA_CACHE_DIR"])
    beside = Path(str(files("core.kernels"))) / "__pycache__"
    if os.access(beside if beside.exists() else beside.parent, os.W_OK):
        return None
    for folder in (Path.home() / ".cache" / "sub60", Path(tempfile.gettempdir()) / f"sub60-{os.getuid()}"):
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError:
            continue
        if os.access(folder, os.W_OK):
            return folder
    return Path(tempfile.mkdtemp(prefix="sub60-"))


def use_compiled_cache(settings: Settings) -> None:
    """Point this process's compiler at :func:`compiled_cache`; before the first kernel is imported."""
    if (folder := compiled_cache(settings)) is not None:
        os.environ["NUMBA_CACHE_DIR"] = str(folder)


def _text(value: object) -> str:
    if isinstance(value, SecretStr):
        return value.get_secret_value()
    return str(value)
