"""One visit of one detector: sky to raw file and truth table."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.simulator.calibrations import per_pixel
from benchmarks.simulator.changes import Movers, Transients, Variables
from benchmarks.simulator.config import SimulationConfig
from benchmarks.simulator.drawing import psf_images
from benchmarks.simulator.electronics import collect, read_out, saturate
from benchmarks.simulator.ghosts import paint_ghosts
from benchmarks.simulator.hardware import Hardware, low_order, vignetting
from benchmarks.simulator.landmarks import large_galaxy
from benchmarks.simulator.optics import make_optics
from benchmarks.simulator.particles import add_cosmic_rays
from benchmarks.simulator.photometry import njy_to_mag
from benchmarks.simulator.randomness import stream
from benchmarks.simulator.rawfile import write_raw
from benchmarks.simulator.scene import Frame, Placed, Points, paint, place_rows, row_color, single_points
from benchmarks.simulator.skymodel import Rows, positions_at
from benchmarks.simulator.streaks import draw_streaks, paint_streaks
from benchmarks.simulator.template import TemplateTruth
from benchmarks.simulator.truth import TRUTH, add_bright_neighbors, static_truth, write_truth
from benchmarks.simulator.visits import DAY_S, SHUTTER_CROSSING_S, Visit
from core.camera import Camera, Detector

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]

_STAMP = 31
_TRANSIENT_COLOR = 0.3
_MOVER_COLOR = 0.7


@dataclass(frozen=True, slots=True, kw_only=True)
class DetectorSky:
    """Everything in the sky of one detector, the same in all its visits."""

    rows: Rows
    variables: Variables
    movers: Movers


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """Sources that differ from the template, on a frame: fluxes [nJy] of visit minus template."""

    kind: bytes
    ids: NDArray[np.int64]
    ra: Float64
    dec: Float64
    placed: Placed
    template_flux: Float64
    sigma: Float64
    """Error of an optimal measurement of the difference [nJy]."""
    is_hosted: NDArray[np.bool_]
    is_near_bright: NDArray[np.bool_]


def make_frame(config: SimulationConfig, camera: Camera, detector: Detector, visit: Visit) -> Frame:
    """The true geometry and imaging of a visit on a detector."""
    scale = camera.pixel_scale_arcsec
    rng = stream(config.seed, "optics", visit.index)  # the same for all detectors: one sky above them
    origin_x, origin_y = detector.pixel_to_focal_plane(0.0, 0.0)
    per_mm = camera.plate_scale_arcsec_per_mm
    optics = make_optics(
        config, rng, detector.shape, scale, (float(origin_x) * per_mm, float(origin_y) * per_mm), visit.band,
        visit.seeing_arcsec, (visit.tan_zenith, visit.zenith_angle_deg), visit.true_rot_sky_deg,
    )  # fmt: skip

    pointing = (visit.true_ra_deg, visit.true_dec_deg, visit.true_rot_sky_deg)

    def to_pixel(ra: Float64, dec: Float64) -> tuple[Float64, Float64]:
        return camera.sky_to_pixel(detector.detector, ra, dec, *pointing)

    def to_sky(x: Float64, y: Float64) -> tuple[Float64, Float64]:
        return camera.pixel_to_sky(detector.detector, x, y, *pointing)

    noise = float(np.sqrt(visit.sky_electrons + 36.0))
    return Frame(
        to_pixel=to_pixel,
        to_sky=to_sky,
        optics=optics,
        rot_deg=visit.true_rot_sky_deg,
        band=visit.band,
        njy_per_electron=visit.njy_per_electron,
        noise_electrons=noise,
    )


def sky_background(config: SimulationConfig, detector: Detector, visit: Visit) -> Float32:
    """Sky [e-/pixel] with a gradient of about 1.5 %, and the shutter's unevenness."""
    sky = np.full(detector.shape, visit.sky_electrons, np.float32)
    rng = stream(config.seed, "sky", visit.index, detector.detector)
    if config.effects.sky_gradient:
        sky *= np.float32(1) + low_order(rng, detector.shape, 0.008)
    return sky


