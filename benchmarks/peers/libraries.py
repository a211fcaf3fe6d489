"""The Python peers, each in a process of its own: ``python -m benchmarks.peers.libraries NAME FOLDER``.

Libraries are imported where they are used: one that is missing, runs out of memory or crashes takes nothing else with
it. The process reads the frame that :func:`write_work` left in the folder, times itself and leaves ``NAME.npz`` and
``NAME.json``.
"""

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import numpy as np
import sep
from numpy.typing import NDArray

from benchmarks.peers.cost import Cost, from_run, of_runs, reference_cpu_s

Float32 = NDArray[np.float32]
Arrays = dict[str, NDArray[Any]]

CELL_PIX: Final = 128
PIFF_SIZE_PIX: Final = 25
PIFF_STARS: Final = 150
PIFF_STAMP_PIX: Final = 29
"""Room for the model to move inside a star's stamp."""
SFFT_HALF_WIDTH_PIX: Final = 4
"""Kernel of 9x9: with a wider one the solver does not fit into memory."""
_PIXSTACK: Final = 10_000_000


class Work:
    """The frame and the figures that a peer is given."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.settings: dict[str, Any] = json.loads((folder / "work.json").read_text(encoding="utf-8"))
        self.image: Float32 = np.load(folder / "image.npy")

    def load(self, name: str) -> NDArray[Any]:
        """One of the other arrays."""
        array: NDArray[Any] = np.load(self.folder / f"{name}.npy")
        return array


def write_work(folder: Path, arrays: Arrays, settings: dict[str, Any]) -> None:
    """Leave what the processes read."""
    for name, array in arrays.items():
        np.save(folder / f"{name}.npy", array)
    (folder / "work.json").write_text(json.dumps(settings), encoding="utf-8")


def read_cost(folder: Path, name: str) -> Cost:
    """What a process measured of itself."""
    return Cost(**json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))["cost"])


def read_arrays(folder: Path, name: str) -> Arrays:
    """What a process computed."""
    with np.load(folder / f"{name}.npz") as file:
        return dict(file)


Prepared = Callable[[], Arrays]
"""The work to be timed; what comes before it (imports, stars cut out) is prepared outside the clock."""


def sep_background(work: Work) -> Prepared:
    """Mesh background, which is R itself; the sky at full resolution is another third of it, and part of the work."""

    def run() -> Arrays:
        return {"sky": sep.Background(work.image, bw=CELL_PIX, bh=CELL_PIX).back()}

    return run


def sep_extract(work: Work) -> Prepared:
    """Sources of the frame less its background, 1.5 sigma, the default 3x3 filter."""
    sep.set_extract_pixstack(_PIXSTACK)
    background = sep.Background(work.image, bw=CELL_PIX, bh=CELL_PIX)
    image = work.image - background.back()

    def run() -> Arrays:
        sources = sep.extract(image, 1.5, err=background.globalrms, minarea=5)
        return {"x": sources["x"], "y": sources["y"]}

    return run


def astroscrappy(work: Work) -> Prepared:
    """L.A.Cosmic with separable medians, one iteration, five sigma."""
    from astroscrappy import detect_cosmics

    bad, settings = work.load("bad"), work.settings

    def run() -> Arrays:
        mask, cleaned = detect_cosmics(
            work.image, inmask=bad, sigclip=5.0, sepmed=True, niter=1, gain=1.0, readnoise=settings["read_noise"],
            satlevel=settings["saturation"], psffwhm=settings["fwhm_pix"],
        )  # fmt: skip
        return {"mask": mask, "cleaned": cleaned}

    return run


def photutils_background(work: Work) -> Prepared:
    """Mesh background with three-sigma clipping, five iterations; the full-resolution sky is part of it."""
    from astropy.stats import SigmaClip
    from photutils.background import Background2D

    def run() -> Arrays:
        clip = SigmaClip(sigma=3.0, maxiters=5)
        return {"sky": Background2D(work.image, CELL_PIX, sigma_clip=clip).background.astype(np.float32)}

    return run


def photutils_daostarfinder(work: Work) -> Prepared:
    """Star finder at five sigma of the sky on the frame less SEP's background."""
    from photutils.detection import DAOStarFinder

    image = work.image - sep.Background(work.image, bw=CELL_PIX, bh=CELL_PIX).back()
    finder = DAOStarFinder(5.0 * work.settings["sky_sigma"], work.settings["fwhm_pix"])

    def run() -> Arrays:
        table = finder(image)
        names = ("x_centroid", "y_centroid") if "x_centroid" in table.colnames else ("xcentroid", "ycentroid")
        return {"x": np.asarray(table[names[0]]), "y": np.asarray(table[names[1]])}

    return run


