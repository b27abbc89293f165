"""What registries answer, read."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.images.registry_answers import (
    Challenge,
    challenge_in,
    config_digest,
    digest_for,
    document_in,
    has_digest,
    is_manifest,
    labels_in,
    manifest_for,
    token_in,
)

A, B, C = (digest_for(name.encode()) for name in "abc")


class TestChallenges:
    @pytest.mark.parametrize(
        ("headers", "expected"),
        [
            # https://distribution.github.io/distribution/spec/auth/token/
            (
                [
                    'Bearer realm="https://auth.docker.io/token",service="registry.docker.io",'
                    'scope="repository:samalba/my-app:pull,push"'
                ],
                Challenge(
                    scheme="bearer",
                    realm="https://auth.docker.io/token",
                    service="registry.docker.io",
                    scope="repository:samalba/my-app:pull,push",
                ),
            ),
            (['Basic realm="shop"'], Challenge(scheme="basic", realm="shop")),
            (["Basic"], Challenge(scheme="basic")),
            (["bearer Realm=a, SERVICE = b"], Challenge(scheme="bearer", realm="a", service="b")),
            (['Bearer realm="a \\"b\\", c"'], Challenge(scheme="bearer", realm='a "b", c')),
            (['Bearer realm="a",error="invalid_token"'], Challenge(scheme="bearer", realm="a")),
            (['Basic realm="a", Bearer realm="b"'], Challenge(scheme="bearer", realm="b")),
            (['Basic realm="a"', 'Bearer realm="b"'], Challenge(scheme="bearer", realm="b")),
            (['Negotiate, Basic realm="a"'], Challenge(scheme="basic", realm="a")),
            (["Negotiate"], None),
            ([""], None),
            ([], None),
        ],
    )
    def test_the_one_that_we_can_meet(self, headers: list[str], expected: Challenge | None) -> None:
        assert challenge_in(headers) == expected

    @given(st.text(alphabet='Bearer Basic="\\,; \t', max_size=40))
    def test_any_header_is_read(self, header: str) -> None:
        challenge = challenge_in([header])
        assert challenge is None or challenge.scheme in ("bearer", "basic")


class TestTokens:
    @pytest.mark.parametrize(
        "body", ['{"token": "abc"}', '{"access_token": "abc"}', '{"token": "abc", "expires_in": 3}']
    )
    def test_by_either_name(self, body: str) -> None:
        assert token_in(body.encode()) == "abc"

    @pytest.mark.parametrize("body", ["", "[]", "null", "{}", '{"token": 1}', '{"token": "a b"}', '{"token": "a\\n"}'])
    def test_none(self, body: str) -> None:
        assert token_in(body.encode()) is None


class TestDigests:
    @pytest.mark.parametrize("algorithm", ["sha256", "sha384", "sha512"])
    def test_of_a_content(self, algorithm: str) -> None:
        assert has_digest(b"content", digest_for(b"content", algorithm))
        assert not has_digest(b"other", digest_for(b"content", algorithm))

    @pytest.mark.parametrize("digest", ["", "md5:9a0364b9e99bb480dd25e1f0284c8555", "sha256:", "content"])
    def test_what_is_none(self, digest: str) -> None:
        assert not has_digest(b"content", digest)


def listed(digest: str, system: str = "", architecture: str = "", variant: str = "", **more: Any) -> dict[str, Any]:
    platform = {"os": system, "architecture": architecture, **({"variant": variant} if variant else {})}
    return {"digest": digest, **({"platform": platform} if system else {}), **more}


class TestManifests:
    @pytest.mark.parametrize(
        ("platform", "expected"),
        [
            ("", A),
            ("linux/amd64", A),
            ("linux/arm64", B),
            ("linux/arm64/v8", B),
            ("Linux/aarch64", B),
            ("linux/arm", C),
            ("linux/arm/v7", C),
            ("linux/arm/v6", A),
            ("linux", A),
            ("windows/amd64", A),
        ],
    )
    def test_for_a_platform_or_the_first(self, platform: str, expected: str) -> None:
        manifests = [
            listed(A, "linux", "amd64"),
            listed(B, "linux", "arm64", "v8"),
            listed(C, "linux", "arm", "v7"),
        ]
        assert manifest_for({"manifests": manifests}, platform) == expected

    def test_attestations_are_no_images(self) -> None:
        marked = {"vnd.docker.reference.type": "attestation-manifest"}
        manifests = [listed(A, "unknown", "unknown"), listed(B, "linux", "amd64", annotations=marked), listed(C)]
        assert manifest_for({"manifests": manifests}, "linux/amd64") == C
        assert manifest_for({"manifests": manifests[:2]}) is None

    @pytest.mark.parametrize("broken", [None, "text", {}, {"digest": 1}, {"digest": "sha256:1"}, {"digest": ""}])
    def test_what_is_broken_is_passed_over(self, broken: Any) -> None:
        assert manifest_for({"manifests": [broken, listed(A)]}) == A
        assert manifest_for({"manifests": [broken, listed(A, annotations=5, platform=[])]}) == A
        assert config_digest({"config": broken}) is None

    def test_what_is_one(self) -> None:
        assert is_manifest({"schemaVersion": 2, "manifests": []})
        assert is_manifest({"schemaVersion": 2, "config": {"digest": A}})
        assert not is_manifest({"schemaVersion": 1, "config": {"digest": A}})
        assert not is_manifest({"errors": [{"code": "DENIED"}]})

    @pytest.mark.parametrize(
        ("configuration", "expected"),
        [
            ({"config": {"Labels": {"a": "b"}}}, {"a": "b"}),
            ({"config": {"Labels": None}}, {}),
            ({"config": {}}, {}),
            ({"config": None}, {}),
            ({"config": {"Labels": ["a"]}}, {}),
            ({}, {}),  # as artifacts have it that are no images
        ],
    )
    def test_labels(self, configuration: dict[str, Any], expected: dict[str, str]) -> None:
        assert labels_in(configuration) == expected

    @given(
        st.recursive(
            st.none() | st.integers() | st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)
        )
    )
    def test_only_objects_are_documents(self, value: Any) -> None:
        assert document_in(json.dumps(value).encode()) == (value if isinstance(value, dict) else None)
