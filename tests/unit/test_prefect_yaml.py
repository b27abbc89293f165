"""prefect.yaml files: the schema of `prefect deploy`, read strictly."""

from __future__ import annotations

from pathlib import Path
from textwrap import dedent, indent
from typing import Any

import pytest

from orchestrator.errors import ConfigurationError, Fault
from orchestrator.model import Declaration, ScheduleConfig, ValidationError
from orchestrator.prefect_yaml import read_declarations
from tests.unit.builders import places, write_files

ANYWHERE = ("prefect.yaml",)
SET_DIRECTORY = "prefect.deployments.steps.set_working_directory"
OWN_PULL = "  - {name: b, entrypoint: b.py:b, pull: {own: {}}}\n"


def read(root: Path, files: dict[str, str]) -> tuple[Declaration, ...]:
    return read_declarations(write_files(root, files), ANYWHERE)[0]


def entry(root: Path, text: str = "") -> Declaration:
    """The one deployment of a prefect.yaml that says `text` beside name and entrypoint."""
    (found,) = read(root, {"prefect.yaml": file_with(text)})
    return found


def file_with(text: str) -> str:
    """Lines 1 to 3 are the beginning of one deployment; `text` starts at line 4."""
    start = "deployments:\n  - name: daily\n    entrypoint: flows/etl.py:etl\n"
    return start + indent(dedent(text).lstrip("\n"), "    ")


def faults(root: Path, text: str, **others: str) -> tuple[Fault, ...]:
    with pytest.raises(ConfigurationError) as caught:
        read(root, {"prefect.yaml": text, **others})
    return caught.value.faults


def warnings(root: Path, text: str) -> tuple[ValidationError, ...]:
    return read_declarations(write_files(root, {"prefect.yaml": text}), ANYWHERE)[1]


class TestWholeSchema:
    TEXT = """
        prefect-version: 3.8.8
        name: shop
        pull:
          - prefect.deployments.steps.git_clone: {repository: https://example.com/shop.git}
        deployments:
          - name: daily
            version: 1.5
            version_type: prefect:simple
            tags: [a, b]
            description: Loads the shop.
            schedules:
              - cron: 0 4 * * *
                timezone: Europe/Berlin
                day_or: false
                active: false
                parameters: {full: true}
                slug: nightly
                replaces: weekly
            paused: true
            concurrency_limit: {limit: 2, collision_strategy: CANCEL_NEW, grace_period_seconds: 60}
            flow_name: etl
            entrypoint: flows/etl.py:etl
            parameters: {rows: 5}
            enforce_parameter_schema: false
            work_pool: {name: big, work_queue_name: fast, job_variables: {env: {A: "1"}}}
    """

    def test_all_of_it_arrives(self, tmp_path: Path) -> None:
        (found,) = read(tmp_path, {"prefect.yaml": self.TEXT})
        nightly: dict[str, Any] = {"day_or": False, "active": False, "parameters": {"full": True}, "slug": "nightly"}
        assert found == Declaration(
            name="daily",
            file_path="prefect.yaml",
            line_number=6,
            folder=".",
            entrypoint="flows/etl.py:etl",
            flow_name="etl",
            description="Loads the shop.",
            version="1.5",
            tags=("a", "b"),
            parameters={"rows": 5},
            work_pool="big",
            work_queue="fast",
            job_variables={"env": {"A": "1"}},
            schedules=(ScheduleConfig(cron="0 4 * * *", timezone="Europe/Berlin", **nightly),),
            paused=True,
            concurrency_limit=2,
            concurrency_options={"collision_strategy": "CANCEL_NEW", "grace_period_seconds": 60},
            enforce_parameter_schema=False,
            pull_steps=({"prefect.deployments.steps.git_clone": {"repository": "https://example.com/shop.git"}},),
        )

    def test_silence_is_kept_apart_from_a_choice(self, tmp_path: Path) -> None:
        found = entry(tmp_path)
        assert (found.paused, found.pull_steps, found.work_pool, found.enforce_parameter_schema) == (None,) * 4

    def test_what_prefect_init_writes_empty_is_read_as_nothing(self, tmp_path: Path) -> None:
        text = "tags: []\nschedule: {}\nparameters: {}\npull: {}\nwork_pool: {name: null, job_variables: {}}"
        assert entry(tmp_path, text) == entry(tmp_path)

    @pytest.mark.parametrize("text", ["", "deployments:", "deployments: []", "name: shop"])
    def test_a_file_without_deployments(self, tmp_path: Path, text: str) -> None:
        assert read(tmp_path, {"prefect.yaml": text}) == ()


