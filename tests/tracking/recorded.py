"""W&B's public API over recorded answers.

Everything of W&B's own is at work, ``wandb.Api`` and the classes of runs and artifacts included;
its requests are answered here instead of by the process that would send them, in the fields that
they ask for. A field that W&B renames is then missing from a request, and a test fails.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
import re
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import requests
import torch
from wandb.proto import wandb_api_pb2
from wandb.sdk.lib.service.service_connection import WandbApiFailedError

from cnmc.tracking import keys as names

# Made at run time, so mypy knows none of its messages.
api: Any = wandb_api_pb2

ENTITY, PROJECT = "hematology", "cnmc"
KEY = "0123456789abcdef" * 3
HOST = "wandb.clinic.example"
FILES = "https://files.clinic.example"
PAGE = 2
"""Runs in an answer: a listing takes several."""
DATA, OTHER_DATA, SPLIT, HONEST_SPLIT = "a" * 64, "d" * 64, "b" * 64, "c" * 64


def origin(experiment: str, seed: int, **changes: Any) -> dict[str, Any]:
    """Return what stands under ``origin`` in the configuration of a run."""
    return {
        "experiment": experiment,
        "name": f"seed={seed}",
        "seed": seed,
        "protocol": "paper",
        "config_hash": "0123456789ab",
        "run_id": f"{experiment}{seed}",
        "manifest_fingerprint": DATA,
        "split_fingerprint": SPLIT,
        "git_commit": None,
        **changes,
    }


def checkpoint(told: dict[str, Any], epoch: int) -> bytes:
    """Return a checkpoint of a run."""
    buffer = io.BytesIO()
    states = {"fc.weight": torch.zeros(1, 2)}
    torch.save({"state_dict": states, "cnmc": {"config": {}, "run": told, "epoch": epoch}}, buffer)
    return buffer.getvalue()


@dataclass
class StoredArtifact:
    """A version of an artifact that the server has."""

    collection: str
    aliases: list[str]
    metadata: dict[str, Any]
    content: bytes
    sent: bytes | None = None
    """What comes instead of the content; None sends that."""
    id: str = field(default_factory=lambda: secrets.token_hex(8))

    def node(self) -> dict[str, Any]:
        """Return the fields of ArtifactFragment."""
        return {
            "__typename": "Artifact",
            "id": self.id,
            "artifactSequence": {**self.place(), "__typename": "ArtifactSequence"},
            "versionIndex": 0,
            "artifactType": {"name": names.MODEL},
            "description": None,
            "metadata": json.dumps(self.metadata),
            "ttlDurationSeconds": 0,
            "ttlIsInherited": True,
            "tags": [],
            "historyStep": None,
            "state": "COMMITTED",
            "size": len(self.content),
            "digest": "d41d8cd98f00b204e9800998ecf8427e",
            "digestAlgorithm": "MANIFEST_MD5",
            "commitHash": None,
            "fileCount": 1,
            "createdAt": "2026-01-01T00:00:00Z",
            "updatedAt": None,
        }

    def place(self) -> dict[str, Any]:
        """Return the fields of CollectionInfoFragment."""
        project = {"id": "UA", "internalId": "7", "name": PROJECT, "entity": {"name": ENTITY}}
        return {"__typename": "ArtifactSequence", "name": self.collection, "project": project}

    def alias_nodes(self) -> list[dict[str, Any]]:
        """Return the fields of ArtifactAliasFragment, of each alias and the version."""
        return [
            {"__typename": "ArtifactAlias", "id": alias, "alias": alias}
            for alias in ["v0", *self.aliases]
        ]

    def manifest(self) -> bytes:
        """Return the list of files."""
        digest = base64.b64encode(hashlib.md5(self.content, usedforsecurity=False).digest())
        entry = {"digest": digest.decode(), "size": len(self.content)}
        return json.dumps(
            {
                "version": 1,
                "storagePolicy": "wandb-storage-policy-v1",
                "storagePolicyConfig": {"storageLayout": "V2"},
                "contents": {"best.ckpt": entry},
            }
        ).encode()


class Server:
    """Answers requests from what was recorded.

    Attributes:
        runs: The runs of the project, in the fields of RunFragment.
        artifacts: Versions of artifacts.
        filters: The filters of each listing of runs.
        changes: What was changed: an operation and its argument.
        failing: Raises instead of an answer where it is given.
    """

    def __init__(self) -> None:
        self.runs: list[dict[str, Any]] = []
        self.artifacts: list[StoredArtifact] = []
        self.filters: list[dict[str, Any]] = []
        self.changes: list[tuple[str, Any]] = []
        self.default_entity: str | None = ENTITY
        self.failing: Callable[[str], None] = lambda _operation: None

    def add_run(
        self,
        told: dict[str, Any] | None,
        f1: Any,
        *,
        epoch: Any = 3,
        state: str = "finished",
        summary: dict[str, Any] | None = None,
        job_type: str = names.TRAIN,
    ) -> None:
        """Record a run, and the artifact of its best checkpoint where it is one of cnmc."""
        config: dict[str, Any] = {"seed": {"desc": None, "value": 1}}
        config["_wandb"] = {"desc": None, "value": {"cli_version": "0.31.0"}}
        if told is not None:
            config[names.ORIGIN] = {"desc": None, "value": told}
        numbers = {names.best("epoch"): epoch, names.best("f1"): f1, "_step": 9, "val/f1": 0.99}
        name = told["run_id"] if told else secrets.token_hex(4)
        self.runs.append(
            {
                "id": base64.b64encode(f"Run:v1:{name}:{PROJECT}:{ENTITY}".encode()).decode(),
                "projectId": "7",
                "tags": [],
                "name": name,
                "displayName": f"{told['experiment']}/{told['name']}" if told else "other",
                "sweepName": None,
                "state": state,
                "config": json.dumps(config),
                "group": told["experiment"] if told else None,
                "jobType": job_type,
                "commit": None,
                "readOnly": False,
                "createdAt": "2026-01-01T00:00:00Z",
                "heartbeatAt": "2026-01-01T01:00:00Z",
                "description": None,
                "notes": None,
                "systemMetrics": "{}",
                "summaryMetrics": json.dumps({**numbers, **(summary or {})}),
                "historyLineCount": 4,
                "user": {"name": "Ada", "username": "ada"},
                "historyKeys": None,
            }
        )
        if told is not None:
            prints = ("manifest_fingerprint", "split_fingerprint")
            self.artifacts.append(
                StoredArtifact(
                    names.artifact_name(told["run_id"]),
                    [names.BEST, names.seed_alias(told["seed"])],
                    {"epoch": epoch, **{key: told[key] for key in prints}},
                    checkpoint(told, epoch),
                )
            )

    def stored(self, run_id: str) -> StoredArtifact:
        """Return the checkpoint of a run."""
        name = names.artifact_name(run_id)
        return next(item for item in self.artifacts if item.collection == name)

    def holders(self) -> list[str]:
        """Return the artifacts that are the best of a study."""
        return [item.collection for item in self.artifacts if names.BEST_OF_STUDY in item.aliases]

    def send(self, request: Any, timeout: float | None = None) -> Any:
        """Answer a request to the process that talks to the server."""
        del timeout
        response = api.ApiResponse()
        kind = request.WhichOneof("request")
        if kind == "graphql_request":
            query = request.graphql_request.query
            operation = re.findall(r"(?:query|mutation) (\w+)", query)[0]
            self.failing(operation)
            variables = json.loads(request.graphql_request.variables_json)
            answer = getattr(self, f"_{operation}")(variables)
            asked = set(re.findall(r"\w+", query))
            missing = _keys(answer) - asked
            assert not missing, f"{operation} does not ask for {missing}"
            response.graphql_response.data_json = json.dumps(answer)
        elif kind == "auth_request":
            self.failing("Authenticate")
            response.auth_response.authenticate_response.username = "ada"
        else:
            assert kind == "features_request", kind
            response.features_response.server.SetInParent()
        return response

    def fetch(self, request: requests.PreparedRequest, **_: Any) -> Any:
        """Answer a request for a file."""
        response = requests.Response()
        response.status_code = 200
        response.request = request
        assert request.url is not None
        kind, identity = request.url.removeprefix(f"{FILES}/").split("/")
        (item,) = (item for item in self.artifacts if item.id == identity)
        content = item.content if item.sent is None else item.sent
        response.raw = io.BytesIO(item.manifest() if kind == "manifest" else content)
        return response

    def _GetDefaultEntity(self, _variables: Any) -> Any:  # noqa: N802
        return {"viewer": {"id": "VQ", "entity": self.default_entity}}

    def _Runs(self, variables: dict[str, Any]) -> Any:  # noqa: N802
        if (variables["entity"], variables["project"]) != (ENTITY, PROJECT):
            return {"project": None}
        filters = json.loads(variables["filters"])
        self.filters.append(filters)
        found = [run for run in self.runs if all(run[key] == filters[key] for key in filters)]
        start = int(variables["cursor"] or 0)
        page = found[start : start + PAGE]
        runs = {
            "edges": [
                {"node": run, "cursor": str(position)}
                for position, run in enumerate(page, start=start + 1)
            ],
            "pageInfo": {"endCursor": None, "hasNextPage": start + PAGE < len(found)},
        }
        told = {"internalId": "7", "runCount": len(found), "readOnly": False, "runs": runs}
        return {"project": told}

    def _ArtifactMembershipByName(self, variables: dict[str, Any]) -> Any:  # noqa: N802
        collection, alias = variables["name"].split(":")
        for item in self.artifacts:
            if item.collection == collection and alias in item.aliases:
                membership = {
                    "__typename": "ArtifactCollectionMembership",
                    "id": f"membership of {item.id}",
                    "versionIndex": 0,
                    "createdAt": "2026-01-01T00:00:00Z",
                    "aliases": item.alias_nodes(),
                    "artifactCollection": item.place(),
                    "artifact": item.node(),
                }
                return {"project": {"artifactCollectionMembership": membership}}
        return {"project": {"artifactCollectionMembership": None}}

    def _FetchArtifactManifest(self, variables: dict[str, Any]) -> Any:  # noqa: N802
        file = {"directUrl": f"{FILES}/manifest/{variables['id']}"}
        return {"artifact": {"currentManifest": {"file": file}}}

    def _GetArtifactMembershipFileUrls(self, variables: dict[str, Any]) -> Any:  # noqa: N802
        (item,) = (item for item in self.artifacts if item.collection == variables["collection"])
        url = f"{FILES}/content/{item.id}"
        node = {"__typename": "File", "name": "best.ckpt", "directUrl": url}
        page = {"__typename": "PageInfo", "endCursor": None, "hasNextPage": False}
        membership = {"files": {"pageInfo": page, "edges": [{"node": node}]}}
        found = {"__typename": "ArtifactSequence", "artifactMembership": membership}
        return {"project": {"artifactCollection": found}}

    def _AddAliases(self, variables: dict[str, Any]) -> Any:  # noqa: N802
        item, aliases = self._aliases(variables)
        item.aliases += aliases
        self.changes += [("add", (item.collection, alias)) for alias in aliases]
        return {"result": {"success": True}}

    def _DeleteAliases(self, variables: dict[str, Any]) -> Any:  # noqa: N802
        item, aliases = self._aliases(variables)
        item.aliases = [alias for alias in item.aliases if alias not in aliases]
        self.changes += [("delete", (item.collection, alias)) for alias in aliases]
        return {"result": {"success": True}}

    def _UpdateArtifact(self, variables: dict[str, Any]) -> Any:  # noqa: N802
        (item,) = (i for i in self.artifacts if i.id == variables["input"]["artifactID"])
        item.metadata = json.loads(variables["input"]["metadata"])
        places = [{**node, "artifactCollection": item.place()} for node in item.alias_nodes()]
        return {"result": {"artifact": {**item.node(), "aliases": places}}}

    def _aliases(self, variables: dict[str, Any]) -> tuple[StoredArtifact, list[str]]:
        told = variables["input"]
        (item,) = (item for item in self.artifacts if item.id == told["artifactID"])
        assert {alias["artifactCollectionName"] for alias in told["aliases"]} == {item.collection}
        return item, [alias["alias"] for alias in told["aliases"]]


def refuse(status: int | None, only: str | None = None) -> Callable[[str], None]:
    """Return a failure as W&B's client tells it, naming server and key.

    Args:
        status: HTTP status; None where no server answers.
        only: The operation that fails; None for all.
    """

    def fail(operation: str) -> None:
        if only in (None, operation):
            message = f"POST https://{HOST}/graphql (key {KEY}): HTTP {status}"
            response = api.ApiErrorResponse(message=message, http_status=status)
            raise WandbApiFailedError(message, response)

    return fail


def files_below(folder: Path) -> list[str]:
    """Return the files in a folder, also hidden ones."""
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())


def _keys(value: Any) -> set[str]:
    if isinstance(value, dict):
        return set(value).union(*map(_keys, value.values()))
    return set().union(*map(_keys, value)) if isinstance(value, list) else set()
