"""What the report of a scaling study says and shows of planted causes.

    PYTHONPATH=tests/harness python scripts/bench/scaling_gallery.py [FOLDER]

Prints the paragraph for each cause; with FOLDER, writes a picture of each there, as
docs/scaling.md shows them, and each report as HTML.
"""

import sys
from pathlib import Path

from studies import make_study

from pympi_train.scaling.analysis.points import series_of
from pympi_train.scaling.report.charts import parts_chart, ranks_chart
from pympi_train.scaling.report.page import as_file, write_page
from pympi_train.scaling.report.words import explain

BOTH = {"modes": ("strong", "weak")}
CAUSES = {
    "A slow rank": {"slow": (5, 1.5)},
    "A slow link between nodes": {"link_s": 1e-3},
    "Each rank updates many parameters": {"update_s": 1e-3},
    "A slow file system": {"input_s": 1e-3},
    "Ranks that share memory": {"contention": 0.2, **BOTH},
    "Batches that are too small": {"call_s": 5e-4, **BOTH},
}


def main():
    for title, how in CAUSES.items():
        study = {**make_study(**how), "config": title}
        print(f"**{title}**\n\n> {' '.join(explain(series_of(study)))}\n")
        if len(sys.argv) > 1:
            name = Path(sys.argv[1]) / title.lower().replace(" ", "-")
            name.with_suffix(".svg").write_text(as_file(picture(study)))
            write_page(name.with_suffix(".html"), study)


def picture(study):
    """Return the chart that shows the cause: of the ranks if one of them is slow."""
    series = series_of(study)
    if "slow rank" in study["config"]:
        return ranks_chart(series[0].points[-1])
    # The weak study has the same rows on each rank: contention is its growth.
    wanted = "weak" if "memory" in study["config"] else "strong"
    return parts_chart(next(one for one in series if one.mode == wanted))


if __name__ == "__main__":
    main()
