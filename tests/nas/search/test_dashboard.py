"""optuna-dashboard opens a study as it is, while it is running."""

import json
import threading
from pathlib import Path
from urllib.request import urlopen
from wsgiref.simple_server import WSGIRequestHandler, make_server

import pytest

from nas.search import Study
from nas.search.storage import open_storage
from nas.search.study import Row
from tests.nas.search.problems import CHOICES, OBJECTIVES

dashboard = pytest.importorskip("optuna_dashboard", reason="pip install 'hybridnas[dashboard]' brings it")

GENOTYPE = {c.name: c.values[-1] for c in CHOICES}
OWNER = {"host": "elsewhere", "pid": 1, "started": 0.0}


class Silent(WSGIRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        """Tests print nothing."""


@pytest.mark.parametrize("name", ["study.db", "study.journal"])
def test_dashboard_shows_rows_genes_and_what_is_running(name: str, tmp_path: Path) -> None:
    study = Study.open(tmp_path / name, CHOICES, OBJECTIVES, {"seed": 0})
    study.add(Row(index=0, batch=0, genotype=GENOTYPE, values={"error_pct": 12.5, "latency_ms": 3.0}))
    study.add(Row(index=1, batch=0, genotype=GENOTYPE, reason="no memory"))
    study.reserve(Row(index=2, batch=0, genotype=GENOTYPE), owner=OWNER, heartbeat="1")
    with make_server("127.0.0.1", 0, dashboard.wsgi(open_storage(tmp_path / name)), handler_class=Silent) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        address = f"http://127.0.0.1:{server.server_port}/api/studies"
        (summary,) = json.load(urlopen(address))["study_summaries"]
        detail = json.load(urlopen(f"{address}/{summary['study_id']}?after=0"))
        server.shutdown()
        thread.join()
    assert summary["study_name"] == "search"
    assert [trial["state"] for trial in detail["trials"]] == ["Complete", "Fail", "Running"]
    assert detail["trials"][0]["values"] == [12.5, 3.0]
    shown = {param["name"]: param["param_external_value"] for param in detail["trials"][0]["params"]}
    assert shown == {name: str(value) for name, value in GENOTYPE.items()}
    assert {"key": "reason", "value": "no memory"} in [
        {"key": attr["key"], "value": attr["value"].strip('"')} for attr in detail["trials"][1]["user_attrs"]
    ]