def piff(work: Work) -> Prepared:
    """Pixel model of 25x25 with a quadratic over the detector, on the brightest stars of our PSF, none thrown out."""
    import galsim
    from piff import BasisPolynomial, PixelGrid, SimplePSF, Star, StarData

    scale = float(work.settings["pixel_scale_arcsec"])
    image = work.image - sep.Background(work.image, bw=CELL_PIX, bh=CELL_PIX).back()
    good = ~work.load("bad").astype(bool)
    variance, half = work.load("variance"), PIFF_STAMP_PIX // 2
    wcs, stars = galsim.PixelScale(scale), []
    for x, y in work.load("stars")[:PIFF_STARS]:
        ix, iy = round(x), round(y)
        box = (slice(iy - half, iy + half + 1), slice(ix - half, ix + half + 1))
        weight = np.where(good[box], 1 / variance[box], 0.0)
        stamp, weights = (
            galsim.Image(np.ascontiguousarray(a, np.float64), xmin=ix - half, ymin=iy - half, wcs=wcs)
            for a in (image[box], weight)
        )
        stars.append(Star(StarData(stamp, galsim.PositionD(x, y), weight=weights), None))
    places = work.load("places")

    def run() -> Arrays:
        model = PixelGrid(scale, PIFF_SIZE_PIX)
        psf = SimplePSF(model, BasisPolynomial(2))
        psf.fit(stars, {0: wcs}, None)
        images = [psf.draw(x, y, center=True, stamp_size=PIFF_SIZE_PIX).array for x, y in places]
        return {"images": np.array(images)}

    return run


def sfft(work: Work) -> Prepared:
    """Difference of one tile, template convolved: 9x9 kernel and background linear over the tile, one thread."""
    from sfft.sfftcore.SFFTConfigure import SingleSFFTConfigure
    from sfft.sfftcore.SFFTSubtract import GeneralSFFTSubtract

    science, template, bad = (work.load(f"tile_{name}") for name in ("science", "template", "bad"))
    planes = [np.ascontiguousarray(plane.T, np.float64) for plane in (template, science)]
    masked = [np.where(bad.T, 0.0, plane) for plane in planes]
    ny, nx = science.shape
    options = {"BACKEND_4SUBTRACT": "Numpy", "NUM_CPU_THREADS_4SUBTRACT": 1, "VERBOSE_LEVEL": 0}
    # its functions are compiled here, outside the clock
    config = SingleSFFTConfigure.SSC(
        NX=nx, NY=ny, KerHW=SFFT_HALF_WIDTH_PIX, KerPolyOrder=1, BGPolyOrder=1, ConstPhotRatio=True, **options
    )

    def run() -> Arrays:
        done = GeneralSFFTSubtract.GSS(
            PixA_I=planes[0], PixA_J=planes[1], PixA_mI=masked[0], PixA_mJ=masked[1], SFFTConfig=config,
            ContamMask_I=None, **options,
        )  # fmt: skip
        return {"difference": done[1].T.astype(np.float32)}

    return run


LIBRARIES: Final[dict[str, Callable[[Work], Prepared]]] = {
    made.__name__: made
    for made in (
        sep_background, sep_extract, astroscrappy, photutils_background, photutils_daostarfinder, piff, sfft,
    )
}  # fmt: skip
ONCE: Final = frozenset({"piff", "sfft"})
"""So slow that one run has to do."""


def main(name: str, folder: Path) -> None:
    """Do one peer's work and leave what it gave and what it cost."""
    work = Work(folder)
    run = LIBRARIES[name](work)
    costs, arrays = [], Arrays()
    for _ in range(1 if name in ONCE else work.settings["repeats"]):
        before_s = reference_cpu_s(work.image)
        cpu_s, wall_s = time.process_time(), time.perf_counter()
        arrays = run()
        cpu_s, wall_s = time.process_time() - cpu_s, time.perf_counter() - wall_s
        costs.append(from_run(cpu_s, wall_s, before_s, reference_cpu_s(work.image)))
    cost = of_runs(costs)
    np.savez(folder / f"{name}.npz", **arrays)  # type: ignore[arg-type]
    text = json.dumps({"cost": {key: getattr(cost, key) for key in Cost.__dataclass_fields__}})
    (folder / f"{name}.json").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
