import pytest

from devices.protocol import topics


def test_topics_are_those_of_the_protocol():
    assert topics.request_topic("edge", "cam-3") == "offramp/1/request/edge/cam-3"
    assert topics.reply_topic("edge", "cam-3") == "offramp/1/reply/edge/cam-3"
    assert topics.report_topic("edge", "cam-3") == "offramp/1/report/edge/cam-3"
    assert topics.status_topic("edge", "edge-0") == "offramp/1/status/edge/edge-0"


def test_filters_cover_all_devices_and_nodes_of_one_edge():
    assert topics.request_filter("edge") == "offramp/1/request/edge/+"
    assert topics.request_filter("edge", shared=True) == (
        "$share/offramp-edge/offramp/1/request/edge/+"
    )
    assert topics.reply_filter("edge") == "offramp/1/reply/edge/+"
    assert topics.status_filter("edge") == "offramp/1/status/edge/+"
    assert topics.report_filter("edge") == "offramp/1/report/edge/+"


def test_who_sent_a_message_is_read_from_its_topic():
    assert topics.device_of(topics.request_topic("edge", "cam-3"), "edge") == "cam-3"
    assert topics.reporter_of(topics.report_topic("edge", "cam-3"), "edge") == "cam-3"
    assert topics.node_of(topics.status_topic("edge", "edge-0"), "edge") == "edge-0"


@pytest.mark.parametrize(
    "topic",
    [
        "offramp/1/request/other/cam-3",
        "offramp/1/reply/edge/cam-3",
        "offramp/2/request/edge/cam-3",
        "offramp/1/request/edge/",
        "offramp/1/request/edge",
        "offramp/1/request/edge/cam/3",
        "offramp/1/request/edge/cam 3",
        "offramp/1/request/edge/cam-3\n",
        "offramp/1/request/edge/" + 65 * "x",
        "",
    ],
)
def test_other_topics_are_no_request_topics(topic):
    assert topics.device_of(topic, "edge") is None


@pytest.mark.parametrize("name", ["", "a/b", "+", "#", "$share", "ä", "a b", "a\n", 65 * "x"])
@pytest.mark.parametrize(
    "make",
    [
        lambda name: topics.request_topic(name, "d"),
        lambda name: topics.request_topic("e", name),
        lambda name: topics.reply_topic("e", name),
        lambda name: topics.status_topic("e", name),
        lambda name: topics.report_topic(name, "d"),
        topics.request_filter,
        topics.reply_filter,
        topics.status_filter,
        topics.report_filter,
    ],
)
def test_names_that_no_topic_may_hold_are_refused(make, name):
    with pytest.raises(ValueError, match="cannot name"):
        make(name)


def test_names_of_the_greatest_length_are_taken():
    assert topics.device_of(topics.request_topic("e", 64 * "x"), "e") == 64 * "x"
