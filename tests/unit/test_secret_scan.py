"""Secrets in clear: found by form and by key, never repeated; and what is none."""

from __future__ import annotations

import string
from pathlib import Path

import pytest
import yaml
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from orchestrator.masking import HIDDEN, masked, masked_line, without_secrets
from orchestrator.secret_scan import (
    SecretSpan,
    entropy,
    is_secret_key,
    scan_text,
    scan_yaml,
)
from tests.unit.builders import deployment

RANDOM = "zQ4mX9bT2kL7vR1nW8cJ5hY3gF6dS0pAqB"  # 34 characters, made up


def body(length: int, alphabet: str = string.ascii_letters + string.digits) -> str:
    """A made-up random text: these tests must not hold what a scanner takes for a real secret."""
    return "".join(alphabet[(index * 37 + index * index * 11 + 5) % len(alphabet)] for index in range(length))


# kind → a secret of this form, put together here so that no scanner finds it in this file
TOKENS = {
    "AWS access key id": "AKIA" + body(16, string.ascii_uppercase + "234567"),
    "GitHub token": "ghp" + "_" + body(36),
    "GitLab token": "glpat" + "-" + body(20),
    "Slack token": "xoxb" + "-1234567890-" + body(24),
    "Stripe key": "sk_" + "live_" + body(24),
    "Google API key": "AI" + "za" + body(35),
    "Google client secret": "GOC" + "SPX-" + body(28),
    "JSON web token": "eyJ" + body(20) + ".eyJ" + body(40) + "." + body(43),
    "Prefect API key": "pn" + "u_" + body(36),
    "Anthropic key": "sk-" + "ant-api03-" + body(60),
    "OpenAI key": "sk-" + "proj-" + body(48),
    "npm token": "npm" + "_" + body(36),
    "PyPI token": "pypi-" + "AgEIcHlwaS5vcmc" + body(80),
    "Hugging Face token": "h" + "f_" + body(34),
    "SendGrid key": "S" + "G." + body(22) + "." + body(43),
    "DigitalOcean token": "dop" + "_v1_" + body(64, "0123456789abcdef"),
    "Docker token": "dckr" + "_pat_" + body(27),
    "Vault token": "hv" + "s." + body(24),
    "Databricks token": "da" + "pi" + body(32, "0123456789abcdef"),
    "private key": "-----BEGIN RSA " + "PRIVATE KEY-----",
}
IN_PLACE = {
    "Slack webhook": ("https://hooks.slack.com/services/", f"T{body(8)}/B{body(8)}/{body(24)}", ""),
    "Azure key": ("DefaultEndpointsProtocol=https;AccountName=shop;AccountKey=", body(86) + "==", ";EndpointSuffix=x"),
    "Azure signature": ("https://shop.blob.core.windows.net/a?sv=1&sig=", body(43), "&se=2"),
    "password in a URL": ("postgresql://etl:", "hunter2", "@db.internal/shop"),
    "authorization header": ("Authorization: Bearer ", body(30), ""),
}


class TestForms:
    @pytest.mark.parametrize("kind", TOKENS)
    @pytest.mark.parametrize(("before", "after"), [("", ""), ("x: ", ""), ('call("', '")'), ("- ", " # ours")])
    def test_tokens(self, kind: str, before: str, after: str) -> None:
        token = TOKENS[kind]
        found = scan_text(f"first line\n{before}{token}{after}\n")
        assert found == (SecretSpan(2, len(before) + 1, len(before) + len(token) + 1, kind),)

    @pytest.mark.parametrize("kind", IN_PLACE)
    def test_what_shows_by_its_place(self, kind: str) -> None:
        before, secret, after = IN_PLACE[kind]
        assert scan_text(before + secret + after) == (
            SecretSpan(1, len(before) + 1, len(before) + len(secret) + 1, kind),
        )

    def test_the_secret_key_beside_an_access_key(self) -> None:
        text = f"aws = {TOKENS['AWS access key id']} {body(40)}"
        assert [span.kind for span in scan_text(text)] == ["AWS access key id", "AWS secret access key"]

    def test_several_in_one_line(self) -> None:
        text = f"{TOKENS['GitHub token']} and {TOKENS['Prefect API key']}"
        assert [span.kind for span in scan_text(text)] == ["GitHub token", "Prefect API key"]


