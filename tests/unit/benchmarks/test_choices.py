"""The table of choices: its arithmetic on runs whose answers are known, and that every choice exists."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from benchmarks.choice_figures import FIGURES, Difference, Run, differences, figures, references, resampled, speeds
from benchmarks.choices import CHOICES, DEFAULT, Choice, section
from benchmarks.choices_table import COLUMNS, markdown
from benchmarks.quality.cosmic_rays import CosmicRayCounts
from benchmarks.quality.evaluate import DetectorQuality, Injections
from core.config import PipelineConfig
from core.overrides import changed_fields, with_changes

N = 400


def injections(rng: np.random.Generator, found: NDArray[np.bool_] | None = None) -> Injections:
    snr = np.exp(rng.uniform(np.log(3), np.log(100), N))
    snr[:40] = 400.0
    offset = rng.normal(0, 600 / snr, (2, N))
    return Injections(
        snr=snr,
        is_claimed=np.ones(N, bool),
        is_found=snr + rng.normal(0, 1, N) > 5 if found is None else found,
        east_mas=offset[0],
        north_mas=offset[1],
        bound_mas=600 / snr,
        ratio=np.ones(N),
        ratio_error=1 / snr,
        pull=rng.normal(0, 1, N),
        is_hosted=np.arange(N) % 2 == 0,
        is_center_lost=np.zeros(N, bool),
    )


def quality(seed: int, n_false: int = 6, snr_map_sd: float = 1.0) -> DetectorQuality:
    rng = np.random.default_rng(seed)
    return DetectorQuality(
        visit=seed, detector=0, band="r", fwhm_arcsec=0.8, injections=injections(rng), variables=injections(rng),
        claimed_fraction=0.95, n_dia_sources=100, n_false=n_false, n_false_snr6=1, noise_expected=6.0,
        causes={"other": n_false}, zero_point_error_mag=0.0, sky_pull=rng.normal(0, 1, 50), snr_map_sd=snr_map_sd,
        cosmic_rays=CosmicRayCounts(n_events=20, n_left=1, n_stars=100, n_stars_lost=0),
    )  # fmt: skip


def run(seed: int, dia_cpu_s: float, reference_cpu_s: float | None, part: DetectorQuality | None) -> Run:
    return Run(
        visit=seed, detector=0, outcome="alerts" if part else "bad_subtraction", quality=part, dia_cpu_s=dia_cpu_s,
        stage_cpu_s={"psf": dia_cpu_s / 4}, reference_cpu_s=reference_cpu_s,
    )  # fmt: skip


def paired(
    other: Sequence[DetectorQuality], default: Sequence[DetectorQuality], n_resamples: int = 3
) -> dict[str, Difference]:
    return differences(other, default, resampled(other, n_resamples), resampled(default, n_resamples))


def loses(part: DetectorQuality, every: int) -> DetectorQuality:
    """The same with every so-many-th bright injection missed."""
    mine = part.injections
    rows = np.flatnonzero(mine.is_found & (mine.snr >= 6) & (mine.snr <= 100))[::every]
    found = mine.is_found.copy()
    found[rows] = False
    return replace(part, injections=replace(mine, is_found=found))


def test_speeds_are_medians_of_pairs_over_the_references_beside_them() -> None:
    parts = [quality(i) for i in range(3)]
    default = [run(0, 1.0, 0.1, parts[0]), run(1, 2.0, 0.1, parts[1]), run(2, 4.0, 0.1, parts[2])]
    other = [run(0, 1.5, 0.1, parts[0]), run(1, 2.1, 0.3, parts[1]), run(2, 5.0, 0.1, parts[2])]
    r = references([default, other])
    assert r == pytest.approx([0.1, 0.2, 0.1])
    found = speeds(other, default, r, "psf")
    assert found["cpu_ratio"] == pytest.approx(15.0)  # of 15, 10.5, 50
    assert found["cpu_ratio_difference"] == pytest.approx(5.0)  # of 5, 0.5, 10
    assert found["cpu_ratio_difference_error"] == pytest.approx(np.std([5, 0.5, 10], ddof=1) / np.sqrt(3))
    assert found["stage_cpu_ratio"] == pytest.approx(3.75)
    assert found["stage_cpu_ratio_difference"] == pytest.approx(1.25)
    assert speeds(other, default, r, "")["stage_cpu_ratio"] is None


def test_a_failed_detector_visit_leaves_the_pairs() -> None:
    parts = [quality(i) for i in range(2)]
    default = [run(0, 1.0, 0.1, parts[0]), run(1, 1.0, 0.1, parts[1])]
    other = [run(0, 2.0, 0.1, parts[0]), run(1, 9.0, None, None)]
    assert references([default, other]) == pytest.approx([0.1, 0.1])
    assert speeds(other, default, [0.1, 0.1], "psf")["cpu_ratio"] == pytest.approx(20.0)
    assert set(speeds(other[1:], default[1:], [0.1], "psf").values()) == {None}
    choices = [CHOICES[0], Choice(name="other", meaning="m", stage="psf", changes={"psf.n_rounds": 1})]
    told: list[str] = []
    described = section(choices, {DEFAULT: default, "other": other}, told.append, n_resamples=3)
    assert told == [DEFAULT, "other"]
    assert described["other"]["detector_visits"] == 1
    assert described["other"]["without_difference"] == ["bad_subtraction"]
    assert described["other"]["difference"]["completeness_snr6"]["value"] == 0.0
    assert "difference" not in described[DEFAULT]
    assert described[DEFAULT]["completeness_snr6"] == figures(parts)["completeness_snr6"]


def test_the_table_shows_the_default_and_the_differences_from_it() -> None:
    parts = [quality(i) for i in range(2)]
    default = [run(i, 1.0, 0.1, part) for i, part in enumerate(parts)]
    other = [run(i, 1.2, 0.1, replace(part, n_false=part.n_false + 1 + i)) for i, part in enumerate(parts)]
    choices = [CHOICES[0], Choice(name="other", meaning="m", stage="psf", changes={"psf.n_rounds": 1})]
    described = section(choices, {DEFAULT: default, "other": other}, lambda _: None, n_resamples=3)
    heading, _, usual, changed = (line.strip("| ").split(" | ") for line in markdown(described).splitlines())
    assert len(heading) == len(usual) == len(changed) == 3 + len(COLUMNS)
    row = dict(zip(heading, changed, strict=True))
    assert dict(zip(heading, usual, strict=True))["to DIASources [R]"] == "10.00"
    assert row["to DIASources [R]"] == "+2.00 ± 0.00"
    assert row["its stage [R]"] == "psf +0.50 ± 0.00"
    assert row["false"] == "+1.5 ± 0.5"
    assert row["completeness 6-100 [%]"] == "+0.0 ± 0.0"
    assert COLUMNS.keys() == FIGURES.keys()


def test_equal_runs_differ_by_nothing() -> None:
    parts = [quality(1), quality(2)]
    for name, difference in paired(parts, parts).items():
        assert difference.value == 0.0, name
        assert difference.error == 0.0, name


def test_paired_errors_are_those_of_the_difference() -> None:
    default = [quality(1), quality(2)]
    other = [loses(part, 10) for part in default]
    found = paired(other, default, 40)["completeness_snr6"]
    bright = [(part.injections.snr >= 6) & (part.injections.snr <= 100) & part.injections.is_found for part in default]
    n_bright = sum(int(((part.injections.snr >= 6) & (part.injections.snr <= 100)).sum()) for part in default)
    n_lost = sum(int(mask.sum() + 9) // 10 for mask in bright)
    p = n_lost / n_bright
    assert found.value == pytest.approx(-p, abs=1e-9)
    # the lost ones are a binomial draw; unpaired, the scatter of both completenesses would come on top
    assert found.error == pytest.approx(np.sqrt(p * (1 - p) / n_bright), rel=0.25)


def test_figures_of_whole_detectors_have_the_scatter_of_their_differences() -> None:
    default = [quality(i, n_false=n, snr_map_sd=1.0) for i, n in enumerate((4, 6, 8))]
    other = [quality(i, n_false=n, snr_map_sd=1.1) for i, n in enumerate((5, 9, 10))]
    found = paired(other, default)
    assert found["false_positives"].value == pytest.approx(2.0)
    assert found["false_positives"].error == pytest.approx(1.0 / np.sqrt(3))
    assert found["snr_map_sd"].value == pytest.approx(0.1)
    assert found["snr_map_sd"].error == pytest.approx(0.0, abs=1e-12)
    assert paired(other[:1], default[:1])["false_positives"].error is None


def test_other_injections_cannot_be_paired() -> None:
    part = quality(1)
    fewer = Injections(**{name: getattr(part.injections, name)[:-1] for name in Injections.__dataclass_fields__})
    with pytest.raises(ValueError, match="not the same rows"):
        differences([replace(part, injections=fewer)], [part], [], [])


def test_no_detector_visit_gives_no_figure() -> None:
    assert figures([]) == dict.fromkeys(FIGURES)
    assert {d.value for d in paired([], []).values()} == {None}


def _names(choices: Sequence[Choice]) -> list[str]:
    return [choice.name for choice in choices]


def test_every_choice_is_a_change_that_the_pipeline_takes() -> None:
    usual = PipelineConfig()
    assert _names(CHOICES)[0] == DEFAULT
    assert len(set(_names(CHOICES))) == len(CHOICES)
    for choice in CHOICES[1:]:
        assert changed_fields(with_changes(usual, choice.changes), usual) == choice.changes
