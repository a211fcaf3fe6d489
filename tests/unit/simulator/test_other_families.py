"""The PSF family and the cosmic rays of test sets differ from the usual ones, and are what they claim to be."""

import numpy as np
import pytest

from benchmarks.simulator.config import preset
from benchmarks.simulator.drawing import psf_images
from benchmarks.simulator.optics import make_optics
from benchmarks.simulator.particles import HIT, add_cosmic_rays
from benchmarks.simulator.psf import basis_weights, make_basis
from benchmarks.simulator.randomness import stream

ZERO = np.zeros(1)


def moffat_images(beta_steps: np.ndarray) -> np.ndarray:
    basis = make_basis(0.8, 622.0, 0.2, aureole=False, family="moffat")
    zero = np.zeros(beta_steps.size)
    weights = basis_weights(zero, zero, zero, beta_steps, beta_steps**2)
    return psf_images(basis, weights, zero, zero, 51)


def test_moffat_has_the_width_asked_for() -> None:
    for fwhm in (0.55, 1.1):
        basis = make_basis(fwhm, 622.0, 0.2, aureole=True, family="moffat")
        half = basis.profile[0] / 2
        radius = float(np.interp(-half, -basis.profile[:40], np.arange(40) * 0.5))
        assert 2 * radius * 0.2 == pytest.approx(fwhm, rel=0.05)


def test_wings_fall_with_beta_as_moffats_do() -> None:
    shallow, steep = moffat_images(np.array([-1.0, 1.0]))
    rows = [image[25, 25:] for image in (shallow, steep)]
    slopes = [float(np.log(row[15] / row[10]) / np.log(15 / 10)) for row in rows]
    assert slopes[0] == pytest.approx(-5.0, abs=0.5)
    assert slopes[1] == pytest.approx(-7.0, abs=0.8)


def test_families_differ_by_more_than_a_pipeline_may_ignore() -> None:
    usual = psf_images(make_basis(0.8, 622.0, 0.2, aureole=True), basis_weights(*[ZERO] * 5), ZERO, ZERO, 51)[0]
    other = moffat_images(np.zeros(1))[0]
    assert 0.01 < np.abs(usual / usual.sum() - other / other.sum()).sum() < 0.5


def test_moffat_field_varies_in_beta_and_width() -> None:
    config = preset("test", psf_family="moffat")
    optics = make_optics(
        config, stream(1, "optics"), (4000, 4000), 0.2, (0.0, 0.0), "r", 0.8, (0.5, 20.0), 0.0
    )  # fmt: skip
    x, y = (g.ravel() for g in np.meshgrid(np.linspace(0, 4000, 12), np.linspace(0, 4000, 12)))
    weights = optics.weights(x, y, np.full(x.size, 0.8))
    beta = 3.0 + 0.5 * weights[:, 5]
    assert beta.min() < 2.75
    assert beta.max() > 3.25
    assert (beta >= 2.5).all()
    assert (beta <= 3.5).all()
    images = psf_images(optics.basis, weights, np.zeros(x.size), np.zeros(x.size), 41)
    peak = images.max(axis=(1, 2))
    # the peak goes as the inverse square of the width
    assert 0.05 < np.ptp(peak) / peak.mean() / 2 < 0.3


@pytest.mark.parametrize("model", ["tracks", "muons"])
def test_truth_of_events_holds_the_charge_they_left(model: str) -> None:
    charge = np.zeros((400, 500), np.float32)
    hits = add_cosmic_rays(charge, stream(5, "rays"), 60, model)
    assert hits.dtype == HIT
    recorded = np.zeros_like(charge)
    np.add.at(recorded, (hits["y"], hits["x"]), hits["electrons"])
    strong = charge > 120
    np.testing.assert_allclose(recorded[strong], charge[strong], atol=100)
    assert 0.97 < recorded.sum() / charge.sum() <= 1.0001
    for event in np.unique(hits["event"]):
        own = hits[hits["event"] == event]
        assert len({(int(h["y"]), int(h["x"])) for h in own}) == own.size


def test_muons_have_landau_tails_short_and_long_tracks() -> None:
    charge = np.zeros((2000, 2000), np.float32)
    hits = add_cosmic_rays(charge, stream(6, "rays"), 600, "muons")
    total = np.bincount(hits["event"], hits["electrons"])
    total = total[total > 0]
    size = np.bincount(hits["event"])
    assert total.min() < 500
    assert 30_000 < total.max() < 400_000
    assert (size[size > 0] <= 3).mean() > 0.05
    assert 0.02 < (size > 40).mean() < 0.3
    # a vertical muon frees some 8,000 e-: the peak of the distribution is asymmetric with a long tail upwards
    muon_like = total[(total > 5000) & (total < 40_000)]
    assert np.mean(muon_like) > np.median(muon_like)


def test_unknown_families_are_refused() -> None:
    with pytest.raises(ValueError, match="psf_family"):
        preset("test", psf_family="gauss")
    with pytest.raises(ValueError, match="cosmic_ray_model"):
        preset("test", cosmic_ray_model="worms")
