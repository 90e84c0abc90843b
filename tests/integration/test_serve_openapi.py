"""The OpenAPI document tells the truth: schemathesis tries every operation of a real server."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from serving import ROOT, Server

EXAMPLES = 500
"""For every operation, in full."""
CONFIG = """
[checks]
# The good key is sent beside the bad ones; test_serve_auth tries bad ones alone.
ignored_auth.enabled = false
# No JSON schema says which bytes are a photo, or how long the data of a tensor are.
positive_data_acceptance.enabled = false
# 412 is what tus answers to another version of it.
negative_data_rejection.expected-statuses = [
    400, 401, 403, 404, 405, 406, 408, 409, 411, 412, 413, 415, 422, 428, 429, "5xx"
]
missing_required_header.expected-statuses = [400, 401, 403, 404, 406, 412, 415, 422]

# Whoever signs out with a key in the header needs no cookie.
[[operations]]
include-name = "DELETE /v1/session"
[operations.checks]
negative_data_rejection.enabled = false
"""


@pytest.mark.soak
def test_the_document_tells_the_truth(tmp_path, soak_share, keep_campaign):
    (tmp_path / "schemathesis.toml").write_text(CONFIG, encoding="utf-8")
    with Server(tmp_path / "data", queue_length=64) as server:
        made = subprocess.run(
            [
                *(sys.executable, "-m", "weedseg", "keys", "make", "--data", server.data),
                *("--name", "test", "--owner", "test", "--scopes", "predict,jobs,models,admin"),
            ],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
        )
        done = subprocess.run(
            [
                *(Path(sys.executable).with_name("schemathesis"), "run", "--no-color"),
                *("--seed", "1", "--max-examples", str(EXAMPLES if soak_share == 1 else 3)),
                *(() if soak_share == 1 else ("--phases", "examples,fuzzing")),
                *("--header", f"X-API-Key: {made.stdout.split()[0]}"),
                f"{server.url}/openapi.json",
            ],
            cwd=tmp_path,
            env={
                **os.environ,
                "SCHEMATHESIS_HOOKS": "schemathesis_hooks",
                "PYTHONPATH": str(ROOT / "tests"),
            },
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout[:6000] + done.stderr[-2000:]
        assert "Traceback" not in server.text()
    cases = int(re.search(r"(\d+) generated", done.stdout)[1])
    keep_campaign("service", what="schemathesis", cases=cases)
    assert cases > 50
