"""Piff as the PSF's determiner: its PSF of drawn stars, in the form that all later stages take."""

import sys
from dataclasses import replace

import numpy as np
import pytest

from core.contracts.results import PsfFit
from core.errors import ConfigurationError, Outcome, UnusableDataError
from core.flags import Mask
from core.stages.psf import PsfConfig, fit_psf
from core.stages.psf_piff import PiffConfig, fit_piff
from core.stages.sources import SourcesConfig, detect_sources
from core.workspace import Workspace
from tests.support.starfield import Starfield, make_starfield, moffat_stamp

FWHM = 4.0


@pytest.fixture(scope="module")
def field() -> Starfield:
    return make_starfield(shape=(400, 400), n=60, fwhm=FWHM, flux_range=(2e4, 4e5), min_distance=34)


def fitted(field: Starfield, config: PsfConfig) -> PsfFit:
    workspace = Workspace()
    return fit_psf(field.frame, detect_sources(field.frame, FWHM, workspace, SourcesConfig()), workspace, config)


@pytest.mark.parametrize(("model", "tolerance", "n_stars"), [("PixelGrid", 0.03, 30), ("Moffat", 0.01, 12)])
def test_piffs_psf_is_that_of_the_stars(field: Starfield, model: str, tolerance: float, n_stars: int) -> None:
    pytest.importorskip("piff", reason="the optional package piff is not installed")
    ours = fitted(field, PsfConfig(order=0))
    piff = PiffConfig(model=model, order=1, grid_size_pix=17, interpolant="Lanczos(3)", max_stars=n_stars)  # type: ignore[arg-type]
    fit = fitted(field, PsfConfig(order=0, determiner="piff", piff=piff))
    assert fit.psf.order == 1
    assert fit.psf.size == ours.psf.size
    truth = moffat_stamp(0, 0, FWHM, fit.psf.size)
    half, core = fit.psf.size // 2, 8 if model == "PixelGrid" else fit.psf.size // 2
    core_truth = truth[half - core : half + core + 1, half - core : half + core + 1]
    for x, y in ((60.0, 60.0), (200.0, 200.0), (330.0, 340.0)):
        image = fit.psf.at(x, y)
        assert image.sum() == pytest.approx(1.0, abs=1e-5)
        left = image[half - core : half + core + 1, half - core : half + core + 1] - core_truth / core_truth.sum()
        assert np.abs(left).max() < tolerance * truth.max()
    assert fit.psf.fwhm_pix() == pytest.approx(ours.psf.fwhm_pix(), rel=0.02)
    bright = field.flux > 1e5
    assert np.isfinite(fit.sources["psfFlux"]).all()
    # the stars' fluxes follow from Piff's PSF; its grid holds less of the light
    assert np.median(fit.sources["psfFlux"][: bright.sum()] / np.sort(field.flux)[::-1][: bright.sum()]) > 0.9


def test_few_stars_lower_the_order_and_none_are_unusable(field: Starfield) -> None:
    pytest.importorskip("piff", reason="the optional package piff is not installed")
    config = PiffConfig(model="Gaussian", order=2)
    bright = np.argsort(-field.flux)[:6]
    skip = np.uint16(Mask.BAD)
    inside = bright[np.abs(field.x[bright] - 200) < 160]
    psf = fit_piff(field.frame, field.x[inside], field.y[inside], field.flux[inside], skip, 31, config)
    assert psf.order == 0
    with pytest.raises(UnusableDataError) as caught:
        fit_piff(field.frame, np.array([3.0]), np.array([3.0]), np.array([1e5]), skip, 31, config)
    assert caught.value.outcome is Outcome.ASTROMETRY_FAILED


def test_where_piff_is_missing_the_error_says_what_to_install(
    field: Starfield, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "piff", None)
    with pytest.raises(ConfigurationError, match=r'pip install "sub60\[piff\]"') as caught:
        fitted(field, replace(PsfConfig(), determiner="piff"))
    assert caught.value.code == "piff_missing"
