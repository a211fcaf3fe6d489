"""Runs the peers one after the other on one frame, in one folder, and judges what they leave there."""

import shutil
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import fitsio
import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import binary_dilation

from benchmarks.peers import astromatic, fitsfiles, libraries, quality
from benchmarks.peers.catalog import DIFFERENCES, Peer
from benchmarks.peers.cost import Cost, PeerFailedError, area_factor, measured, run_tool
from benchmarks.peers.ours import Inputs, Ours
from benchmarks.quality.truth import Truth
from core.flags import Mask

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]
Bool = NDArray[np.bool_]

TILE_PIX: Final = 1024
_BAD: Final = np.uint16(Mask.BAD | Mask.SAT | Mask.NODATA)
_BAD_GROWTH_PIX: Final = 4
_CR_REACH_PIX: Final = 3
_HUGE_RMS: Final = 1e30


class Outcome:
    """What became of one peer: its cost (of the whole frame) and its figures."""

    def __init__(self, cost: Cost, figures: quality.Figures, **more: Any) -> None:
        self.cost = cost
        self.figures = figures
        self.more = more


class Results:
    """What became of all peers: those that ran, how to install those that are not there, why others failed."""

    def __init__(self) -> None:
        self.outcomes: dict[str, Outcome] = {}
        self.missing: dict[str, str] = {}
        self.failed: dict[str, str] = {}

    def add(self, bench: "Bench", peer: Peer) -> str:
        """Run one peer if it can be; a line that says what came out. No peer's failure is ours."""
        if not peer.is_installed:
            self.missing[peer.name] = peer.install
            return f"{peer.name}: not installed"
        try:
            outcome = bench.run(peer, list(self.outcomes))
        except (PeerFailedError, OSError, LookupError, ValueError) as error:
            self.failed[peer.name] = str(error)
            return f"{peer.name}: failed: {error}"
        self.outcomes[peer.name] = outcome
        return f"{peer.name}: {outcome.cost.cpu_s:.2f} CPU s"


