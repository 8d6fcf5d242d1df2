"""Which tables may stand for those of the contract, and what is left for somebody to fill in."""

from __future__ import annotations

import pytest

from flysync.model.shapes import Table, first_of, suggested

TEXT, UUID, TIME, NO_ZONE = "text", "uuid", "timestamp with time zone", "timestamp without time zone"
CREDENTIALS = {"project_id": TEXT, "credential_name": TEXT, "credential_value": TEXT, "updated_at": TIME}
DEPLOYMENTS = {"project_id": TEXT, "fly_app_name": TEXT, "created_at": TIME}
ACTIONS = {"project_id": TEXT, "action": TEXT, "status": TEXT, "details": "jsonb", "created_at": TIME}
SECRETS = Table(schema="public", name="secrets", columns={"project": TEXT, "key": TEXT, "value": TEXT})


def table(name: str, columns: dict[str, str], schema: str = "public") -> Table:
    """Give a table."""
    return Table(schema=schema, name=name, columns=columns)


def views(*tables: Table) -> str:
    """Give the SQL that is suggested, in one line per statement."""
    found = suggested(tables, path=["public"])
    return "" if found is None else str(found.sql)


def lines(*tables: Table) -> list[str]:
    """Give the columns of the views, and what they select from."""
    return [line.strip().rstrip(",") for line in views(*tables).splitlines() if line[:4] in {"    ", "FROM"}]


def test_names_in_camel_case_and_ids_that_are_uuids() -> None:
    """As an ORM writes them: found, cast, and with what has to be looked at."""
    user = table("User", {"id": UUID, "name": TEXT, "email": TEXT})
    project = table("Project", {"id": UUID, "name": TEXT, "flyAppName": TEXT, "createdAt": NO_ZONE})
    columns = {"id": UUID, "projectId": UUID, "name": TEXT, "value": TEXT, "updatedAt": TIME, "deletedAt": TIME}

    assert [
        '"projectId"::text AS project_id',
        '"name" AS credential_name',
        '"value" AS credential_value',
        '"updatedAt" AS updated_at',
        'FROM "public"."Credential"',
        '"id"::text AS project_id',
        '"flyAppName" AS fly_app_name',
        "\"createdAt\" AT TIME ZONE 'UTC' AS created_at  -- if it is kept in UTC",
        'FROM "public"."Project";',
    ] == lines(user, project, table("Credential", columns))
    assert '\n-- WHERE "deletedAt" IS NULL?\n;\n' in views(user, project, table("Credential", columns))
    gone = views(user, project, table("Credential", columns | {"deletedAt": "boolean"}))
    assert '\n-- WHERE NOT "deletedAt"?\n;\n' in gone


def test_what_may_be_one_of_several_is_left_open() -> None:
    """Neither is taken; so is a value that is encrypted, and a time that no column has is said to be none."""
    keys = table("api_keys", {"project_id": UUID, "name": TEXT, "key": TEXT, "encrypted_value": "bytea", "iv": "bytea"})
    releases = table("releases", {"project": "bigint", "app": TEXT, "app_name": TEXT, "built": "bigint"})
    text = lines(keys, releases)

    assert '… AS credential_name,  -- "name" or "key"?' in text
    assert any('… AS credential_value,  -- "encrypted_value" or "iv": encrypted?' in line for line in text)
    assert '… AS fly_app_name,  -- "app_name" or "app"?' in text
    assert "NULL::timestamptz AS updated_at" in text
    assert "NULL::timestamptz AS created_at  -- nothing tells it: only right where a project has one row" in text
    assert '"project"::text AS project_id' in text


@pytest.mark.parametrize(
    ("column", "kind", "line"),
    [
        ("credential_value", "bytea", '… AS credential_value,  -- "credential_value" is bytea: encrypted?'),
        ("credential_name", "citext", '"credential_name" AS credential_name'),
        ("credential_name", "public.citext", '"credential_name" AS credential_name'),
        ("project_id", "citext", '"project_id"::text AS project_id'),
        ("updated_at", "bigint", '… AS updated_at  -- "updated_at" is bigint'),
    ],
)
def test_a_type_is_cast_or_left_open(column: str, kind: str, line: str) -> None:
    """As the contract has it."""
    text = lines(table("credentials", CREDENTIALS | {column: kind}))

    assert [one for one in text if one.startswith(line)]


def test_of_what_is_not_found_nothing_is_filled_in() -> None:
    """A place for the table and for each column; and Postgres refuses it as it is."""
    text = views(SECRETS)

    assert "    … AS project_id,\n    … AS fly_app_name,\n    … AS created_at\nFROM …;" in text
    assert text.startswith("CREATE SCHEMA IF NOT EXISTS flysync;\n")
    assert text.endswith("-- `flysync db init` makes project_actions there")


def test_a_table_of_the_right_name_with_other_columns() -> None:
    """It comes before others that look like it."""
    mine = table("cloud_credentials", {"projectId": UUID, "name": TEXT, "value": TEXT})

    assert 'FROM "public"."cloud_credentials";' in lines(SECRETS, mine)


def test_tables_that_fit_need_no_view() -> None:
    """Nor do those that lack what no column has; beside one that needs a view, they get one as they are."""
    fitting = [table("project_deployments", DEPLOYMENTS), table("project_actions", ACTIONS)]
    credentials = table("cloud_credentials", CREDENTIALS)
    without = table("cloud_credentials", {name: kind for name, kind in CREDENTIALS.items() if name != "updated_at"})

    assert ["", "", ""] == [views(*fitting, one) for one in (credentials, without, table("users", {"name": TEXT}))]
    text = views(*fitting, table("cloud_credentials", CREDENTIALS | {"project_id": UUID}))
    assert 'CREATE VIEW flysync.project_actions AS SELECT\n    "project_id" AS project_id,' in text


def test_tables_in_another_schema() -> None:
    """The setting is all that is needed, where both are there and fit."""
    there = [table("cloud_credentials", CREDENTIALS, "app"), table("project_deployments", DEPLOYMENTS, "app")]
    found = suggested([SECRETS, *there], path=["public"])
    half = suggested(there[:1], path=["public"])

    assert found is not None
    assert ("app", None, ["cloud_credentials", "project_deployments"]) == (found.schema, found.sql, [*found.tables])
    assert half is not None
    here = [table("cloud_credentials", CREDENTIALS), table("project_deployments", DEPLOYMENTS)]
    assert "" == views(*there, *here), "a copy is none of their business"
    assert 'FROM "app"."cloud_credentials";' in str(half.sql)
    assert "" == views(table("cloud_credentials", {"project_id": UUID, "value": TEXT}, "flysync")), "a view of itself"


def test_nothing_is_suggested_where_nothing_is_alike() -> None:
    """Many tables have a project and a name."""
    assert "" == views(table("orders", {"project_id": TEXT, "name": TEXT}), table("users", {"id": UUID, "value": TEXT}))
    assert "" == views()


def test_names_are_quoted() -> None:
    """Whatever is in them."""
    odd = table('a"b secret', {'project"_id': TEXT, "project_id": TEXT, "name": TEXT})

    assert 'FROM "public"."a""b secret";' in lines(odd)


def test_the_first_of_many_are_named() -> None:
    """And that there are more."""
    assert ["", "a, b", "a, b, c, d, e, …"] == [first_of(names) for names in ([], ["a", "b"], [*"abcdef"])]
