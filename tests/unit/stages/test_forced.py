"""Forced photometry at known places, and which places are chosen."""

import numpy as np
import pytest

from core.contracts.catalogs import DIA_FORCED_SOURCE, DIA_OBJECT, DIA_SOURCE, empty_catalog
from core.ids import source_ids
from core.stages.forced import ForcedTargets, force_photometry, forced_targets
from core.stages.measure import ProcessingStamp
from tests.support.sky_scene import VISIT, Scene

STAMP = ProcessingStamp(release=1, time_processed_mjd_tai=61000.2)


def test_fluxes_at_true_places_are_unbiased_with_right_errors() -> None:
    scene = Scene(shape=(510, 510), gradient=0.1)
    random = np.random.default_rng(8)
    ticks = 36 * (np.arange(13) + 1.0)
    x, y = (g.ravel() + random.uniform(-0.5, 0.5, 169) for g in np.meshgrid(ticks, ticks))
    flux = scene.flux_of_snr(15)
    for xi, yi in zip(x, y, strict=True):
        scene.add_point(xi, yi, flux)
    difference, exposure, _ = scene.build()
    ra, dec = exposure.wcs.pixel_to_sky(x, y)
    targets = ForcedTargets(dia_object_id=np.arange(169), ra=ra, dec=dec)
    rows = force_photometry(difference, exposure, targets, STAMP)
    for column in ("psfFlux", "scienceFlux"):
        pull = (rows[column] - flux) / rows[f"{column}Err"]
        assert pull.mean() == pytest.approx(0, abs=0.25)
        assert pull.std() == pytest.approx(1, abs=0.17)
    np.testing.assert_array_equal(rows["diaForcedSourceId"], source_ids(1, VISIT.visit, 94, np.arange(169)))
    assert rows.dtype == DIA_FORCED_SOURCE
    assert (rows["midpointMjdTai"] == VISIT.midpoint_mjd_tai).all()


def test_off_image_and_unusable_places_have_null_fluxes() -> None:
    scene = Scene()
    scene.mask[:60, :60] = 1 << 4
    difference, exposure, _ = scene.build()
    ra, dec = exposure.wcs.pixel_to_sky(np.array([-500.0, 25.0]), np.array([100.0, 25.0]))
    rows = force_photometry(difference, exposure, ForcedTargets(dia_object_id=np.arange(2), ra=ra, dec=dec), STAMP)
    assert np.isnan(rows["psfFlux"]).all()
    assert np.isnan(rows["scienceFluxErr"]).all()


def test_targets_are_old_objects_inside_and_all_detected_now() -> None:
    _, exposure, _ = Scene().build()
    objects = empty_catalog(DIA_OBJECT, 4)
    objects["diaObjectId"] = [10, 20, 30, 40]
    objects["nDiaSources"] = [5, 1, 1, 9]
    objects["ra"], objects["dec"] = exposure.wcs.pixel_to_sky(
        np.array([50.0, 60.0, 70.0, 900.0]), np.array([50.0, 60.0, 70.0, 50.0])
    )
    sources = empty_catalog(DIA_SOURCE, 3)
    sources["diaObjectId"][:2] = [30, 5]
    sources["ra"], sources["dec"] = exposure.wcs.pixel_to_sky(
        np.array([70.5, 100.0, 1.0]), np.array([70.0, 100.0, 1.0])
    )
    targets = forced_targets(sources, objects, exposure)
    assert targets.dia_object_id.tolist() == [5, 10, 30]
    assert targets.ra[2] == objects["ra"][2]
    assert targets.ra[0] == sources["ra"][1]
