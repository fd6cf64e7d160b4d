"""The table of faults: what may go wrong, what must happen then, and at which levels it is tested at least.

Levels: S scenario on virtual time, P property or unit, C crash sweep, L lab. ``OTHERS`` names tests outside this directory
that show more of a row; those of this directory are found by their names, ``test_fault_NN_…``.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Row:
    """One fault."""

    number: int
    fault: str
    behaviour: str
    levels: str


ROWS: tuple[Row, ...] = (
    Row(
        1,
        "source host dies in pre-copy",
        "VM died with its host; settle `LOST_SOURCE`; look for a paused copy on dst, touch nothing (HA is not ours); alert; free slots; quarantine",
        "SL",
    ),
    Row(
        2,
        "destination dies in pre-copy",
        "VM stays running on src; `FAILED`; dst quarantined with back-off; replan without it",
        "SL",
    ),
    Row(
        3,
        "src–dst link cut, pre-copy",
        "keepalive ~30 s, src resumes; verify on both; quarantine the *link*, not the hosts",
        "SL",
    ),
    Row(
        4,
        "controller–src link cut mid-migration",
        "state `UNOBSERVED`, slots kept, nothing new on either host; settle on reconnect; never assume failure",
        "SL",
    ),
    Row(
        5,
        "QEMU link cut in post-copy",
        "`POSTCOPY_BROKEN`: never aborted, never resumed by us; CRITICAL, alert prints the exact virsh command",
        "SL",
    ),
    Row(
        6,
        "libvirt link cut in post-copy",
        "it finishes unattended; wait; do not “resume” (refused); settle by location",
        "SL",
    ),
    Row(7, "destination lost in post-copy", "VM lost: breaker opens cluster-wide, evidence kept, page", "S"),
    Row(
        8,
        "daemon SIGKILL mid-migration",
        "p2p continues; restart reads journal, asks both hosts, **adopts** the watch; no second start",
        "CL",
    ),
    Row(
        9,
        "SIGKILL between intent and API call",
        "intent without job: VM on src and no job → `ABANDONED`; a stale plan is never replayed",
        "C",
    ),
    Row(10, "SIGTERM / upgrade", "stop starting; leave p2p jobs; `STOPPING=1`; exit 0 < 60 s", "SL"),
    Row(
        11,
        "libvirtd restarts on src (pre-copy)",
        "expect running on src, nothing on dst; reconnect, re-register callbacks, verify, cool down",
        "L",
    ),
    Row(12, "libvirtd restarts on dst", "same; dst penalised", "L"),
    Row(13, "QEMU killed at dst / at src", "dst: src continues; src: VM gone, not retried, alert", "L"),
    Row(14, "guest shuts down mid-migration", "`VM_STOPPED`, no blame on hosts, no restart", "SL"),
    Row(15, "user pauses/resumes VM mid-migration", "end in the state the user wanted; never auto-resume", "SL"),
    Row(16, "VM undefined, renamed, same name elsewhere", "UUID is the key; `SKIPPED(vm_gone)`", "SP"),
    Row(17, "VM already moved by hand before start", "precondition → `SKIPPED(not_on_source)` (Watcher)", "S"),
    Row(
        18,
        "VM resized / device hot-plugged after planning",
        "digest of relevant fields differs → `SKIPPED(stale_plan)`",
        "SP",
    ),
    Row(
        19,
        "another job on the domain (backup, snapshot, block job)",
        "libvirt job lock → `SKIPPED(busy)`, limited retry",
        "SL",
    ),
    Row(
        20,
        "dirty rate > bandwidth",
        "stall detector; abort by default; censored label for training; VM cooldown grows",
        "SL",
    ),
    Row(21, "exceeds time budget, abort refused", "`STUCK`: keep slots, stop starts on both hosts, alert", "S"),
    Row(22, "abort races completion", "decide by location; both orders tested", "PL"),
    Row(
        23, "“success” but paused on dst", "`DEGRADED`: never resumed by us; alert prints the exact virsh command", "S"
    ),
    Row(24, "VM active on both hosts", "CRITICAL breaker, no action, page", "S"),
    Row(25, "VM on neither host", "CRITICAL breaker, no action, page", "S"),
    Row(
        26,
        "dst lacks storage, network, CPU feature, machine type, hugepages, PCI/NUMA fit",
        "preflight `Refusal` naming the item; if libvirt refuses at Prepare, learn the incompatible pair with TTL",
        "PSL",
    ),
    Row(27, "dst fills up between plan and start", "recheck last; count in-flight inbound as used", "PS"),
    Row(
        28,
        "TLS, ssh host key, port range, auth failure",
        "`TRANSPORT`; pair quarantined; one alert, no retry storm",
        "SL",
    ),
    Row(29, "N failures in a window", "breaker → observe mode until an operator resumes", "S"),
    Row(30, "two daemons, same host", "`flock` lost → clear message, non-zero exit", "C"),
    Row(
        31,
        "two daemons, two hosts",
        "lease loser = standby; foreign jobs counted in caps; unexpected foreign job → hold",
        "S",
    ),
    Row(32, "lease store down", "sample only; ready = degraded; running jobs watched", "S"),
    Row(
        33,
        "leader frozen (SIGSTOP, VM pause) past its lease, then wakes",
        "lease age on monotonic clock re-checked right before each start; libvirt job lock as last guard",
        "SC",
    ),
    Row(
        34,
        "clock steps ± hours, NTP, DST",
        "intervals monotonic; log UTC; persisted cooldowns keep boot-id, doubt lengthens them; windows in named zone",
        "PS",
    ),
    Row(35, "controller suspended for hours", "gap → drop windows, warm up, no decision until fresh", "S"),
    Row(
        36,
        "a libvirt call hangs",
        "deadline in bounded worker; host `UNKNOWN`; cycle still ends; else watchdog restarts us",
        "PL",
    ),
    Row(37, "events lost / loop dead", "polling finds the truth; counter `events_missed`", "S"),
    Row(38, "bug: exception in a cycle", "logged as bug, cycle = no action; 3 in a row → observe mode", "P"),
    Row(39, "stale metrics for one host", "neither source nor target; shown as stale", "S"),
    Row(40, "NaN, ∞, negative, counter reset or wrap", "sample dropped with reason; never read as 0", "P"),
    Row(41, "part of the cluster invisible", "above x % unknown → no planning; N+1 counts them as absent", "S"),
    Row(42, "unit or scale error (KiB/B, %/cores)", "types + plausibility against totals → quarantine source", "P"),
    Row(43, "flapping host", "must be stable T (doubling); no inbound meanwhile", "S"),
    Row(44, "short spike", "hold + forecast quantile → no move", "S"),
    Row(45, "ping-pong", "per-VM cooldown, relative margin, reverse-move tabu", "SP"),
    Row(46, "herd onto a fresh empty host", "inflow cap 1–2, ramp, in-flight pre-accounted", "S"),
    Row(47, "all hosts hot", "say so; no shuffling without gain; alert capacity", "S"),
    Row(
        48,
        "model file absent, corrupt, wrong version/features, unknown types",
        "physics fallback, `model_trusted 0`, alert; file kept aside",
        "PS",
    ),
    Row(49, "model absurd or drifting", "clamp to physical bounds; drift gate disables it alone", "PS"),
    Row(50, "tenant games the balancer by load", "limits are model-free; per-VM move budget per day", "S"),
    Row(
        51,
        "disk full for journal/log",
        "**stop starting** (I4), keep watching and metrics, recover alone. SQLite raises `SQLITE_FULL`, data stay readable, integrity ok",
        "PC",
    ),
    Row(52, "journal corrupt", "refuse to act, observe, `ledger check` explains", "C"),
    Row(53, "SIGHUP with bad config", "keep the old one; say where and why; `config_reload_success 0`", "P"),
    Row(54, "caps lowered while jobs run", "new starts obey; running ones left", "S"),
    Row(
        55,
        "dangerous config (0 thresholds, caps > hosts, window = always)",
        "rejected or needs explicit `i_accept_…` key",
        "P",
    ),
    Row(56, "permission lost on a host", "`READ_ONLY(host)`, once logged", "SL"),
    Row(
        57,
        "hostile VM names, XML metadata, escape codes, newlines",
        "structured fields; rendering escapes; no VM label in metrics by default; size-limited XML parse",
        "P",
    ),
    Row(58, "replayed or foreign approval", "single-use, digest + expiry + peer uid", "P"),
    Row(59, "downgrade meets newer journal schema", "observe mode, message", "P"),
    Row(60, "drain without room", "list VM × refusal; never break a hard rule", "S"),
    Row(61, "operator runs `virsh migrate` too", "adopt as foreign, count, do not fight it", "SL"),
    Row(62, "SIGTERM during start-up reconcile", "exit clean, journal unchanged", "C"),
)

# file under tests/ and the name of a test in it, or a scenario's directory
OTHERS: dict[int, tuple[str, ...]] = {
    1: ("scenarios/source-dies",),
    2: ("scenarios/destination-dies",),
    3: ("scenarios/link-cut-mid-migration",),
    4: ("scenarios/source-unreachable-mid-migration",),
    8: ("scenarios/test_crash_sweep.py::test_killed_after_an_effect_it_comes_back_and_ends_well",),
    9: (
        "scenarios/daemon-killed-before-the-call",
        "unit/act/test_act_verdict.py::test_an_intent_is_not_given_up_while_the_destination_is_silent",
    ),
    10: ("unit/test_daemon.py::test_sigterm_ends_the_process_although_calls_hang_for_ever",),
    22: ("unit/act/test_act_executor.py::TestTuning::test_an_abort_that_loses_the_race_is_a_success",),
    24: (
        "scenarios/vm-on-both-hosts",
        "scenarios/vm-started-twice",
    ),
    25: ("scenarios/vm-on-neither-host",),
    26: (
        "unit/plan/test_plan_counted.py::test_free_huge_pages_of_the_same_size_are_needed",
        "unit/plan/test_plan_counted.py::test_what_is_pinned_goes_to_an_equal_topology_only",
        "unit/act/test_act_preflight.py::TestMemory::test_a_vm_in_huge_pages_needs_those_and_not_what_is_available",
        "unit/plan/test_plan_traps.py::test_trap_one_passthrough_vm_does_not_kill_the_plan",
    ),
    27: ("unit/act/test_act_preflight.py::TestMemory::test_an_incoming_copy_of_unknown_size_is_in_doubt",),
    31: ("postgres/test_failover.py::test_a_step_of_the_databases_clock_makes_two_leaders_and_no_double_move",),
    32: (
        "postgres/test_failover.py::test_a_database_that_hangs_stops_all_of_them_and_no_longer_than_it_hangs",
        "postgres/test_hung_server.py::test_a_call_to_a_server_that_hangs_has_an_end_and_the_next_one_works",
        "postgres/test_start_without_it.py::test_it_waits_for_the_database_and_then_leads",
    ),
    33: ("postgres/test_failover.py::test_a_leader_frozen_between_intent_and_call_never_calls",),
    34: ("property/test_guard_windows.py",),
    36: ("unit/test_daemon.py::test_a_sample_job_that_hangs_does_not_stop_deciding",),
    40: ("property/test_observe_properties.py::test_no_rate_is_ever_negative_nan_or_more_than_can_be",),
    48: (
        "unit/test_daemon_models.py::test_it_starts_with_a_broken_artefact_and_goes_on_with_physics",
        "unit/test_daemon_models.py::test_the_failure_of_a_model_is_a_health_condition",
        "unit/test_daemon_demand.py::test_it_runs_with_a_broken_artefact",
    ),
    49: (
        "unit/predict/test_learned_cost.py::test_bounds_are_above_values_and_finite",
        "unit/test_daemon_models.py::test_a_drifted_cluster_demotes_the_model_and_the_verdict_survives",
    ),
    51: ("unit/record/test_ledger_damage.py::test_a_full_disk_refuses_the_intent_and_works_again_after",),
    52: ("unit/record/test_ledger_damage.py::test_an_overwritten_page_is_found_at_opening",),
    58: ("unit/serve/test_socket_server.py::test_a_peer_that_is_not_on_the_list_is_refused_before_the_application",),
    59: ("unit/record/test_ledger_damage.py::test_a_newer_schema_is_refused_naming_both",),
}
LAB: dict[int, tuple[str, ...]] = {
    8: (
        "lab/test_daemon_lab.py::test_sigkill_in_mid_migration_is_adopted",
        "lab/test_act_lab.py::test_a_new_executor_adopts_what_the_old_one_left",
    ),
    12: ("lab/test_act_lab.py::test_a_destination_libvirtd_that_dies_leaves_the_vm_on_its_source",),
    17: ("lab/test_act_lab.py::test_a_move_by_hand_between_plan_and_start",),
    20: ("lab/test_act_lab.py::test_a_transfer_that_does_not_converge_is_aborted",),
    36: ("lab/test_observe_lab.py::test_a_host_that_hangs_costs_its_own_deadline",),
    61: ("lab/test_observe_lab.py::test_a_migration_by_other_hands_is_seen_in_flight_and_its_figures_are_kept",),
}
