"""The log of a pool that was killed, went on, and was interrupted."""

import json

STORY = [
    {"event": "pool", "time_s": 10.0, "ranks": 3, "nodes": [0, 0, 1], "attempt": 1},
    {"event": "submit", "time_s": 10.0, "job": "a", "priority": 2, "min_ranks": 1},
    {"event": "submit", "time_s": 10.0, "job": "b", "after": ["a"], "directory": "d"},
    {"event": "submit", "time_s": 10.0, "job": "c"},
    {"event": "start", "time_s": 11.0, "job": "a", "ranks": [0, 1], "attempt": 1},
    {"event": "start", "time_s": 12.0, "job": "c", "ranks": [2], "attempt": 1},
    {"event": "resize", "time_s": 13.0, "job": "a", "ranks": [0]},
    {"event": "later kind", "time_s": 13.5, "of": "event"},
    {
        "event": "end",
        "time_s": 15.0,
        "job": "a",
        "status": "finished",
        "error": None,
        "result": {"train_loss": 0.5},
        "rank_seconds": {"training": 5.0, "startup": 0.5},
    },
    {"event": "start", "time_s": 15.0, "job": "b", "ranks": [0, 1], "attempt": 1},
    {
        "event": "end",
        "time_s": 16.0,
        "job": "c",
        "status": "failed",
        "error": "no \u2028 good\nat all",
        "result": None,
        "rank_seconds": {"training": 1.0, "startup": 2.0},
    },
    # Killed here; another session goes on, which is asked to end.
    {"event": "pool", "time_s": 100.0, "ranks": 2, "nodes": [], "attempt": 2},
    {"event": "submit", "time_s": 100.0, "job": "b"},
    {"event": "submit", "time_s": 100.0, "job": "c"},
    {"event": "start", "time_s": 101.0, "job": "b", "ranks": [1], "attempt": 2},
    {"event": "end", "time_s": 104.0, "job": "b", "status": "interrupted"},
    {"event": "close", "time_s": 105.0, "status": "interrupted"},
]
DATA = "".join(json.dumps(event) + "\n" for event in STORY).encode()
