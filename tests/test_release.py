"""A release: its version in every place, and files of GitHub and Docker that name what exists."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from commands import check

import swinv2_backbone

ROOT = Path(__file__).resolve().parent.parent
VERSION = swinv2_backbone.__version__
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
FORMS = [ROOT / ".github" / "ISSUE_TEMPLATE" / f"{name}.yml" for name in ("bug", "feature")]


def read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def steps(workflow: Path) -> list[str]:
    content = yaml.safe_load(workflow.read_text(encoding="utf-8"))
    jobs: list[dict[str, Any]] = list(content["jobs"].values())
    return [step["run"] for job in jobs for step in job["steps"] if "run" in step]


def test_the_version_is_the_same_in_citation_and_changelog():
    citation = yaml.safe_load(read("CITATION.cff"))
    first = re.search(r"^## (\S+) - (\S+)$", read("CHANGELOG.md"), re.M)
    assert (citation["version"], citation["date-released"]) == first.groups()
    assert citation["version"] == VERSION
    assert f"version = {{{VERSION}}}" in read("docs/CITING.md")


def test_the_paper_is_cited_alike_in_both_forms():
    (paper,) = yaml.safe_load(read("CITATION.cff"))["references"]
    bibtex = " ".join(read("docs/CITING.md").split())
    names = [f"{one['family-names']}, {one['given-names']}" for one in paper["authors"]]
    assert f"author = {{{' and '.join(names)}}}" in bibtex
    assert paper["title"] in bibtex and paper["url"] in bibtex


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda path: path.stem)
def test_workflows_run_targets_and_files_that_exist(workflow):
    targets = set(re.findall(r"^([\w-]+):", read("Makefile"), re.M))
    for line in steps(workflow):
        assert set(re.findall(r"\bmake ([\w-]+)", line)) <= targets
        assert all((ROOT / path).exists() for path in re.findall(r"\b(?:tests|tools)/\S+", line))
    assert {"make lint", "make env", "make test", "python -m build"} <= set(steps(WORKFLOWS[0]))


def test_every_python_of_the_classifiers_is_tested():
    content = yaml.safe_load(WORKFLOWS[0].read_text(encoding="utf-8"))
    low, high = map(int, re.search(r"range\((\d+), (\d+)\)", read("setup.py")).groups())
    tested = content["jobs"]["tests"]["strategy"]["matrix"]["python"]
    assert tested == [f"3.{minor}" for minor in range(low, high)]
    assert f'python_requires=">=3.{low}"' in read("setup.py")


@pytest.mark.parametrize("form", FORMS, ids=lambda path: path.stem)
def test_issue_forms_have_unique_ids_and_what_github_requires(form):
    content = yaml.safe_load(form.read_text(encoding="utf-8"))
    ids = [field["id"] for field in content["body"]]
    assert len(ids) == len(set(ids)) and {"name", "description", "body"} <= content.keys()
    assert all(field["attributes"]["label"] for field in content["body"])


def test_a_bug_report_asks_for_the_output_of_info():
    fields = {field["id"]: field for field in yaml.safe_load(read(FORMS[0]))["body"]}
    assert "swinv2 info" in fields["info"]["attributes"]["label"]
    assert fields["info"]["validations"]["required"]


def test_the_dockerfile_installs_extras_that_exist_from_files_that_exist():
    extras = re.findall(r'^        "([\w]+)": ', read("setup.py"), re.M)
    (used,) = re.findall(r'"\.\[(.+)\]"', read("Dockerfile"))
    assert set(used.split(",")) <= set(extras)
    for name in re.findall(r"^COPY (\S+) |python (tools/\S+)", read("Dockerfile"), re.M):
        assert (ROOT / "".join(name)).exists()


def test_the_scripts_for_slurm_have_options_and_keys_that_exist(monkeypatch):
    monkeypatch.chdir(ROOT)
    script = re.sub(r'"[^"]*\$[^"]*"', "2", read("docs/SLURM.md").replace("\\\n", " "))
    found = re.findall(r"srun.* swinv2 train (\w+) ([^'\n]+)", script)
    assert len(found) == 2
    for recipe, rest in found:
        config = ["--config-file", f"configs/{recipe}.yaml"]
        check(["tools/train_net.py", *config, *rest.split()])
