"""``sub60 process``: one raw file through the whole pipeline, without any broker or server."""

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from service.settings import read_settings, use_compiled_cache

if TYPE_CHECKING:
    from core.contracts.bundle import Bundle
    from core.contracts.exposure import VisitInfo
    from core.contracts.results import DetectorResult
    from core.pipeline import FirstHalf


@click.command(
    epilog="""\b
Example:
  sub60 process var/dataset/raw/20261119/2026111900120_094.fits \\
      --dataset var/dataset --out build/one"""
)
@click.argument("raw", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--dataset", required=True, type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--out", required=True, type=click.Path(file_okay=False, path_type=Path))
def command(raw: Path, dataset: Path, out: Path) -> None:
    """Process one detector's RAW with the calibrations, template and history of DATASET.

    Writes calibrated.fits, difference.fits, catalogs (FITS tables), alerts.avro and summary.json to OUT. History and
    claims of a running service are not touched.
    """
    settings = read_settings(dataset=dataset.resolve(), cache_url="", log_url="")
    use_compiled_cache(settings)  # before the first kernel is imported
    started = time.perf_counter()
    summary = _process(raw.resolve(), settings, out)
    click.echo(json.dumps(summary | {"wall_s": round(time.perf_counter() - started, 3)}, indent=1))


def _process(raw_path: Path, settings: Any, out: Path) -> dict[str, Any]:
    from core.pipeline import Pipeline
    from core.stopwatch import Clock, Stopwatch
    from core.workspace import Workspace
    from service.bundle_loader import BundleLoader
    from service.clock import SystemClock, mjd_tai
    from service.pipeline_config import pipeline_config
    from service.storage.raw import RawLimits, read_raw

    loader = BundleLoader.open(settings)
    clock = Clock(wall=time.perf_counter, cpu=time.thread_time)
    camera = loader.datastore.camera
    pipeline = Pipeline(camera, pipeline_config(settings, loader.datastore.info.release), clock)
    watch = Stopwatch(clock)
    with watch.stage("read"):
        raw = read_raw(raw_path.name, camera, RawLimits(roots=(raw_path.parent,)), Workspace())
    with watch.stage("bundle"):
        bundle = loader.load(_key(raw.visit_info)).unpack(Workspace())
    first = pipeline.measure(
        raw,
        bundle,
        tail=lambda: None,
        remaining_s=lambda: settings.deadline_s,
        time_processed_mjd_tai=mjd_tai(SystemClock()),
        stopwatch=watch,
    )
    result = pipeline.finish(first)
    out.mkdir(parents=True, exist_ok=True)
    n_alerts = _write(out, first, result, settings.min_reliability)
    return _summary(raw.visit_info, result, bundle, n_alerts, out)


def _key(info: "VisitInfo") -> Any:
    from service.storage.recipe import BundleKey

    return BundleKey(
        instrument=info.instrument,
        group=info.group,
        detector=info.detector,
        band=info.band,
        mjd_tai=info.exposure_start_mjd_tai,
        ra_deg=info.ra_deg,
        dec_deg=info.dec_deg,
        rot_sky_deg=info.rot_sky_deg,
        visit=info.visit,
    )


def _write(out: Path, first: "FirstHalf", result: "DetectorResult", min_reliability: float) -> int:
    from alerts.files import write_alerts
    from alerts.packet import AlertContext, build_alerts
    from service.products import write_catalog, write_image

    exposure, done = first.exposure, first.subtraction
    header = dict(exposure.wcs.to_header()) | {
        "BUNIT": "nJy",
        "BAND": exposure.visit_info.band,
        "VISIT": exposure.visit_info.visit,
        "DETECTOR": exposure.visit_info.detector,
        "MAGZERO": 31.4,
    }
    write_image(out / "calibrated.fits", exposure.frame, exposure.psf, header)
    write_catalog(out / "sources.fits", first.sources)
    if done is None:
        return 0
    write_image(out / "difference.fits", done.difference.frame, done.difference.psf, header)
    for name in ("dia_sources", "dia_objects", "dia_forced_sources", "ss_sources"):
        write_catalog(out / f"{name}.fits", getattr(result, name))
    context = AlertContext(wcs=exposure.wcs, min_reliability=min_reliability)
    packets = [packet for _, packet in build_alerts(result, done.past, context)]
    return write_alerts(out / "alerts.avro", packets)


def _summary(info: "VisitInfo", result: "DetectorResult", bundle: "Bundle", n_alerts: int, out: Path) -> dict[str, Any]:
    summary = {
        "visit": info.visit,
        "detector": info.detector,
        "band": info.band,
        "outcome": result.outcome.value,
        "alerts": n_alerts,
        "counts": result.counts,
        "figures": {name: float(value) for name, value in result.summary.items()},
        "stages": {t.name: {"wall_s": round(t.wall_s, 4), "cpu_s": round(t.cpu_s, 4)} for t in result.timings},
        "history": {
            "dia_objects": int(bundle.history.dia_objects.size),
            "dia_sources": int(bundle.history.dia_sources.size),
            "dia_forced_sources": int(bundle.history.dia_forced_sources.size),
        },
        "written": sorted(path.name for path in out.iterdir()),
    }
    (out / "summary.json").write_text(json.dumps(summary, indent=1))
    return summary
