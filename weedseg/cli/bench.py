"""``weedseg bench``: measure what the README claims; every run adds one line of JSON."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from weedseg.cli import bench_cluster, bench_cost, bench_edge, bench_maps, bench_serve, options
from weedseg.errors import ConfigError

bench = typer.Typer(
    help="Benchmarks on real photos; each run adds one line of JSON.", rich_markup_mode=None
)

bench.command()(bench_edge.calibration)
bench.command()(bench_edge.edge)
bench.command()(bench_maps.maps)
bench.command()(bench_cluster.cluster)
bench.command()(bench_serve.serve)
bench.command()(bench_serve.batching)
bench.command()(bench_serve.upload)
bench.command()(bench_cost.cost)
bench.command()(bench_cost.scorers)

DataRoot = Annotated[Path, typer.Option(help="Folder that holds cwfid/ and peanut/.")]
LINES = Path("models/benchmarks")
QUICK = (
    "net.encoder=mobilenetv3",
    "net.decoder_channels=16",
    "pretrain.steps=8",
    "pretrain.tile_px=128",
    "finetune.steps=8",
    "finetune.tile_px=128",
    "finetune.evaluations=1",
)
SYNTHETIC_STEPS = ("finetune.steps=120", "finetune.evaluations=3")


@bench.command()
def pretraining(
    data: DataRoot,
    *,
    dataset: Annotated[str, typer.Option(help="cwfid or peanut.")] = "cwfid",
    arms: Annotated[str, typer.Option(help="N,I,R,P,Q,G,V,H,L,F,S+,I+R,I+S+")] = "N,I,R,S+",
    seeds: Annotated[int, typer.Option(min=1, help="Fine-tuning seeds.")] = 3,
    pretrain_seeds: Annotated[
        int, typer.Option(min=1, help="Pretraining seeds, each with each.")
    ] = 3,
    labels: Annotated[
        str, typer.Option(help="Labelled photos: numbers, or all; 5,10,20,all gives a curve.")
    ] = "10",
    quick: Annotated[
        bool, typer.Option(help="A few steps of a tiny net: shows that all works, in minutes.")
    ] = False,
    pretrain_on: Annotated[str, typer.Option(help="Pretrain on the photos of this set.")] = "",
    read: Annotated[str, typer.Option(help="test; development to choose between ideas.")] = "test",
    settings: options.Settings = None,
    out: Annotated[Path, typer.Option(help="Folder of the run lines.")] = LINES / "pretraining",
    work: Annotated[Path, typer.Option(help="Folder for weights; may be deleted.")] = Path(
        "runs/bench"
    ),
    threads: Annotated[int, typer.Option(min=1, help="CPU threads of this process.")] = 1,
) -> None:
    """Compare first weights at few labels; a stopped benchmark goes on, two processes share it.

    Raises:
        ConfigError: Data set, arm, number of labels or setting is unknown.
    """
    from dataclasses import replace

    import torch

    from weedseg.bench.lines import read_lines
    from weedseg.bench.pretraining import SCALES, Plan, label_counts, load_dataset, run_plan
    from weedseg.bench.pretraining_tables import pretraining_table, with_source
    from weedseg.bench.trials import SIZING
    from weedseg.cli.progress import TrainingBar

    torch.set_num_threads(threads)
    photos = load_dataset(dataset, data / dataset)
    counts, size = label_counts(photos, labels), QUICK if quick else SIZING
    plan = Plan(
        dataset=photos,
        arms=tuple(arms.split(",")),
        pretrain_seeds=1 if quick else pretrain_seeds,
        finetune_seeds=1 if quick else seeds,
        labels=counts[0],
        settings=(f"data.scale={SCALES[dataset]}", *size, *(settings or ())),
        lines=out / f"{dataset}.jsonl",
        work=work,
        pretrain_on=load_dataset(pretrain_on, data / pretrain_on) if pretrain_on else None,
        read=read,
    )
    with TrainingBar() as bar:
        num = sum(run_plan(replace(plan, labels=count), bar) for count in counts)
    typer.echo(f"{num} runs done by this process; lines: {plan.lines}")
    typer.echo(pretraining_table([with_source(line) for line in read_lines(plan.lines)]))


@bench.command()
def throughput(
    data: DataRoot,
    *,
    dataset: Annotated[str, typer.Option(help="cwfid or peanut.")] = "cwfid",
    steps: Annotated[int, typer.Option(min=20, help="Pretraining steps per round.")] = 60,
    rounds: Annotated[int, typer.Option(min=1, help="Rounds.")] = 5,
    settings: options.Settings = None,
    out: Annotated[Path, typer.Option(help="File of the lines.")] = LINES / "throughput.jsonl",
) -> None:
    """Compare the training loop with its bare step, in turns; says ratio, scoring share, memory.

    Raises:
        ConfigError: Data set or setting is unknown.
    """
    from weedseg.bench.lines import append_line
    from weedseg.bench.pretraining import SCALES, load_dataset
    from weedseg.bench.throughput import measure_throughput, with_few_steps
    from weedseg.config import load_recipe

    recipe = load_recipe("selective", list(settings or (f"data.scale={SCALES[dataset]}",)))
    line = measure_throughput(
        load_dataset(dataset, data / dataset), with_few_steps(recipe, steps), rounds
    )
    append_line(out, line)
    typer.echo(
        f"loop {line['loop_step_seconds']:.3f} s a step, bare {line['bare_step_seconds']:.3f} s: "
        f"{100 * line['ratio']:.1f} %; scoring {100 * line['scoring_share']:.1f} % of the time; "
        f"peak memory {line['peak_memory_bytes'] / 2**20:.0f} MiB"
    )


@bench.command()
def synthetic(
    data: DataRoot,
    *,
    init: Annotated[str, typer.Option(help="First weights: imagenet or none.")] = "imagenet",
    farms: Annotated[int, typer.Option(min=6, help="Synthetic farms to train on.")] = 18,
    seed: Annotated[int, typer.Option(min=0, help="Of the training.")] = 0,
    settings: options.Settings = None,
    out: Annotated[Path, typer.Option(help="File of the lines.")] = LINES / "synthetic.jsonl",
    work: Annotated[Path, typer.Option(help="Folder for farms and weights.")] = Path(
        "runs/bench/synthetic"
    ),
    threads: Annotated[int, typer.Option(min=1, help="CPU threads of this process.")] = 1,
) -> None:
    """Train on synthetic farms only; score plants against soil on real photos beside ExG + Otsu.

    Raises:
        ConfigError: A setting is unknown.
    """
    import torch

    from weedseg.bench.lines import append_line
    from weedseg.bench.pretraining import load_dataset
    from weedseg.bench.synthetic import SyntheticPlan, measure_synthetic
    from weedseg.cli.progress import TrainingBar
    from weedseg.config import load_recipe

    torch.set_num_threads(threads)
    recipe = load_recipe("default", [*SYNTHETIC_STEPS, *(settings or ())])
    plan = SyntheticPlan(work=work, farms=farms, init=init, seed=seed)
    with TrainingBar() as bar:
        line = measure_synthetic(plan, load_dataset("peanut", data / "peanut"), recipe, bar)
    append_line(out, line)
    for part in ("all", "test"):
        typer.echo(
            f"{part} peanut photos: plant IoU {line['plant_iou'][part]:.3f}, "
            f"ExG + Otsu {line['exg_otsu_plant_iou'][part]:.3f}"
        )


@bench.command()
def intake(
    *,
    photos: Annotated[int, typer.Option(min=10, help="Small photos to write.")] = 10_000,
    out: Annotated[Path, typer.Option(help="File of the lines.")] = LINES / "intake.jsonl",
) -> None:
    """Import and check many small photos; says rate, and memory beside that of a tenth of them.

    Raises:
        OutputError: A measurement failed.
    """
    import tempfile

    from weedseg.bench.intake import measure_intake
    from weedseg.bench.lines import append_line

    with tempfile.TemporaryDirectory() as folder:
        line = measure_intake(Path(folder), photos)
    append_line(out, line)
    typer.echo(
        f"import {line['import_per_second']:.0f} photos/s, check {line['check_per_second']:.0f}/s; "
        f"peak memory {line['peak_memory_bytes'] / 2**20:.0f} MiB, "
        f"{line['few_peak_memory_bytes'] / 2**20:.0f} MiB at {line['few_photos']} photos; "
        f"{line['check_12mp_per_second']:.1f} photos/s of 12 megapixels on {line['cores']} cores"
    )


@bench.command()
def record(
    run: options.RunPath,
    *,
    name: Annotated[str, typer.Option(help="What the table calls it.")],
    out: Annotated[Path, typer.Option(help="File of the lines.")] = LINES / "runs.jsonl",
) -> None:
    """Record the times and the accuracy of a finished run as one line.

    Raises:
        ModelFileError: The run has no model.
    """
    from weedseg.bench.lines import append_line, commit
    from weedseg.bench.tables import recorded_run
    from weedseg.edge.segmenter import Segmenter
    from weedseg.pipeline.run_folder import RunFolder

    folder = RunFolder(run)
    parity = Segmenter(folder.model).metadata.properties["parity"]
    line = recorded_run(name, folder.read("run.json"), folder.read("evaluation.json"), parity)
    append_line(out, {**line, "commit": commit()})


@bench.command()
def latency(
    model: Annotated[Path, typer.Argument(help="A model file; golden/ beside it gives pictures.")],
    *,
    camera: Annotated[str, typer.Option(help="WIDTHxHEIGHT@FPS")] = "1920x1200@20",
    threads: Annotated[str, typer.Option(help="Numbers of CPU threads, e.g. 1,2,4.")] = "1",
    rounds: Annotated[int, typer.Option(min=1, help="Frames per number of threads.")] = 20,
    seconds: Annotated[float, typer.Option(min=0, help="Run the camera in real time.")] = 10.0,
    deadline_ms: Annotated[float, typer.Option(help="Capture to action, ms.")] = 150.0,
    speed: Annotated[float, typer.Option(min=0, help="Speed over ground, km/h.")] = 7.2,
    out: Annotated[Path, typer.Option(help="File of the lines.")] = LINES / "latency.jsonl",
) -> None:
    """Time photo to class map by phase, and count the frames of a camera that are OK in time.

    Raises:
        ConfigError: Camera or threads are odd.
        ModelFileError: The model cannot be run.
    """
    from weedseg.bench.latency import LatencyPlan, latency_table, measure_latency, parse_camera
    from weedseg.bench.lines import append_line

    try:
        counts = tuple(max(int(number), 1) for number in threads.split(","))
    except ValueError as error:
        raise ConfigError(f"--threads {threads}", "e.g. 1,2", "give whole numbers") from error
    plan = LatencyPlan(
        model=model,
        camera=parse_camera(camera),
        threads=counts,
        rounds=rounds,
        stream_seconds=seconds,
        deadline_ms=deadline_ms,
        speed_km_h=speed,
    )
    lines = measure_latency(plan)
    for line in lines:
        append_line(out, line)
    typer.echo(latency_table(lines))


@bench.command()
def peers(
    data: Annotated[
        Path | None, typer.Option(help="Folder that holds peanut/ and cwfid/; --quick needs none.")
    ] = None,
    *,
    dataset: Annotated[str, typer.Option(help="peanut or cwfid.")] = "peanut",
    arms: Annotated[str, typer.Option(help="Networks, e.g. ours,unet,unet+I; '' is all.")] = "",
    seeds: Annotated[int, typer.Option(min=1, help="Seeds of each arm.")] = 3,
    timing: Annotated[
        bool, typer.Option(help="Train nothing; time the trained networks of seed 0.")
    ] = False,
    rounds: Annotated[int, typer.Option(min=1, help="Rounds of --timing.")] = 20,
    quick: Annotated[
        bool, typer.Option(help="A few steps on drawn photos, then timing: shows that all works.")
    ] = False,
    settings: options.Settings = None,
    out: Annotated[Path, typer.Option(help="Folder of the lines.")] = LINES / "peers",
    work: Annotated[Path, typer.Option(help="Folder for weights; may be deleted.")] = Path(
        "runs/bench-peers"
    ),
    threads: Annotated[int, typer.Option(min=1, help="CPU threads of this process.")] = 1,
) -> None:
    """Compare our network with usual ones at equal training; a stopped comparison goes on.

    Raises:
        ConfigError: Data set, arm or setting is unknown, or there is nothing to time.
    """
    import torch

    from weedseg.bench.lines import append_line
    from weedseg.bench.peers import ARMS, SETTINGS, PeersPlan, quick_comparison, run_peers
    from weedseg.bench.peers_table import TIMING, peers_table, read_peers
    from weedseg.bench.peers_timing import Timing, time_peers
    from weedseg.bench.pretraining import load_dataset
    from weedseg.cli.progress import TrainingBar

    torch.set_num_threads(threads)
    chosen = tuple(arms.split(",")) if arms else ARMS
    if quick:
        with quick_comparison(chosen) as plan:
            run_peers(plan)
            line = time_peers(plan, Timing(tile_px=64, rounds=2, threads=threads))
            typer.echo(peers_table(read_peers(plan.lines.parent)[0], line))
        return
    if data is None:
        raise ConfigError("no --data", "the folder that holds the photos", "give it, or --quick")
    plan = PeersPlan(
        dataset=load_dataset(dataset, data / dataset),
        arms=chosen,
        seeds=seeds,
        settings=tuple(settings or SETTINGS),
        lines=out / f"{dataset}.jsonl",
        work=work,
    )
    if timing:
        append_line(out / TIMING, time_peers(plan, Timing(rounds=rounds, threads=threads)))
    else:
        with TrainingBar() as bar:
            typer.echo(f"{run_peers(plan, bar)} runs done by this process; lines: {plan.lines}")
    typer.echo(peers_table(*read_peers(out)))


@bench.command()
def tables(
    readme: Annotated[Path, typer.Argument(help="Markdown file with marked tables.")] = Path(
        "README.md"
    ),
    *,
    lines: Annotated[Path, typer.Option(help="Folder of all lines.")] = LINES,
) -> None:
    """Draw the tables of a Markdown file, and the plots, anew from the committed lines."""
    from weedseg.bench.cost import draw_cost
    from weedseg.bench.lines import read_lines
    from weedseg.bench.peers_table import draw_peers_plot
    from weedseg.bench.pretraining_plots import draw_plots
    from weedseg.bench.tables import draw_all, fill, pretraining_files
    from weedseg.serve.settings import settings_table

    for path in pretraining_files(lines):
        draw_plots(read_lines(path), path.parent)
    drawn = {**draw_all(lines), "settings": settings_table()}
    for page in (readme, lines / "README.md"):
        page.write_text(fill(page.read_text(encoding="utf-8"), drawn), encoding="utf-8")
    draw_peers_plot(lines / "peers")
    draw_cost(read_lines(lines / "cost.jsonl"), lines)
