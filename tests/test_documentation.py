"""What the documentation shows runs, and what it lists is all there is."""

import dataclasses
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import pympi_train
from pympi_train import cli
from pympi_train.config import config
from pympi_train.pool.jobfile.plan import read_plan
from pympi_train.pool.jobfile.tables import JobTable

ROOT = Path(__file__).parents[1]
PAGES = sorted((ROOT / "docs").glob("*.md"))


def blocks(page, language):
    """The code blocks of a page in one language."""
    fence = rf"^```{language}\n(.*?)^```$"
    text = page.read_text(encoding="utf-8")
    return re.findall(fence, text, flags=re.MULTILINE | re.DOTALL)


def having(language):
    """The pages that have such blocks."""
    found = [page for page in PAGES if blocks(page, language)]
    assert found
    return pytest.mark.parametrize("page", found, ids=lambda page: page.stem)


def run(argv, folder):
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, *argv],
        cwd=folder,
        env=env,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with the digits, and a short run on them in runs/digits."""
    folder = tmp_path_factory.mktemp("documentation")
    for name in ("digits.npz", "digits.toml"):
        shutil.copy(ROOT / "examples" / name, folder)
    argv = ["-m", "pympi_train", "train", "digits.toml", "--set", "train.epochs=2"]
    result = json.loads(run([*argv, "--json"], folder).splitlines()[-1])
    (folder / "json").write_text(json.dumps(result))
    return folder


@having("python")
def test_python_of_a_page_runs_from_top_to_bottom(page, folder):
    script = folder / f"{page.stem.replace('-', '_')}_page.py"
    script.write_text("\n".join(blocks(page, "python")), encoding="utf-8")
    assert run([script.name], folder)


@having("toml")
def test_configurations_are_accepted(page, folder):
    for text in blocks(page, "toml"):
        if "[[job]]" in text:
            (folder / "jobs.toml").write_text(text)
            assert read_plan(str(folder / "jobs.toml"), 4).jobs
            continue
        assert set(config.parse(text).to_dict()) >= set(tomllib.loads(text))


@having("bash")
def test_commands_are_understood(page):
    for line in "\n".join(blocks(page, "bash")).splitlines():
        words = shlex.split(line, comments=True)
        if "pympi-train" in words:
            start = words.index("pympi-train") + 1
            stop = words.index("|") if "|" in words else None
            words = words[start:stop]
            cli._parser(words).parse_args(words)  # exits if it cannot


def keys_of_table(page, heading):
    """First column of the table below a heading, names in backticks."""
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    part = re.split(rf"^## {re.escape(heading)}$", text, flags=re.MULTILINE)[1]
    part = re.split(r"^## ", part, flags=re.MULTILINE)[0]
    cells = re.findall(r"^\| (`[^|]*) \|", part, flags=re.MULTILINE)
    return {name for cell in cells for name in re.findall(r"`([^`]*)`", cell)}


# Of a regression, of language, in float16, of L-BFGS, of balanced ranks; if wanted.
SOMETIMES = ("rmse", "r2", "perplexity", "loss_scale", "skipped_steps")
SOMETIMES += ("largest_gradient", "targets")
SOMETIMES += ("rows_least", "rows_most", "rank_of_least", "gradient_noise")

RARE_RESULTS = ("largest_gradient", "gradient_noise", "reached")


def test_keys_of_the_run_directory(folder):
    run_folder = folder / "runs" / "digits"
    first = (run_folder / "metrics.jsonl").read_text().splitlines()[0]
    result = json.loads((run_folder / "result.json").read_text())
    found = {
        "metrics.jsonl": {*json.loads(first), *SOMETIMES},
        "result.json": {*result, *RARE_RESULTS},
        "schema.json": set(json.loads((run_folder / "schema.json").read_text())),
    }
    for name, keys in found.items():
        assert keys_of_table("run-directory.md", name) == keys
    printed = set(json.loads((folder / "json").read_text()))
    assert printed >= found["result.json"] - set(RARE_RESULTS)


def test_keys_of_a_job_file():
    text = (ROOT / "docs" / "pool.md").read_text(encoding="utf-8")
    part = text.split("### Keys of `[[job]]`")[1].split("\n#")[0]
    keys = re.findall(r"^\| `(\w+)` \|", part, flags=re.MULTILINE)
    assert keys == [field.name for field in dataclasses.fields(JobTable)]


def test_files_of_the_run_directory(folder):
    text = (ROOT / "docs" / "run-directory.md").read_text(encoding="utf-8")
    files = set(re.findall(r"^\| `([\w.]+\.\w+|\w+/)` \|", text, flags=re.MULTILINE))
    files = {name.removesuffix("/") for name in files}
    present = set(os.listdir(folder / "runs" / "digits"))
    assert present <= files and files - present <= {"curves.png", "trace.json"}


def test_architecture_names_every_module():
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    names = set(re.findall(r"`(?:[\w*]+/)*(\w+)(?:\.py)?`", text))
    modules = {path.stem for path in (ROOT / "pympi_train").rglob("*.py")}
    assert modules - {"__init__", "__main__"} <= names


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text("utf-8")):
        assert (page.parent / target).exists(), target


def test_reference_has_every_public_name():
    text = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
    names = {line.strip().split(".")[-1] for line in text.splitlines()}
    assert set(pympi_train.__all__) <= names


def test_every_page_is_in_the_index():
    text = (ROOT / "docs" / "index.md").read_text(encoding="utf-8")
    for page in (ROOT / "docs").glob("*.md"):
        assert page.stem == "index" or f"\n{page.stem}\n" in text, page
