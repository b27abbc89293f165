"""Names of images are read as Docker reads them."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.errors import ConfigurationError
from orchestrator.images.names import DOCKER_HUB, ImageName, is_digest, parse_image, registry_host

SHA256 = "sha256:" + "f" * 64
SHA512 = "sha512:" + "f" * 128
HEX_64 = "1a3f5e7d9c1b3a5f7e9d1c3b5a7f9e1d3c5b7a9f1e3d5d7c9b1a3f5e7d9c1b3a"

# From normalize_test.go and reference_test.go of github.com/distribution/reference: what is written, registry, path,
# and how it is written in short.
DOCKERS_NAMES = [
    ("fooo/bar", DOCKER_HUB, "fooo/bar", "fooo/bar"),
    ("docker.io/fooo/bar", DOCKER_HUB, "fooo/bar", "fooo/bar"),
    ("index.docker.io/fooo/bar", DOCKER_HUB, "fooo/bar", "fooo/bar"),
    ("ubuntu", DOCKER_HUB, "library/ubuntu", "ubuntu"),
    ("library/ubuntu", DOCKER_HUB, "library/ubuntu", "ubuntu"),
    ("docker.io/library/ubuntu", DOCKER_HUB, "library/ubuntu", "ubuntu"),
    ("docker.io/ubuntu", DOCKER_HUB, "library/ubuntu", "ubuntu"),
    ("index.docker.io/ubuntu", DOCKER_HUB, "library/ubuntu", "ubuntu"),
    ("index.docker.io/library/ubuntu-12.04-base", DOCKER_HUB, "library/ubuntu-12.04-base", "ubuntu-12.04-base"),
    ("nonlibrary/ubuntu", DOCKER_HUB, "nonlibrary/ubuntu", "nonlibrary/ubuntu"),
    ("other/library", DOCKER_HUB, "other/library", "other/library"),
    ("library/foo/bar", DOCKER_HUB, "library/foo/bar", "library/foo/bar"),
    ("docker.io/library/foo/bar", DOCKER_HUB, "library/foo/bar", "library/foo/bar"),
    ("store/foo/bar", DOCKER_HUB, "store/foo/bar", "store/foo/bar"),
    ("127.0.0.1:8000/private/moonbase", "127.0.0.1:8000", "private/moonbase", "127.0.0.1:8000/private/moonbase"),
    ("127.0.0.1:8000/privatebase", "127.0.0.1:8000", "privatebase", "127.0.0.1:8000/privatebase"),
    ("192.168.0.1", DOCKER_HUB, "library/192.168.0.1", "192.168.0.1"),
    ("192.168.0.1:8/debian", "192.168.0.1:8", "debian", "192.168.0.1:8/debian"),
    ("example.com/privatebase", "example.com", "privatebase", "example.com/privatebase"),
    ("example.com:8000/privatebasee", "example.com:8000", "privatebasee", "example.com:8000/privatebasee"),
    ("test_com/foo", DOCKER_HUB, "test_com/foo", "test_com/foo"),
    ("test-com:8080/foo", "test-com:8080", "foo", "test-com:8080/foo"),
    ("xn--n3h.com:18080/foo", "xn--n3h.com:18080", "foo", "xn--n3h.com:18080/foo"),
    ("localhost/foo", "localhost", "foo", "localhost/foo"),
    ("b.gcr.io/test.example.com/my-app", "b.gcr.io", "test.example.com/my-app", "b.gcr.io/test.example.com/my-app"),
    ("[fc00::1]:5000/docker", "[fc00::1]:5000", "docker", "[fc00::1]:5000/docker"),
    ("[2001:db8::1]/repo", "[2001:db8::1]", "repo", "[2001:db8::1]/repo"),
    ("Foo/bar", "Foo", "bar", "Foo/bar"),  # no path has capital letters, so it is a host
    ("docker---rules/docker", DOCKER_HUB, "docker---rules/docker", "docker---rules/docker"),
    ("dock__er/docker", DOCKER_HUB, "dock__er/docker", "dock__er/docker"),
    ("d/docker", DOCKER_HUB, "d/docker", "d/docker"),
]
DOCKERS_TAGS = [
    ("test.com:tag", "library/test.com", "tag", ""),
    ("test.com:5000", "library/test.com", "5000", ""),
    ("test.com/repo:tag", "repo", "tag", ""),
    ("test:5000/repo:tag", "repo", "tag", ""),
    (f"test:5000/repo@{SHA256}", "repo", "", SHA256),
    (f"test:5000/repo:tag@{SHA256}", "repo", "tag", SHA256),
    ("lowercase:Uppercase", "library/lowercase", "Uppercase", ""),
    ("foo/foo_bar.com:8080", "foo/foo_bar.com", "8080", ""),
    ("192.168.1.1:5000/repo:5050", "repo", "5050", ""),
    (f"xn--7o8h.com/myimage:xn--7o8h.com@{SHA512}", "myimage", "xn--7o8h.com", SHA512),
    ("a/" * 127 + "a:tag-puts-this-over-max", "a/" * 127 + "a", "tag-puts-this-over-max", ""),
]
DOCKERS_FAULTS = [
    "https://github.com/docker/docker",
    "docker/Docker",
    "-docker",
    "-docker/docker",
    "-docker.io/docker/docker",
    "docker///docker",
    "docker.io/docker/Docker",
    "docker.io/docker///docker",
    "[fc00::1]",
    "[fc00::1]:5000",
    "fc00::1:5000/debian",
    "[fe80::1%eth0]:5000/debian",
    "[2001:db8:3:4::192.0.2.33]:5000/debian",
    HEX_64,
    "docker-/docker",
    "____/____",
    "_docker/_docker",
    "dock..er/docker",
    "dock_.er/docker",
    "dock-.er/docker",
    "docker/",
    "",
    ":justtag",
    f"@{SHA256}",
    "repo@sha256:ffffffffffffffffffffffffffffffffff",
    "validname@invaliddigest:" + "f" * 128,
    "Uppercase:tag",
    "test:5000/Uppercase/lowercase:tag",
    "a/" * 128 + "a:tag",
    "aa/asdf$$^/aa",
    "[2001:db8::1]:tag",
]


@pytest.mark.parametrize(("written", "registry", "path", "familiar"), DOCKERS_NAMES)
def test_dockers_examples_of_names(written: str, registry: str, path: str, familiar: str) -> None:
    name = parse_image(written)
    assert name == ImageName(registry=registry, path=path)
    assert name.familiar == name.repository == familiar


@pytest.mark.parametrize(("written", "path", "tag", "digest"), DOCKERS_TAGS)
def test_dockers_examples_of_tags_and_digests(written: str, path: str, tag: str, digest: str) -> None:
    name = parse_image(written)
    assert (name.path, name.tag, name.digest) == (path, tag, digest)
    assert name.familiar == written


@pytest.mark.parametrize("written", DOCKERS_FAULTS)
def test_dockers_examples_of_what_is_no_name(written: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        parse_image(written)
    assert caught.value.remedy


@pytest.mark.parametrize(
    ("written", "reason", "remedy"),
    [
        ("", "empty", "REPOSITORY:TAG"),
        ("shop etl", "blanks", "Take them out"),
        ("python\n", "blanks", "Take them out"),
        ("https://registry.example.com/etl", "address", "https://"),
        ("Shop:1", "capital letters", "in small letters: shop."),
        ("shop/ETL:1", "capital letters", "in small letters: shop/etl."),
        (HEX_64, "id of an image", "REPOSITORY@sha256"),
        ("shop_.example.com/etl", "no host", "HOST:PORT"),
        ("shop/etl@sha256:abc", "no digest", "64 hexadecimal digits"),
        ("shop/etl@", "no digest", "64 hexadecimal digits"),
        ("shop/etl:", "no tag", "128 letters"),
        ("shop/etl:ä", "no tag", "128 letters"),
        ("a/" * 128 + "a", "longer than 255", "Shorten"),
        ("shop..etl", "single dots", "REPOSITORY:TAG"),
    ],
)
def test_the_error_says_what_is_wrong_and_what_to_do(written: str, reason: str, remedy: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        parse_image(written)
    assert reason in caught.value.message
    assert remedy in caught.value.remedy


def test_an_address_with_a_password_is_not_quoted_with_it() -> None:
    with pytest.raises(ConfigurationError) as caught:
        parse_image("https://ada:open-sesame@registry.example.com/etl")
    assert "open-sesame" not in str(caught.value)


def test_what_docker_would_shorten_to_something_else_keeps_its_registry() -> None:
    assert parse_image("docker.io/shop.example/etl").familiar == "docker.io/shop.example/etl"
    assert parse_image(f"docker.io/{HEX_64}").familiar == f"docker.io/{HEX_64}"


def test_what_a_registry_is_asked_for() -> None:
    assert parse_image("python").reference == "latest"
    assert parse_image("python:3.11").reference == "3.11"
    assert parse_image(f"python:3.11@{SHA256}").reference == SHA256


@pytest.mark.parametrize(
    ("address", "registry"),
    [
        ("https://index.docker.io/v1/", DOCKER_HUB),
        ("index.docker.io", DOCKER_HUB),
        ("docker.io", DOCKER_HUB),
        ("http://localhost:5000/v2/", "localhost:5000"),
        ("registry.example.com/team", "registry.example.com"),
    ],
)
def test_addresses_of_registries(address: str, registry: str) -> None:
    assert registry_host(address) == registry


@pytest.mark.parametrize(
    "text", ["sha256:", "sha256:" + "F" * 64, "sha256:" + "f" * 63, "md5:" + "f" * 32, SHA256 + "\n"]
)
def test_what_is_no_digest(text: str) -> None:
    assert not is_digest(text)


PATH_PARTS = st.from_regex(r"[a-z0-9]{1,4}(?:(?:\.|_|__|-{1,3})[a-z0-9]{1,3}){0,2}", fullmatch=True)
HOSTS = st.from_regex(
    r"(?:localhost|[a-zA-Z0-9]{1,5}(?:\.[a-z0-9]{1,4}){1,3}|\[[a-f0-9]{0,4}::[a-f0-9]{1,4}\]|[A-Z][a-z]{0,4})(?::[0-9]{1,5})?",
    fullmatch=True,
)
NAMES = st.builds(
    lambda registry, parts, tag, digest: ImageName(
        registry=registry,
        path="/".join(parts) if registry != DOCKER_HUB or len(parts) > 1 else f"library/{parts[0]}",
        tag=tag,
        digest=digest,
    ),
    st.just(DOCKER_HUB) | HOSTS.filter(lambda host: host != "index.docker.io"),
    st.lists(PATH_PARTS, min_size=1, max_size=4),
    st.just("") | st.from_regex(re.compile(r"\w[\w.-]{0,20}", re.ASCII), fullmatch=True),
    st.sampled_from(["", SHA256, SHA512]),
)


@given(NAMES)
def test_what_is_written_is_read_back(name: ImageName) -> None:
    assert parse_image(name.familiar) == name


@given(st.text(alphabet="aB1./:@-_[] ä\n", max_size=20) | st.text(max_size=20))
def test_any_text_is_a_name_or_a_fault_with_a_remedy(text: str) -> None:
    try:
        name = parse_image(text)
    except ConfigurationError as error:
        assert error.remedy
    else:
        assert parse_image(name.familiar) == name