class TestSchedules:
    def schedule(self, root: Path, text: str) -> ScheduleConfig:
        (found,) = entry(root, f"schedules:\n  - {{{text}}}").schedules
        return found

    def test_cron(self, tmp_path: Path) -> None:
        assert self.schedule(tmp_path, "cron: 0 4 * * *") == ScheduleConfig(cron="0 4 * * *")

    def test_rrule(self, tmp_path: Path) -> None:
        assert self.schedule(tmp_path, "rrule: FREQ=DAILY") == ScheduleConfig(rrule="FREQ=DAILY", timezone="UTC")

    @pytest.mark.parametrize("written", ["90", "90.0", "'00:01:30'", "PT1M30S"])
    def test_forms_of_an_interval(self, tmp_path: Path, written: str) -> None:
        assert self.schedule(tmp_path, f"interval: {written}") == ScheduleConfig(interval=90, timezone="UTC")

    def test_one_schedule_may_stand_alone(self, tmp_path: Path) -> None:
        assert entry(tmp_path, "schedule: {cron: 0 4 * * *}").schedules == (ScheduleConfig(cron="0 4 * * *"),)

    @pytest.mark.parametrize("others", ["[{cron: 1 * * * *}]", "[]", "null"])
    def test_schedule_and_schedules_are_one_too_many(self, tmp_path: Path, others: str) -> None:
        (fault,) = faults(tmp_path, file_with(f"schedule: {{interval: 5}}\nschedules: {others}"))
        assert places((fault,)) == [("CFG003", "prefect.yaml:2")]
        assert "both `schedule` and `schedules`" in fault.message

    def test_an_rrule_as_json_may_bring_its_time_zone(self, tmp_path: Path) -> None:
        found = self.schedule(tmp_path, """rrule: '{"rrule": "FREQ=DAILY", "timezone": "Asia/Tokyo"}'""")
        assert found == ScheduleConfig(rrule="FREQ=DAILY", timezone="Asia/Tokyo")

    def test_the_time_zone_beside_it_counts(self, tmp_path: Path) -> None:
        found = self.schedule(tmp_path, """rrule: '{"rrule": "FREQ=DAILY", "timezone": "Asia/Tokyo"}', timezone: UTC""")
        assert found == ScheduleConfig(rrule="FREQ=DAILY", timezone="UTC")

    @pytest.mark.parametrize("written", ["{}", '{"rrule": 1}', '{"rrule": null}'])
    def test_json_without_a_rule(self, tmp_path: Path, written: str) -> None:
        (fault,) = faults(tmp_path, file_with(f"schedules:\n  - rrule: '{written}'"))
        assert places((fault,)) == [("CFG003", "prefect.yaml:5")]
        assert "a text under `rrule`" in fault.message

    def test_the_slug_that_it_had_before(self, tmp_path: Path) -> None:
        found = self.schedule(tmp_path, "cron: 0 4 * * *, slug: nightly, replaces: daily")
        assert (found.slug, found.replaces) == ("nightly", "daily")

    @pytest.mark.parametrize(("written", "value"), [("'no'", False), ("'true'", True), ("0", False), ("null", True)])
    def test_switches_in_all_forms_that_prefect_takes(self, tmp_path: Path, written: str, value: bool) -> None:
        found = self.schedule(tmp_path, f"cron: 0 4 * * *, active: {written}, day_or: {written}")
        assert (found.active, found.day_or) == (value, value)

    def test_a_switch_may_be_a_placeholder(self, tmp_path: Path) -> None:
        text = "cron: 0 4 * * *, active: '{{ prefect.variables.on }}', anchor_date: '{{ $SINCE }}'"
        found = self.schedule(tmp_path, text)
        assert (found.placeholders, found.anchor_date) == ({"active": "{{ prefect.variables.on }}"}, "{{ $SINCE }}")

    def test_a_switch_that_is_none(self, tmp_path: Path) -> None:
        (fault,) = faults(tmp_path, file_with("schedules:\n  - cron: 0 4 * * *\n    active: perhaps"))
        assert places((fault,)) == [("CFG003", "prefect.yaml:6")]
        assert "must be true or false" in fault.message

    @pytest.mark.parametrize("rule", ["{slug: a}", "{cron: 1 * * * *, interval: 5}", "{interval: 0}", "{interval: x}"])
    def test_not_exactly_one_good_rule(self, tmp_path: Path, rule: str) -> None:
        found = faults(tmp_path, file_with(f"schedules:\n  - {rule}"))
        assert places(found) == [("CFG003", "prefect.yaml:5")]


