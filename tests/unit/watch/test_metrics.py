"""Prometheus' text format."""

from __future__ import annotations

from worker.watch.metrics import Gauge, gauge, render


def test_a_page_of_gauges() -> None:
    page = render(
        [
            gauge("hilum_films_waiting", "Films.", 3),
            gauge("hilum_associations", "Open associations."),  # not known: left out
            Gauge("hilum_up", "Up.", (({"destination": 'a"b\\c\nd'}, 1), ({"destination": "ris"}, 0.5))),
        ]
    )
    assert page.splitlines() == [
        "# HELP hilum_films_waiting Films.",
        "# TYPE hilum_films_waiting gauge",
        "hilum_films_waiting 3",
        "# HELP hilum_up Up.",
        "# TYPE hilum_up gauge",
        r'hilum_up{destination="a\"b\\c\nd"} 1',
        'hilum_up{destination="ris"} 0.5',
    ]
    assert page.endswith("\n")
