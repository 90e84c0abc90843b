"""Make a map of a mosaic that lies in a store, or write the map into one.

All work is done on copies here. Finished shards go to the store at once, so that another machine
can go on when this one is lost; the map follows when it is whole.
"""

from __future__ import annotations

import json
from dataclasses import replace

from weedseg.maps.engine import MapProgress, Tell, find_engine, run_shards
from weedseg.maps.parts import STATE
from weedseg.maps.run import MapOptions, MapReport, make_map, plan_map
from weedseg.maps.storage import StoredParts, fetch, publish, url_of, work_folder


def make_stored_map(options: MapOptions, tell: Tell | None = None) -> MapReport:
    """Make the map of a mosaic; as `make_map`, but mosaic and output folder may be URLs.

    Args:
        options: What and how; a URL may have gone through `Path`.
        tell: Called with the progress.

    Returns:
        What was written; the files are the copies here.

    Raises:
        WeedsegError: As `make_map`, or the store refuses.
    """
    mosaic_url, out_url = url_of(options.mosaic), url_of(options.out)
    if mosaic_url is not None:
        options = replace(options, mosaic=fetch(mosaic_url))
    if out_url is None:
        return make_map(options, tell)
    options = replace(options, out=work_folder(out_url))
    job, parts = plan_map(options)
    state = json.loads((parts.path / STATE).read_bytes())
    stored = StoredParts(options.out, state, out_url, mosaic_url or state["mosaic"])
    run = find_engine(options.engine)
    num_run = run_shards(job, stored, tell or _tell_nobody, run, options.workers)
    report = make_map(options, tell)
    publish(options.out, out_url)
    stored.delete()
    return replace(report, num_run=num_run)


def _tell_nobody(progress: MapProgress) -> None:
    """Do nothing."""
