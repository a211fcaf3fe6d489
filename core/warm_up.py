"""A made-up detector-visit that takes the pipeline through every kernel and buffer before the first real one.

Not a simulation: Gaussian stars on flat sky, just real enough that no stage gives up. A worker runs it before it
reports ready, so that no visit waits for compilation or for memory that was never touched.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from core.camera import Camera, Detector
from core.contracts.bundle import Bundle, Calibrations, History
from core.contracts.catalogs import (
    BANDS,
    DIA_FORCED_SOURCE,
    DIA_OBJECT,
    DIA_SOURCE,
    EPHEMERIS,
    REFERENCE_STAR,
    empty_catalog,
)
from core.contracts.exposure import Frame, RawExposure, Template, VisitInfo
from core.contracts.psf import PsfModel
from core.contracts.results import DetectorResult
from core.contracts.wcs import Wcs
from core.pipeline import FirstHalf, Pipeline
from core.stages.dipole import DipoleConfig, fit_dipoles
from core.stages.periodogram import FrequencyGrid, Transform, power
from core.stages.point_source import PsfOnFrame
from core.stages.pointing import predict_wcs
from core.stages.streaks import mask_streaks
from core.workspace import Workspace

_BIAS_ADU = 1000.0
_SKY_E = 800.0
_SIGMA_PIX = 2.0
NJY_PER_ELECTRON = 10.0
_HALF = 12

_N_NOISE = 1_000_003
"""A prime: rows do not repeat."""

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """Stars of the made-up visit [pixel], [e-]; the new ones are not in the template."""

    x: Float64
    y: Float64
    flux_e: Float64
    is_new: NDArray[np.bool_]


def warm_up(pipeline: Pipeline, detector: int | None = None) -> tuple[FirstHalf, DetectorResult]:
    """Run one made-up visit of ``detector`` (default: the camera's first) through both halves; gives both."""
    raw, bundle, _ = made_up_visit(pipeline.camera, detector)
    _rare_kernels()
    first = pipeline.measure(raw, bundle, tail=lambda: None, remaining_s=lambda: 60.0, time_processed_mjd_tai=60000.001)
    result = pipeline.finish(first)
    pipeline.light_curve_features(first, result)
    return first, result


def _rare_kernels() -> None:
    """A track and a dipole, which the made-up visit must not have: they would hide its stars; a long light curve."""
    shape, psf_size = (512, 512), 25
    axis = np.arange(psf_size) - psf_size // 2
    profile = np.exp(-0.5 * (axis / _SIGMA_PIX) ** 2)
    psf = np.outer(profile, profile) / profile.sum() ** 2
    image = _noise(shape, np.random.default_rng(61))
    frame = Frame(image=image, variance=np.ones(shape, np.float32), mask=np.zeros(shape, np.uint16))
    for x, flux in ((100, 1000.0), (104, -1000.0)):
        image[100 - axis[-1] : 101 + axis[-1], x - axis[-1] : x + 1 + axis[-1]] += (flux * psf).astype(np.float32)
    plane = PsfOnFrame.of(frame, PsfModel(coefficients=psf.astype(np.float32)[None], shape=shape, order=0))
    source = empty_catalog(DIA_SOURCE, 1)
    source["x"], source["y"], source["psfFlux"], source["isNegative"] = 100.0, 100.0, 1000.0, False
    fit_dipoles(source, plane, np.ones(1, np.bool_), np.eye(2)[None] * 0.2, Workspace(), DipoleConfig())
    image[:, 300:305] += 20.0
    mask_streaks(frame, Workspace())
    mjd = np.arange(4.0)
    power(Transform(FrequencyGrid(step_per_day=0.1, n=8)), mjd, mjd**2, np.ones(4), np.zeros(4, np.int8))


def made_up_visit(camera: Camera, detector: int | None = None) -> tuple[RawExposure, Bundle, Scene]:
    """Raw and bundle of a visit that needs no file, and the stars that were drawn."""
    chosen = camera.detectors[detector if detector is not None else min(camera.detectors)]
    rng = np.random.default_rng(60)
    scene = _scene(chosen.shape, rng)
    info = VisitInfo(
        instrument=camera.instrument,
        group="warm-up",
        visit=2000010100001,
        detector=chosen.detector,
        band="r",
        exposure_start_mjd_tai=60000.0,
        exposure_end_mjd_tai=60000.0 + 30 / 86400,
        exposure_time_s=30.0,
        ra_deg=150.0,
        dec_deg=2.0,
        rot_sky_deg=0.0,
    )
    raw = RawExposure(visit_info=info, segments=_segments(chosen, scene, rng))
    return raw, _bundle(camera, chosen, scene, info, rng), scene


def _scene(shape: tuple[int, int], rng: np.random.Generator) -> Scene:
    """Stars on a jittered grid, one in twenty of them new."""
    step = max(min(shape) // 16, 36)
    y, x = np.mgrid[step // 2 : shape[0] - step // 2 + 1 : step, step // 2 : shape[1] - step // 2 + 1 : step]
    n = x.size
    return Scene(
        x=x.ravel() + rng.uniform(-8, 8, n),
        y=y.ravel() + rng.uniform(-8, 8, n),
        flux_e=10 ** rng.uniform(4.0, 5.0, n),
        is_new=np.arange(n) % 20 == 7,
    )


def _add_stars(image: Float64, x: Float64, y: Float64, flux: Float64) -> None:
    """Add Gaussian stars wholly or partly inside ``image``, in place."""
    axis = np.arange(-_HALF, _HALF + 1)
    for x_star, y_star, flux_star in zip(x, y, flux, strict=True):
        column, row = round(float(x_star)), round(float(y_star))
        if not (_HALF <= column < image.shape[1] - _HALF and _HALF <= row < image.shape[0] - _HALF):
            continue
        across = np.exp(-0.5 * ((axis + column - x_star) / _SIGMA_PIX) ** 2)
        down = np.exp(-0.5 * ((axis + row - y_star) / _SIGMA_PIX) ** 2)
        stamp = np.outer(down, across) * (flux_star / (2 * np.pi * _SIGMA_PIX**2))
        image[row - _HALF : row + _HALF + 1, column - _HALF : column + _HALF + 1] += stamp


def _add_trail(image: Float64) -> None:
    """A streak as of a fast asteroid, a quarter into the frame, in place."""
    along = np.arange(0.0, 30.0, 0.5)
    x, y = image.shape[1] / 4 + along, image.shape[0] / 4 + 0.3 * along
    _add_stars(image, x, y, np.full(along.size, 600.0))


def _add_damage(image: Float64) -> None:
    """A saturated patch and a cosmic ray's track, away from the trail, in place."""
    y, x = image.shape[0] * 3 // 4, image.shape[1] * 3 // 4
    image[y : y + 4, x : x + 3] = 1e6
    for step in range(6):
        image[y - 60 + step, x - 60 + 2 * step] += 4000.0


def _noise(shape: tuple[int, ...], rng: np.random.Generator) -> Float32:
    """Unit normal values, repeated after a million: drawing a full detector's takes longer than to process it."""
    n = int(np.prod(shape))
    return np.resize(rng.standard_normal(min(n, _N_NOISE), np.float32), shape)


def _segments(detector: Detector, scene: Scene, rng: np.random.Generator) -> NDArray[np.int32]:
    image = np.full(detector.shape, _SKY_E)
    _add_stars(image, scene.x, scene.y, scene.flux_e)
    _add_trail(image)
    image += np.sqrt(image) * _noise(image.shape, rng)
    _add_damage(image)
    amplifiers = detector.amplifiers
    segments = _BIAS_ADU + 4.0 * _noise((len(amplifiers), *amplifiers[0].raw_shape), rng)
    for segment, amplifier in zip(segments, amplifiers, strict=True):
        y0, y1, x0, x1 = amplifier.bbox
        part = image[y0:y1, x0:x1] / amplifier.gain
        part = part[:: -1 if amplifier.flip_y else 1, :: -1 if amplifier.flip_x else 1]
        y0, y1, x0, x1 = amplifier.data
        segment[y0:y1, x0:x1] += part
    return np.asarray(np.rint(segments), np.int32)


def _bundle(camera: Camera, detector: Detector, scene: Scene, info: VisitInfo, rng: np.random.Generator) -> Bundle:
    wcs = predict_wcs(camera, detector.detector, info.ra_deg, info.dec_deg, info.rot_sky_deg)
    ra, dec = wcs.pixel_to_sky(scene.x, scene.y)
    stars = np.zeros(scene.x.size, REFERENCE_STAR)
    stars["ra"], stars["dec"], stars["isStar"] = ra, dec, True
    stars["raErr"] = stars["decErr"] = 5.0
    stars["epochMjdTai"] = info.midpoint_mjd_tai
    redness = rng.uniform(0.0, 0.3, scene.x.size)
    for number, band in enumerate(BANDS, start=-BANDS.index(info.band)):
        stars[f"{band}_flux"] = scene.flux_e * NJY_PER_ELECTRON * 10 ** (redness * number)
        stars[f"{band}_fluxErr"] = stars[f"{band}_flux"] * 0.01
    return Bundle(
        calibrations=_calibrations(detector),
        template=_template(detector.shape, wcs.to_header(), scene, rng),
        reference_stars=stars[~scene.is_new],
        history=History(
            dia_objects=empty_catalog(DIA_OBJECT, 0),
            dia_sources=empty_catalog(DIA_SOURCE, 0),
            dia_forced_sources=empty_catalog(DIA_FORCED_SOURCE, 0),
        ),
        ephemerides=np.zeros(0, EPHEMERIS),
    )


def _calibrations(detector: Detector) -> Calibrations:
    n_amp = len(detector.amplifiers)
    return Calibrations(
        gain=np.array([a.gain for a in detector.amplifiers], np.float32),
        read_noise=np.array([a.read_noise for a in detector.amplifiers], np.float32),
        saturation=np.array([a.saturation_adu for a in detector.amplifiers], np.float32),
        linearity=np.zeros((n_amp, 2), np.float32),
        crosstalk=np.zeros((n_amp, n_amp), np.float32),
        brighter_fatter=np.full(n_amp, 1e-7, np.float32),
        bias=np.zeros(detector.shape, np.float32),
        dark=np.zeros(detector.shape, np.float32),
        flat=np.ones(detector.shape, np.float32),
        defects=np.zeros(detector.shape, np.uint16),
    )


def _template(
    shape: tuple[int, int], header: dict[str, float | str | int], scene: Scene, rng: np.random.Generator
) -> Template:
    """The scene without its new stars, on the detector's own grid padded by 250 pixels."""
    pad, cell = 250, 256
    padded = (shape[0] + 2 * pad, shape[1] + 2 * pad)
    image = np.zeros(padded)
    old = ~scene.is_new
    _add_stars(image, scene.x[old] + pad, scene.y[old] + pad, scene.flux_e[old] * NJY_PER_ELECTRON)
    sigma = np.sqrt(_SKY_E) * NJY_PER_ELECTRON / 4
    image += sigma * _noise(padded, rng)
    wcs = Wcs.from_header(header | {"CRPIX1": float(header["CRPIX1"]) + pad, "CRPIX2": float(header["CRPIX2"]) + pad})
    axis = np.arange(-_HALF, _HALF + 1)
    profile = np.exp(-0.5 * (axis / _SIGMA_PIX) ** 2)
    psf = np.outer(profile, profile)
    cells = (-(-padded[0] // cell), -(-padded[1] // cell))
    return Template(
        frame=Frame(
            image=image.astype(np.float32),
            variance=np.full(padded, sigma**2, np.float32),
            mask=np.zeros(padded, np.uint16),
        ),
        wcs=wcs,
        psf_cells=np.broadcast_to((psf / psf.sum()).astype(np.float32), (*cells, *psf.shape)).copy(),
        cell_size_pix=cell,
        cell_offset_pix=(0, 0),
        n_inputs=16,
        epoch_mjd_tai=59000.0,
    )
