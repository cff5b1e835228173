"""The faults, by number: what the platform does about each, and which tests show it.

``docs/FAULTS.md`` is written from here and from the results of ``make chaos``
(``python -m tests.chaos --docs``); a test holds the names to those that exist.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PAGE = Path(__file__).parents[2] / "docs" / "FAULTS.md"


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault.

    Args:
        number: Its number.
        what: What goes wrong.
        then: What the platform does.
        shown_by: Tests of ``make chaos``.
        also: Further tests, which ``make test`` runs.
    """

    number: int
    what: str
    then: str
    shown_by: tuple[str, ...]
    also: tuple[str, ...] = ()


FAULTS = (
    Fault(
        1, "TCP dropped in mid-frame",
        "reconnects; what was missed is a gap row per symbol",
        ("test_connection_cut_in_mid_frame_many_times_is_clean",),
    ),
    Fault(
        2, "connected, but mute in session",
        "left once the silence is longer than learned for channel and session; a gap row",
        ("test_connected_but_mute_feed_is_left_once_and_declared",),
    ),
    Fault(
        3, "silence after the close, a quiet symbol", "nothing",
        ("test_silence_after_the_close_is_no_fault",),
    ),
    Fault(
        4, "406 on reconnect", "one try per back-off step, then recovers",
        ("test_connection_limit_on_reconnect_costs_one_try_per_step",),
    ),
    Fault(
        5, "401, 402, 409, 429 on connect", "429 backs off; the others stop with what to do",
        ("test_refusal_on_connect_makes_no_storm",),
    ),
    Fault(
        6, "405, symbol limit", "keeps the longest valid beginning of the list, names the rest",
        ("test_symbol_limit_keeps_the_valid_subset_and_says_which",),
    ),
    Fault(
        7, "a burst, a slow link", "bounded queues; what is dropped is a gap row",
        ("test_burst_and_slow_link_lose_nothing_in_silence",),
    ),
    Fault(
        8, "disconnected during auth, subscribe, back-off", "streaming again",
        ("test_disconnects_during_auth_subscribe_and_backoff_end_in_streaming",),
    ),
    Fault(
        9, "nonsense on the wire, duplicates, clock skew",
        "quarantined with reason and raw bytes, the rest of the frame kept",
        ("test_nonsense_on_the_wire_is_quarantined_and_the_rest_kept",),
        ("test_bad_messages_are_quarantined_each_with_its_reason",),
    ),
    Fault(
        10, "drops and kills while gaps are filled", "filled to the last message, once",
        ("test_gaps_of_drops_and_kills_are_filled_to_the_last_message",),
    ),
    Fault(
        11, "correction, cancel, updated bar after its window closed",
        "a row of its own; the bar's next revision, in lake and stream",
        (),
        ("test_job_revises_a_bar_that_the_vendor_updates",
         "test_trades_current_applies_cancels_and_corrections_and_leaves_the_raw_ones"),
    ),
    Fault(
        12, "a quarter of PutRecords' entries throttled", "sent again, in order",
        ("test_quarter_of_the_entries_throttled_is_clean",),
    ),
    Fault(
        13, "answers lost after the write", "sent again with the same id; readers drop the repeat",
        ("test_answer_lost_after_the_write_leaves_repeats_with_the_same_id",),
    ),
    Fault(
        14, "500, 503, no answer for 2 minutes", "spills to disk, alarms, drains in order",
        ("test_stream_out_of_order_for_a_while_spills_alarms_and_drains",),
    ),
    Fault(
        15, "producer killed -9, also in an outage",
        "restarted; sends first what it had spilled; the rest is a gap row",
        ("test_producer_killed_in_an_outage_sends_first_what_it_had_spilled",
         "test_gaps_of_drops_and_kills_are_filled_to_the_last_message"),
    ),
    Fault(
        16, "the producer's node dies", "the actor moves, and declares what it missed",
        ("test_producer_moves_when_its_node_dies",),
    ),
    Fault(
        17, "one symbol makes most of the load", "an alarm; clean", (),
        ("test_one_symbol_with_most_of_the_load_is_an_alarm_and_clean",),
    ),
    Fault(
        18, "split, merge and both while reading", "children begin after their parents",
        ("test_source_whose_stream_is_resharded_while_it_reads_keeps_the_order_of_each_key",
         "test_stream_through_a_split_and_a_merge_loses_nothing"),
    ),
    Fault(
        19, "resharding while the job is down", "continues through parents and children",
        ("test_query_killed_fifty_times_at_every_point_is_clean",
         "test_source_through_a_reshard_and_a_restart_under_faults_keeps_the_order_of_each_key"),
    ),
    Fault(
        20, "expired iterators, read throttling, an idle shard",
        "iterators renewed, one back-off for all shards, the others go on; the first record of an "
        "idle shard is in the next batch",
        ("test_source_whose_iterators_expire_again_and_again_reads_everything_once",
         "test_source_that_is_throttled_backs_off_as_one_and_reads_everything_once",
         "test_source_with_one_shard_refused_goes_on_with_the_other_and_then_with_both",
         "test_source_with_an_idle_shard_gives_its_first_record_in_the_next_batch"),
    ),
    Fault(
        21, "down for longer than the retention",
        "stops with the exact missing range; `RAYTAPE_FAIL_ON_DATA_LOSS=false` goes on behind it",
        ("test_source_down_for_longer_than_the_retention_stops_and_names_what_is_missing",),
        ("test_read_of_a_trimmed_range_is_data_loss_and_names_what_is_missing",),
    ),
    Fault(
        22, "a worker or executor killed reading, shuffling, writing, committing state",
        "the task runs again from fixed offsets; files that no commit names are orphans",
        ("test_workers_killed_fifty_times_reading_shuffling_writing_and_folding_are_clean",
         "test_executors_on_ray_killed_reading_shuffling_writing_and_in_their_state_are_clean",
         "test_both_queries_killed_in_a_task_and_before_publishing_decide_and_publish_once"),
    ),
    Fault(
        23, "the driver killed -9 before and after each log, commit and publication",
        "a new one finishes the batch from lake and checkpoint, publishes what the lake holds",
        ("test_both_queries_killed_fifty_times_at_every_point_decide_and_publish_once",
         "test_archive_killed_fifty_times_at_every_point_is_clean",
         "test_query_killed_fifty_times_at_every_point_is_clean",
         "test_driver_on_ray_killed_before_and_after_each_log_is_clean",
         "test_both_queries_killed_in_a_task_and_before_publishing_decide_and_publish_once"),
        ("test_driver_that_dies_between_any_two_commits_is_completed",),
    ),
    Fault(
        24, "the last entry of the commit log deleted", "the batch runs again and is held already",
        ("test_last_batch_replayed_after_a_death_before_its_commit_holds_the_same_rows",),
        ("test_job_stores_each_message_once_over_restarts_replays_and_lost_checkpoints",),
    ),
    Fault(
        25, "two sinks of one batch, records arriving meanwhile", "both see the same rows",
        ("test_two_sinks_of_one_batch_see_the_same_rows_whatever_arrives_meanwhile",),
    ),
    Fault(
        26, "a zombie driver beside the new one", "fenced, or stopped by Spark's log; ends",
        ("test_zombie_driver_beside_the_new_one_is_fenced",),
        ("test_zombie_is_fenced_and_leaves_nothing",
         "test_commit_of_a_zombie_between_its_check_and_its_commit_is_fenced"),
    ),
    Fault(
        27, "storage answers 500/503, or dies between a file and its commit",
        "tried again; whole batches or none",
        ("test_archive_on_a_store_that_refuses_every_third_request_stores_all_once",
         "test_archive_whose_store_is_away_keeps_whole_batches_and_goes_on",
         "test_archive_that_cannot_reach_its_store_says_so",
         "test_take_on_a_store_that_fails_publishes_only_what_the_lake_holds"),
        ("test_deleted_checkpoint_after_a_crash_continues_without_repeating",),
    ),
    Fault(
        28, "late data, an idle stream", "late rows are counted; heartbeats close the last window",
        ("test_late_data_is_stored_and_counted_and_the_last_window_of_an_idle_stream_closes",),
        ("test_bar_at_or_before_the_last_is_late_and_ignored",
         "test_own_bar_stands_in_five_wall_seconds_after_the_minute",
         "test_window_without_its_last_minute_closes_by_time_once_no_minute_waits"),
    ),
    Fault(
        29, "killed every minute, for long", "memory, state and file counts stay bounded",
        ("test_soak_with_a_kill_now_and_then_stays_bounded_and_clean",),
    ),
    Fault(
        30, "new code on an old checkpoint, old code on a new one",
        "what is older is read (missing columns and state are added), or given up for the lake "
        "where its keys were others; what is newer is refused by its version",
        ("test_job_on_a_checkpoint_of_a_newer_version_refuses_and_says_why",),
        ("test_state_of_an_older_version_goes_on_without_what_it_lacks",
         "test_state_of_a_newer_version_is_refused_by_its_version",
         "test_offset_of_another_version_is_refused",
         "test_create_of_a_table_that_lacks_a_new_column_adds_it"),
    ),
    Fault(
        40, "the same recorded day twice, once in pieces and killed on the way",
        "identical bars, features and signals",
        ("test_same_recorded_day_twice_gives_identical_bars_features_and_signals",),
    ),
    Fault(
        41, "Kinesis down, then empty",
        "the journal resends what the lake lacks, or a gap row says so; checkpoints notice",
        ("test_stream_that_lost_its_data_gets_back_what_the_lake_does_not_hold",
         "test_job_begins_anew_when_its_streams_were_made_anew"),
        ("test_stream_made_anew_declares_a_gap_for_each_symbol_when_it_comes",),
    ),
    Fault(
        42, "checkpoints deleted, the lake kept", "continues where the lake ends",
        ("test_both_queries_killed_fifty_times_at_every_point_decide_and_publish_once",
         "test_archive_killed_fifty_times_at_every_point_is_clean",
         "test_job_after_a_kill_between_two_commits_and_without_its_checkpoint_is_clean"),
    ),
    Fault(
        43, "an event dated a year ahead or behind", "quarantined; later data unharmed",
        ("test_bad_messages_are_quarantined_each_with_its_reason",
         "test_quarantine_is_counted_and_later_data_is_unharmed"),
    ),
    Fault(
        44, "disk full", "stops, says so, resumes when there is room",
        ("test_job_on_a_full_disk_stops_says_so_and_resumes_when_there_is_room",
         "test_archive_on_a_full_disk_says_so_and_resumes_when_there_is_room"),
    ),
)  # fmt: skip

