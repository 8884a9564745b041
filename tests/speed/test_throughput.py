from __future__ import annotations

import json

from modelnative.speed.throughput import Throughput


def test_throughput_from_json() -> None:
    rate = Throughput("environment", "steps/s", 2, 1, (3.0, 1.0, 2.0), 4.5)
    assert Throughput.of(json.loads(json.dumps(rate.as_dict()))) == rate
    assert rate.median == 2.0
    assert rate.range == (1.0, 3.0)