def optimal_sigma(frame: Frame, variance: Float32, placed: Placed, template: TemplateTruth | None) -> Float64:
    """1 / sqrt(sum(P**2 / V)) [nJy] at each source; ``variance`` (ny, nx) of the science image [nJy**2]."""
    weights = frame.optics.weights(placed.x, placed.y, placed.color)
    stamps = psf_images(frame.optics.basis, weights, placed.x, placed.y, _STAMP, placed.points)
    ny, nx = variance.shape
    offset = np.arange(_STAMP) - _STAMP // 2
    y = np.floor(placed.y + 0.5).astype(np.int64)[:, None, None] + offset[None, :, None]
    x = np.floor(placed.x + 0.5).astype(np.int64)[:, None, None] + offset[None, None, :]
    total = variance[np.clip(y, 0, ny - 1), np.clip(x, 0, nx - 1)].astype(np.float64)
    if template is not None:
        total += template.variance_around(frame, placed.x, placed.y, _STAMP)
    on_frame = (y >= 0) & (y < ny) & (x >= 0) & (x < nx)
    information = (np.square(stamps.astype(np.float64)) / total * on_frame).sum(axis=(1, 2))
    return np.asarray(1 / np.sqrt(np.maximum(information, 1e-12)), np.float64)


def draw_snr(rng: np.random.Generator, n: int, limits: tuple[float, float]) -> Float64:
    """Log-uniform signal-to-noise ratios."""
    return np.asarray(np.exp(rng.uniform(np.log(limits[0]), np.log(limits[1]), n)), np.float64)


def _with_flux(placed: Placed, flux: Float64) -> Placed:
    return Placed(x=placed.x, y=placed.y, flux=flux, color=placed.color, points=placed.points)


def vary(
    config: SimulationConfig,
    visit: Visit,
    detector: Detector,
    frame: Frame,
    variance: Float32,
    sky: DetectorSky,
    template: TemplateTruth | None,
) -> Change:
    """Variables at the brightness that gives each the signal-to-noise ratio drawn for it."""
    rows = sky.variables.rows
    ra, dec = positions_at(rows, visit.midpoint_mjd_tai, proper_motion=config.effects.proper_motion)
    color = row_color(rows)
    mean = template_mean(config, sky.variables, visit, template)
    x, y = frame.place(ra, dec, color)
    placed = Placed(x=x, y=y, flux=mean, color=color, points=single_points(rows.size))
    sigma = optimal_sigma(frame, variance, placed, template)
    rng = stream(config.seed, "variation", detector.detector, visit.index)
    change = draw_snr(rng, rows.size, config.variable_snr_range) * sigma
    fades = (rng.random(rows.size) < 0.5) & (change < 0.8 * mean)
    none = np.zeros(rows.size, bool)
    flux = np.where(fades, -change, change)
    return Change(
        kind=b"variable", ids=rows["id"], ra=ra, dec=dec, placed=_with_flux(placed, flux), template_flux=mean,
        sigma=sigma, is_hosted=none, is_near_bright=none,
    )  # fmt: skip


def template_mean(
    config: SimulationConfig, variables: Variables, visit: Visit, template: TemplateTruth | None
) -> Float64:
    """Flux of the variables in the coadd [nJy]."""
    if template is None:
        return variables.flux(visit.band, config.start_mjd_tai)
    return np.asarray(variables.flux(visit.band, template.epochs) @ template.weights, np.float64)


def appear(
    config: SimulationConfig,
    visit: Visit,
    detector: Detector,
    frame: Frame,
    variance: Float32,
    transients: Transients,
    template: TemplateTruth | None,
) -> Change:
    """Transients of this visit, fluxes drawn in signal-to-noise ratio."""
    n = transients.ids.size
    color = np.full(n, _TRANSIENT_COLOR)
    x, y = frame.place(transients.ra, transients.dec, color)
    placed = Placed(x=x, y=y, flux=np.zeros(n), color=color, points=single_points(n))
    sigma = optimal_sigma(frame, variance, placed, template)
    rng = stream(config.seed, "appearance", detector.detector, visit.index)
    usual, bright = draw_snr(rng, n, config.snr_range), draw_snr(rng, n, config.bright_snr_range)
    snr = np.where(transients.is_bright, bright, usual)
    return Change(
        kind=b"transient", ids=transients.ids, ra=transients.ra, dec=transients.dec,
        placed=_with_flux(placed, snr * sigma), template_flux=np.zeros(n), sigma=sigma,
        is_hosted=transients.is_hosted, is_near_bright=transients.is_near_bright,
    )  # fmt: skip


