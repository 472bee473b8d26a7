"""A server that speaks as much of W&B's protocol as its client needs: runs, files, artifacts, and a sweep for an agent.

It shows what the client sends, and that it is content with the answers. It says nothing of W&B's own server.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import yaml

KEY = "k" * 40  # of an account: W&B's client looks at the length alone
ENTITY, PROJECT = {"id": "e", "name": "me"}, {"id": "p", "name": "vqgan", "entity": {"id": "e", "name": "me"}}


@dataclass
class Run:
    """What the server was told of one run."""

    values: dict[str, Any] = field(default_factory=dict)  # of all its UpsertBucket, by name
    streams: dict[str, dict[int, str]] = field(default_factory=dict)  # of each streamed file: its lines, by number
    exit_code: int | None = None

    @property
    def config(self) -> dict[str, Any]:
        """Its config as plain values."""
        config = json.loads(self.values["config"])
        return {name: entry["value"] for name, entry in config.items() if name != "_wandb"}

    @property
    def history(self) -> list[dict[str, Any]]:
        """Its rows, in order."""
        lines = self.streams.get("wandb-history.jsonl", {})
        return [json.loads(lines[number]) for number in sorted(lines)]

    @property
    def summary(self) -> dict[str, Any]:
        """Its summary."""
        lines = self.streams.get("wandb-summary.json", {})
        return json.loads(lines[max(lines)]) if lines else {}

    def take(self, content: dict[str, Any]) -> None:
        """Take what was posted to its file stream."""
        for name, part in content.get("files", {}).items():
            lines = self.streams.setdefault(name, {})
            for number, line in enumerate(part["content"], part["offset"]):
                lines[number] = line
        if content.get("complete"):
            self.exit_code = content["exitcode"]


class Server(ThreadingHTTPServer):
    """What was said to it, by run; `trials` are what it gives to an agent, one after the other."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.changing = threading.Lock()
        self.runs: dict[str, Run] = {}
        self.uploads: dict[str, bytes] = {}  # by path
        self.artifacts: list[dict[str, Any]] = []  # as they were asked for
        self.alerts: list[dict[str, Any]] = []
        self.trials: list[dict[str, Any]] = []
        self.sweep: str = ""  # its yaml
        self.given = 0  # trials

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A connection that the client drops at its end is no error."""

    def answer(self, operation: str, values: dict[str, Any]) -> dict[str, Any]:
        """The data of a GraphQL operation; nothing for one that the client can do without."""
        with self.changing:
            return getattr(self, f"on_{operation}", lambda _: {})(values)

    def run(self, name: str) -> Run:
        """The run of that id."""
        return self.runs.setdefault(name, Run())

    def on_Viewer(self, _: dict[str, Any]) -> dict[str, Any]:
        return {
            "viewer": {"id": "u", "entity": "me", "username": "me", "email": "", "flags": "{}", "teams": {"edges": []}}
        }

    def on_ServerFeaturesQuery(self, _: dict[str, Any]) -> dict[str, Any]:
        return {"serverInfo": {"features": []}}

    def on_OrganizationCoreWeaveOrganizationID(self, _: dict[str, Any]) -> dict[str, Any]:
        return {"entity": {"organization": {"coreWeaveOrganizationId": None}}}

    def on_UpsertBucket(self, values: dict[str, Any]) -> dict[str, Any]:
        name = values["name"]
        inserted = name not in self.runs
        run = self.run(name)
        run.values |= {key: value for key, value in values.items() if value is not None}
        bucket = {
            "id": name, "name": name, "displayName": values.get("displayName") or name, "description": None,
            "config": run.values.get("config", "{}"), "sweepName": values.get("sweep"), "project": PROJECT,
            "historyLineCount": len(run.history),
        }  # fmt: skip
        return {"upsertBucket": {"bucket": bucket, "inserted": inserted}}

    def on_RunResumeStatus(self, values: dict[str, Any]) -> dict[str, Any]:
        run, bucket = self.runs.get(values["name"]), None
        if run is not None:
            bucket = {
                "id": values["name"], "name": values["name"], "summaryMetrics": json.dumps(run.summary),
                "displayName": run.values.get("displayName"), "logLineCount": 0,
                "historyLineCount": len(run.history), "eventsLineCount": 0,
                "historyTail": json.dumps([json.dumps(row) for row in run.history[-1:]]), "eventsTail": "[]",
                "config": run.values.get("config", "{}"), "tags": run.values.get("tags", []), "notes": None,
                "wandbConfig": json.dumps({"t": 1}),  # else the run counts as one that has not begun
            }  # fmt: skip
        return {"model": {"id": "p", "name": PROJECT["name"], "entity": ENTITY, "bucket": bucket}}

    def on_CreateRunFiles(self, values: dict[str, Any]) -> dict[str, Any]:
        files = [{"name": name, "uploadUrl": f"{self.url}/upload/{values['run']}/{name}"} for name in values["files"]]
        return {"createRunFiles": {"runID": values["run"], "uploadHeaders": [], "files": files}}

    def on_NotifyScriptableRunAlert(self, values: dict[str, Any]) -> dict[str, Any]:
        self.alerts.append(values)
        return {"notifyScriptableRunAlert": {"success": True}}

    def on_ArtifactType(self, _: dict[str, Any]) -> dict[str, Any]:
        return {"project": None}  # no artifact has that name yet

    def on_CreateArtifact(self, values: dict[str, Any]) -> dict[str, Any]:
        self.artifacts.append(values["input"])
        sequence = {"latestArtifact": None}
        return {
            "createArtifact": {
                "artifact": {"id": str(len(self.artifacts)), "state": "PENDING", "artifactSequence": sequence}
            }
        }

    def on_CreateArtifactManifest(self, values: dict[str, Any]) -> dict[str, Any]:
        return {"createArtifactManifest": {"artifactManifest": self._manifest(values["artifactID"])}}

    def on_UpdateArtifactManifest(self, values: dict[str, Any]) -> dict[str, Any]:
        return {"updateArtifactManifest": {"artifactManifest": self._manifest(values["artifactManifestID"])}}

    def on_CreateArtifactFiles(self, values: dict[str, Any]) -> dict[str, Any]:
        nodes = []
        for file in values["input"]["artifactFiles"]:
            number, name = file["artifactID"], file["name"]
            url = f"{self.url}/upload/artifact-{number}/{name}"
            nodes.append({"storagePath": name, "uploadUrl": url, "uploadHeaders": [], "artifact": {"id": number}})
            nodes[-1]["uploadMultipartUrls"] = None
        return {"createArtifactFiles": {"files": {"edges": [{"node": node} for node in nodes]}}}

    def on_CommitArtifact(self, values: dict[str, Any]) -> dict[str, Any]:
        return {"commitArtifact": {"artifact": {"id": values["artifactID"], "digest": "d"}}}

    def on_SweepWithRuns(self, values: dict[str, Any]) -> dict[str, Any]:
        sweep = {
            "id": "s", "name": values["sweep"], "method": "grid", "state": "RUNNING", "description": None,
            "config": self.sweep, "createdAt": "2026-01-01T00:00:00", "heartbeatAt": "2026-01-01T00:00:00",
            "updatedAt": "2026-01-01T00:00:00", "earlyStopJobRunning": False, "controller": None, "scheduler": None,
            "runs": {"edges": []},
        }  # fmt: skip
        return {"project": {"sweep": sweep}}

    def on_CreateAgent(self, _: dict[str, Any]) -> dict[str, Any]:
        return {"createAgent": {"agent": {"id": "agent"}}}

    def on_Heartbeat(self, values: dict[str, Any]) -> dict[str, Any]:
        commands = []
        if self.given < len(self.trials):
            args = {name: {"value": value} for name, value in self.trials[self.given].items()}
            program = yaml.safe_load(self.sweep)["program"]
            commands = [{"type": "run", "run_id": f"trial{self.given}", "program": program, "args": args}]
            self.given += 1
        return {"agentHeartbeat": {"agent": {"id": "agent"}, "commands": json.dumps(commands)}}

    def _manifest(self, number: str) -> dict[str, Any]:
        file = {"id": number, "uploadUrl": f"{self.url}/upload/artifact-{number}/manifest.json", "uploadHeaders": []}
        return {"id": number, "file": file}


class Handler(BaseHTTPRequestHandler):
    """GraphQL at /graphql, rows at /files/…/file_stream, everything else is a file or telemetry."""

    protocol_version = "HTTP/1.1"
    server: Server

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        answer: dict[str, Any] = {}
        if self.path.endswith("/graphql"):
            asked = json.loads(body)
            operation = asked.get("operationName") or asked["query"].split("(")[0].split("{")[0].split()[-1]
            answer = {"data": self.server.answer(operation, asked.get("variables") or {})}
        elif self.path.endswith("/file_stream"):
            with self.server.changing:
                self.server.run(self.path.split("/")[-2]).take(json.loads(body))
        self._say(answer)

    def do_PUT(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.server.uploads[self.path.removeprefix("/upload/")] = body
        self._say({})

    def do_GET(self) -> None:
        self._say({})

    def log_message(self, *_: Any) -> None:
        """Nothing."""

    def _say(self, answer: dict[str, Any]) -> None:
        body = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@contextmanager
def serving() -> Iterator[Server]:
    """The server, until the end of the block."""
    with Server() as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()
