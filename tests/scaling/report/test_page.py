"""The report: complete, nothing from outside, and shown by a browser."""

import html.parser
import re
import shutil
import subprocess
import xml.etree.ElementTree as ElementTree

import pytest
from studies import make_study

from pympi_train.scaling.analysis.points import series_of
from pympi_train.scaling.report.charts import parts_chart
from pympi_train.scaling.report.forecast import Forecast
from pympi_train.scaling.report.grid import predict_grid
from pympi_train.scaling.report.page import as_file, page_of, write_page
from pympi_train.scaling.report.svg import HEIGHT, WIDTH, Chart, nice_step
from pympi_train.scaling.report.table import report_lines

BOTH = {"modes": ("strong", "weak"), "oversubscribed": (8,)}
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
EVIL = '<script>alert(1)</script>"&'


class Reader(html.parser.HTMLParser):
    """Collects tags that are open, and what could load something."""

    VOID = {"meta", "br", "link", "img", "input", "hr"}

    def __init__(self, text):
        super().__init__()
        self.open, self.loads, self.tags = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        names = ("src", "href", "xlink:href", "data")
        self.loads += [value for name, value in attrs if name in names]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_page_is_whole_and_loads_nothing():
    text = page_of(make_study(**BOTH))
    read = Reader(text)
    assert read.open == [] and read.loads == []
    assert not {"script", "link", "iframe", "img"} & set(read.tags)
    assert "http" not in text and "@import" not in text
    assert set(re.findall(r"url\((.*?)\)", text)) == {f"#p{i}" for i in range(6)}
    assert "prefers-color-scheme: dark" in text and "@media print" in text


def test_axes_are_labelled():
    text = page_of(make_study(**BOTH))
    pictures = re.findall(r"<svg viewBox.*?</svg>", text, re.DOTALL)
    # speed-up, efficiency, parts of two modes, ranks, prediction
    assert len(pictures) == 6
    for picture in pictures:
        labels = [
            "".join(part.itertext())
            for part in ElementTree.fromstring(picture).iter("text")
            if part.get("class") == "label"
        ]
        assert len(labels) == 2
        assert labels[0] in ("ranks", "rank")
        assert labels[1] in ("speed-up (times)", "efficiency (%)", "time a step (ms)")


def test_spread_points_have_a_line_and_nodes_of_their_own():
    study = make_study(ranks=(1, 2, 4))
    apart = make_study(ranks=(4,), per_node=1, link_s=1e-3)["measurements"]
    study["measurements"] += apart
    text, lines = page_of(study), report_lines(study)
    assert "allreduce, spread" in text and ">4 on 4</text>" in text
    assert "ranks (on nodes)" in text
    assert [line.split()[2:4] for line in lines[3:5]] == [["4", "1"], ["4", "4"]]
    alone = page_of(make_study(ranks=(1, 2, 4)))
    assert "spread" not in alone and " on 4" not in alone


def test_chart_of_more_ranks():
    forecast = Forecast(make_study(link_s=1e-3))
    picture = ElementTree.fromstring(forecast.chart())
    texts = ["".join(part.itertext()) for part in picture.iter("text")]
    assert {"ranks", "efficiency (%)", "80 %", "allreduce", "32,768"} <= set(texts)
    lines = list(picture.iter("polyline"))
    assert len(lines) == 1 + len(forecast.lines) and 2 <= len(forecast.lines) <= 4
    assert len({part.get("class") for part in lines}) == len(lines)  # colours
    limit = [point.split(",") for point in lines[0].get("points").split()]
    xs = [float(x) for x, _ in limit]
    gaps = [b - a for a, b in zip(xs, xs[1:])]  # powers of two, so even by logarithm
    assert len(gaps) == 11 and max(gaps) - min(gaps) < 0.2
    assert len({y for _, y in limit}) == 1  # 80 % everywhere
    of_allreduce = [f"{height:.0f} %" for height in forecast.lines[0][1]]
    assert of_allreduce == [row[2] for row in forecast.rows]


def test_a_limit_that_is_not_found_is_told_with_the_ranks_that_were_tried():
    study = make_study(modes=("weak",), update_s=0.0, link_s=0.0)
    told = Forecast(study).sentences[0]
    assert told.endswith("falls below 80 % at no number up to 4,194,304.")


@pytest.mark.parametrize(
    "how", [{"ranks": (1,)}, {"ranks": (2,)}, {"ranks": (1, 4), "oversubscribed": (4,)}]
)
def test_nothing_is_predicted_from_one_number_of_ranks(how):
    study = make_study(**how)
    forecast, text = Forecast(study), page_of(study)
    assert forecast.rows == [] and "not predicted" in forecast.sentences[0]
    assert "not predicted" in text and "None" not in " ".join(report_lines(study))
    assert Reader(text).open == []


def test_a_picture_of_its_own_has_colours_and_patterns():
    study = make_study()
    text = as_file(parts_chart(series_of(study)[0]))
    picture = ElementTree.fromstring(text)
    assert picture.tag == "{http://www.w3.org/2000/svg}svg"
    assert "prefers-color-scheme: dark" in text
    used = set(re.findall(r"url\(#(.*?)\)", text))
    assert used == {part.get("id") for part in picture.iter() if "id" in part.keys()}


def test_names_at_the_ends_of_lines_stay_in_the_picture():
    chart = Chart("t", "x", "y", [1, 2], 1.0)
    for number in range(6):
        chart.line(f"name {number}", [1, 2], [1.0, 0.0], number)
    found = re.findall(r'y="([\d.]+)">name', chart.text())
    heights = sorted(map(float, found))
    assert len(heights) == 6 and heights[-1] <= 300 - 46 + 4
    assert min(b - a for a, b in zip(heights, heights[1:])) >= 12.9


