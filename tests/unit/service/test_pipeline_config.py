"""``SUB60_PIPELINE``: a file changes the pipeline's configuration, or the service does not start."""

import json
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from core.config import PipelineConfig
from core.errors import ConfigurationError
from service.cli import main
from service.commands.serve import EXIT_REFUSED
from service.pipeline_config import pipeline_config
from service.settings import read_settings, to_environment

TOML = """
psf.n_rounds = 1
[subtract]
convolve = "template"
[subtract.kernel]
half_width_pix = 16
"""


def written(folder: Path, text: str, name: str = "pipeline.toml") -> str:
    (folder / name).write_text(text)
    return str(folder / name)


def test_without_a_file_the_pipeline_is_the_surveys() -> None:
    assert pipeline_config(read_settings({}), 7) == PipelineConfig(release=7)


def test_toml_and_json_change_the_same_fields(tmp_path: Path) -> None:
    toml = pipeline_config(read_settings({"SUB60_PIPELINE": written(tmp_path, TOML)}), 3)
    text = json.dumps({"psf.n_rounds": 1, "subtract": {"convolve": "template", "kernel.half_width_pix": 16}})
    assert toml == pipeline_config(read_settings({}, pipeline=written(tmp_path, text, "p.json")), 3)
    assert (toml.release, toml.psf.n_rounds, toml.subtract.kernel.half_width_pix) == (3, 1, 16)
    assert toml.subtract.convolve == "template"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("subtract.kernel.half_widht_pix = 16", "no such field .*; did you mean subtract.kernel.half_width_pix"),
        ('subtract.convolve = "both"', "subtract.convolve is 'both', but must be one of 'auto', 'template', 'science'"),
        ("release = 2", "the dataset's to say"),
        ("psf n_rounds", "is not TOML"),
    ],
)
def test_a_wrong_file_is_refused_by_name(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message) as caught:
        pipeline_config(read_settings({}, pipeline=written(tmp_path, text)))
    assert "pipeline.toml" in str(caught.value)


def test_a_file_that_is_absent_or_no_mapping_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="cannot be read"):
        pipeline_config(read_settings({}, pipeline=str(tmp_path / "none.toml")))
    with pytest.raises(ConfigurationError, match="no sections"):
        pipeline_config(read_settings({}, pipeline=written(tmp_path, "[1]", "p.json")))


def test_piff_where_it_is_missing_is_refused_before_any_visit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "piff", None)
    settings = read_settings({}, pipeline=written(tmp_path, 'psf.determiner = "piff"'))
    with pytest.raises(ConfigurationError, match=r'pip install "sub60\[piff\]"'):
        pipeline_config(settings)


def test_the_child_gets_it_with_the_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = read_settings({}, pipeline=written(tmp_path, TOML))
    for name, value in to_environment(settings).items():
        monkeypatch.setenv(name, value)
    assert pipeline_config(read_settings(), 1).subtract.kernel.half_width_pix == 16


def test_check_names_what_the_file_changes_or_fails(tmp_path: Path) -> None:
    good = CliRunner().invoke(main, ["check"], env={"SUB60_PIPELINE": written(tmp_path, TOML)})
    assert "psf.n_rounds = 1, subtract.convolve = template, subtract.kernel.half_width_pix = 16" in good.output
    assert "ok      pipeline " in good.output
    bad = CliRunner().invoke(main, ["check"], env={"SUB60_PIPELINE": written(tmp_path, "psf.rounds = 1")})
    assert bad.exit_code == 1
    assert "failed  pipeline  unknown_pipeline_field" in bad.output


@pytest.mark.parametrize("role", ["all", "worker"])
def test_roles_that_compute_refuse_to_start_with_a_wrong_file(tmp_path: Path, role: str) -> None:
    environment = {"SUB60_PIPELINE": written(tmp_path, "psf.n_round = 1"), "SUB60_STATE_DIR": str(tmp_path / "state")}
    done = CliRunner().invoke(main, ["serve", "--role", role], env=environment)
    assert done.exit_code == EXIT_REFUSED
    assert "did you mean psf.n_rounds" in done.output
    assert not (tmp_path / "state").exists()
