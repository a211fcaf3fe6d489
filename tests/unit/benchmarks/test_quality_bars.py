"""Bars, the seed of a commit, photon noise, and the counts of particles."""

from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from rich.console import Console

from benchmarks.quality import bars, bench
from benchmarks.quality.cosmic_rays import CosmicRayCounts, count_cosmic_rays, is_center_lost
from benchmarks.quality.theory import photon_noise
from core.contracts.catalogs import DIA_SOURCE, empty_catalog
from core.flags import Mask
from tests.unit.benchmarks.scenes import NOISE, draw, gaussian, make_products, make_truth

BROKEN = "false positives over 6 sigma"


def report_of_bars() -> dict[str, Any]:
    """A report whose every figure is within its bar."""
    report: dict[str, Any] = {}
    for bar in bars.BARS:
        value = bar.low if np.isfinite(bar.low) else bar.high
        *folders, name = bar.path.split(".")
        place = report
        for folder in folders:
            place = place.setdefault(folder, {})
        place[name] = value / bar.factor
    return report


def bar(name: str) -> bars.Bar:
    return next(one for one in bars.BARS if one.name == name)


def test_a_report_at_its_bars_keeps_them_and_one_beyond_breaks_one() -> None:
    report = report_of_bars()
    assert bars.broken(report) == []
    report["quality"]["false_positives"]["snr6"] += 0.1
    assert bars.broken(report) == [BROKEN]
    report["quality"]["completeness_snr6"] -= 0.001
    assert bars.broken(report) == ["completeness, SNR 6-100, claimed", BROKEN]


def test_a_figure_that_is_missing_is_a_broken_bar() -> None:
    report = report_of_bars()
    del report["quality"]["false_positives"]["snr6"]
    report["quality"]["snr50"] = None
    assert bars.broken(report) == ["snr50", BROKEN]
    assert len(bars.broken({})) == len(bars.BARS)


def test_a_bar_reads_in_its_own_unit_and_of_either_sign() -> None:
    bias = bar("flux bias, bright [mmag]")
    assert bias.measured({"quality": {"flux": {"bias_mag": -0.0015}}}) == pytest.approx(1.5)
    assert not bias.is_kept({"quality": {"flux": {"bias_mag": -0.0021}}})
    assert bias.asked() == "<= 2"
    assert bar("detector-visits").asked() == ">= 20"
    assert bar("S/N map sd").asked() == "0.98 - 1.02"


def test_the_table_says_what_is_kept() -> None:
    report = report_of_bars()
    report["quality"]["false_positives"]["snr6"] = 99.0
    console = Console(width=140, record=True, file=StringIO())
    bars.show(report, console)
    lines = {line.split("  ")[0].strip("│ ┃"): line for line in console.export_text().splitlines()}
    assert "99.0" in lines[BROKEN]
    assert "NOT KEPT" in lines[BROKEN]
    assert sum("NOT KEPT" in line for line in lines.values()) == 1


@pytest.mark.parametrize("is_kept", [True, False])
def test_the_exit_code_says_whether_all_bars_are_kept(
    is_kept: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    document = report_of_bars()
    if not is_kept:
        del document["wall_ratio"]

    class Made:
        def model_dump(self, **_: object) -> dict[str, Any]:
            return document

    for name in ("read_events", "readouts", "open_dataset"):
        monkeypatch.setattr(bench, name, lambda *_: [])
    monkeypatch.setattr(bench, "run", lambda *_: ([], {}))
    monkeypatch.setattr(bench, "_report", lambda *_: Made())
    result = CliRunner().invoke(bench.command, ["--dataset", str(tmp_path)], env={"SUB60_REFERENCE_DATA": None})
    assert result.exit_code == (0 if is_kept else 1)
    assert ("NOT KEPT" in result.output) is not is_kept


def test_the_seed_comes_from_the_commit_and_is_none_of_those_for_tuning() -> None:
    assert bench.seed_of_commit("00000ff" + "3" * 33) == 1255
    assert bench.seed_of_commit("fffffff0-dirty") == 1000 + 0xFFFFFFF
    assert bench.seed_of_commit("unknown") == 1000
    assert bench.seed_of_commit("0" * 40) >= 1000


def test_photon_noise_is_that_of_drawn_electrons() -> None:
    rng = np.random.default_rng(4)
    psf = gaussian() / gaussian().sum()
    drawn = rng.poisson(2000 * psf, (4000, *psf.shape))
    fluxes = (drawn * psf).sum(axis=(1, 2)) / np.square(psf).sum()
    relative = photon_noise(psf, np.array([2000.0, 8000.0]))
    assert fluxes.std() / fluxes.mean() == pytest.approx(relative[0], rel=0.04)
    assert relative[1] == pytest.approx(relative[0] / 2)
    assert np.isfinite(photon_noise(psf, np.zeros(1))).all()


def test_particles_left_and_stars_spoiled_are_counted() -> None:
    snr = np.array([30.0, 30.0, 10.0, 30.0])
    x, y = np.array([60.0, 120.0, 180.0, 60.0]), np.array([60.0, 60.0, 60.0, 180.0])
    hits = np.array([[30, 30], [31, 30], [200, 200], [220, 100], [60, 121]])
    truth = replace(
        make_truth(x, y, snr, "star"),
        cosmic_rays=hits,
        event=np.array([0, 0, 1, 2, 3]),
        electrons=np.array([60.0, 4.0, 90.0, 4.9, 5.1]) * NOISE,
    )
    image = draw(truth, 256, np.random.default_rng(1))
    sources = empty_catalog(DIA_SOURCE, 3)
    # at a particle, at one too faint to count, and one that is a true change
    sources["x"], sources["y"] = [31.0, 100.0, 200.0], [32.0, 221.0, 200.0]
    products = make_products(image, sources)
    mask = products.difference.mask
    mask[61, 60] = Mask.CR  # a star spoiled
    mask[60, 120] = Mask.CR  # a star truly hit
    mask[60, 180] = Mask.CR  # a star too faint to count
    counts = count_cosmic_rays(products, truth, np.array([True, True, False]))
    assert counts == CosmicRayCounts(n_events=3, n_left=1, n_stars=3, n_stars_lost=1)
    np.testing.assert_array_equal(is_center_lost(products, truth, x, y), [True, False, True, False])
    mask[60, 60] = Mask.SAT
    assert count_cosmic_rays(products, truth, np.zeros(3, bool)).n_stars == 2


def test_a_sky_without_particles_has_none_left() -> None:
    truth = make_truth(np.array([60.0]), np.array([60.0]), np.array([100.0]), "star")
    products = make_products(draw(truth, 128, np.random.default_rng(2)), empty_catalog(DIA_SOURCE, 0))
    counts = count_cosmic_rays(products, truth, np.zeros(0, bool))
    assert counts == CosmicRayCounts(n_events=0, n_left=0, n_stars=1, n_stars_lost=0)