def move(
    config: SimulationConfig,
    visit: Visit,
    detector: Detector,
    frame: Frame,
    variance: Float32,
    movers: Movers,
    template: TemplateTruth | None,
) -> Change:
    """Movers as short trails; the shutter's motion makes their mid-time depend on the place in the focal plane."""
    ra, dec = movers.position(visit.midpoint_mjd_tai)
    n = movers.ids.size
    color = np.full(n, _MOVER_COLOR)
    x, y = frame.place(ra, dec, color)
    if config.effects.shutter:
        place = (frame.optics.origin_arcsec[0] + x * frame.optics.scale_arcsec) / 6300.0
        late = place * SHUTTER_CROSSING_S / 2 / DAY_S
        ra_late, dec_late = movers.position(visit.midpoint_mjd_tai + 0.01)
        x_late, y_late = frame.place(ra_late, dec_late, color)
        x, y = x + (x_late - x) * late / 0.01, y + (y_late - y) * late / 0.01
    begin = frame.place(*movers.position(visit.start_mjd_tai), color)
    end = frame.place(*movers.position(visit.end_mjd_tai), color)
    points = _trails(end[0] - begin[0], end[1] - begin[1])
    placed = Placed(x=x, y=y, flux=np.zeros(n), color=color, points=points)
    sigma = optimal_sigma(frame, variance, placed, template)
    rng = stream(config.seed, "brightness", detector.detector, visit.index)
    snr = draw_snr(rng, n, (5.0, config.snr_range[1]))
    none = np.zeros(n, bool)
    return Change(
        kind=b"mover", ids=movers.ids, ra=ra, dec=dec, placed=_with_flux(placed, snr * sigma),
        template_flux=np.zeros(n), sigma=sigma, is_hosted=none, is_near_bright=none,
    )  # fmt: skip


def _trails(length_x: Float64, length_y: Float64) -> Points:
    counts = np.maximum(np.ceil(np.hypot(length_x, length_y) / 0.3), 1).astype(np.int64)
    start = np.concatenate([[0], np.cumsum(counts)])
    owner = np.repeat(np.arange(counts.size), counts)
    t = (np.arange(start[-1]) - start[owner] + 0.5) / counts[owner] - 0.5
    return start, (t * length_x[owner]).astype(np.float32), (t * length_y[owner]).astype(np.float32)


def simulate_exposure(
    out: Path,
    config: SimulationConfig,
    camera: Camera,
    detector: Detector,
    hardware: Hardware,
    visit: Visit,
    sky: DetectorSky,
    transients: Transients,
    template: TemplateTruth | None,
) -> dict[str, float]:
    """Write raw and truth of one visit-detector; returns figures for the log."""
    frame = make_frame(config, camera, detector, visit)
    response = hardware.response * vignetting(config, detector, visit.band)
    expected = sky_background(config, detector, visit)
    ra, dec = positions_at(sky.rows, visit.midpoint_mjd_tai, proper_motion=config.effects.proper_motion)
    static, kept = place_rows(frame, sky.rows, ra, dec)
    paint(expected, frame, static)
    if galaxy := large_galaxy(config, camera):
        galaxy.paint(expected, frame)
    if config.effects.ghosts:
        paint_ghosts(expected, frame, static)
    # what the variables were in the template is part of the scene that the changes are measured against
    mean = template_mean(config, sky.variables, visit, template)
    v_ra, v_dec = positions_at(sky.variables.rows, visit.midpoint_mjd_tai, proper_motion=config.effects.proper_motion)
    v_placed, v_kept = place_rows(frame, sky.variables.rows, v_ra, v_dec)
    paint(expected, frame, _with_flux(v_placed, mean[v_kept]))

    read_variance = per_pixel(np.square(hardware.read_noise), detector)
    counted = expected * response + hardware.dark * np.float32(visit.exposure_s) + read_variance
    variance = counted / np.square(response) * np.float32(visit.njy_per_electron**2)
    about = (config, visit, detector, frame, variance)
    changes = [vary(*about, sky, template), appear(*about, transients, template), move(*about, sky.movers, template)]
    for change in changes:
        paint(expected, frame, change.placed)
    streaks, profiles = draw_streaks(
        config, detector.detector, visit.index, detector.shape, visit.seeing_arcsec, camera.pixel_scale_arcsec
    )
    paint_streaks(expected, streaks, profiles)
    np.maximum(expected, 0, out=expected)
    expected *= response
    if config.effects.shutter:
        expected *= _shutter_unevenness(detector)
    rng = stream(config.seed, "photons", detector.detector, visit.index)
    charge = collect(expected, hardware, config, rng, visit.exposure_s)
    hits = add_cosmic_rays(
        charge, rng, config.cosmic_rays if config.effects.cosmic_rays else 0, config.cosmic_ray_model
    )
    saturate(charge, detector, hardware, config)
    segments = read_out(charge, detector, hardware, config, rng)
    name = f"{visit.visit}_{detector.detector:03d}.fits"
    write_raw(out / "raw" / str(visit.day_obs) / name, segments, visit, camera, detector, config.readout_s)

    table = np.concatenate(
        [
            static_truth(config, frame, static, sky.rows[kept], (ra[kept], dec[kept]), variance, template),
            *(change_truth(change, frame) for change in changes),
        ]
    )
    add_bright_neighbors(table, static, sky.rows[kept], frame)
    _write_truth_file(out / "truth" / name, config, camera, detector, visit, frame, table, (hits, streaks), template)
    return {"n_static": float(kept.size), "sky": visit.sky_electrons}


