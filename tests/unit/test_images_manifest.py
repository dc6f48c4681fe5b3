from __future__ import annotations

import json
from typing import Any

import pytest

from cellwall.runtime.errors import ImageError, UnsupportedError
from cellwall.runtime.images.digest import Digest
from cellwall.runtime.images.image import read_config
from cellwall.runtime.images.manifest import (
    DOCKER_CONFIG,
    DOCKER_LAYER,
    DOCKER_MANIFEST,
    OCI_INDEX,
    OCI_MANIFEST,
    Index,
    Manifest,
    read_manifest,
    read_manifest_or_index,
)
from cellwall.runtime.images.platforms import Platform

from ..registries import make_image, make_index, tar_of

TAR = tar_of({"a": b"1"})
IMAGE = make_image([TAR, tar_of({"b": b"2"})])


def changed(**fields: Any) -> bytes:
    return json.dumps({**json.loads(IMAGE.manifest), **fields}).encode()


def test_an_oci_manifest_stays_as_it_is() -> None:
    manifest = read_manifest_or_index(IMAGE.manifest, OCI_MANIFEST, "here")
    assert isinstance(manifest, Manifest)
    assert manifest.digest == IMAGE.digest
    assert [layer.digest for layer in manifest.layers] == IMAGE.layers
    assert manifest.as_oci() is manifest


@pytest.mark.parametrize("compression", ["gzip", "none", "zstd"])
def test_schema_2_becomes_oci_with_the_same_content(compression: str) -> None:
    image = make_image([TAR], compression=compression, media_types=(DOCKER_MANIFEST, DOCKER_CONFIG, DOCKER_LAYER))
    manifest = read_manifest_or_index(image.manifest, DOCKER_MANIFEST, "here")
    assert isinstance(manifest, Manifest)
    oci = manifest.as_oci()
    assert oci.media_type == OCI_MANIFEST and oci.digest != manifest.digest
    assert oci.config.digest == image.config_digest
    suffix = {"gzip": "+gzip", "none": "", "zstd": "+zstd"}[compression]
    assert [layer.media_type for layer in oci.layers] == [f"application/vnd.oci.image.layer.v1.tar{suffix}"]
    assert json.loads(oci.raw)["mediaType"] == OCI_MANIFEST


@pytest.mark.parametrize(
    ("raw", "media_type", "said"),
    [
        (b"<!DOCTYPE html><html></html>", "application/json", "HTML"),
        (b"", OCI_MANIFEST, "isn't JSON"),
        (b"[]", OCI_MANIFEST, "object was due"),
        (b"[" * 100_000, OCI_MANIFEST, "isn't JSON"),
        (b"{}", OCI_MANIFEST, "neither"),
        (changed(layers="x"), OCI_MANIFEST, "neither"),
        (changed(layers=[5]), OCI_MANIFEST, "descriptor"),
        (
            changed(layers=[{"mediaType": "x", "size": -1, "digest": IMAGE.digest}]),
            OCI_MANIFEST,
            "needs mediaType and size",
        ),
        (
            changed(layers=[{"mediaType": "x", "size": True, "digest": IMAGE.digest}]),
            OCI_MANIFEST,
            "needs mediaType and size",
        ),
        (changed(layers=[{"mediaType": "x", "size": 1, "digest": "sha256:../../x"}]), OCI_MANIFEST, "digest"),
        (changed(manifests=[]), OCI_MANIFEST, "ambiguous"),
        (IMAGE.manifest, OCI_INDEX, "served as"),
        (json.dumps({"manifests": {}}).encode(), OCI_INDEX, "without manifests"),
    ],
)
def test_nonsense_is_refused(raw: bytes, media_type: str, said: str) -> None:
    with pytest.raises(ImageError, match=said):
        read_manifest_or_index(raw, media_type, "here")


def test_a_config_too_large_to_hold_is_refused() -> None:
    config = {**json.loads(IMAGE.manifest)["config"], "size": 1 << 40}
    with pytest.raises(ImageError, match="limit"):
        read_manifest(changed(config=config), OCI_MANIFEST)


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        (json.dumps({"schemaVersion": 1, "fsLayers": []}).encode(), "schema 1"),
        (changed(config={"mediaType": "application/vnd.helm", "digest": IMAGE.digest, "size": 2}), "artifact"),
        (
            changed(
                layers=[
                    {
                        "mediaType": "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
                        "digest": IMAGE.digest,
                        "size": 2,
                    }
                ]
            ),
            "redistributed",
        ),
        (changed(layers=[{"mediaType": "application/x-lzip", "digest": IMAGE.digest, "size": 2}]), "x-lzip"),
    ],
)
def test_what_can_t_be_run_says_so(raw: bytes, said: str) -> None:
    with pytest.raises(UnsupportedError, match=said):
        read_manifest_or_index(raw, "", "here")


def test_an_index_selects_by_platform_and_passes_over_attestations() -> None:
    arm = make_image([TAR], architecture="arm64")
    raw = make_index({"unknown/unknown": IMAGE, "linux/amd64": IMAGE, "linux/arm64/v8": arm})
    index = read_manifest_or_index(raw, OCI_INDEX, "here")
    assert isinstance(index, Index)
    chosen = index.select(Platform.parse("linux/arm64"))
    assert chosen is not None and chosen.digest == arm.digest
    assert index.select(Platform.parse("linux/s390x")) is None
    assert [str(platform) for platform in index.platforms()] == ["linux/amd64", "linux/arm64"]


def test_a_config_must_fit_its_manifest() -> None:
    manifest = read_manifest(IMAGE.manifest, OCI_MANIFEST)
    config, layers = read_config(IMAGE.config, manifest, "x")
    assert config["architecture"] == "amd64"
    assert [layer.created_by for layer in layers] == ["layer 0", "layer 1"]
    assert layers[0].chain_id == layers[0].diff_id == Digest.of(TAR)
    for broken in (
        {},
        {"rootfs": {"diff_ids": ["sha256:1", "sha256:2"]}},
        {"rootfs": {"diff_ids": [layers[0].diff_id]}},
        {**config, "config": 5},
    ):
        with pytest.raises(ImageError, match="config of x"):
            read_config(json.dumps(broken).encode(), manifest, "x")


def test_a_history_that_doesn_t_fit_is_left_out() -> None:
    manifest = read_manifest(IMAGE.manifest, OCI_MANIFEST)
    document = json.loads(IMAGE.config)
    document["history"] = [{"created_by": "FROM"}, {"created_by": "ENV", "empty_layer": True}, {"created_by": "RUN"}]
    _, layers = read_config(json.dumps(document).encode(), manifest, "x")
    assert [layer.created_by for layer in layers] == ["FROM", "RUN"]
    document["history"].append({"created_by": "one too many"})
    _, layers = read_config(json.dumps(document).encode(), manifest, "x")
    assert [layer.created_by for layer in layers] == ["", ""]