class TestForms:
    def test_a_concurrency_limit_as_a_number(self, tmp_path: Path) -> None:
        found = entry(tmp_path, "concurrency_limit: 3")
        assert (found.concurrency_limit, found.concurrency_options) == (3, {})

    @pytest.mark.parametrize("written", ["0", "-1", "many", "1.5"])
    def test_a_concurrency_limit_that_is_none(self, tmp_path: Path, written: str) -> None:
        found = faults(tmp_path, file_with(f"concurrency_limit: {written}"))
        assert places(found) == [("CFG003", "prefect.yaml:4")]

    def test_a_misspelt_key_of_a_concurrency_limit(self, tmp_path: Path) -> None:
        (fault,) = faults(tmp_path, file_with("concurrency_limit:\n  limit: 1\n  colision_strategy: ENQUEUE"))
        assert places((fault,)) == [("CFG002", "prefect.yaml:6")]
        assert fault.remediation.startswith("Did you mean 'collision_strategy'?")

    def test_one_tag_may_stand_alone(self, tmp_path: Path) -> None:
        assert entry(tmp_path, "tags: etl").tags == ("etl",)

    def test_tags_are_made_text_and_blank_ones_dropped(self, tmp_path: Path) -> None:
        assert entry(tmp_path, "tags: [2024, true, '', ' ', a]").tags == ("2024", "True", "a")

    def test_a_tag_that_is_none(self, tmp_path: Path) -> None:
        assert places(faults(tmp_path, file_with("tags: [{a: b}]"))) == [("CFG003", "prefect.yaml:4")]

    def test_numbers_and_switches_may_be_quoted(self, tmp_path: Path) -> None:
        found = entry(tmp_path, "concurrency_limit: '3'\npaused: 'yes'\nenforce_parameter_schema: 'off'")
        assert (found.concurrency_limit, found.paused, found.enforce_parameter_schema) == (3, True, False)

    def test_triggers(self, tmp_path: Path) -> None:
        assert entry(tmp_path, "triggers: [{expect: [a]}]").triggers == ({"expect": ["a"]},)

    @pytest.mark.parametrize(
        ("build", "pull"),
        [
            ("{dockerfile: auto}", ({SET_DIRECTORY: {"directory": "/opt/prefect/shop"}},)),
            ("{dockerfile: Dockerfile}", ()),
            ("{}", None),
        ],
    )
    def test_where_a_built_image_has_its_code(self, tmp_path: Path, build: str, pull: object) -> None:
        step = f"prefect_docker.deployments.steps.build_docker_image: {build}"
        assert entry(tmp_path / "shop", f"build: [{step}]").pull_steps == pull
        root = tmp_path / "other" / "shop"
        common, own = read(root, {"prefect.yaml": f"build: [{step}]\n" + file_with("") + "\n" + OWN_PULL})
        assert (common.pull_steps, own.pull_steps) == (pull, ({"own": {}},))

    @pytest.mark.parametrize(
        ("flow", "folder", "code"),
        [("flows/etl.py", ".", "/opt/prefect/shop"), ("jobs/flows/etl.py", "jobs", "/opt/prefect/jobs")],
    )
    def test_the_image_that_prefect_writes_holds_the_folder_in_which_it_is_built(
        self, tmp_path: Path, flow: str, folder: str, code: str
    ) -> None:
        text = file_with("build: [prefect_docker.deployments.steps.build_docker_image: {dockerfile: auto}]")
        (found,) = read(tmp_path / "shop", {"jobs/prefect.yaml": text, flow: ""})
        assert (found.folder, found.pull_steps) == (folder, ({SET_DIRECTORY: {"directory": code}},))

    def test_one_pull_step_may_stand_alone(self, tmp_path: Path) -> None:
        assert entry(tmp_path, "pull: {step: {id: a}}").pull_steps == ({"step": {"id": "a"}},)

    def test_a_deployments_own_pull_wins(self, tmp_path: Path) -> None:
        text = "pull: [{common: {}}]\n" + file_with("pull: [{own: {}}]") + "\n  - {name: b, entrypoint: b.py:b}"
        own, common = read(tmp_path, {"prefect.yaml": text})
        assert (own.pull_steps, common.pull_steps) == (({"own": {}},), ({"common": {}},))

    def test_a_flow_name_does_without_an_entrypoint(self, tmp_path: Path) -> None:
        (found,) = read(tmp_path, {"prefect.yaml": "deployments: [{name: a, flow_name: etl}]"})
        assert (found.flow_name, found.entrypoint) == ("etl", None)