_HEAD = """# Faults, and what becomes of them

What the platform survives, how, and what showed it. Two cores, everything on one machine, other
work beside it: the times are long ones. *Sent* and *stored* are messages; *lost* is what is neither
stored nor inside a declared gap; *twice* is rows beyond what was sent; *recovery* is from a death
to the first new row, median / longest. `make chaos` runs all of it; `make chaos ARGS="--fault 22"`
one fault, `--short` the short forms, `--docs` writes this page. A round is a kill.

Deaths are ordered, not awaited: the job reads from a file where to die, so that each lands where it
is meant to (`tests/chaos/streaming_job.py` lists the places). Besides rows, the ledger of both
queries compares every feature with those of a run without faults, wants exactly one signal per bar
from a policy that never says the same twice, and on `market-signals` what the lake holds.
`RAYTAPE_KILLS`, `RAYTAPE_RAY_KILLS`, `RAYTAPE_KILL_MINUTES`, `RAYTAPE_SOAK_MINUTES` and
`RAYTAPE_SOAK_KILL_EVERY_S` make the matrices longer or shorter.

| fault | what happens then |
|---|---|
"""
_RESULTS = """
## Results

| fault | test | result | rounds | sent | stored | lost | twice | recovery s |
|---|---|---|---|---|---|---|---|---|
"""
_ALSO = """
`make test` also runs, for the faults that need no killing:

| fault | tests |
|---|---|
"""