def _shutter_unevenness(detector: Detector) -> Float32:
    """Effective exposure varies by 0.1 % along x."""
    u = np.linspace(-1, 1, detector.shape[1], dtype=np.float32)
    return np.asarray(1 + np.float32(5e-4) * u, np.float32)[None, :]


def change_truth(change: Change, frame: Frame) -> NDArray[np.void]:
    """Rows of variables, transients or movers."""
    keep = change.placed.inside(frame.shape)
    table = np.zeros(int(keep.sum()), TRUTH)
    placed = change.placed
    science = change.template_flux + placed.flux
    columns: dict[str, Any] = {
        "id": change.ids, "x": placed.x, "y": placed.y, "ra": change.ra, "dec": change.dec, "flux": placed.flux,
        "science_flux": science, "template_flux": change.template_flux, "snr_true": placed.flux / change.sigma,
        "mag": njy_to_mag(science), "hosted": change.is_hosted, "near_bright": change.is_near_bright,
    }  # fmt: skip
    for name, values in columns.items():
        table[name] = values[keep]
    table["kind"] = change.kind
    return table


def _write_truth_file(
    path: Path,
    config: SimulationConfig,
    camera: Camera,
    detector: Detector,
    visit: Visit,
    frame: Frame,
    table: NDArray[np.void],
    events: tuple[NDArray[np.void], NDArray[np.void]],
    template: TemplateTruth | None,
) -> None:
    ny, nx = detector.shape
    edge = np.linspace(0.1, 0.9, config.psf_grid)
    x, y = (g.ravel() for g in np.meshgrid(np.round(edge * (nx - 1)), np.round(edge * (ny - 1))))
    weights = frame.optics.weights(x, y, np.full(x.size, 0.8))
    images = psf_images(frame.optics.basis, weights, x, y, 51)
    enclosed = images.sum(axis=(1, 2), keepdims=True)
    images /= enclosed
    size = config.template_psf_size
    matched = np.zeros((x.size, size, size), np.float32)
    if template is not None:
        matched = template.psf_at(*frame.to_sky(x, y))
    header = {
        "ZP": visit.njy_per_electron, "FWHM": visit.seeing_arcsec, "SKY": visit.sky_electrons, "BAND": visit.band,
        "SEED": config.seed, "VISIT": visit.visit, "DETECTOR": detector.detector, "RATRUE": visit.true_ra_deg,
        "DECTRUE": visit.true_dec_deg, "ROTTRUE": visit.true_rot_sky_deg, "AIRMASS": visit.airmass,
        "PSFSUM": float(enclosed.mean()),
        "NSTREAK": int(events[1].size), "CAMERA": camera.name, "DIGEST": config.digest(),
    }  # fmt: skip
    header.update({f"NOSIM{i:02d}": text[:60] for i, text in enumerate(config.not_simulated())})
    write_truth(path, table, events, (x, y), images, matched, header)
