"""Where models are kept: ONNX files with their manifests, on local disk or S3.

Layout::

    <root>/<model id>/<version>/model.onnx      the graph; input observation float32 [N, inputs]
    <root>/<model id>/<version>/manifest.json   what it is; written last, so it makes the version
    <root>/<model id>/<version>/verdict.json    what the gate said, and why
    <root>/promoted.json                        {"id", "version", "reason", "promoted_at"}

Versions of an id are 1, 2, 3 …. A version never changes once its manifest is there. No training
library is imported here: serving uses this module.
"""

from __future__ import annotations

import hashlib
import json
import re
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pyarrow import fs

from pipelines.errors import FingerprintMismatch, ModelError
from pipelines.features.spec import FEATURE_SPEC, FeatureSpec
from rl.account import ACCOUNT_INPUTS

RULES_ID = "rules-1"
_ID = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")


@dataclass(frozen=True, slots=True, order=True)
class ModelRef:
    """Name of one version of a model.

    >>> str(ModelRef("ppo", 3)), ModelRef.parse("ppo:3") == ModelRef("ppo", 3)
    ('ppo:3', True)
    """

    id: str
    version: int

    def __post_init__(self) -> None:
        if not _ID.fullmatch(self.id) or self.version < 1:
            raise ModelError(f"no model is named {self.id}:{self.version}")

    def __str__(self) -> str:
        return f"{self.id}:{self.version}"

    @classmethod
    def parse(cls, text: str) -> ModelRef:
        """The reference of ``id:version``.

        Raises:
            ModelError: The text is none.
        """
        name, _, version = text.rpartition(":")
        if not version.isdecimal():
            raise ModelError(f"{text!r} is no model; write it as id:version")
        return cls(name, int(version))


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a model is, without opening it.

    Args:
        id: Name of the model.
        kind: ``ppo``, ``dqn`` or ``rules``. ``dqn`` has the output ``q_values``; the others
            have ``logits`` and ``value``.
        fingerprint: Of the FeatureSpec it was made for.
        feature_names: Names of the market inputs, in order.
        inputs: Names of all inputs, in order: the market's, and the account's two.
        actions: Names of the outputs, in order.
        version: Its version; 0 until registered.
        created_at: RFC 3339; set on registering when empty.
        temperature: Divisor of ``q_values`` before the softmax that makes probabilities.
        sha256: Of the ONNX file; set on registering.
        training: Configuration and summary of the data it learnt from; JSON types.
        metrics: What evaluation found; JSON types.
    """

    id: str
    kind: str
    fingerprint: str
    feature_names: tuple[str, ...]
    inputs: tuple[str, ...]
    actions: tuple[str, ...] = ("HOLD", "BUY", "SELL")
    version: int = 0
    created_at: str = ""
    temperature: float = 1.0
    sha256: str = ""
    training: Mapping[str, Any] = field(default_factory=dict)
    metrics: Mapping[str, Any] = field(default_factory=dict)

    @property
    def ref(self) -> ModelRef:
        """Its name and version."""
        return ModelRef(self.id, self.version)

    def to_json(self) -> str:
        """The manifest as JSON text; NaN and infinity are refused."""
        return json.dumps(asdict(self), indent=2, allow_nan=False, default=dict)

    @classmethod
    def from_json(cls, text: str | bytes) -> Manifest:
        """The manifest of what :meth:`to_json` gave.

        Raises:
            ModelError: It is none.
        """
        try:
            fields = json.loads(text)
            for name in ("feature_names", "inputs", "actions"):
                fields[name] = tuple(fields[name])
            return cls(**fields)
        except (ValueError, TypeError, KeyError) as error:
            raise ModelError(f"a manifest cannot be read: {error}") from error


class Registry:
    """Models of one root, on local disk or S3.

    Args:
        root_uri: A path, ``file://…`` or ``s3://bucket/prefix``.
        storage_options: For S3, with the keys that the lake uses: ``AWS_ENDPOINT_URL``,
            ``AWS_REGION``, ``AWS_ACCESS_KEY_ID``, ``AWS_SECRET_ACCESS_KEY``; what is absent comes
            from AWS's standard chain.
    """

    def __init__(self, root_uri: str, *, storage_options: Mapping[str, str] | None = None) -> None:
        self.root_uri = root_uri
        self._local = not root_uri.startswith("s3://")
        if self._local:
            self._root = str(Path(root_uri.removeprefix("file://")).resolve())
            self._fs: Any = fs.LocalFileSystem()
        else:
            self._root = root_uri.removeprefix("s3://").rstrip("/")
            self._fs = fs.S3FileSystem(**_s3_arguments(storage_options or {}))

    def __repr__(self) -> str:
        return f"Registry({self.root_uri!r})"

    def ensure_rules(self, spec: FeatureSpec = FEATURE_SPEC) -> ModelRef:
        """Register the rule strategy for some features, if it is not there yet.

        Returns:
            The newest version of ``rules-1`` that has their fingerprint.
        """
        from rl.baselines import rules_model

        manifest, onnx_bytes = rules_model(spec)
        for known in self.list(RULES_ID)[::-1]:
            if known.fingerprint == manifest.fingerprint:
                return known.ref
        return self.register(manifest, onnx_bytes)

    def register(self, manifest: Manifest, onnx_bytes: bytes) -> ModelRef:
        """Keep a model as the next version of its id.

        Version, ``created_at`` (when empty) and ``sha256`` of the manifest are set here. On S3
        two registrations of one id at the same time are not told apart: train one at a time.

        Raises:
            ModelError: The manifest is not complete or holds NaN.
        """
        if manifest.inputs != (*manifest.feature_names, *ACCOUNT_INPUTS) or not onnx_bytes:
            raise ModelError(
                f"{manifest.id}: a model has a graph, and as inputs its features and then "
                f"{', '.join(ACCOUNT_INPUTS)}"
            )
        try:
            manifest.to_json()
        except ValueError as error:
            raise ModelError(f"{manifest.id}: the manifest holds NaN or infinity") from error
        version = max([0, *self._versions(manifest.id)]) + 1
        if self._local:
            version = self._claim(manifest.id, version)
        done = replace(
            manifest,
            version=version,
            created_at=manifest.created_at or _now(),
            sha256=hashlib.sha256(onnx_bytes).hexdigest(),
        )
        self._write(f"{done.id}/{version}/model.onnx", onnx_bytes)
        self._write(f"{done.id}/{version}/manifest.json", done.to_json().encode())
        return done.ref

    def list(self, model_id: str | None = None) -> Sequence[Manifest]:
        """Manifests of all models, or of one id, by id and version."""
        ids = [model_id] if model_id else self._folders("")
        return [
            self.manifest(ModelRef(name, version))
            for name in sorted(ids)
            if _ID.fullmatch(name)
            for version in self._versions(name)
            if self._exists(f"{name}/{version}/manifest.json")
        ]

    def manifest(self, ref: ModelRef) -> Manifest:
        """The manifest of one version.

        Raises:
            ModelError: There is no such version.
        """
        return Manifest.from_json(self._read(f"{ref.id}/{ref.version}/manifest.json"))

    def load(
        self, ref: ModelRef, *, expected_fingerprint: str | None = None
    ) -> tuple[Manifest, bytes]:
        """Manifest and ONNX bytes of one version, whole and as registered.

        Args:
            ref: Which.
            expected_fingerprint: Of the features that are served; ``None`` does not check.

        Raises:
            FingerprintMismatch: It was made for other features.
            ModelError: There is no such version, or its file is not what was registered.
        """
        manifest = self.manifest(ref)
        if expected_fingerprint is not None and manifest.fingerprint != expected_fingerprint:
            raise FingerprintMismatch(
                f"{ref} was made for features {manifest.fingerprint}, "
                f"and {expected_fingerprint} are served"
            )
        data = self._read(f"{ref.id}/{ref.version}/model.onnx")
        if hashlib.sha256(data).hexdigest() != manifest.sha256:
            raise ModelError(f"{ref}: the ONNX file is not the one that was registered")
        return manifest, data

    def promoted(self) -> ModelRef | None:
        """The model that serves, or ``None``."""
        found = self.promotion()
        return ModelRef(found["id"], found["version"]) if found else None

    def promotion(self) -> dict[str, Any] | None:
        """The promotion in force: ``id``, ``version``, ``reason``, ``promoted_at``."""
        if not self._exists("promoted.json"):
            return None
        found: dict[str, Any] = json.loads(self._read("promoted.json"))
        return found

    def promote(self, ref: ModelRef, *, reason: str = "by hand") -> None:
        """Let a model serve from now on; readers see the old or the new, never a mixture.

        Raises:
            ModelError: There is no such version, or its file is damaged.
        """
        self.load(ref)
        record = {**asdict(ref), "reason": reason, "promoted_at": _now()}
        self._write("promoted.json", json.dumps(record, indent=2).encode())

    def write_verdict(self, ref: ModelRef, verdict: Mapping[str, Any]) -> None:
        """Keep what the gate said about a version.

        Raises:
            ModelError: There is no such version.
        """
        self.manifest(ref)
        text = json.dumps(dict(verdict), indent=2, allow_nan=False)
        self._write(f"{ref.id}/{ref.version}/verdict.json", text.encode())

    def verdict(self, ref: ModelRef) -> dict[str, Any] | None:
        """What the gate said about a version, if it was asked."""
        path = f"{ref.id}/{ref.version}/verdict.json"
        if not self._exists(path):
            return None
        found: dict[str, Any] = json.loads(self._read(path))
        return found

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}" if name else self._root

    def _exists(self, name: str) -> bool:
        return bool(self._fs.get_file_info(self._path(name)).type == fs.FileType.File)

    def _folders(self, name: str) -> Sequence[str]:
        selector = fs.FileSelector(self._path(name), allow_not_found=True)
        found = self._fs.get_file_info(selector)
        return [info.base_name for info in found if info.type == fs.FileType.Directory]

    def _versions(self, model_id: str) -> Sequence[int]:
        return sorted(int(name) for name in self._folders(model_id) if name.isdecimal())

    def _claim(self, model_id: str, version: int) -> int:
        """Make the folder of the first free version; ``mkdir`` decides who was first."""
        while True:
            try:
                Path(self._path(f"{model_id}/{version}")).mkdir(parents=True)
            except FileExistsError:
                version += 1
            else:
                return version

    def _read(self, name: str) -> bytes:
        try:
            with self._fs.open_input_stream(self._path(name)) as stream:
                return bytes(stream.read())
        except FileNotFoundError as error:
            raise ModelError(f"the registry {self.root_uri} has no {name}") from error

    def _write(self, name: str, data: bytes) -> None:
        """Write a file whole: by rename on disk; a put on S3 is whole by itself."""
        path = self._path(name)
        if self._local:
            Path(path).parent.mkdir(parents=True, exist_ok=True)
        target = f"{path}.{uuid.uuid4().hex}.part" if self._local else path
        with self._fs.open_output_stream(target) as stream:
            stream.write(data)
        if self._local:
            self._fs.move(target, path)


def _s3_arguments(options: Mapping[str, str]) -> dict[str, Any]:
    """Arguments of ``pyarrow.fs.S3FileSystem`` from the lake's storage options."""
    given = {key.lower().removeprefix("aws_"): value for key, value in options.items()}
    endpoint = given.get("endpoint_url") or given.get("endpoint")
    arguments: dict[str, Any] = {}
    if endpoint:
        scheme, _, host = endpoint.rpartition("://")
        arguments |= {"endpoint_override": host, "scheme": scheme or "https"}
    names = {
        "region": "region",
        "access_key_id": "access_key",
        "secret_access_key": "secret_key",
        "session_token": "session_token",
    }
    return arguments | {ours: given[key] for key, ours in names.items() if given.get(key)}


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
