"""Presets of links: each is a valid section, and is what the sources in its file say."""

import re
from importlib import resources

import numpy as np
import pytest

from offramp.presets import link_presets
from offramp.schema import DirectionSection
from offramp.yaml_lines import read_yaml
from sim.distributions import Constant, Gamma, Lognormal

NAMES = [
    "ethernet",
    "wifi",
    "lte",
    "5g",
    "nb_iot",
    "lora_sf7",
    "lora_sf12",
    "satellite_leo",
    "satellite_geo",
]
FILE = resources.files("scenarios") / "presets" / "links.yaml"


def direction(name, which):
    """A direction as the schema reads it, and what a preset says beyond the latency and rate."""
    keys = link_presets()[name][which]
    keys.pop("loss_percent")
    return DirectionSection.model_validate(keys)


def latency_ms(section):
    """The distribution of a direction's latency, in milliseconds."""
    if section.jitter_ms:
        return Gamma(section.latency_ms, section.jitter_ms)
    if isinstance(section.latency_ms, int | float):
        return Constant(section.latency_ms)
    return Lognormal(section.latency_ms.median, section.latency_ms.sigma)


def transmission_ms(section, size_bytes):
    return 8 * size_bytes / (section.bandwidth_mbps * 1e6) * 1e3


def round_trips_ms(name, size_bytes, *percentiles):
    """Percentiles of the round trip of a lone message that is answered with one of its size."""
    u = (np.arange(2**17) + 0.5) / 2**17
    shuffled = np.random.default_rng(1).permutation(u)
    up, down = direction(name, "uplink"), direction(name, "downlink")
    total = latency_ms(up).ppf(u) + latency_ms(down).ppf(shuffled)
    total += transmission_ms(up, size_bytes) + transmission_ms(down, size_bytes)
    return np.percentile(total, percentiles)


# --- the file ------------------------------------------------------------------------------------


def test_the_presets_are_these():
    assert list(link_presets()) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_a_preset_is_a_whole_link(name):
    preset = link_presets()[name]
    assert set(preset) == {"shared", "uplink", "downlink"}
    assert isinstance(preset["shared"], bool)
    for which in ("uplink", "downlink"):
        section = direction(name, which)
        assert section.bandwidth_mbps is not None
        assert 0 <= preset[which]["loss_percent"] < 5
        if section.jitter_ms:
            assert isinstance(section.latency_ms, int | float), "jitter is about a number"


def test_every_figure_has_its_source_beside_it():
    text = FILE.read_text(encoding="utf-8")
    lines = text.splitlines()
    places = {place: line for place, line in read_yaml(text)[1].items() if len(place) <= 3}
    starts = [*sorted(places.values()), len(lines) + 1]
    for place, line in places.items():
        if place[-1] in (*NAMES, "uplink", "downlink"):
            continue
        beside = "\n".join(lines[line - 1 : starts[starts.index(line) + 1] - 1])
        sources = ("MEASURED", "STANDARD", "COMPUTED", "CHOICE", "as the uplink")
        assert any(source in beside for source in sources), f"{place} in line {line}"


def test_every_source_that_is_cited_is_listed_and_every_one_listed_is_cited():
    listed, cited = FILE.read_text(encoding="utf-8").split("# Sources")[1].split("\nethernet:")
    names = re.findall(r"^#   \[(\w+)\]", listed, flags=re.MULTILINE)
    assert len(names) >= 9
    assert set(names) == set(re.findall(r"\[(\w+)\]", cited))


def test_presets_may_be_changed_by_who_asks_for_them():
    link_presets()["wifi"]["uplink"]["bandwidth_mbps"] = 1
    assert link_presets()["wifi"]["uplink"]["bandwidth_mbps"] == 46.2


# --- the figures ---------------------------------------------------------------------------------


def test_wifi_has_the_median_and_the_95th_percentile_measured():
    assert round_trips_ms("wifi", 2880, 50, 95) == pytest.approx([4.80, 13.0], rel=0.02)


def test_wifi_misses_the_rest_as_its_comment_says():
    assert round_trips_ms("wifi", 2880, 5, 25, 75, 99) == pytest.approx(
        [2.2, 3.4, 7.1, 21], rel=0.03
    )


@pytest.mark.parametrize(("name", "spread"), [("lte", 22), ("5g", 19)])
def test_round_trips_of_mobile_networks_spread_as_measured(name, spread):
    median, high = round_trips_ms(name, 0, 50, 95)
    assert high - median == pytest.approx(spread, rel=0.03)


def test_lte_is_as_much_slower_than_5g_as_measured():
    slower = round_trips_ms("lte", 0, 50) - round_trips_ms("5g", 0, 50)
    assert slower == pytest.approx(84 - 72, abs=0.5)


def test_a_low_orbit_has_the_quartiles_measured():
    assert round_trips_ms("satellite_leo", 0, 25, 50, 75) == pytest.approx([40, 50, 60], rel=0.02)


def test_a_high_orbit_is_never_faster_than_light():
    section = direction("satellite_geo", "uplink")
    fastest_ms = 2 * 35_786e3 / 299_792_458 * 1e3
    assert section.latency_ms - 3 * section.jitter_ms > fastest_ms


def test_nb_iot_keeps_the_limit_of_its_standard():
    section = direction("nb_iot", "uplink")
    assert latency_ms(section).ppf(np.array([0.998]))[0] == pytest.approx(10_000, rel=0.01)


@pytest.mark.parametrize(
    ("name", "spreading", "optimised"), [("lora_sf7", 7, 0), ("lora_sf12", 12, 1)]
)
@pytest.mark.parametrize("payload", [1, 12, 20, 51])
def test_lora_takes_the_time_on_air_of_the_datasheet(name, spreading, optimised, payload):
    """SX1276 datasheet, section 4.1.1.7; 13 bytes of LoRaWAN, coding rate 4/5, CRC, 125 kHz."""
    symbol_ms = 2**spreading / 125
    bits = 8 * (payload + 13) - 4 * spreading + 28 + 16
    blocks = max(np.ceil(bits / (4 * (spreading - 2 * optimised))), 0)
    on_air_ms = (8 + 4.25 + 8 + blocks * 5) * symbol_ms
    section = direction(name, "uplink")
    ours_ms = section.latency_ms + transmission_ms(section, payload)
    # Payloads are sent in blocks of five symbols; a straight line runs below their steps.
    assert ours_ms - 0.1 * symbol_ms <= on_air_ms <= ours_ms + 5.1 * symbol_ms


def test_a_class_a_device_listens_a_second_after_it_has_sent():
    for name in ("lora_sf7", "lora_sf12"):
        up, down = direction(name, "uplink"), direction(name, "downlink")
        assert down.latency_ms == pytest.approx(up.latency_ms + 1000)
