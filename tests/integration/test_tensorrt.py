"""Models through TensorRT's parser and builder, engines through the runtime.

TensorRT-RTX builds without a GPU. Where there is none, its runtime is replaced by one of host
memory; tests marked ``gpu`` take the real one.
"""

import json
import shutil
from types import SimpleNamespace

import fake_gpu
import numpy as np
import onnx
import pytest
from seeded import photo, seeded_net

from weedseg.classes import DEFAULT_CLASSES
from weedseg.cli import main
from weedseg.edge import Segmenter, tensorrt_engine, tensorrt_library, tensorrt_session
from weedseg.edge.tensorrt_engine import EngineKey, sidecar_of
from weedseg.edge.tensorrt_library import Gpu, Library, import_library
from weedseg.errors import (
    ConfigError,
    ExportError,
    ModelFileError,
    ParityError,
    RuntimeUnavailableError,
)
from weedseg.export import photo_sizes, tensorrt, tensorrt_network
from weedseg.export.agreement import Tolerance
from weedseg.export.details import ModelDetails
from weedseg.export.half import to_half
from weedseg.export.model import write_model
from weedseg.export.onnx_graph import logits_graph, ship
from weedseg.export.quantise import TENSORRT, Quantiser
from weedseg.export.tensorrt import BuildOptions, build_engine, say
from weedseg.export.tensorrt_network import Plan, build_plan

rtx = pytest.importorskip("tensorrt_rtx", reason="the extra 'tensorrt' is not installed")

