"""Prometheus metrics of nights: what the window of consolidation under way, else the last one, saved and cost."""

from prometheus_client import CollectorRegistry, Gauge

from rebalancerd.cluster.night import KWH_JOULES
from rebalancerd.night.book import NightsTold


class NightMetrics:
    """Metrics of nights on that registry. Not thread-safe: its owner locks."""

    def __init__(self, registry: CollectorRegistry) -> None:
        def gauge(name: str, text: str, *labels: str) -> Gauge:
            return Gauge(f"rebalancerd_{name}", text, labels, registry=registry)

        self._under_way = gauge("night_under_way", "1: a window of consolidation is under way or being unfolded.")
        self._saved = gauge(
            "night_saved_kwh", "Saved in the night under way, else in the last: moves paid, may be below 0."
        )
        self._moves_kwh = gauge("night_moves_kwh", "What the copying of that night's moves drew.")
        self._moves = gauge("night_moves", "Migrations that ended in that night.")
        self._asleep = gauge("night_asleep_seconds", "How long each host slept in that night.", "host")
        self._hot = gauge("night_hot_seconds", "Host-seconds above headroom in that night.")
        self._caused = gauge("night_hot_caused_seconds", "Those that the evening's placement would not have had.")
        self._missed = gauge("night_missed_seconds", "Time of that night without a reading; nothing is claimed for it.")
        self._nights = gauge("nights", "Nights on record that are over.")
        self._total = gauge("nights_saved_kwh", "What the nights on record that are over saved together.")

    def observe(self, told: NightsTold) -> None:
        """Show that state."""
        self._nights.set(told.total.nights)
        self._total.set(told.total.saved_kwh)
        self._under_way.set(told.now is not None)
        night = told.now or told.last
        if night is None:
            return
        self._saved.set(night.saved_kwh)
        self._moves_kwh.set(night.moves_joules / KWH_JOULES)
        self._moves.set(night.moves)
        self._hot.set(night.hot_seconds)
        self._caused.set(night.caused_seconds)
        self._missed.set(night.missed_seconds)
        self._asleep.clear()
        for host, seconds in night.asleep_seconds:
            self._asleep.labels(host=host).set(seconds)
