"""A real Valkey and a small dataset for the tests of the stores."""

import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fitsio
import numpy as np
import pytest

from core.camera import load_camera
from core.contracts.catalogs import EPHEMERIS, REFERENCE_STAR
from core.contracts.wcs import Wcs
from service.embedded import EmbeddedValkey, cache_settings
from service.storage.recipe import BundleKey

RA, DEC, MJD = 150.0, 2.0, 61000.5
KEY = BundleKey(
    instrument="TestCam",
    group="g1",
    detector=0,
    band="r",
    mjd_tai=MJD,
    ra_deg=RA,
    dec_deg=DEC,
    rot_sky_deg=25.0,
    visit=7,
)
PATCH, CELL, TRACT_SHAPE, TRACT_CRPIX = 256, 64, (1536, 1536), np.array([700.3, 690.8])


@pytest.fixture(scope="session")
def valkey() -> Iterator[str]:
    """URL of an embedded cache server."""
    with (
        tempfile.TemporaryDirectory(prefix="sub60-") as folder,
        EmbeddedValkey(Path(folder), cache_settings(256)) as server,
    ):
        yield server.url


@pytest.fixture
def cache_url(valkey: str) -> str:
    """The same, emptied."""
    import redis

    with redis.Redis.from_url(valkey) as client:
        client.flushall()
    return valkey


def write_image(path: Path, hdus: dict[str, Any], **header: object) -> None:
    """A FITS file: keywords in the primary, named images after."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with fitsio.FITS(path, "rw", clobber=True) as file:
        file.write(None, header=header)
        for name, array in hdus.items():
            file.write(array, extname=name)


def make_dataset(root: Path) -> Path:
    """One detector of the test camera under a template that covers part of it."""
    camera = load_camera("testcam")
    (root / "template/0").mkdir(parents=True)
    info = {"format": 1, "instrument": camera.instrument, "camera": "testcam", "tracts": [0], "release": 1}
    (root / "dataset.json").write_text(json.dumps(info))
    rng = np.random.default_rng(8)
    shape = camera.detectors[0].shape
    n_amp = len(camera.detectors[0].amplifiers)
    for kind in ("bias", "dark", "flat-r", "defects"):
        image = rng.normal(1, 0.01, shape).astype(np.float32)
        if kind == "defects":
            image = (rng.random(shape) < 0.01).astype(np.uint8)
        path = root / f"calib/000/{kind}_60900_61100.fits"
        write_image(path, {"DATA": image}, KIND=kind, DETECTOR=0, BAND="r", VALIDSTA=60900.0, VALIDEND=61100.0)
    table = np.zeros(
        n_amp,
        [
            ("name", "S4"),
            ("gain", "f4"),
            ("read_noise", "f4"),
            ("saturation", "f4"),
            ("linearity", "f4", 3),
            ("crosstalk", "f4", n_amp),
            ("brighter_fatter", "f4"),
        ],
    )
    table["gain"] = 1.5
    write_image(
        root / "calib/000/amplifiers_60900_61100.fits",
        {"DATA": table},
        KIND="amplifiers",
        DETECTOR=0,
        VALIDSTA=60900.0,
        VALIDEND=61100.0,
    )
    _make_template(root, rng)
    stars = np.zeros(200, REFERENCE_STAR)
    stars["ra"], stars["dec"] = RA + rng.uniform(-0.2, 0.2, 200), DEC + rng.uniform(-0.2, 0.2, 200)
    stars["g_flux"] = np.nan
    import cdshealpix.nested
    from astropy import units
    from astropy.coordinates import Latitude, Longitude

    pixels = cdshealpix.nested.lonlat_to_healpix(
        Longitude(stars["ra"], units.deg), Latitude(stars["dec"], units.deg), 6
    )
    for pixel in np.unique(pixels):
        write_image(root / f"refcat/{pixel}.fits", {"STARS": stars[pixels == pixel]})
    movers = np.zeros(3, EPHEMERIS)
    movers["designation"] = ["2026 AB1", "", "C"]
    names = movers.dtype.descr
    as_bytes = movers.astype([("designation", "S24") if d[0] == "designation" else d for d in names])
    write_image(root / "ephemerides/7.fits", {"EPHEMERIDES": as_bytes})
    return root


def _make_template(root: Path, rng: np.random.Generator) -> None:
    """Pixels numbered by their place in the tract; the right half of the tract has no data."""
    camera = load_camera("testcam")
    center = camera.pixel_to_sky(0, 255.5, 255.5, RA, DEC, 25.0)
    wcs = Wcs(
        crpix=TRACT_CRPIX,
        crval=np.array([float(center[0]), float(center[1])]),
        cd=np.array([[-0.2, 0], [0, 0.2]]) / 3600,
    )
    content = {"wcs": wcs.to_header(), "shape": TRACT_SHAPE, "patch_size": PATCH, "cell_size": CELL}
    (root / "template/0/tract.json").write_text(json.dumps(content))
    for row in range(TRACT_SHAPE[0] // PATCH):
        for column in range(3):
            y, x = np.mgrid[row * PATCH : (row + 1) * PATCH, column * PATCH : (column + 1) * PATCH]
            image = (y * 2048 + x).astype(np.float32)
            psf = np.zeros((PATCH // CELL, PATCH // CELL, 5, 5), np.float32)
            psf[..., 2, 2] = 1 + row * 16 + column
            hdus = {
                "IMAGE": image,
                "VARIANCE": rng.random(image.shape, np.float32) + 1,
                "MASK": (image % 7 == 0).astype(np.uint16),
                "PSF": psf,
            }
            write_image(
                root / f"template/0/r/{row:03d}_{column:03d}.fits", hdus, BAND="r", NINPUT=5 + column, EPOCH=60000.0
            )
