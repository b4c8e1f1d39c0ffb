"""What runs on GitHub: nothing that may change, and no more rights than a job needs."""
import re

import pytest
import yaml
from conftest import ROOT

FOLDER = ROOT / ".github" / "workflows"
# `on` is a truth value in YAML 1.1, so the parser gives it as True.
WORKFLOWS = {path.stem: yaml.safe_load(path.read_text(encoding="utf-8"))
             for path in sorted(FOLDER.glob("*.yml"))}
JOBS = [(name, job) for name, flow in WORKFLOWS.items() for job in flow["jobs"]]
each_job = pytest.mark.parametrize(("workflow", "job"), JOBS)
WRITES = {  # the jobs that may write anything, and what
    ("docs", "deploy"): {"pages": "write", "id-token": "write"},
    ("release", "weights"): {"contents": "write"},
    ("release", "publish"): {"id-token": "write"},
}
# A value of an expression that a stranger chooses would be run as code.
OURS = re.compile(r"github\.token|matrix\.\w+|steps\.\w+\.outputs\.\w+")


def steps(workflow, job): return WORKFLOWS[workflow]["jobs"][job].get("steps", [])


def needs(workflow, job):
    "The jobs that have to succeed before this one, near and far."
    near = WORKFLOWS[workflow]["jobs"][job].get("needs", [])
    near = [near] if isinstance(near, str) else near
    return {*near}.union(*(needs(workflow, one) for one in near))


@each_job
def test_actions_are_pinned_by_commit_and_say_their_version(workflow, job):
    text = (FOLDER / f"{workflow}.yml").read_text(encoding="utf-8")
    for step in steps(workflow, job):
        if "uses" not in step: continue
        assert re.fullmatch(r"[\w.-]+(/[\w.-]+)+@[0-9a-f]{40}", step["uses"]), step
        version = re.escape(step["uses"]) + r" # v\d+(\.\d+)*$"
        assert re.search(version, text, re.M), step


def test_an_action_is_pinned_to_one_commit_everywhere():
    pins = {}
    for workflow, job in JOBS:
        for step in steps(workflow, job):
            if "uses" not in step: continue
            action, commit = step["uses"].split("@")
            assert pins.setdefault(action, commit) == commit, (workflow, action)


@pytest.mark.parametrize("workflow", WORKFLOWS)
def test_a_workflow_reads_and_no_stranger_starts_it_with_secrets(workflow):
    flow = WORKFLOWS[workflow]
    assert flow["permissions"] == {"contents": "read"}
    strangers = {"pull_request_target", "workflow_run", "issue_comment"}
    assert not strangers & set(flow[True])


@each_job
def test_a_job_has_no_more_rights_than_it_needs(workflow, job):
    rights = WORKFLOWS[workflow]["jobs"][job].get("permissions", {})
    assert rights == WRITES.get((workflow, job), {})


@each_job
def test_a_job_ends_and_runs_nothing_that_others_write(workflow, job):
    found = WORKFLOWS[workflow]["jobs"][job]
    assert "uses" in found or found["timeout-minutes"] <= 90
    for step in steps(workflow, job):
        assert "${{" not in step.get("run", ""), "hand it over in env"
        for expression in re.findall(r"\$\{\{\s*(.*?)\s*\}\}", str(step)):
            assert OURS.fullmatch(expression), expression
        assert "secrets" not in str(step), "there is no token to keep"


def test_a_release_is_tested_before_anything_leaves_the_house():
    for job in ("build", "weights", "publish"):
        assert "test" in needs("release", job)
    tested = WORKFLOWS["release"]["jobs"]["test"]
    assert tested["uses"] == "./.github/workflows/test.yml"
    assert "workflow_call" in WORKFLOWS["test"][True]
    assert {"build", "weights"} <= needs("release", "publish")
    *_, last = steps("release", "publish")
    assert last["uses"].startswith("pypa/gh-action-pypi-publish@")
    assert "with" not in last


@pytest.mark.parametrize(("workflow", "job"), WRITES)
def test_a_job_that_publishes_runs_no_code_of_others(workflow, job):
    "Neither pip nor make: what they would run could use the job's rights."
    others = r"\b(pip|make|npm|curl|wget|pytest)\b"
    for step in steps(workflow, job): assert not re.search(others, step.get("run", ""))


@each_job
def test_files_that_a_job_names_are_there(workflow, job):
    for step in steps(workflow, job):
        run = step.get("run", "")
        files = re.findall(r"(?<![\w./-])(?:\.ci|nbs)/[\w./]+", run)
        if "cd tests" in run: files += [f"tests/{name}" for name in run.split()
                                        if name.endswith(".py")]
        if "cache-dependency-path" in (asked := step.get("with") or {}):
            files.append(asked["cache-dependency-path"])
        for file in files: assert (ROOT / file).exists(), file
        for target in re.findall(r"^make (\w+)", run, re.M):
            makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
            assert re.search(rf"^{target}:", makefile, re.M), target
