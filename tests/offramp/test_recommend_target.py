"""Targets of `offramp recommend`: what is read, and what is refused."""

import math

import pytest

from models.errors import ScenarioError
from offramp.recommendation.target import METRICS, Target, read_targets


@pytest.mark.parametrize(
    ("text", "metric", "value"),
    [
        ("aud=0.85", "aud", 0.85),
        ("aud=85%", "aud", 0.85),
        (" hit_ratio = 99.5 % ", "hit_ratio", 0.995),
        ("accuracy=1", "accuracy", 1.0),
        ("accuracy=1e-3", "accuracy", 0.001),
        ("latency_p50_ms=20", "latency_p50_ms", 0.02),
        ("latency_p95_ms=0.5", "latency_p95_ms", 0.0005),
        ("latency_p99_ms=1e3", "latency_p99_ms", 1.0),
    ],
)
def test_a_share_or_milliseconds_are_read(text: str, metric: str, value: float) -> None:
    (target,) = read_targets([text])
    assert (target.metric, target.value) == (metric, pytest.approx(value))


@pytest.mark.parametrize(
    ("texts", "says"),
    [
        ([], "--target is missing"),
        (["aud"], "write it as NAME=VALUE"),
        (["=0.5"], "write it as NAME=VALUE"),
        (["aud="], "write it as NAME=VALUE"),
        (["oud=0.5"], "did you mean 'aud'"),
        (["latency_p95=20"], "did you mean 'latency_p95_ms'"),
        (["aud=much"], "'much' is not a number"),
        (["aud=nan"], "a share"),
        (["aud=inf"], "a share"),
        (["aud=-0.1"], "a share"),
        (["aud=0"], "a share"),
        (["aud=1.5"], "a share"),
        (["aud=85"], "did you mean 85%?"),
        (["aud=101%"], "a share"),
        (["latency_p95_ms=nan"], "above 0"),
        (["latency_p95_ms=inf"], "above 0"),
        (["latency_p95_ms=-5"], "above 0"),
        (["latency_p95_ms=0"], "above 0"),
        (["latency_p95_ms=5%"], "not in per cent"),
        (["aud=0.5", "hit_ratio=0.5", "aud=0.6"], "aud is named twice"),
    ],
)
def test_nonsense_is_refused_and_said(texts: list[str], says: str) -> None:
    with pytest.raises(ScenarioError) as caught:
        read_targets(texts)
    assert says in str(caught.value)


def test_slack_is_what_is_left_of_a_target() -> None:
    share, latency = Target("aud", 0.8), Target("latency_p95_ms", 0.02)
    assert share.slack(0.85) == pytest.approx(0.05)
    assert share.slack(0.7) == pytest.approx(-0.1)
    assert latency.slack(0.015) == pytest.approx(0.25)
    assert latency.slack(0.03) == pytest.approx(-0.5)
    assert share.slack(math.nan) < 0
    assert latency.slack(math.nan) < 0


def test_a_difference_says_on_which_side_it_is() -> None:
    assert Target("aud", 0.8).difference(0.75) == "5.00 points below the target"
    assert Target("aud", 0.8).difference(0.81) == "1.00 points above the target"
    assert Target("latency_p95_ms", 0.02).difference(0.025) == "5 ms above the target"


def test_every_metric_is_documented_by_its_title() -> None:
    assert all(Target(metric, 0.5).title for metric in METRICS)
    assert [str(it) for it in read_targets(["aud=85%", "latency_p95_ms=20"])] == [
        "aud ≥ 85 %",
        "latency_p95_ms ≤ 20",
    ]