SECRETS = [
    "password: hunter2",
    "DB_PASSWORD: 's3cr3t!'",
    "dbPassword: s3cr3t!",
    f"api_key: {RANDOM}",
    f"api-token: {RANDOM}",
    f"clientSecret: {RANDOM}",
    "aws_secret_access_key: " + body(39) + "/",
    f"- {{name: DB_PASSWORD, value: {RANDOM}}}",
    f"env:\n  - name: API_TOKEN\n    value: {RANDOM}",
    f"env: ['API_TOKEN={RANDOM}']",
    f'settings: \'{{"api_key": "{RANDOM}"}}\'',
    f"run: deploy --token {RANDOM}",
    f"run: deploy --token={RANDOM}",
    f"token: >-\n  {RANDOM}",
    f"tokens:\n  - {RANDOM}",
    f"token: &anchor {RANDOM}\nother: *anchor",
]

NONE = [
    'password: "{{ prefect.blocks.secret.db-password }}"',
    "password: ${DB_PASSWORD}",
    "password: $DB_PASSWORD",
    "password: $(cat /run/secrets/db)",
    "password: '{environment.name}'",
    "password: changeme",
    "password: change-me-1",
    "password: <password>",
    "password: your-password-1",
    "password: xxxxxxxx1",
    "password: '********'",
    "password: example-1A",
    "password: password",
    "password: postgres",
    "password: prod-db-password",
    "password: null",
    "password:",
    "password: 12",
    "password: [a1]",
    "password_file: /run/secrets/db_password1",
    "token_url: https://auth.example.com/oauth2/token1",
    "secret_name: shop-prod-credentials-1",
    "secretKeyRef: {name: shop-db, key: password1}",
    "max_tokens: 4096",
    "token: GITHUB_TOKEN",
    "token: 3600",
    "token: 3d813cbb-47fb-32ba-91df-831e1593ac29",
    "api_key: vault:kv/shop#api_key1",
    "api_key: arn:aws:secretsmanager:eu-west-1:1234567890:secret:shop-AbCdEf",
    "image_pull_secrets: [regcred1]",
    "image: python@sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef",
    "token: sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef",
    "commit: 9fceb02d0ae598e95dc970b74767f19372d61af8",
    "id: 3d813cbb-47fb-32ba-91df-831e1593ac29",
    "logo: data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9Q==",
    "version: 1.2.3rc1+g08acad9",
    "host: db-1.prod.eu-west-1.example.com",
    "path: s3://shop-prod-data-1/2024/01/01/orders.parquet",
    "cron: 0 4 * * 1-5",
    "url: http://127.0.0.1:4270/api",
    "url: git+https://github.com:443/shop/etl.git@v1.2.3",
    "url: postgresql://etl@db.internal:5432/shop",
    "url: postgresql://etl:${PASSWORD}@db.internal/shop",
    "url: postgresql://user:password@localhost/shop",
    "image: docker://busybox:1.36@sha256:0123456789abcdef",
    "email: someone:else@example.com",
    "aws: AKIAIOSFODNN7EXAMPLE",
    "token: ghp_xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx",
    "header: 'Authorization: Bearer ${TOKEN}'",
    "header: 'Authorization: Bearer <token>'",
    "name: sk-learn-pipeline-for-the-daily-forecast-of-sales",
    "run: pip install --require-hashes --secret id=pip_token1,src=/run/x",
    "ENV GPG_KEY=E3FF2839C048B25C084DEBE9B26995E310250568",
    "RUN --mount=type=secret,id=token1 cat /run/secrets/token1",
    "-----BEGIN PUBLIC KEY-----",
    "-----BEGIN CERTIFICATE-----",
    "author: A1b2C3d4E5f6G7h8",
]