def of(name: str) -> list[int]:
    """Numbers of the faults that a test shows something about; ``name`` may have parameters.

    >>> of("test_silence_after_the_close_is_no_fault")
    [3]
    """
    plain = name.split("[", maxsplit=1)[0]
    return [fault.number for fault in FAULTS if plain in fault.shown_by + fault.also]


def names_of(number: int) -> Sequence[str]:
    """Names of the tests of a fault."""
    return next((f.shown_by + f.also for f in FAULTS if f.number == number), ())


def words(name: str) -> str:
    """A test's name to read.

    >>> words("test_it_works[3]")
    'it works [3]'
    """
    return name.removeprefix("test_").replace("_", " ").replace("[", " [")


def recovery(row: Mapping[str, Any]) -> str:
    """Median and longest time of recovery, seconds.

    >>> recovery({"recovery_s": [3, 9, 4]}), recovery({})
    ('4 / 9', '')
    """
    found = row.get("recovery_s")
    return f"{statistics.median(found):.0f} / {max(found):.0f}" if found else ""


def numbers(row: Mapping[str, Any]) -> list[str]:
    """Rounds, sent, stored, lost, twice: as text, empty where a test does not say."""
    found = [row.get(name) for name in ("rounds", "sent", "stored", "lost", "twice")]
    return ["" if value is None else f"{value:,}" for value in found]


def page(rows: Mapping[str, Mapping[str, Any]]) -> str:
    """The text of ``docs/FAULTS.md``.

    Args:
        rows: What ``make chaos`` found, by name of the test.
    """
    text = _HEAD + "".join(f"| {f.number}. {f.what} | {f.then} |\n" for f in FAULTS) + _RESULTS
    for fault in FAULTS:
        for test in fault.shown_by:
            found = {name: row for name, row in rows.items() if name.split("[")[0] == test}
            for name, row in sorted((found or {test: {"outcome": "not run yet"}}).items()):
                cells = [str(fault.number), words(name), row["outcome"], *numbers(row)]
                text += f"| {' | '.join([*cells, recovery(row)])} |\n"
    text += _ALSO
    for fault in FAULTS:
        if fault.also:
            text += f"| {fault.number} | {'; '.join(words(name) for name in fault.also)} |\n"
    return text


def write(rows: Mapping[str, Mapping[str, Any]]) -> None:
    """Write the page."""
    PAGE.write_text(page(rows))