class TestEnvironment:
    TEXT = """
        deployments:
          - name: "{{ $PLACE }}-daily"
            entrypoint: "{{ $FILE }}:etl"
            work_pool: {name: "{{ $PLACE }}"}
            description: In {{ $PLACE }}
          - {name: b, flow_name: "{{ PLACE }}"}
    """

    def test_fills_what_names_things(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("PLACE", "vienna")
        monkeypatch.setenv("FILE", "flows/etl.py")
        one, two = read(tmp_path, {"prefect.yaml": self.TEXT})
        assert (one.name, one.entrypoint, one.work_pool) == ("vienna-daily", "flows/etl.py:etl", "vienna")
        assert two.flow_name == "vienna"
        assert one.description == "In {{ $PLACE }}"  # the rest is filled with what the server has

    def test_what_is_not_set_stays(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        for name in ("PLACE", "FILE"):
            monkeypatch.delenv(name, raising=False)
        one, _ = read(tmp_path, {"prefect.yaml": self.TEXT})
        assert (one.name, one.entrypoint) == ("{{ $PLACE }}-daily", "{{ $FILE }}:etl")

    def test_an_entrypoint_stays_as_it_is_written(self, tmp_path: Path) -> None:
        (found,) = read(tmp_path, {"prefect.yaml": "deployments: [{name: a, entrypoint: ./flows/etl.py:etl}]"})
        assert (found.entrypoint, found.written_entrypoint) == ("flows/etl.py:etl", "./flows/etl.py:etl")


class TestAnchors:
    TEXT = """
        definitions:
          common: &common
            tags: [shared]
            work_pool: {name: big}
        deployments:
          - <<: *common
            name: one
            entrypoint: a.py:a
          - <<: *common
            name: two
            entrypoint: a.py:a
            tags: [own]
    """

    def test_keys_are_merged_and_overridden(self, tmp_path: Path) -> None:
        one, two = read(tmp_path, {"prefect.yaml": self.TEXT})
        assert [(each.work_pool, each.tags) for each in (one, two)] == [("big", ("shared",)), ("big", ("own",))]

    def test_deployments_have_their_own_lines(self, tmp_path: Path) -> None:
        assert [each.line_number for each in read(tmp_path, {"prefect.yaml": self.TEXT})] == [6, 9]

    def test_a_fault_in_an_anchor_is_where_the_anchor_stands(self, tmp_path: Path) -> None:
        found = faults(tmp_path, self.TEXT.replace("[shared]", "5"))
        assert places(found) == [("CFG003", "prefect.yaml:3")]

    def test_a_fault_in_an_overriding_key_is_where_that_key_stands(self, tmp_path: Path) -> None:
        found = faults(tmp_path, self.TEXT.replace("[own]", "5"))
        assert places(found) == [("CFG003", "prefect.yaml:12")]


class TestFaults:
    def test_a_misspelt_key(self, tmp_path: Path) -> None:
        (fault,) = faults(tmp_path, file_with("shcedules:\n  - cron: 0 4 * * *"))
        assert places((fault,)) == [("CFG002", "prefect.yaml:4")]
        assert fault.remediation.startswith("Did you mean 'schedules'?")

    @pytest.mark.parametrize(
        ("text", "line", "nearest"),
        [
            ("work_pool:\n  nmae: x", 5, "name"),
            ("schedules:\n  - cron: 0 4 * * *\n    timezon: UTC", 6, "timezone"),
            ("schedule:\n  crn: 0 4 * * *\n  cron: 0 4 * * *", 5, "cron"),
        ],
    )
    def test_a_misspelt_key_further_in(self, tmp_path: Path, text: str, line: int, nearest: str) -> None:
        (fault,) = faults(tmp_path, file_with(text))
        assert places((fault,)) == [("CFG002", f"prefect.yaml:{line}")]
        assert fault.remediation.startswith(f"Did you mean {nearest!r}?")

    def test_a_misspelt_key_at_the_top(self, tmp_path: Path) -> None:
        (fault,) = faults(tmp_path, "prefect_verson: 3\n")
        assert places((fault,)) == [("CFG002", "prefect.yaml:1")]
        assert fault.remediation.startswith("Did you mean 'prefect-version'?")

    def test_neither_entrypoint_nor_flow_name(self, tmp_path: Path) -> None:
        (fault,) = faults(tmp_path, "deployments:\n  - name: a\n    tags: [x]\n")
        assert places((fault,)) == [("CFG003", "prefect.yaml:2")]
        assert "an entrypoint (path/to/file.py:function) or a flow_name" in fault.message

    @pytest.mark.parametrize("text", ["paused: perhaps", "parameters: [a]", "description: [a]", "work_pool: big"])
    def test_a_wrong_type(self, tmp_path: Path, text: str) -> None:
        assert places(faults(tmp_path, file_with(text))) == [("CFG003", "prefect.yaml:4")]

    def test_a_deployment_goes_by_its_name(self, tmp_path: Path) -> None:
        (fault,) = faults(tmp_path, file_with("parameters: [a]"))
        assert fault.message == "deployments[daily].parameters: must be a mapping, not a list."

    def test_one_without_a_name_by_its_number(self, tmp_path: Path) -> None:
        (fault,) = faults(tmp_path, file_with("") + "\n  - {entrypoint: b.py:b}")
        assert fault.message == "deployments[2].name: it is missing."

    @pytest.mark.parametrize("key", ["x-common", ".common"])
    def test_anchors_have_a_place_at_the_top(self, tmp_path: Path, key: str) -> None:
        assert warnings(tmp_path, f"{key}: &a {{tags: [x]}}\n" + file_with("<<: *a")) == ()

    def test_a_file_that_is_no_mapping(self, tmp_path: Path) -> None:
        assert places(faults(tmp_path, "- a\n")) == [("CFG003", "prefect.yaml:1")]

    def test_a_date_that_does_not_exist(self, tmp_path: Path) -> None:
        text = "schedules:\n  - interval: 60\n    anchor_date: 2024-13-45"
        assert places(faults(tmp_path, file_with(text))) == [("CFG001", "prefect.yaml:6")]

    def test_those_of_several_files_come_together(self, tmp_path: Path) -> None:
        files = {"a/prefect.yaml": "deployments: [", "b/prefect.yaml": "nme: x", "c/prefect.yaml": file_with("")}
        assert places(faults(tmp_path, "", **files)) == [("CFG001", "a/prefect.yaml:1"), ("CFG002", "b/prefect.yaml:1")]

    def test_what_is_not_carried_out_is_said(self, tmp_path: Path) -> None:
        (warning,) = warnings(tmp_path, file_with("sla:\n  - a: {}"))
        assert places((warning,)) == [("CFG006", "prefect.yaml:4")]
        assert (warning.severity, "sla" in warning.message) == ("warning", True)

    def test_steps_are_carried_out(self, tmp_path: Path) -> None:
        assert warnings(tmp_path, "build: [{a: {}}]\n" + file_with("push:\n  - b: {}")) == ()

    def test_empty_sections_are_not_worth_a_word(self, tmp_path: Path) -> None:
        assert warnings(tmp_path, "build: null\npush: []\n" + file_with("triggers: []")) == ()


class TestPlaces:
    def test_entrypoints_start_at_the_files_folder(self, tmp_path: Path) -> None:
        (found,) = read(tmp_path, {"jobs/prefect.yaml": file_with(""), "jobs/flows/etl.py": ""})
        assert (found.folder, found.entrypoint) == ("jobs", "jobs/flows/etl.py:etl")

    def test_or_at_the_root_where_only_that_exists(self, tmp_path: Path) -> None:
        (found,) = read(tmp_path, {"jobs/prefect.yaml": file_with(""), "flows/etl.py": ""})
        assert (found.folder, found.entrypoint) == (".", "flows/etl.py:etl")

    def test_the_files_folder_goes_first(self, tmp_path: Path) -> None:
        files = {"jobs/prefect.yaml": file_with(""), "jobs/flows/etl.py": "", "flows/etl.py": ""}
        assert read(tmp_path, files)[0].entrypoint == "jobs/flows/etl.py:etl"

    def test_a_module_path_stays(self, tmp_path: Path) -> None:
        (found,) = read(tmp_path, {"jobs/prefect.yaml": "deployments: [{name: a, entrypoint: shop.etl.main}]"})
        assert found.entrypoint == "shop.etl.main"

    def test_several_files_in_the_order_of_their_paths(self, tmp_path: Path) -> None:
        files = {f"{folder}prefect.yaml": file_with("") for folder in ("b/", "", "a/deep/")}
        assert [each.file_path for each in read(tmp_path, files)] == [
            "a/deep/prefect.yaml",
            "b/prefect.yaml",
            "prefect.yaml",
        ]

    @pytest.mark.parametrize("folder", [".hidden", "node_modules", "venv"])
    def test_foreign_folders_are_skipped(self, tmp_path: Path, folder: str) -> None:
        files = {f"{folder}/lib/prefect.yaml": "broken: [", "venv/pyvenv.cfg": "", "prefect.yaml": file_with("")}
        assert len(read(tmp_path, files)) == 1

    def test_patterns_choose_the_files(self, tmp_path: Path) -> None:
        write_files(tmp_path, {"prefect.yaml": "x: [", "jobs/prefect.yaml": "x: [", "jobs/nightly.yaml": file_with("")})
        (found,) = read_declarations(tmp_path, ["/jobs/*.yaml", "!prefect.yaml"])[0]
        assert found.file_path == "jobs/nightly.yaml"


class TestLines:
    """A declaration knows where each of its values is written."""

    TEXT = """
        parameters:
          rows: 5
          tables:
            - a
            - b
        schedules:
          - slug: one
            cron: 1 4 * * *
          - {cron: 2 4 * * *, parameters: {rows: 6}}
    """

    @pytest.mark.parametrize(
        ("place", "line"),
        [
            ((), 2),
            (("name",), 2),
            (("entrypoint",), 3),
            (("parameters", "rows"), 5),
            (("parameters", "tables", 1), 8),
            (("schedules", 0, "cron"), 11),
            (("schedules", 1, "parameters", "rows"), 12),
            (("parameters", "unknown"), 4),
            (("unknown", 5), 2),
        ],
    )
    def test_by_place(self, tmp_path: Path, place: tuple[str | int, ...], line: int) -> None:
        found = entry(tmp_path, self.TEXT)
        assert found.line(*place) == line
        assert [each.cron for each in found.schedules] == ["1 4 * * *", "2 4 * * *"]

    def test_of_a_schedule_that_stands_alone(self, tmp_path: Path) -> None:
        assert entry(tmp_path, "schedule:\n  cron: 0 4 * * *").line("schedules", 0, "cron") == 5

    def test_an_empty_schedule_does_not_count(self, tmp_path: Path) -> None:
        found = entry(tmp_path, "schedule: {}\nschedules:\n  - cron: 0 4 * * *")
        assert found.line("schedules", 0, "cron") == 6

    def test_what_an_anchor_gives_is_where_the_anchor_stands(self, tmp_path: Path) -> None:
        one, two = read(tmp_path, {"prefect.yaml": TestAnchors.TEXT})
        assert (one.line("tags"), two.line("tags")) == (3, 12)
        assert one.line("work_pool", "name") == two.line("work_pool", "name") == 4

    def test_several_deployments_keep_theirs(self, tmp_path: Path) -> None:
        text = "deployments:\n" + "".join(
            f"  - name: n{number}\n    entrypoint: a.py:a\n    parameters: {{a: 1}}\n" for number in range(3)
        )
        found = read(tmp_path, {"prefect.yaml": text})
        assert [each.line("parameters", "a") for each in found] == [4, 7, 10]

    def test_lines_are_no_part_of_what_a_declaration_says(self, tmp_path: Path) -> None:
        assert entry(tmp_path, "\n\ntags: [a]") == entry(tmp_path, "tags: [a]")


class TestTemplateOfPrefect:
    """What `prefect init` writes (prefect/deployments/templates) before anybody has filled it in."""

    BLANK = """\
deployments:
- name: {name}
  version: null
  tags: []
  description: null
  schedule: {{}}
  flow_name: null
  entrypoint: {entrypoint}
  parameters: {{}}
  work_pool:
    name: null
    work_queue_name: null
    job_variables: {{}}
"""

    def test_what_nobody_filled_in_is_left_out_as_prefect_does(self, tmp_path: Path) -> None:
        text = self.BLANK.format(name="null", entrypoint="null")
        text += "- name: daily\n  entrypoint: flows/etl.py:etl\n"
        (only,) = read(tmp_path, {"prefect.yaml": text})
        assert only.name == "daily"
        (warning,) = warnings(tmp_path, text)
        assert places((warning,)) == [("CFG006", "prefect.yaml:2")]
        assert "no name" in warning.message

    def test_a_deployment_without_a_name_is_a_fault(self, tmp_path: Path) -> None:
        (fault,) = faults(tmp_path, self.BLANK.format(name="null", entrypoint="flows/etl.py:etl"))
        assert "the deployment has no name yet" in fault.message
        assert fault.remediation == "Write one under `name`."

    def test_nulls_say_nothing(self, tmp_path: Path) -> None:
        found = read(tmp_path, {"prefect.yaml": self.BLANK.format(name="daily", entrypoint="flows/etl.py:etl")})
        assert [(each.version, each.schedules, each.work_pool) for each in found] == [(None, (), None)]


class TestAliases:
    def test_are_not_expanded_beyond_measure(self, tmp_path: Path) -> None:
        lines = [f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}, *a{n - 1}, *a{n - 1}]" for n in range(1, 40)]
        (fault,) = faults(tmp_path, "\n".join(["a0: &a0 [1]", *lines, "deployments: []"]))
        assert fault.code == "CFG001"
        assert "aliases expand to more than 100000 values" in fault.message

    def test_nor_are_merged_ones(self, tmp_path: Path) -> None:
        lines = [f"a{n}: &a{n} {{<<: [*a{n - 1}, *a{n - 1}, *a{n - 1}, *a{n - 1}]}}" for n in range(1, 40)]
        (fault,) = faults(tmp_path, "\n".join(["a0: &a0 {x: 1}", *lines]))
        assert fault.code == "CFG001"

    def test_of_itself(self, tmp_path: Path) -> None:
        (fault,) = faults(tmp_path, "definitions: &a [1, *a]\n")
        assert (fault.code, fault.line_number) == ("CFG001", 1)
        assert "an alias stands in what it names" in fault.message

    def test_a_long_file_without_any_is_read(self, tmp_path: Path) -> None:
        many = ", ".join("x" for _ in range(100_001))
        assert read(tmp_path, {"prefect.yaml": f"definitions: [{many}]\ndeployments: []\n"}) == ()