class TestKeys:
    @pytest.mark.parametrize("text", SECRETS)
    def test_secrets(self, text: str) -> None:
        (span,) = scan_yaml(text)
        assert is_secret_key(span.key)

    @pytest.mark.parametrize("text", NONE)
    def test_what_is_none(self, text: str) -> None:
        assert scan_yaml(text) == ()
        assert scan_text(text) == ()

    def test_where_it_stands(self) -> None:
        (span,) = scan_yaml("a: 1\npassword: hunter2  # mine\n")
        assert (span.line_number, span.start, span.end, span.key) == (2, 11, 18, "password")

    @pytest.mark.parametrize("key", ["PASSWORD", "db.password", "dbPassword2", "AWS_SECRET_ACCESS_KEY", "accessToken"])
    def test_keys(self, key: str) -> None:
        assert is_secret_key(key)

    @pytest.mark.parametrize(
        "key", ["password_file", "tokenizer", "keyboard", "monkey", "secretary", "author", "compass"]
    )
    def test_other_keys(self, key: str) -> None:
        assert not is_secret_key(key)

    def test_the_lines_of_a_dockerfile(self) -> None:
        lines = [
            f"ENV API_TOKEN {RANDOM}",
            "ARG DB_PASSWORD=hunter2",
            f'LABEL token="{RANDOM}"',
            "RUN x --password=s3cr3t!",
        ]
        text = "\n".join(["FROM a", *lines])
        assert [(span.line_number, span.key) for span in scan_text(text)] == [
            (2, "API_TOKEN"),
            (3, "DB_PASSWORD"),
            (4, "token"),
            (5, "password"),
        ]

    def test_entropy(self) -> None:
        assert entropy("") == 0
        assert entropy("aaaa") == 0
        assert entropy("abcd") == 2


def test_this_repository_has_none() -> None:
    root = Path(__file__).parents[2]
    for path in (*root.glob("*.y*ml"), *root.glob("environments/*.yaml"), root / "pyproject.toml"):
        assert scan_yaml(path.read_text(encoding="utf-8")) == (), path


class TestHostileInput:
    @settings(deadline=None)
    @given(st.text())
    def test_random_text_never_crashes_it(self, text: str) -> None:
        assert scan_text(text) == scan_text(text)
        assert scan_yaml(text) == scan_yaml(text)
        assert masked_line(masked_line(text)) == masked_line(text)
        assert masked("x", masked("x", text)) == masked("x", text)

    @settings(deadline=None)
    @given(st.text("pass:= \"'{}[]\n-&*ghp_AKIA@/", max_size=60))
    def test_neither_does_what_is_nearly_something(self, text: str) -> None:
        assert scan_yaml(text) == scan_yaml(text)
        assert isinstance(masked_line(text, [text]), str)

    @pytest.mark.parametrize(
        "text",
        [
            "[" * 5000,
            "password: " + "a1" * 100_000,
            "token=" * 20_000,
            "://a:" * 20_000,
            "eyJ" + "a" * 50_000,
            "password: 1." + "1" * 4000 + "!",
            "password: " + "a." * 2000 + "!",
            "a: &a [x]\n" + "".join(f"b{n}: &b{n} [*a, *a]\n" for n in range(500)),
        ],
    )
    def test_huge_values(self, text: str) -> None:
        assert scan_yaml(text) == scan_yaml(text)
        assert "a1a1a1" not in masked_line(text)


# ---------------------------------------------------------------------------------------------------------
# Masking
# ---------------------------------------------------------------------------------------------------------

PLANTED = st.text(string.ascii_letters + string.digits + "!%&*+-./=?@^_~,;:()", min_size=8, max_size=40)


def plain(secret: str) -> bool:
    """Does YAML read it back from a plain or quoted scalar as it is, and is it no harmless word?"""
    return not secret.startswith(("$", "*")) and any(letter.isalnum() for letter in secret)


