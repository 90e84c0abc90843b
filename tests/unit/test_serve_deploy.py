"""What lies in deploy/ for the service: valid by published schemas, true to the settings."""

import re
from pathlib import Path

import pytest
import yaml

from weedseg.serve.settings import Settings

kubernetes_validate = pytest.importorskip("kubernetes_validate", reason="kubernetes-validate")
compose_spec = pytest.importorskip("compose_spec", reason="compose-spec")

DEPLOY = Path(__file__).resolve().parents[2] / "deploy"
MANIFESTS = sorted((DEPLOY / "kubernetes").glob("*.yaml"))
VARIABLES = {f"WEEDSEG_{name.upper()}" for name in Settings.model_fields}


def _documents():
    for path in MANIFESTS:
        for document in yaml.safe_load_all(path.read_text(encoding="utf-8")):
            yield pytest.param(document, id=f"{path.stem}-{document['kind']}")


def _containers(document):
    return document["spec"]["template"]["spec"]["containers"]


@pytest.mark.parametrize("document", list(_documents()))
def test_manifests_fit_the_published_schema(document):
    kubernetes_validate.validate(document, kubernetes_validate.latest_version(), strict=True)


def test_a_wrong_manifest_is_found():
    document = next(_documents()).values[0]
    broken = {**document, "spec": {}, "kind": "Deployment", "apiVersion": "apps/v1"}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(broken, kubernetes_validate.latest_version(), strict=True)


def test_pods_have_probes_limits_and_autoscaling_on_the_queue():
    documents = [case.values[0] for case in _documents()]
    by_kind = {d["kind"] + "/" + d["metadata"]["name"]: d for d in documents}
    (container,) = _containers(by_kind["Deployment/weedseg"])
    assert container["livenessProbe"]["httpGet"]["path"] == "/healthz"
    assert container["readinessProbe"]["httpGet"]["path"] == "/readyz"
    for document in documents:
        if document["kind"] == "Deployment":
            (container,) = _containers(document)
            assert container["resources"]["limits"]["memory"]
            assert container["securityContext"]["allowPrivilegeEscalation"] is False
    scaler = by_kind["HorizontalPodAutoscaler/weedseg"]["spec"]
    assert scaler["metrics"][0]["pods"]["metric"]["name"] == "weedseg_queue_depth"
    settings = by_kind["ConfigMap/weedseg"]["data"]
    pod = by_kind["Deployment/weedseg"]["spec"]["template"]["spec"]
    assert pod["terminationGracePeriodSeconds"] > 10 + int(settings["WEEDSEG_STOP_S"]) + 15


def test_the_compose_file_fits_the_specification():
    text = (DEPLOY / "compose.yaml").read_text(encoding="utf-8")
    compose = compose_spec.PyCompose.from_yaml(text)
    compose.validate()
    assert set(compose.service_names()) == {"weedseg", "worker", "postgres", "nginx"}
    with pytest.raises(ValueError, match="imagee"):
        compose_spec.PyCompose.from_yaml(text.replace("image:", "imagee:"))


@pytest.mark.parametrize(
    "path",
    [*MANIFESTS, DEPLOY / "compose.yaml", DEPLOY / "weedseg-serve.service"],
    ids=lambda path: path.name,
)
def test_variables_are_those_of_the_settings(path):
    text = path.read_text(encoding="utf-8").replace("WEEDSEG_PASSWORD", "")
    assert set(re.findall(r"WEEDSEG_[A-Z_]+", text)) <= VARIABLES
