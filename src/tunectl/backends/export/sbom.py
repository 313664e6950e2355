"""The bill of materials of a Bento (CycloneDX 1.6, JSON): its release, each Python package of its lock, and the base image."""

from __future__ import annotations

import re
import uuid
from typing import Any, Final

from tunectl import __version__
from tunectl.core.distribution import DISTRIBUTION
from tunectl.registry import release_manifest
from tunectl.registry.release_manifest import ReleaseManifest

NAME: Final = "sbom.cdx.json"
_REQUIREMENT: Final = re.compile(r"^([\w.-]+)(?:\[[\w,-]+\])?(==([\w.!+]+)|[<>=!~][^;\s]*)?", re.MULTILINE)
_BASE_IMAGE: Final = re.compile(r"^\s*base_image:\s*\"?([^\s\"]+)", re.MULTILINE)


def build_sbom(manifest: ReleaseManifest, requirements: str, bentofile: str) -> dict[str, Any]:
    """Return the bill of materials of a Bento as a CycloneDX 1.6 document; equal inputs give an equal document.

    Args:
        manifest: The release that it carries.
        requirements: What it installs: lines of a lock, and torch's range.
        bentofile: The text of ``bentofile.yaml``, which names the base image.
    """
    packages = [_describe_package(*match.groups()) for match in _REQUIREMENT.finditer(requirements)]
    image = _BASE_IMAGE.search(bentofile)
    own = {"type": "application", "name": DISTRIBUTION, "version": __version__, "bom-ref": DISTRIBUTION}
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_OID, manifest.id + requirements)}",
        "version": 1,
        "metadata": {
            "timestamp": manifest.created_at,
            "tools": {"components": [{"type": "application", "name": DISTRIBUTION, "version": __version__}]},
            "component": {
                "type": "application",
                "name": manifest.project,
                "version": manifest.id,
                "bom-ref": f"bento-{manifest.id}",
            },
        },
        "components": [
            _describe_release(manifest),
            own,
            *([_describe_image(image[1])] if image else []),
            *(package for number, package in enumerate(packages) if package not in packages[:number]),
        ],
    }


def _describe_release(manifest: ReleaseManifest) -> dict[str, Any]:
    return {
        "type": "machine-learning-model",
        "name": manifest.project,
        "version": manifest.id,
        "bom-ref": f"release-{manifest.id}",
        "hashes": [{"alg": "SHA-256", "content": release_manifest.content_digest(manifest.files)}],
        "properties": [
            {"name": "tunectl:engine", "value": manifest.engine},
            {"name": "tunectl:layout", "value": manifest.layout},
        ],
    }


def _describe_package(name: str, text: str | None, version: str | None) -> dict[str, Any]:
    purl = f"pkg:pypi/{name.lower().replace('_', '-')}" + (f"@{version}" if version else "")
    component: dict[str, Any] = {"type": "library", "name": name, "bom-ref": purl, "purl": purl}
    if version:
        return {**component, "version": version}
    return {**component, "properties": [{"name": "tunectl:range", "value": text or "any"}]}


def _describe_image(reference: str) -> dict[str, Any]:
    """Describe ``python:3.13-slim``, or the same with ``@sha256:...`` behind it."""
    tagged, _, digest = reference.partition("@")
    name, _, tag = tagged.partition(":")
    image = name.rpartition("/")[2]
    purl = f"pkg:oci/{image}@{digest.replace(':', '%3A')}?tag={tag}" if digest else f"pkg:oci/{image}?tag={tag}"
    return {"type": "container", "name": name, "version": digest or tag, "bom-ref": purl, "purl": purl}
