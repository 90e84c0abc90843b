"""weedseg doctor on machines that lack this and that."""

import types

import numpy as np
import pytest

from weedseg.cli import doctor, main, packages


class FakeOptions:
    log_severity_level = 2

    def add_session_config_entry(self, key, value):
        assert (key, value) == ("session.disable_cpu_ep_fallback", "1")


class FakeSession:
    """A runtime on which only the CPU provider computes; CUDA is listed but silently left out."""

    def __init__(self, model, options, providers):
        if providers == ["TensorrtExecutionProvider"]:
            raise RuntimeError("[ONNXRuntimeError] : 1 : FAIL : libnvinfer.so.10\nnot found")

    def run(self, names, inputs):
        return [inputs["x"] + inputs["x"]]

    def get_providers(self):
        return ["CPUExecutionProvider"]


def _fake_runtime(*providers):
    module = types.ModuleType("onnxruntime")
    module.__version__ = "1.18.0"
    module.InferenceSession = FakeSession
    module.SessionOptions = FakeOptions
    module.get_available_providers = lambda: list(providers)
    return module


@pytest.fixture
def machine(monkeypatch):
    """A machine without GPU whose packages a test chooses."""
    state = types.SimpleNamespace(
        modules={"onnxruntime": _fake_runtime("CPUExecutionProvider")},
        versions={"onnxruntime": "1.18.0"},
        absent=[],
        gpu=None,
    )

    def load(name):
        if name not in state.modules:
            raise ImportError(name)
        return state.modules[name]

    monkeypatch.setattr(doctor.importlib, "import_module", load)
    monkeypatch.setattr(doctor, "_version", state.versions.get)
    monkeypatch.setattr(doctor, "_gpu", lambda: state.gpu)
    monkeypatch.setattr(
        packages, "absent", lambda table: [name for name in table if name in state.absent]
    )
    return state


def _run(capsys):
    """Run the verb itself: the machine's import hook is not meant for the command line's own."""
    from weedseg.errors import RuntimeUnavailableError

    code = 0
    try:
        doctor.doctor()
    except RuntimeUnavailableError as error:
        code = error.exit_code
    return code, capsys.readouterr().out


def test_this_machine_is_well(capsys):
    assert main(["doctor"]) == 0
    out = capsys.readouterr().out
    assert "CPUExecutionProvider            usable\n" in out
    assert "predict                           yes\n" in out


def test_real_cpu_provider_computes_and_a_missing_one_does_not():
    runtime = pytest.importorskip("onnxruntime")
    make, options = runtime.InferenceSession, runtime.SessionOptions
    assert doctor.probe(make, options, "CPUExecutionProvider") == "usable"
    if "AzureExecutionProvider" in runtime.get_available_providers():
        assert doctor.probe(make, options, "AzureExecutionProvider").startswith("not usable")


def test_the_tiny_model_is_valid():
    onnx = pytest.importorskip("onnx")
    reference = pytest.importorskip("onnx.reference")
    model = onnx.load_model_from_string(doctor.TINY_MODEL)
    onnx.checker.check_model(model, full_check=True)
    x = np.full(1, 1.5, np.float32)
    (y,) = reference.ReferenceEvaluator(model).run(None, {"x": x})
    assert y == 3.0


def test_a_listed_provider_that_falls_back_is_not_usable(machine, capsys):
    machine.modules["onnxruntime"] = _fake_runtime(
        "TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider"
    )
    machine.versions.clear()
    machine.versions["onnxruntime-gpu"] = "1.18.0"
    code, out = _run(capsys)
    assert code == 0
    assert "TensorrtExecutionProvider       not usable ([ONNXRuntimeError]" in out
    assert "CUDAExecutionProvider           not usable (listed, but" in out


def test_no_runtime_is_said_with_the_command(machine, capsys):
    machine.modules.clear()
    code, out = _run(capsys)
    assert code == 9
    assert "to do: python -m pip install onnxruntime\n" in out


def test_a_gpu_asks_for_the_gpu_build(machine, capsys):
    machine.gpu = "H100"
    code, out = _run(capsys)
    assert code == 0
    assert (
        "uninstall -y onnxruntime onnxruntime-gpu && python -m pip install onnxruntime-gpu" in out
    )
    machine.modules.clear()
    assert "to do: python -m pip install onnxruntime-gpu\n" in _run(capsys)[1]


def test_a_jetson_is_sent_to_nvidia(machine, monkeypatch, tmp_path, capsys):
    mark = tmp_path / "nv_tegra_release"
    mark.write_text("# R36")
    monkeypatch.setattr(packages, "_JETSON_MARK", mark)
    machine.modules.clear()
    assert "NVIDIA builds for your JetPack" in _run(capsys)[1]


def test_both_runtimes_at_once_are_a_conflict(machine, capsys):
    machine.versions["onnxruntime-gpu"] = "1.18.0"
    _, out = _run(capsys)
    assert "two packages share one folder" in out
    assert "to do: python -m pip uninstall -y onnxruntime onnxruntime-gpu" in out


def test_a_broken_runtime_is_reinstalled(machine, capsys):
    machine.modules["onnxruntime"] = types.ModuleType("onnxruntime")
    code, out = _run(capsys)
    assert code == 9
    assert "to do: python -m pip install --force-reinstall onnxruntime" in out


def test_missing_training_packages_do_not_stop_prediction(machine, capsys):
    machine.absent += ["torch", "sklearn"]
    code, out = _run(capsys)
    assert code == 0
    assert "train and export                  no" in out
    assert "to do: python -m pip install torch scikit-learn\n" in out


def test_missing_edge_packages_do(machine, capsys):
    machine.absent += ["cv2"]
    code, out = _run(capsys)
    assert code == 9
    assert "to do: python -m pip install opencv-python-headless\n" in out