class TestMaskedLine:
    @pytest.mark.parametrize("kind", TOKENS)
    def test_tokens(self, kind: str) -> None:
        line = masked_line(f'call("{TOKENS[kind]}", day=1)')
        assert TOKENS[kind] not in line
        assert line.startswith('call("****')
        assert line.endswith('", day=1)')

    @pytest.mark.parametrize(
        ("line", "shown"),
        [
            ("password: hunter2", "password: *******"),
            ("ENV DB_PASSWORD hunter2", "ENV DB_PASSWORD *******"),
            ("ENV DB_PASSWORD=hunter2", "ENV DB_PASSWORD=*******"),
            ("deploy --token abc", "deploy --token ****"),
            ('def etl(password: str = "x, y", day: str = "z"):', 'def etl(password: ************, day: str = "z"):'),
            ("{name: DB_PASSWORD, value: hunter2, x: 1}", "{name: DB_PASSWORD, value: *******, x: 1}"),
            ('\'{"api_key": "a, b", "day": 1}\'', '\'{"api_key": ******, "day": 1}\''),
            ("postgresql://me:p/w@db.example/shop", "postgresql://me:****@db.example/shop"),
            ("https://abc@github.com/x", "https://****@github.com/x"),
            ('if token == "abcdef":', "if token == *********"),
        ],
    )
    def test_lines(self, line: str, shown: str) -> None:
        assert masked_line(line) == shown

    @pytest.mark.parametrize(
        "line",
        [
            'password: "{{ prefect.blocks.secret.db }}"',
            "password: ${DB_PASSWORD}",
            "def etl(token: str, day: str | None = None) -> None:",
            "def etl(token: str | None = None):",
            "author: me",
            "cron: 0 4 * * *",
            "from orchestrator.secret_scan import tokens_in",
            "image: python:3.11-slim",
            "password:",
            "password: |",
        ],
    )
    def test_what_stays(self, line: str) -> None:
        assert masked_line(line) == line

    def test_what_the_lines_around_say(self) -> None:
        assert masked_line("    value: hunter2", ["  - name: DB_PASSWORD"]) == "    value: *******"
        assert masked_line("    value: hunter2", ["  - name: DB_HOST"]) == "    value: hunter2"
        assert masked_line("  hunter2 two", ["password: |"]) == "  ***********"

    def test_columns_stay_what_they_are(self) -> None:
        line = f"token = '{TOKENS['GitHub token']}'; other = 1"
        assert len(masked_line(line)) == len(line)

    def test_the_inside_of_a_private_key(self) -> None:
        assert body(64) not in masked_line(f"  {body(64)}")

    @settings(deadline=None)
    @given(
        PLANTED,
        st.sampled_from(
            [
                "password: {}",
                'password: "{}"',
                "- token: '{}'",
                "ENV API_KEY={}",
                "ENV PWD {}",
                "x(secret='{}', y=1)",
                "{{name: API_TOKEN, value: '{}'}}",
                '"password" : "{}"',
            ]
        ),
    )
    def test_no_planted_secret_is_ever_shown(self, secret: str, template: str) -> None:
        assume(plain(secret))
        assert secret not in masked_line(template.format(secret))


class TestMaskedValues:
    """What plans show: lists of names and values, and JSON inside of strings."""

    def test_names_and_values(self) -> None:
        env = [{"name": "DB_PASSWORD", "value": "hunter2"}, {"name": "DB_HOST", "value": "db"}]
        assert masked("job_variables.env", env) == [
            {"name": "DB_PASSWORD", "value": HIDDEN},
            {"name": "DB_HOST", "value": "db"},
        ]

    def test_json_in_a_string(self) -> None:
        assert masked("x", '{"password": "hunter2", "day": 1}') == f'{{"password": "{HIDDEN}", "day": 1}}'
        assert masked("x", '[{"name": "API_TOKEN", "value": "t"}]') == f'[{{"name": "API_TOKEN", "value": "{HIDDEN}"}}]'
        assert masked("x", '{"day":1}') == '{"day":1}'
        assert masked("x", "{not json}") == "{not json}"

    def test_tokens_anywhere(self) -> None:
        assert masked("x", f"use {TOKENS['GitHub token']} here") == f"use {HIDDEN} here"

    def test_a_text_that_quotes_them(self) -> None:
        env = [{"name": "DB_PASSWORD", "value": "hunter2"}]
        config = deployment(job_variables={"env": env, "raw": '{"token": "tok-en"}', "auth": '{"a": "whole"}'})
        text = without_secrets("refused: hunter2, tok-en and whole", config)
        assert text == f"refused: {HIDDEN}, {HIDDEN} and {HIDDEN}"


KEYS = st.sampled_from(["password", "DB_PASSWORD", "api_token", "client-secret", "accessKey"])


class TestNothingIsRepeated:
    @settings(deadline=None)
    @given(KEYS, PLANTED, st.sampled_from(['"', "'"]))
    def test_in_spans(self, key: str, secret: str, quote: str) -> None:
        document = yaml.safe_dump({"deployments": [{"name": "x", key: secret}]}, default_style=quote)
        for span in scan_yaml(document):
            assert secret not in repr(span)
