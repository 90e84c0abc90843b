"""``weedseg bench serve``, ``batching`` and ``upload``: figures of the service."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from weedseg.errors import ConfigError

Model = Annotated[Path, typer.Option(help="A model file; golden/ beside it gives pictures.")]
DEFAULT_MODEL = Path("models/peanut-lite0/model.onnx")
LINES = Path("models/benchmarks/serve")


def serve(
    *,
    model: Model = DEFAULT_MODEL,
    photos: Annotated[
        Path | None, typer.Option(help="Folder of photos; drawn from the golden one by default.")
    ] = None,
    workers: Annotated[str, typer.Option(help="Numbers of workers, e.g. 1,2.")] = "1,2",
    seconds: Annotated[float, typer.Option(min=0.5, help="Length of each of five turns.")] = 8.0,
    requests: Annotated[int, typer.Option(min=10, help="Photos at 70 % load.")] = 400,
    out: Annotated[Path, typer.Option(help="File of the lines.")] = LINES / "load.jsonl",
) -> None:
    """Compare a real service with the bare runtime; latency at 70 % load; a burst of 10 x.

    Raises:
        ConfigError: --workers is odd.
        FieldDataError: There is no photo.
        ModelFileError: The model cannot be run.
        RuntimeUnavailableError: The service does not start.
    """
    from weedseg.bench.lines import append_line
    from weedseg.bench.serve import ServePlan, measure_serve, photo_files
    from weedseg.bench.serve_table import serve_table

    numbers, lines = _numbers(workers), []
    files = photo_files(photos, model)
    for number in numbers:
        plan = ServePlan(
            model=model,
            photos=files,
            workers=number,
            round_s=seconds,
            requests=requests,
        )
        line = measure_serve(plan)
        append_line(out, line)
        lines.append(line)
        stages = ", ".join(f"{name} {ms:.1f} ms" for name, ms in line["stage_ms"].items())
        typer.echo(
            f"{number} workers: processor time {line['served']['cpu_ms']:.0f} ms a photo, bare "
            f"{line['bare']['cpu_ms']:.0f} ms; {stages}; memory {line['memory_mib']:.0f} MiB, "
            f"{line['memory_grown_mib']:+.0f} MiB under load"
        )
    typer.echo(serve_table(lines))


def _numbers(text: str) -> list[int]:
    """Read ``1,2``.

    Raises:
        ConfigError: It is something else.
    """
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() and 1 <= int(part) <= 64 for part in parts):
        raise ConfigError(f"--workers {text}", "e.g. 1,2", "give numbers from 1 to 64")
    return [int(part) for part in parts]


def batching(
    *,
    model: Model = DEFAULT_MODEL,
    threads: Annotated[int, typer.Option(min=1, help="CPU threads.")] = 1,
    rounds: Annotated[int, typer.Option(min=1, help="Turns of all sizes.")] = 20,
    out: Annotated[Path, typer.Option(help="File of the lines.")] = LINES / "batching.jsonl",
) -> None:
    """Time one tile of the network in runs of 1, 2 and 4 tiles.

    Raises:
        ModelFileError: The model cannot be run.
    """
    from weedseg.bench.batching import measure_batching
    from weedseg.bench.lines import append_line
    from weedseg.bench.serve_table import batching_text

    line = measure_batching(model, threads=threads, rounds=rounds)
    append_line(out, line)
    typer.echo(batching_text(line))


def upload(
    *,
    model: Model = DEFAULT_MODEL,
    photo: Annotated[
        Path | None, typer.Option(help="A photo; one of 12 megapixels is made by default.")
    ] = None,
    rounds: Annotated[int, typer.Option(min=1, help="Photos on each way.")] = 5,
    out: Annotated[Path, typer.Option(help="File of the lines.")] = LINES / "upload.jsonl",
) -> None:
    """Time a phone photo from upload to overlay, and say what takes the time.

    Raises:
        ModelFileError: The model cannot be run.
        RuntimeUnavailableError: The service does not start.
        ServiceError: A request failed.
    """
    from weedseg.bench.lines import append_line
    from weedseg.bench.serve_table import upload_text
    from weedseg.bench.upload import measure_upload

    line = measure_upload(model, photo, rounds)
    append_line(out, line)
    typer.echo(upload_text(line))
