"""Tables of faults: what was down when, how often and how long."""

import pytest
from tiny_worlds import group, node, predictions, world

from sim.faults import Fault
from sim.network.links import Link
from sim.network.mqtt import Mqtt
from sim.results.fault_tables import fault_counts, fault_times
from sim.running.slices import Slices
from sim.workload.arrivals import Poisson


def absences_of(a_world, replication=0):
    return Slices(a_world, predictions().label, replication).absences


def test_scheduled_faults_are_counted_for_all_that_bear_the_name():
    a_world = world(
        group(count=4),
        node(replicas=2),
        node(name="spare"),
        mqtt=Mqtt(),
        duration_s=20.0,
        faults=(
            Fault("node_crash", "edge", schedule=((5.0, 7.0), (10.0, 11.0))),
            Fault("slow_node", "spare", schedule=((0.0, 4.0),), factor=0.5),
            Fault("broker_restart", schedule=((15.0, 15.5),)),
            Fault("device_churn", "devices", schedule=((19.0, 30.0),)),
        ),
    )
    rows = {row["kind"]: row for row in fault_counts(a_world, absences_of(a_world))}
    assert rows["node_crash"] == {
        "kind": "node_crash", "target": "edge", "targets": 2, "count": 4, "down_s": 6.0,
    }  # fmt: skip
    assert (rows["slow_node"]["target"], rows["slow_node"]["down_s"]) == ("spare", 4.0)
    assert (rows["broker_restart"]["count"], rows["broker_restart"]["down_s"]) == (1, 0.5)
    assert rows["device_churn"]["targets"] == 4
    assert rows["device_churn"]["down_s"] == pytest.approx(4 * 1.0), "until the window ends"


def test_times_name_the_node_that_was_down():
    a_world = world(
        group(),
        node(replicas=2),
        duration_s=20.0,
        faults=(Fault("node_crash", "edge", schedule=((5.0, 7.0),)),),
    )
    rows = fault_times(a_world, absences_of(a_world))
    assert [(row["name"], row["start_s"], row["end_s"]) for row in rows] == [
        ("edge-0", 5.0, 7.0),
        ("edge-1", 5.0, 7.0),
    ]


def test_links_that_are_down_together_are_one_line():
    groups = group(count=50, arrivals=Poisson(1.0), link=Link(shared_by=2))
    fault = Fault("link_outage", groups.link, schedule=((2.0, 3.0),))
    a_world = world(groups, duration_s=20.0, faults=(fault,))
    (row,) = fault_times(a_world, absences_of(a_world))
    assert (row["kind"], row["name"], row["start_s"]) == ("link_outage", "", 2.0)
    (counted,) = fault_counts(a_world, absences_of(a_world))
    assert (counted["targets"], counted["count"], counted["down_s"]) == (25, 25, 25.0)


def test_random_faults_of_links_are_listed_one_by_one():
    groups = group(count=3)
    fault = Fault("link_outage", groups.link, mtbf_s=5.0, mttr_s=1.0)
    a_world = world(groups, duration_s=60.0, faults=(fault,))
    rows = fault_times(a_world, absences_of(a_world))
    assert {row["name"] for row in rows} == {f"{groups.link}-{number}" for number in range(3)}
    (counted,) = fault_counts(a_world, absences_of(a_world))
    assert counted["count"] == len(rows) > 10


def test_a_world_without_faults_has_no_rows():
    a_world = world()
    assert fault_counts(a_world, absences_of(a_world)) == []
    assert fault_times(a_world, absences_of(a_world)) == []