TILE_PX = 64
PHOTO = photo(150, 170, 1)
SM86 = BuildOptions(compute_capability="8.6")


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Return a folder with a model file of every precision."""
    folder = tmp_path_factory.mktemp("models")
    twin = logits_graph(seeded_net(), TILE_PX)
    tiles = np.stack([photo(TILE_PX, TILE_PX, i).transpose(2, 0, 1) / 255 for i in range(2)])
    graphs = {
        "none": ("model.onnx", twin),
        "fp16": ("model.fp16.onnx", to_half(twin)),
        "int8-trt": (
            "model.int8-trt.onnx",
            Quantiser(twin, tiles.astype(np.float32), TENSORRT).quantise([]),
        ),
        "int8": ("model.int8.onnx", twin),
    }
    for precision, (name, graph) in graphs.items():
        details = ModelDetails(tile_px=TILE_PX, overlap_px=16, quantisation=precision)
        shipped = ship(graph, DEFAULT_CLASSES, 1.3)
        write_model(shipped, DEFAULT_CLASSES, details, {}, [PHOTO], folder / name)
    return folder


@pytest.fixture
def folder(models, tmp_path):
    shutil.copytree(models, tmp_path / "model")
    return tmp_path / "model"


def no_gpu():
    raise RuntimeUnavailableError("no CUDA device", "a GPU", "buy one")


@pytest.fixture
def bare(monkeypatch):
    """A machine without a GPU, also where there is one."""
    for module in (tensorrt, tensorrt_engine):
        monkeypatch.setattr(module, "find_gpu", no_gpu)


@pytest.fixture
def gpu(monkeypatch, folder):
    """A machine with a GPU, as far as it can be had without one."""
    monkeypatch.setattr(photo_sizes, "MAX_BIG_TILES", (2, 3))
    module = fake_gpu.library_module(rtx, (folder / "model.onnx").read_bytes())
    library = Library(name="tensorrt", version=rtx.__version__, module=module)
    for place in (tensorrt, tensorrt_engine):
        monkeypatch.setattr(place, "find_gpu", lambda: fake_gpu.GPU)
        monkeypatch.setattr(place, "import_library", lambda name=None: library)
    monkeypatch.setattr(tensorrt_session, "Cuda", fake_gpu.Cuda)
    return library


def edit(engine, **values):
    path = sidecar_of(engine)
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def test_an_engine_is_built_without_a_gpu(folder, bare):
    seen = []
    options = BuildOptions(compute_capability="8.6", report=lambda *step: seen.append(step))
    built = build_engine(folder / "model.onnx", options=options)
    assert not built.reused
    assert built.path.stat().st_size > 100_000
    key, facts = built.engine.key, json.loads(sidecar_of(built.path).read_text())
    assert (key.gpu, key.compute_capability, key.precision) == ("", "8.6", "fp32")
    assert key.shape == (8, 3, TILE_PX, TILE_PX)
    assert key.onnx_sha256 == Segmenter(folder / "model.onnx").sha256
    assert key.tensorrt == f"tensorrt_rtx {rtx.__version__}"
    assert (facts["parity"], facts["parity_not_run"]) == (None, "no CUDA device")
    assert "parity was not run: no CUDA device" in say(built)
    assert ("Building engine", 0) in {(phase, step) for phase, step, _ in seen}
    assert all(0 <= step <= num for _, step, num in seen)
    assert not (folder / "tensorrt.timing").exists()  # RTX measures nothing


def test_an_engine_that_fits_is_kept_and_another_is_built_again(folder, bare):
    model = folder / "model.onnx"
    built = build_engine(model, options=SM86)
    first = built.path.stat().st_mtime_ns
    again = build_engine(model, options=SM86)
    assert again.reused
    assert say(again).startswith("kept")
    assert built.path.stat().st_mtime_ns == first
    assert not build_engine(model, options=BuildOptions(compute_capability="8.9")).reused
    for key, value in {"tensorrt": "tensorrt_rtx 0.1", "precision": "fp16", "gpu": "other"}.items():
        build_engine(model, options=SM86)
        edit(built.path, **{key: value})
        assert not build_engine(model, options=SM86).reused
    edit(built.path, onnx_sha256="0" * 64)
    assert not build_engine(model, options=SM86).reused
    built.path.write_bytes(built.path.read_bytes()[:-1])
    assert not build_engine(model, options=SM86).reused
    sidecar_of(built.path).unlink()
    assert not build_engine(model, options=SM86).reused


@pytest.mark.parametrize("name", ["model.fp16.onnx", "model.int8-trt.onnx"])
def test_typed_and_quantised_models_are_read(folder, name, monkeypatch):
    """TensorRT reads them; building them takes minutes of a CPU at worst, and needs no test."""
    library, data = import_library("tensorrt_rtx"), (folder / name).read_bytes()
    read = []

    def stop(builder, network, config, plan):
        read.append({network.get_output(i).name for i in range(network.num_outputs)})
        raise ExportError("stop", "here", "now")

    monkeypatch.setattr(tensorrt_network, "_set_shapes", stop)
    with pytest.raises(ExportError, match="stop"):
        build_plan(library, plan_of(data), print)
    assert read == [{"mask", "confidence"}]


def plan_of(data, **others):
    values = {"gpu": "", "compute_capability": "8.6", "precision": "fp32", "tensorrt": "x"}
    shape = (8, 3, TILE_PX, TILE_PX)
    key = EngineKey(**values | {"onnx_sha256": "x", "shape": shape} | others.pop("key", {}))
    return Plan(name="model.onnx", data=data, key=key, **{"timing": None} | others)


def test_what_tensorrt_does_not_read_is_a_sentence(folder):
    model = onnx.load(folder / "model.onnx")
    for node in model.graph.node:
        if node.op_type == "Resize":
            node.op_type, node.name = "GridSample", "strange"
    with pytest.raises(ExportError, match=r"cannot read model\.onnx: .*; expected operators"):
        build_plan(import_library("tensorrt_rtx"), plan_of(model.SerializeToString()), print)
    wrong = plan_of((folder / "model.onnx").read_bytes(), key={"shape": (8, 3, 32, 32)})
    with pytest.raises(ExportError, match="input 'images'"):
        build_plan(import_library("tensorrt_rtx"), wrong, print)


def test_a_model_for_cpus_is_refused(folder, bare):
    with pytest.raises(ModelFileError, match=r"quantised for CPUs.*model.int8-trt.onnx"):
        build_engine(folder / "model.int8.onnx", options=SM86)


def test_without_a_gpu_a_target_must_be_named(folder, bare, monkeypatch):
    with pytest.raises(ConfigError, match="no GPU to build an engine for"):
        build_engine(folder / "model.onnx")
    with pytest.raises(ConfigError, match=r"compute capability '9.9'; expected 7.5, 8.0"):
        build_engine(folder / "model.onnx", options=BuildOptions(compute_capability="9.9"))
    other = Library(name="tensorrt", version="10.3.0", module=rtx)
    monkeypatch.setattr(tensorrt, "import_library", lambda: other)
    with pytest.raises(ConfigError, match="no GPU to build"):
        build_engine(folder / "model.onnx", options=SM86)
    monkeypatch.setattr(tensorrt, "find_gpu", lambda: Gpu(name="x", compute_capability="8.7"))
    with pytest.raises(ConfigError, match=r"--compute-capability 8.6 with tensorrt 10.3.0"):
        build_engine(folder / "model.onnx", options=SM86)
    assert not list(folder.glob("*.engine*"))


def test_timings_are_kept_where_tensorrt_measures(folder, tmp_path):
    library = Library(name="tensorrt", version="10.3.0", module=rtx)
    timing = tmp_path / "tensorrt.timing"
    plan = plan_of((folder / "model.onnx").read_bytes(), timing=timing, key={"gpu": "x"})
    assert len(build_plan(library, plan, print)) > 100_000
    assert timing.is_file()
    timing.write_bytes(b"of another machine")
    assert len(build_plan(library, plan, print)) > 100_000


def test_ctrl_c_stops_a_build(folder):
    def stop(phase, step, num_steps):
        raise KeyboardInterrupt

    plan = plan_of((folder / "model.onnx").read_bytes())
    with pytest.raises(KeyboardInterrupt):
        build_plan(import_library("tensorrt_rtx"), plan, stop)


def surface(network, builder):
    flags = {name: number for number, name in enumerate(builder)}
    return SimpleNamespace(
        NetworkDefinitionCreationFlag=SimpleNamespace(**network),
        BuilderFlag=SimpleNamespace(**flags),
    )


V8 = surface({"EXPLICIT_BATCH": 0}, ["FP16", "INT8", "TF32"])
V10 = surface({"EXPLICIT_BATCH": 0, "STRONGLY_TYPED": 1}, ["FP16", "INT8", "TF32"])
V11 = surface({}, ["TF32"])


@pytest.mark.parametrize(
    ("module", "flags", "fp16", "int8"),
    [(V8, (False, 1), ["FP16"], ["INT8"]), (V10, (True, 2), [], []), (V11, (True, 0), [], [])],
)
def test_every_version_is_told_the_precision_in_its_way(module, flags, fp16, int8):
    assert tensorrt_network._network_flags(module) == flags
    for precision, expected in {"fp32": [], "fp16": fp16, "int8-trt": int8}.items():
        said, cleared = [], []
        config = SimpleNamespace(set_flag=said.append, clear_flag=cleared.append)
        tensorrt_network._set_precision(module, config, precision, flags[0])
        assert said == [getattr(module.BuilderFlag, name) for name in expected]
        assert cleared == [module.BuilderFlag.TF32]


def test_an_engine_runs_without_onnx_runtime(folder, gpu):
    """Traffic with a GPU of host memory: as the model on the CPU, in batches of any size."""
    built = build_engine(folder / "model.onnx", [PHOTO])
    figures = built.engine.facts["parity"]
    assert figures["equal_share"] == 1.0
    assert (figures["batches"], figures["weed_photos"]) == ([1, 2, 5], 1)
    assert (built.engine.key.gpu, built.engine.facts["forced"]) == ("Fake", "")
    assert "100.0000 % of" in say(built)
    expected = Segmenter(folder / "model.onnx").segment(PHOTO)
    for batch in (1, 8, 11):
        segmenter = Segmenter(built.path, batch=batch)
        result = segmenter.segment(photo(300, 400, 5))
        reference = Segmenter(folder / "model.onnx").segment(photo(300, 400, 5))
        np.testing.assert_array_equal(result.class_map, reference.class_map)
        np.testing.assert_array_equal(result.confidence, reference.confidence)
    np.testing.assert_array_equal(segmenter.segment(PHOTO).class_map, expected.class_map)
    assert segmenter.runtime.provider == "tensorrt"
    assert segmenter.runtime.onnxruntime == gpu.title
    assert segmenter.self_test().passed
    assert segmenter.sha256 == built.engine.sha256
    before = fake_gpu.Cuda.live
    del segmenter
    assert fake_gpu.Cuda.live == before - 3


def test_an_engine_that_tensorrt_refuses_is_not_written(folder, gpu):
    gpu.module.Runtime = lambda log: SimpleNamespace(deserialize_cuda_engine=lambda data: None)
    with pytest.raises(ModelFileError, match="TensorRT refuses it: no reason"):
        build_engine(folder / "model.onnx", [PHOTO])
    assert not list(folder.glob("*.engine*"))


def test_a_forced_engine_tells_what_it_failed(folder, gpu, monkeypatch):
    strict = Tolerance(equal_share=1.1)
    monkeypatch.setattr(tensorrt, "TOLERANCES", {"fp32": strict})
    with pytest.raises(ParityError, match="the engine is not its model"):
        build_engine(folder / "model.onnx", [PHOTO])
    assert not list(folder.glob("*.engine*"))
    built = build_engine(folder / "model.onnx", [PHOTO], BuildOptions(force=True))
    assert "the engine is not its model" in built.engine.facts["forced"]


def test_the_golden_photo_is_compared_where_no_other_is(folder, gpu):
    assert build_engine(folder / "model.onnx").engine.facts["parity"]["photos"] == 1
    shutil.rmtree(folder / "golden")
    (folder / "model.engine").unlink()
    built = build_engine(folder / "model.onnx")
    assert "parity was not run: no photo in" in say(built)


def test_an_engine_of_another_machine_is_refused(folder, bare, monkeypatch):
    engine = build_engine(folder / "model.onnx", options=SM86).path
    with pytest.raises(RuntimeUnavailableError, match="no CUDA device"):
        Segmenter(engine)
    with pytest.raises(RuntimeUnavailableError, match="on provider 'cpu'; expected tensorrt"):
        Segmenter(engine, require_provider="cpu")
    orin = Gpu(name="Orin", compute_capability="8.7")
    monkeypatch.setattr(tensorrt_engine, "find_gpu", lambda: orin)
    sentence = (
        r"model\.engine: built for any GPU of compute capability 8\.6; expected an engine for "
        r"Orin of 8\.7, which is here; build it on this machine: weedseg export model\.onnx"
    )
    with pytest.raises(ModelFileError, match=sentence):
        Segmenter(engine)
    edit(engine, tensorrt="tensorrt_rtx 0.9")
    with pytest.raises(ModelFileError, match=r"built for tensorrt_rtx 0\.9; expected an engine"):
        Segmenter(engine)
    edit(engine, tensorrt="tensorrt 10.3.0")
    monkeypatch.setattr(tensorrt_library.importlib, "import_module", missing)
    with pytest.raises(RuntimeUnavailableError, match="TensorRT cannot be imported"):
        Segmenter(engine)


def missing(name):
    raise ImportError(f"No module named '{name}'")


def test_damaged_engines_are_refused(folder, bare):
    engine = build_engine(folder / "model.onnx", options=SM86).path
    whole, facts = engine.read_bytes(), sidecar_of(engine).read_text()
    for data, text, match in (
        (whole[:-1], facts, "differs from model.engine.json"),
        (whole, facts[:-9], "no JSON"),
        (whole, "[]", "no JSON object"),
        (whole, json.dumps({**json.loads(facts), "metadata": {}}), "no 'weedseg'"),
        (whole, json.dumps({**json.loads(facts), "shape": 3}), "no 'int' object"),
    ):
        engine.write_bytes(data)
        sidecar_of(engine).write_text(text)
        with pytest.raises(ModelFileError, match=match):
            Segmenter(engine)
    sidecar_of(engine).unlink()
    with pytest.raises(ModelFileError, match="no file of up to"):
        Segmenter(engine)


def test_libraries_and_cuda_that_are_missing_are_sentences(monkeypatch):
    old = SimpleNamespace(__version__="8.5.2")
    monkeypatch.setattr(tensorrt_library.importlib, "import_module", lambda name: old)
    with pytest.raises(RuntimeUnavailableError, match=r"TensorRT 8.6 or newer"):
        import_library()
    monkeypatch.setattr(tensorrt_library.importlib, "import_module", missing)
    with pytest.raises(RuntimeUnavailableError, match="expected tensorrt or tensorrt_rtx; run"):
        import_library()
    with pytest.raises(RuntimeUnavailableError, match="CUDA cannot be reached"):
        tensorrt_library.find_gpu()


def cuda_runtime(code, count):
    found = SimpleNamespace(name=b"Orin\0\0", major=8, minor=7)
    return SimpleNamespace(
        cudaMemcpyKind=SimpleNamespace(cudaMemcpyHostToDevice=1, cudaMemcpyDeviceToHost=2),
        cudaGetErrorString=lambda code: (0, b"no driver"),
        cudaGetDeviceCount=lambda: (code, count),
        cudaGetDeviceProperties=lambda number: (0, found),
    )


def test_the_gpu_is_found_or_the_reason_told(monkeypatch):
    def say(code, count):
        module = cuda_runtime(code, count)
        monkeypatch.setattr(tensorrt_library.importlib, "import_module", lambda name: module)
        return tensorrt_library.find_gpu()

    assert say(0, 1) == Gpu(name="Orin", compute_capability="8.7")
    with pytest.raises(RuntimeUnavailableError, match="cudaGetDeviceCount failed: no driver"):
        say(35, None)
    with pytest.raises(RuntimeUnavailableError, match="cudaGetDeviceCount failed: no GPU"):
        say(0, 0)


def test_the_command_builds_of_a_model_file(folder, bare, capsys):
    model = str(folder / "model.onnx")
    assert main(["export", model, "--format", "tensorrt", "--compute-capability", "8.6"]) == 0
    out = capsys.readouterr().out
    assert "model.engine: built: fp32 for any GPU of compute capability 8.6" in out
    assert main(["export", model, "--format", "onnx"]) == 2
    assert "a model file and --format onnx" in capsys.readouterr().err


@pytest.mark.gpu
def test_a_real_engine_runs(folder):
    for name in ("model.onnx", "model.fp16.onnx", "model.int8-trt.onnx"):
        built = build_engine(folder / name, [PHOTO, photo(700, 900, 4)])
        assert built.engine.facts["parity"]["equal_share"] >= 0.99
        assert Segmenter(built.path).segment(PHOTO).class_map.shape == PHOTO.shape[:2]
        assert build_engine(folder / name).reused
