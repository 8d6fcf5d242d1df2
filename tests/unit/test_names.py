from __future__ import annotations

import pytest

from flysync.errors import FlysyncError
from flysync.model.names import project_id, secret_name

#: In parts, so that nobody's scanner takes one for a key.
VALUES = (
    "ghp_" + "a1B2" * 9,
    "github_pat_" + "11ABCDEFG0Z" * 2 + "_" + "q9" * 20,
    "AKIA" + "IOSFODNN7EXAMPLE",
    "fm2_" + "lJPECAAAAAAABCDEFGH",
    "sk_live_" + "51H8abcdEFGH" * 2,
    "eyJ" + "hbGciOiJIUzI1NiJ9",
    "dtn_" + "0123456789abcdef" * 4,
    "hf_" + "a1B2c3D4e5F6g7" * 3,
    "dop_v1_" + "0123456789abcdef" * 4,
    "shpat_" + "0123456789abcdef" * 2,
    "sbp_" + "0123456789" * 4,
)


@pytest.mark.parametrize("value", [*VALUES, "d41d8cd98f00b204e9800998ecf8427e"])
def test_a_value_in_the_place_of_a_name(value: str) -> None:
    """Refused, and not repeated, though Fly would take it for a name."""
    with pytest.raises(FlysyncError, match="looks like a key or a token") as caught:
        secret_name(value)

    assert value not in f"{caught.value} {caught.value.hint}"


@pytest.mark.parametrize(
    "value",
    [
        *VALUES,
        "sk-proj-" + "a1B2c3D4e5F6g7H8",
        "sk-ant-" + "api03-AbCdEf_1234567890abcd",
        "sk-" + "a1B2" * 12,
        "SG." + "a1B2" * 5 + "." + "c3D4" * 10,
        "wJalrXUtnFEMI/" + "K7MDENG/bPxRfiCYEXAMPLEKEY",
        "https://hooks.slack.com/" + "services/T0/B0/x",
        "postgresql://u:p@h/d",
        "-----BEGIN KEY-----\nM",
    ],
)
def test_a_value_in_the_place_of_a_project(value: str) -> None:
    """The same, but for chance: an id may well be made by it."""
    with pytest.raises(FlysyncError, match="looks like a key or a token") as caught:
        project_id(value)

    assert value not in f"{caught.value} {caught.value.hint}"


@pytest.mark.parametrize(
    "name",
    [
        "npm_config_registry_url2",
        "AKIA_PRODUCTION_KEY",
        "github_pat_for_deployments_2024",
        "key_production2024",
        "mongoDbConnectionStringV2",
        "S3_BUCKET_1_2_3_4_5_6",
        "AWS_ACCESS_KEY_ID",
        "A" * 128,
    ],
)
def test_what_is_a_name(name: str) -> None:
    """However long or odd."""
    assert name == secret_name(name)


@pytest.mark.parametrize(
    "project",
    [
        "6f1c0f0a-1c1b-4f5e-9f6b-0a2b3c4d5e6f",
        "clx1a2b3c4d5e6f7g8h9i0",
        "key-account",
        "pk-20251130-0000001",
        "a@b.example",
    ],
)
def test_what_is_a_project(project: str) -> None:
    """Whatever makes the platform's ids."""
    assert project == project_id(project)
