"""Fields of the pipeline's configuration by dotted names: what is taken, what is refused, and with what advice."""

from dataclasses import dataclass, field

import pytest

from core.config import PipelineConfig
from core.errors import ConfigurationError
from core.flags import Mask
from core.overrides import changed_fields, field_values, with_changes


@dataclass(frozen=True, slots=True, kw_only=True)
class Inner:
    is_on: bool = False
    names: str = "a"


@dataclass(frozen=True, slots=True, kw_only=True)
class Outer:
    inner: Inner = field(default_factory=Inner)


def test_a_deep_field_changes_and_nothing_else_does() -> None:
    usual = PipelineConfig()
    changed = with_changes(usual, {"subtract.kernel.half_width_pix": 16, "min_template_coverage": 1})
    assert changed.subtract.kernel.half_width_pix == 16
    assert usual.subtract.kernel.half_width_pix == 17
    assert changed_fields(changed, usual) == {"subtract.kernel.half_width_pix": 16, "min_template_coverage": 1.0}
    assert isinstance(changed.min_template_coverage, float)


def test_every_field_can_be_set_to_what_it_is() -> None:
    usual = PipelineConfig()
    values = field_values(usual)
    assert len(values) > 100
    as_text = {name: "|".join(m.name or "" for m in v) if isinstance(v, Mask) else v for name, v in values.items()}
    assert with_changes(usual, as_text) == usual


def test_tuples_and_mask_planes() -> None:
    config = with_changes(
        PipelineConfig(),
        {"subtract.kernel.degrees": [4, 2, 2, 0], "psf.ignored_planes": "BAD | SAT", "psf.wing_fwhm": [2, 3]},
    )
    assert config.subtract.kernel.degrees == (4, 2, 2, 0)
    assert config.psf.ignored_planes == Mask.BAD | Mask.SAT
    assert config.psf.wing_fwhm == (2.0, 3.0)


def test_keys_of_a_table_are_names_too() -> None:
    one = with_changes(PipelineConfig(), {"photometry.color_terms.g": 0.02, "photometry.color_terms.r": 0})
    assert dict(one.photometry.color_terms) == {"g": 0.02, "r": 0.0}
    assert with_changes(PipelineConfig(), {"photometry.color_terms": {"g": 0.02, "r": 0.0}}) == one
    with pytest.raises(ConfigurationError, match=r"color_terms\.g is 'red'"):
        with_changes(one, {"photometry.color_terms.g": "red"})


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("subtract.kernel.half_widht_pix", "subtract.kernel.half_width_pix"),
        ("substract.convolve", "subtract.convolve"),
        ("sinc_order", "template.sinc_order"),
        ("subtract.convolve.side", "subtract.convolve"),
    ],
)
def test_an_unknown_name_is_refused_with_the_nearest(name: str, near: str) -> None:
    with pytest.raises(ConfigurationError, match=f"no such field {name}; did you mean {near}") as caught:
        with_changes(PipelineConfig(), {name: 1})
    assert caught.value.code == "unknown_pipeline_field"


def test_a_name_like_no_other_gets_no_advice() -> None:
    with pytest.raises(ConfigurationError, match=r"no such field zzz$"):
        with_changes(PipelineConfig(), {"zzz": 1})


@pytest.mark.parametrize(
    ("name", "value", "wanted"),
    [
        ("subtract.kernel.half_width_pix", 13.5, "a whole number"),
        ("subtract.kernel.half_width_pix", True, "a whole number"),
        ("psf.min_snr", "40", "a number"),
        ("psf.min_snr", float("nan"), "a number"),
        ("psf.min_snr", False, "a number"),
        ("psf.determiner", "psfex", "'pixel_basis', 'piff'"),
        ("template.sinc_order", 5, "3, 4"),
        ("template.sinc_order", 3.0, "3, 4"),
        ("psf.ignored_planes", "BAD|DUST", "names joined by"),
        ("psf.wing_fwhm", [1.0], "a list of 2"),
        ("psf.wing_fwhm", 1.0, "a list"),
        ("subtract.kernel", {}, "is a section; its fields are sigmas_pix"),
    ],
)
def test_a_wrong_value_is_refused_with_what_would_be_right(name: str, value: object, wanted: str) -> None:
    with pytest.raises(ConfigurationError, match=wanted) as caught:
        with_changes(PipelineConfig(), {name: value})
    assert name in str(caught.value)


def test_truth_values_and_texts() -> None:
    assert with_changes(Outer(), {"inner.is_on": True, "inner.names": "b"}) == Outer(inner=Inner(is_on=True, names="b"))
    for name, value in (("inner.is_on", 1), ("inner.names", 1)):
        with pytest.raises(ConfigurationError, match=name):
            with_changes(Outer(), {name: value})