class Bench:
    """The frame on disk in the forms that the peers read, and one method a peer."""

    def __init__(self, folder: Path, inputs: Inputs, ours: Ours, truth: Truth, repeats: int) -> None:
        self.folder = folder
        self.inputs, self.ours, self.truth, self.repeats = inputs, ours, truth, repeats
        self.shape = inputs.frame.shape
        self.bad: Bool = (inputs.frame.mask & _BAD) != 0
        self.tile = quality.busiest_tile(truth, self.shape, TILE_PIX)
        self.difference_region: quality.Region | None = None
        noise = (inputs.sky_sigma, inputs.saturation, inputs.fwhm_pix)
        self._stars = quality.bright_stars(truth, self.shape, *noise)
        self._empty = quality.empty_sky(truth, ~self.bad, inputs.sky_sigma, inputs.fwhm_pix)

    def prepare(self) -> None:
        """Write the frame, template and reference stars; nothing of this is on any clock."""
        inputs, info = self.inputs, self.inputs.visit_info
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)
        cards = fitsfiles.tpv_cards(inputs.predicted, self.shape) | {
            "EXPTIME": info.exposure_time_s, "FILTER": info.band, "MJD-OBS": info.midpoint_mjd_tai,
            "AIRMASS": info.airmass, "GAIN": 1.0, "OBJECT": info.group,
        }  # fmt: skip
        fitsio.write(self._path("science.fits"), inputs.frame.image, header=cards)
        fitsio.write(self._path("flags.fits"), np.where(self.bad, inputs.frame.mask, 0).astype(np.int16), header=cards)
        template = inputs.template
        has_data = (template.frame.mask & np.uint16(Mask.NODATA)) == 0
        image = np.where(has_data & np.isfinite(template.frame.image), template.frame.image, np.float32(0))
        fitsio.write(self._path("template.fits"), image.astype(np.float32), header=template.wcs.to_header())
        flux_error = np.full(inputs.star_ra.size, 0.02)
        stars = (inputs.star_ra, inputs.star_dec, inputs.star_error_mas, inputs.star_mag, flux_error)
        rows = fitsfiles.reference_rows(*stars, info.midpoint_mjd_tai)
        fitsfiles.write_ldac(self.folder / "reference.cat", rows, {"NAXIS": 0})
        settings = {
            "repeats": self.repeats, "read_noise": inputs.read_noise, "saturation": inputs.saturation,
            "fwhm_pix": inputs.fwhm_pix, "sky_sigma": inputs.sky_sigma,
            "pixel_scale_arcsec": self.ours.wcs.pixel_scale_arcsec,
        }  # fmt: skip
        arrays = {
            "image": inputs.frame.image, "variance": inputs.frame.variance, "bad": self.bad,
            "stars": self._inner_stars(), "places": np.stack([self.truth.psf_x, self.truth.psf_y], axis=-1),
        }  # fmt: skip
        libraries.write_work(self.folder, arrays, settings)

    def run(self, peer: Peer, done: Sequence[str]) -> Outcome:
        """Run one peer; ``done`` are those before it that succeeded."""
        if missing := [name for name in peer.requires if name not in done]:
            raise PeerFailedError(f"needs the result of {', '.join(missing)}")
        method: Callable[[], Outcome] | None = getattr(self, f"_{peer.name}", None)
        assert method is not None, peer.name
        return method()

    def our_figures(self) -> quality.Figures:
        """Our results by the functions that judge the peers."""
        ours, truth = self.ours, self.truth
        region = self.difference_region or self.tile
        x, y = ours.sources[:, 0], ours.sources[:, 1]
        return {
            **quality.judge_astrometry(x, y, (ours.ra, ours.dec), truth, self._stars),
            **quality.judge_psf(ours.psf.at_many(truth.psf_x, truth.psf_y).astype(np.float64), truth),
            **quality.judge_cosmic_rays(ours.cosmic_rays, truth),
            **quality.judge_sky(self.inputs.frame.image, ours.sky, self._empty),
            **quality.judge_difference(ours.dia_x, ours.dia_y, truth, region),
            "sources": int(x.size),
        }

    def _path(self, name: str) -> str:
        return str(self.folder / name)

    def _tool(self, work: Callable[[], tuple[float, float]]) -> Cost:
        return measured(work, self.inputs.frame.image, self.repeats)

    def _inner_stars(self) -> Float64:
        """Stars of our PSF whose stamps lie on the frame."""
        stars, half = self.inputs.stars, libraries.PIFF_STAMP_PIX // 2 + 1
        region = quality.Region(y0=0, y1=self.shape[0], x0=0, x1=self.shape[1])
        return np.asarray(stars[region.contains(stars[:, 0], stars[:, 1], half)])

    # The classic chain ------------------------------------------------------------------------------------------------

    def _source_extractor(self) -> Outcome:
        cost = self._tool(lambda: astromatic.extract_science(self.folder, 0.9 * self.inputs.saturation))
        return Outcome(cost, {"sources": int(fitsfiles.read_objects(self.folder / "science.cat").size)})

    def _psfex(self) -> Outcome:
        cost = self._tool(lambda: astromatic.fit_psf(self.folder))
        model = fitsfiles.PsfexModel.read(self.folder / "science.psf")
        return Outcome(cost, quality.judge_psf(model.at_many(self.truth.psf_x, self.truth.psf_y), self.truth))

    def _scamp(self) -> Outcome:
        cost = self._tool(lambda: astromatic.solve_astrometry(self.folder))
        found = fitsfiles.read_objects(self.folder / "science.cat")
        x, y = (found[f"{axis}WIN_IMAGE"].astype(np.float64) - 1 for axis in "XY")
        sky = fitsfiles.head_to_sky(fitsfiles.read_head(self.folder / "science.head"), x, y)
        return Outcome(cost, quality.judge_astrometry(x, y, sky, self.truth, self._stars))

    def _swarp(self) -> Outcome:
        cards: dict[str, Any] = dict(fitsfiles.tpv_cards(self.ours.wcs, self.shape))
        solved = self.folder / "science.head"
        if solved.is_file():
            cards |= {
                key: value for key, value in fitsfiles.read_head(solved).items() if key in cards or key[:2] == "PV"
            }
        size = {"SIMPLE": True, "BITPIX": -32, "NAXIS": 2, "NAXIS1": self.shape[1], "NAXIS2": self.shape[0]}
        fitsfiles.write_head(self.folder / "warped.head", size | cards)
        cost = self._tool(lambda: astromatic.warp_template(self.folder))
        warped = fitsio.read(self._path("warped.fits"))
        if warped.shape != self.shape:
            raise PeerFailedError(f"the warped template is {warped.shape}, the science frame {self.shape}")
        return Outcome(cost, {}, grid="scamp" if solved.is_file() else "ours")

    def _hotpants(self) -> Outcome:
        inputs, template = self.inputs, fitsio.read(self._path("warped.fits"))
        template_sigma = float(np.sqrt(np.median(inputs.template.frame.variance)))
        noise = np.sqrt(inputs.frame.variance)
        fitsio.write(self._path("science_noise.fits"), noise, clobber=True)
        fitsio.write(self._path("template_noise.fits"), np.full_like(noise, template_sigma), clobber=True)
        limits = {
            "science_low": -10 * inputs.sky_sigma, "science_high": 0.9 * inputs.saturation,
            "template_low": -10 * template_sigma, "template_high": float(template.max()),
        }  # fmt: skip
        cost = self._tool(lambda: astromatic.subtract_hotpants(self.folder, limits))
        self._offer_difference(fitsio.read(self._path("difference.fits")), self._whole())
        return Outcome(cost, {})

    def _sfft(self) -> Outcome:
        window = self.tile.window
        arrays = {
            "tile_science": fitsio.read(self._path("sky_subtracted.fits"))[window],
            "tile_template": fitsio.read(self._path("warped.fits"))[window],
            "tile_bad": self._grown_bad()[window],
        }
        for name, array in arrays.items():
            np.save(self.folder / f"{name}.npy", array)
        tile_cost, found = self._library("sfft")
        self._offer_difference(found["difference"], self.tile)
        factor = self._tile_factor(self.tile)
        return Outcome(tile_cost.scaled(factor), {}, extrapolated_by_area=factor, tile_cpu_s=tile_cost.cpu_s)

    def _source_extractor_difference(self) -> Outcome:
        region = self.difference_region
        if region is None:
            raise PeerFailedError(f"needs the result of {' or '.join(DIFFERENCES)}")
        tile_cost = self._tool(lambda: astromatic.extract_difference(self.folder))
        found = fitsfiles.read_objects(self.folder / "difference.cat")
        x, y = found["X_IMAGE"] - 1.0 + region.x0, found["Y_IMAGE"] - 1.0 + region.y0
        figures = quality.judge_difference(x, y, self.truth, region)
        figures |= self._without_cosmic_rays(x, y, region)
        factor = self._tile_factor(region)
        if factor == 1:
            return Outcome(tile_cost, figures)
        return Outcome(tile_cost.scaled(factor), figures, extrapolated_by_area=factor, tile_cpu_s=tile_cost.cpu_s)

    def _without_cosmic_rays(self, x: Float64, y: Float64, region: quality.Region) -> quality.Figures:
        """The same where astroscrappy has run: detections near a pixel that it masks are left out."""
        if not (self.folder / "astroscrappy.npz").is_file():
            return {}
        mask = libraries.read_arrays(self.folder, "astroscrappy")["mask"]
        reach = np.ones((2 * _CR_REACH_PIX + 1,) * 2, bool)
        near = binary_dilation(mask, reach)[np.rint(y).astype(np.int64), np.rint(x).astype(np.int64)]
        figures = quality.judge_difference(x[~near], y[~near], self.truth, region)
        return {f"{name}_without_cr": figures[name] for name in ("found", "false")}

    def _offer_difference(self, image: Float32, region: quality.Region) -> None:
        """Make this the chain's difference unless a better one is there."""
        if self.difference_region is not None:
            return
        self.difference_region = region
        rms = np.sqrt(self.inputs.frame.variance[region.window])
        rms = np.where(self._grown_bad()[region.window] | ~np.isfinite(image), np.float32(_HUGE_RMS), rms)
        fitsio.write(self._path("difference.fits"), np.nan_to_num(image).astype(np.float32), clobber=True)
        fitsio.write(self._path("difference_rms.fits"), rms.astype(np.float32), clobber=True)

    def _grown_bad(self) -> Bool:
        return np.asarray(binary_dilation(self.bad, np.ones((3, 3), bool), iterations=_BAD_GROWTH_PIX))

    def _whole(self) -> quality.Region:
        return quality.Region(y0=0, y1=self.shape[0], x0=0, x1=self.shape[1])

    def _tile_factor(self, region: quality.Region) -> float:
        return 1.0 if region == self._whole() else area_factor(self.shape, region.y1 - region.y0)

    # Python libraries -------------------------------------------------------------------------------------------------

    def _library(self, name: str) -> tuple[Cost, libraries.Arrays]:
        run_tool([sys.executable, "-m", "benchmarks.peers.libraries", name, str(self.folder)], Path.cwd())
        return libraries.read_cost(self.folder, name), libraries.read_arrays(self.folder, name)

    def _astroscrappy(self) -> Outcome:
        cost, found = self._library("astroscrappy")
        return Outcome(cost, quality.judge_cosmic_rays(found["mask"].astype(bool), self.truth))

    def _sep_background(self) -> Outcome:
        return self._sky("sep_background")

    def _photutils_background(self) -> Outcome:
        return self._sky("photutils_background")

    def _sky(self, name: str) -> Outcome:
        cost, found = self._library(name)
        return Outcome(cost, quality.judge_sky(self.inputs.frame.image, found["sky"], self._empty))

    def _sep_extract(self) -> Outcome:
        cost, found = self._library("sep_extract")
        return Outcome(cost, {"sources": int(found["x"].size)})

    def _photutils_daostarfinder(self) -> Outcome:
        cost, found = self._library("photutils_daostarfinder")
        return Outcome(cost, {"sources": int(found["x"].size)})

    def _piff(self) -> Outcome:
        cost, found = self._library("piff")
        return Outcome(cost, quality.judge_psf(found["images"].astype(np.float64), self.truth))
