"""What the report of a scaling study says of planted causes.

    PYTHONPATH=tests/harness python scripts/bench/scaling_gallery.py [FOLDER]

Prints the paragraph for each cause; with FOLDER, writes each report there as HTML.
"""

import sys
from pathlib import Path

from studies import make_study

from pympi_train.scaling.analysis.points import series_of
from pympi_train.scaling.report.page import write_page
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
    for number, (title, how) in enumerate(CAUSES.items(), 1):
        study = {**make_study(**how), "config": title}
        print(f"**{title}**\n\n> {' '.join(explain(series_of(study)))}\n")
        if len(sys.argv) > 1:
            write_page(Path(sys.argv[1]) / f"{number}.html", study)


if __name__ == "__main__":
    main()
