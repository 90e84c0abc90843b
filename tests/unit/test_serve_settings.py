"""Settings of the service: environment, flags, table."""

import json
import logging

import pytest

from weedseg.errors import ConfigError
from weedseg.serve.request_log import JsonFormatter, new_request_id, request_id
from weedseg.serve.settings import Settings, export_settings, read_settings, settings_table


@pytest.fixture(autouse=True)
def no_variables(monkeypatch):
    for name in Settings.model_fields:
        monkeypatch.delenv(f"WEEDSEG_{name.upper()}", raising=False)


def test_flags_come_before_the_environment(monkeypatch):
    monkeypatch.setenv("WEEDSEG_PORT", "9000")
    monkeypatch.setenv("WEEDSEG_QUEUE_LENGTH", "3")
    settings = read_settings(port=9001, host=None)
    assert (settings.port, settings.queue_length, settings.host) == (9001, 3, "127.0.0.1")


def test_mistakes_are_one_sentence(monkeypatch):
    with pytest.raises(ConfigError, match="port = 70000"):
        read_settings(port=70_000)
    monkeypatch.setenv("WEEDSEG_DEADLINE_S", "soon")
    with pytest.raises(ConfigError, match=r"WEEDSEG_DEADLINE_S = 'soon'.*number"):
        read_settings()


def test_another_process_gets_the_same_settings(tmp_path, monkeypatch):
    monkeypatch.setenv("WEEDSEG_MODEL", "left-over")
    settings = Settings(
        model=None, data=tmp_path, port=1, job_worker=False, deadline_s=2.5, require_provider="cpu"
    )
    export_settings(settings)
    assert read_settings() == settings


def test_the_table_has_every_setting():
    rows = settings_table().splitlines()
    assert len(rows) == len(Settings.model_fields) + 2
    for name, row in zip(Settings.model_fields, rows[2:]):
        assert row.startswith(f"| `WEEDSEG_{name.upper()}` |")
        assert row.count("|") == 4
        assert Settings.model_fields[name].description in row


def test_request_ids_are_kept_if_decent():
    assert new_request_id("proxy-0123456789") == "proxy-0123456789"
    for odd in (None, "", "short", "x" * 65, "with space here", 'inject"quote-123'):
        made = new_request_id(odd)
        assert made != odd
        assert len(made) >= 16


def test_log_lines_are_json_with_the_request_id():
    record = logging.LogRecord("weedseg.x", logging.INFO, "f", 1, "said %s\n", ("so",), None)
    record.fields = {"status": 200}
    token = request_id.set("abcdefgh")
    try:
        line = json.loads(JsonFormatter().format(record))
    finally:
        request_id.reset(token)
    assert (line["message"], line["status"], line["level"]) == ("said so\n", 200, "info")
    assert line["request_id"] == "abcdefgh"
    assert "request_id" not in json.loads(JsonFormatter().format(record))
