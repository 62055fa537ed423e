"""Where the time of a request went, in both worlds: uplink, broker, queue, inference, downlink.

A live request leaves four marks besides its creation: sent and heard on the device's clock, and on
the node's how long it waited, how long it was computed and, where that clock is the device's, when
it arrived. So queue and inference, and the whole of both ways, are measured; how much of a way was
network and how much broker is not, since no broker tells. The share that was calibrated is taken
for one of them, and the rest for the other:

- where the links of the scenario are there, the network carries what broker and clients take not;
- else broker and clients take what the network, whose round trip was measured, does not.

The simulated side is divided by the same rule, so that the two can be compared.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from offramp.validation.calibration import Calibration
from offramp.validation.runs import ARM, Side

PARTS = ("uplink", "broker", "queue", "inference", "downlink")


@dataclass(frozen=True)
class Division:
    """How ways are divided.

    Attributes:
        links: whether the network is what the scenario says it is, or what was measured.
        lag_s: mean time until a device had sent, by world; part of the uplink.
    """

    calibration: Calibration
    links: str
    lag_s: dict[str, float]

    def of(self, up_s: float, home_s: float, world: str) -> tuple[float, float, float]:
        """Uplink, broker and downlink of mean ways up and home."""
        calibration, lag_s = self.calibration, self.lag_s[world]
        if self.links == "scenario":
            at_broker_s = calibration.at_broker_s() / 2
            up, down = max(up_s - at_broker_s, 0.0), max(home_s - at_broker_s, 0.0)
        else:
            way_s = calibration.trips * calibration.link_s
            up, down = min(lag_s + way_s, up_s), min(way_s, home_s)
        return up, up_s + home_s - up - down, down


def time_parts(live: Side, simulated: Side, division: Division) -> pd.DataFrame:
    """Mean seconds of each part over the answered requests of each arm and world.

    Columns ``strategy, training_seed, policy, world, part, seconds, requests``; with nothing
    answered, an arm has no rows for that world.
    """
    rows = []
    for side, world in ((live, "live"), (simulated, "simulated")):
        answered = side.records[side.records["received_s"].notna()]
        for arm, part in answered.groupby(ARM, sort=False):
            up_s = float((part["arrived_s"] - part["created_s"]).mean())
            home_s = float((part["received_s"] - part["finished_s"]).mean())
            uplink, broker, downlink = division.of(up_s, home_s, world)
            seconds = {
                "uplink": uplink,
                "broker": broker,
                "queue": float((part["started_s"] - part["arrived_s"]).mean()),
                "inference": float((part["finished_s"] - part["started_s"]).mean()),
                "downlink": downlink,
            }
            rows += [
                {
                    **dict(zip(ARM, arm, strict=True)),
                    "world": world,
                    "part": name,
                    "seconds": value,
                    "requests": len(part),
                }
                for name, value in seconds.items()
            ]
    return pd.DataFrame(rows, columns=[*ARM, "world", "part", "seconds", "requests"])


def division_of(live: Side, calibration: Calibration, links: str) -> Division:
    """How the ways of a validation are divided."""
    lag_ms = live.manifest.get("live", {}).get("lag_ms", {})
    lag_s = {
        "live": 1e-3 * float(lag_ms.get("mean", lag_ms.get("p50", 0.0))),
        "simulated": float(np.mean(calibration.lag_s)),
    }
    return Division(calibration, links, lag_s)