def test_names_are_only_text(tmp_path):
    study = make_study(ranks=(1, 2))
    study["config"] = study["mpi"] = EVIL
    for one in study["measurements"]:
        one["strategy"] = EVIL
    write_page(tmp_path / "out.html", study)
    text = (tmp_path / "out.html").read_text()
    read = Reader(text)
    assert "script" not in read.tags and read.open == []


def test_many_ranks_and_one():
    Reader(page_of(make_study(ranks=(1, 500), repeats=1, steps=3)))
    Reader(page_of(make_study(ranks=(3,), repeats=1, steps=3)))
    empty = {**make_study(), "measurements": []}
    Reader(page_of(empty))
    assert "nothing to compare" in report_lines(empty)[-1]


def test_table_on_the_terminal():
    lines = report_lines(make_study(**BOTH, slow=(2, 1.5)))
    assert lines[0].split()[:3] == ["mode", "strategy", "ranks"]
    assert len({len(line) for line in lines[1:9]}) == 1
    assert lines[4].split()[2] == "8*" and "left out of the fits" in lines[9]


def test_a_step_in_the_table_is_the_sum_of_its_parts():
    study = make_study(ranks=(1, 2), slow=(1, 1.5))
    study["measurements"][0]["parts_s"]["pack"] = [7e-3]  # a few slow steps of many
    for line in report_lines(study)[1:3]:
        cells = line.split()
        step_ms, parts_ms = float(cells[4]), map(float, cells[-6:])
        assert sum(parts_ms) == pytest.approx(step_ms, abs=4e-3)
        assert float(cells[5].replace(",", "")) == pytest.approx(
            1024e3 / step_ms, rel=1e-3
        )


def test_many_names_move_closer_together():
    chart = Chart("t", "x", "y", [1, 2], 1.0)
    for number in range(40):
        chart.line(f"line {number}", [1, 2], [1.0, 0.0], number)
    texts = ElementTree.fromstring(chart.text()).iter("text")
    found = [float(one.get("y")) for one in texts if one.text.startswith("line ")]
    assert len(found) == 40 and found == sorted(found)
    assert 0 < found[0] and found[-1] <= HEIGHT


def test_a_wide_interval_does_not_flatten_the_efficiencies():
    study = make_study(ranks=(1, 2))
    last = study["measurements"][-1]["parts_s"]
    last["compute"] = [1e-6 for _ in last["compute"]]
    text = page_of(study)
    picture = text.partition('aria-label="Efficiency"')[2].partition("</svg>")[0]
    ticks = [float(v) for v in re.findall(r'text-anchor="end">(\d+)<', picture)]
    assert 100 <= ticks[-1] <= 250


def test_chart_bounds():
    chart = Chart("t", "x", "y", [1, 2, 4], 7.0)
    assert chart.y(0) > chart.y(7) and chart.x(1) < chart.x(2) < chart.x(4)
    assert nice_step(0) == nice_step(float("nan")) == 1.0


def shown_in_browser(tmp_path, text):
    """Return the page as a browser holds it once it is shown."""
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        pytest.skip("no browser: chromium is not installed")
    (tmp_path / "out.html").write_text(text)
    done = subprocess.run(
        [
            browser,
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            f"--user-data-dir={tmp_path}/profile",
            "--host-resolver-rules=MAP * ~NOTFOUND",
            "--virtual-time-budget=2000",
            "--dump-dom",
            f"file://{tmp_path}/out.html",
        ],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_in_a_browser(tmp_path):
    text = shown_in_browser(tmp_path, page_of(make_study(**BOTH, slow=(5, 1.5))))
    shown = Reader(text)
    assert shown.tags.count("svg") == 7 and "table" in shown.tags
    assert "planted.toml scales" in text


def test_nothing_is_cut_on_a_narrow_screen(tmp_path):
    """Names of lines end inside of their pictures; the page does not scroll sideways.
    """
    study = make_study(**BOTH, ranks=(1, 4))
    study["measurements"] += make_study(**BOTH, ranks=(4,), per_node=1)["measurements"]
    for one in study["measurements"]:
        one["strategy"] = "as configured"
    study["machine"] = {"model": 200 * "x"}
    text = page_of(study).replace("<body>", '<body style="width: 360px">').replace(
        "</body>",
        """<script>
        const ends = [...document.querySelectorAll("svg text:not([transform])")].map(
          t => t.getBBox().x + t.getBBox().width);
        document.title = Math.ceil(Math.max(...ends)) + ", " + (
          document.body.scrollWidth - document.body.clientWidth) + " more";
        </script></body>""",
    )
    title = re.search("<title>(\\d+), (-?\\d+) more<", shown_in_browser(tmp_path, text))
    assert 0 < int(title[1]) <= WIDTH and int(title[2]) <= 0


def test_tables_fit_on_printed_paper(tmp_path):
    study = make_study(**BOTH)
    for one in study["measurements"]:
        one["strategy"], one["batch_size"] = "hierarchical", 10**6
        one["parts_s"] = {k: [1e2 * s for s in v] for k, v in one["parts_s"].items()}
    study["predictions"] = predict_grid(study)
    text = page_of(study).replace("@media print", "@media all")
    # A4 without its margins of 12 mm; the browser notes how wide the tables are.
    text = text.replace("<body>", '<body style="width: 186mm">').replace(
        "</body>",
        """<script>
        const widths = [...document.querySelectorAll("table")].map(t => t.scrollWidth);
        document.title = Math.max(...widths) + " of " + document.body.clientWidth;
        </script></body>""",
    )
    title = re.search("<title>(\\d+) of (\\d+)<", shown_in_browser(tmp_path, text))
    assert 0 < int(title[1]) <= int(title[2])
