"""Each row of the table in docs/failures.md has tests."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LAUNCH, RESUME = "launch/test_ranks_that_die", "runs/recovery/test_resume"
HANG, TOLD = "train/test_never_hang", "runs/recovery/test_told"
WATCH, CRASH = "comm/watch/test_watchdog", "checkpoint/test_crash_states"
TESTS = {  # beginning of a row: files in tests/, and what their tests are called
    "SIGTERM, SIGUSR1": [(RESUME, "test_interrupted_and_resumed_is_und")],
    "the job's time": [
        (RESUME, "test_end_of_the_job"),
        ("runs/recovery/test_time_limit", "test_it_saves_before_the_limit"),
    ],
    "a second Ctrl-C": [("launch/test_supervise", "test_second_ctrl_c_ends_the_ranks")],
    "a rank, a node or `mpirun`": [
        (LAUNCH, "test_killed_rank_and_fewer_ranks"),
        (LAUNCH, "test_killed_mpirun_and_killed_launch"),
    ],
    "a rank is killed, with": [
        ("runs/test_survive", "test_killed_ranks_are_not_missed"),
        ("runs/test_survive", "test_state_that_was_spread_over_a_killed_rank"),
    ],
    "a rank hangs": [(HANG, "test_rank_that_stays_away_is_named")],
    "the only worker of": [
        (HANG, "test_only_worker_that_stays_away_is_named"),
        (HANG, "test_only_worker_that_stays_away_on_another_node"),
    ],
    "it hangs elsewhere": [
        (WATCH, "test_a_server_whose_workers_are_all_stopped"),
        (WATCH, "test_some_calls_may_take_any_time"),
    ],
    "`launch` is killed": [
        (LAUNCH, "test_killed_mpirun_and_killed_launch"),
        ("launch/test_launched", "test_launcher_ends_with_its_parent"),
    ],
    "a rank raises": [("comm/watch/test_abort", "test_job_ends_with_rank_and_tr")],
    "a rank is slower": [("train/test_balance", "test_steps_are_those_without")],
    "loss or gradient": [("train/test_failures", "test_divergence_on_all_ranks")],
    "a checkpoint cannot be written": [
        (RESUME, "test_checkpoint_that_cannot_be_written"),
        (TOLD, "test_it_says_that_a_checkpoint_could_not_be_written"),
        ("checkpoint/test_full_disk", "test_disk_that_gets_full"),
    ],
    "an older checkpoint": [(RESUME, "test_checkpoint_that_cannot_be_removed")],
    "a machine loses power": [
        (CRASH, "test_run_on_one_rank"),
        (CRASH, "test_run_whose_ranks_all_write"),
    ],
    "killed while": [
        (CRASH, "test_run_on_one_rank"),
        (CRASH, "test_run_whose_ranks_all_write"),
    ],
    "killed between": [(RESUME, "test_ranks_that_died_before_the_result")],
    "a file of a checkpoint": [
        (RESUME, "test_damaged_checkpoint_is_passed_over"),
        ("checkpoint/test_write_and_read", "test_swapped_files_are_found"),
    ],
    "the weights of a finished": [
        ("runs/earlier/test_weights", "test_a_flipped_bit_of_the_weights_is_found"),
    ],
    "a checkpoint cannot be looked": [
        ("checkpoint/test_store", "test_checkpoints_that_the_system_cannot_read"),
    ],
    "no checkpoint is whole": [(TOLD, "test_it_says_what_was_passed_over")],
    "`pympi-train resize`": [("runs/elastic/test_resize", "test_joining_and_leaving")],
    "the run is finished": [(RESUME, "test_finished_run_stays_as_it_is")],
    "two runs write": [("runs/test_output", "test_two_runs_with_one_folder")],
    "the data, the model": [
        (RESUME, "test_another_training_is_refused"),
        (RESUME, "test_other_labels_are_refused"),
    ],
    "a new run in": [
        ("runs/test_output", "test_files_of_an_earlier_run_go_when"),
        ("train/test_failures", "test_divergence_leaves_the_weights_of_an_earlier"),
    ],
}


def rows():
    text = (ROOT / "docs" / "failures.md").read_text(encoding="utf-8")
    table = text.split("| what happens |")[1].split("\n\n")[0]
    return [line.split("|")[1].strip() for line in table.splitlines()[2:]]


def test_each_row_has_tests_and_no_other_has():
    found = [[key for key in TESTS if row.startswith(key)] for row in rows()]
    assert [keys for keys in found if len(keys) != 1] == []
    assert [keys[0] for keys in found] == list(TESTS)


@pytest.mark.parametrize("row", TESTS)
def test_they_are_there(row):
    for file, name in TESTS[row]:
        text = (ROOT / "tests" / f"{file}.py").read_text(encoding="utf-8")
        assert re.search(rf"^def {name}", text, re.MULTILINE), (file, name)
