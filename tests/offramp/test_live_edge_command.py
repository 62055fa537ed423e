"""``offramp live edge``: what it serves, and what it says when it cannot."""

import os
import shutil
import signal
import socket
import threading
import time
from contextlib import closing

import pytest

from devices.mqtt.connections import connect, disconnect, new_client
from devices.mqtt.embedded_broker import embedded_broker
from devices.protocol.messages import (
    InferenceRequest,
    decode_reply,
    decode_status,
    encode_request,
)
from models.artifacts import read_predictions, read_profile, write_profile
from models.errors import ArtifactError, LiveError
from offramp import load_scenario
from offramp.live.arms import LiveArm, arm_policy, choose_arms, network_folder
from offramp.live.edge import _serve
from offramp.live.node_parts import node_place
from offramp.stages.layout import CHECKPOINT, PREDICTIONS, PROFILE
from offramp.store import Store
from sim.distributions import Constant
from sim.nodes.service import DistributedService
from sim.policies import DeadlineAware


@pytest.fixture(scope="module")
def broker():
    with embedded_broker() as running:
        yield running


class Asker:
    """Waits for the node, asks it about samples, and ends it."""

    def __init__(self, broker, samples, status_of="edge"):
        self.samples, self.replies, self.status = samples, [], None
        self.client = new_client(broker, f"asker-{time.monotonic_ns()}")
        self.client.on_connect = lambda client, *_: client.subscribe(
            [("offramp/1/status/edge/+", 1), ("offramp/1/reply/edge/d0", 1)]
        )
        self.client.on_message = self._heard
        self.status_of = status_of
        connect(self.client, broker)

    def _heard(self, client, userdata, message):
        if "/status/" in message.topic:
            status = decode_status(message.payload)
            if status.state == "online" and status.node == self.status_of and not message.retain:
                self.status = status
                for id, sample in enumerate(self.samples):
                    asked = encode_request(InferenceRequest(id, 10.0, sample=sample))
                    client.publish("offramp/1/request/edge/d0", asked, 1)
        else:
            self.replies.append(decode_reply(message.payload))
            if len(self.replies) == len(self.samples):
                os.kill(os.getpid(), signal.SIGTERM)


@pytest.fixture
def served(broker, offramp):
    """Run the command until it has answered about some samples; what it did, and the asker."""

    def serve(*arguments, samples=range(20), node="edge"):
        asker = Asker(broker, samples, node)
        arguments = ("--broker", broker.url, "--mqtt-version", "3.1.1", *arguments)
        # Should the node not come up, the command must end all the same.
        alarm = threading.Timer(120, os.kill, (os.getpid(), signal.SIGTERM))
        alarm.start()
        try:
            ran = offramp("live", "edge", *arguments)
        finally:
            alarm.cancel()
            disconnect(asker.client)
        return ran, asker

    return serve


# --- serving -------------------------------------------------------------------------------------


def test_a_node_answers_as_the_predictions_say_and_ends_when_told(served, store, scenario):
    path = scenario({"policies": [{"policy": "fixed_exit", "exit": 1}]})
    ran, asker = served(path, "--store", store, "--strategy", "curriculum", "--seed", 1)
    assert ran.status == 0, ran.err
    line = ran.out.splitlines()[0]
    for part in (
        "node edge at mqtt://",
        "resnet8",
        "fixed_exit(exit=1)",
        "runtime eager",
        "serves",
    ):
        assert part in line
    assert asker.status.strategy == "curriculum"
    assert asker.status.training_seed == 1
    assert (asker.status.exits, asker.status.input_shape) == (2, (1, 8, 8))
    loaded = load_scenario(str(path))
    folder = network_folder(loaded, Store(store), LiveArm("curriculum", 1, ""), "")
    expected = read_predictions(folder / PREDICTIONS)
    for reply in asker.replies:
        assert (reply.status, reply.exit) == ("ok", 1)
        assert reply.predicted == expected.predicted[reply.id, 0]
        assert reply.confidence == pytest.approx(expected.confidence[reply.id, 0], abs=1e-4)


def test_a_checkpoint_file_needs_no_store_and_its_profile_is_measured_once(
    served, trained, scenario, tmp_path
):
    path = scenario({"policies": [{"policy": "fixed_exit", "exit": 2}]})
    folder = network_folder(
        load_scenario(str(path)), Store(trained.store), LiveArm("standard", 0, ""), ""
    )
    file = shutil.copy(folder / CHECKPOINT, tmp_path / "network.safetensors")
    arguments = (path, "--checkpoint", file, "--store", tmp_path / "new")
    ran, asker = served(*arguments, samples=[3])
    assert ran.status == 0, ran.err
    assert asker.replies[0].exit == 2
    (measured,) = (tmp_path / "new").glob(f"profile/*/{PROFILE}")
    before = measured.stat()
    ran, asker = served(*arguments, samples=[3])
    assert (ran.status, asker.replies[0].exit) == (0, 2)
    assert list((tmp_path / "new").glob("profile/*/*.parquet")) == [measured]
    assert measured.stat() == before


def test_a_replica_has_a_name_of_its_own():
    """Replicas need a broker with MQTT 5: their names are all that is seen without one."""
    place = node_place(load_scenario("quickstart", ["nodes.edge.replicas=3"]), None, 2)
    assert (place.edge, place.node, place.is_replica) == ("edge", "edge-2", True)
    again = node_place(load_scenario("quickstart", ["nodes.edge.replicas=3"]), "edge-2", None)
    assert again == place


def test_the_second_signal_ends_a_node_at_once_and_the_first_lets_it_drain():
    from offramp.console import Console

    seen = []

    class Node:
        name, description = "edge", "node edge"

        def start(self, **_):
            pass

        def wait(self, timeout_s):
            os.kill(os.getpid(), signal.SIGTERM)
            return False

        def drain(self, timeout_s):
            seen.append(
                (timeout_s, signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT))
            )
            return True

    before = signal.getsignal(signal.SIGTERM)
    _serve(Node(), 0.0, 7.0, Console(quiet=True))
    assert seen == [(7.0, signal.SIG_DFL, signal.SIG_DFL)]
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_node_that_cannot_go_on_leaves_before_it_says_why():
    from offramp.console import Console

    drained = []

    class Node:
        name, description = "edge", "node edge"

        def start(self, **_):
            pass

        def wait(self, timeout_s):
            raise LiveError("taken over")

        def drain(self, timeout_s):
            drained.append(timeout_s)
            return True

    with pytest.raises(LiveError, match="taken over"):
        _serve(Node(), 0.0, 3.0, Console(quiet=True))
    assert drained == [3.0]


# --- what is wrong -------------------------------------------------------------------------------


@pytest.fixture
def wrong(offramp, broker):
    """Run the command, at a broker that is there unless another is named; what it says is wrong."""

    def run(*arguments):
        ran = offramp(
            *("live", "edge", "--broker", broker.url, "--mqtt-version", "3.1.1"), *arguments
        )
        assert ran.status == 2
        assert ran.err.startswith("error: ")
        return ran.err

    return run


def test_what_was_not_trained(wrong, scenario, tmp_path):
    said = wrong(scenario(), "--store", tmp_path / "empty")
    assert "strategy 'standard' with seed 0 has not been trained" in said
    assert f"offramp train {tmp_path / 'tiny.yaml'} --store {tmp_path / 'empty'}" in said
    assert "--checkpoint" in said


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (
            ("--strategy", "curriculm"),
            "--strategy curriculm: the scenario has standard, curriculum",
        ),
        (("--strategy", "curriculm"), "did you mean 'curriculum'?"),
        (("--seed", 7), "--seed 7: the scenario has 0, 1"),
        (
            ("--policy", "deadline"),
            "--policy deadline: the scenario has deadline_aware, fixed_exit",
        ),
        (("--node", "edgy"), "--node edgy: the scenario has edge; did you mean 'edge'?"),
        (("--replica", 1), "there is one node 'edge', and no replica 1"),
        (("--mqtt-version", "4"), "--mqtt-version: 5 or 3.1.1 is expected, not 4"),
        (("--broker", "http://x"), "is no broker"),
        (("--checkpoint", "x", "--seed", 0), "leave out --strategy and --seed"),
        (("--checkpoint", "none.safetensors"), "none.safetensors: not a readable checkpoint"),
    ],
)
def test_arguments_that_do_not_fit(wrong, scenario, arguments, says):
    assert says in wrong(scenario(), *arguments)


def test_a_policy_that_knows_the_future_cannot_serve(wrong, scenario):
    said = wrong(scenario({"policies": ["oracle"]}))
    assert "only a simulator" in said


def test_tiers_cannot_be_served(wrong, scenario):
    said = wrong(
        scenario(),
        "--set",
        "nodes.cloud={}",
        "--set",
        "nodes.edge.next_tier={node: cloud}",
    )
    assert "next_tier" in said


def test_a_checkpoint_of_another_network(wrong, store, scenario):
    loaded = load_scenario(str(scenario()))
    file = network_folder(loaded, Store(store), LiveArm("standard", 0, ""), "") / CHECKPOINT
    other = scenario({"model.exits": ["layer2"]}, name="other.yaml")
    assert "made for another network" in wrong(other, "--checkpoint", file)


def test_a_profile_of_another_network_or_runtime(wrong, store, scenario, tmp_path):
    measured = next(store.glob("profile/*")) / PROFILE
    other = read_profile(measured)
    other.about["architecture"] = "another"
    write_profile(tmp_path / "other.parquet", other)
    said = wrong(scenario(), "--store", store, "--profile", tmp_path / "other.parquet")
    assert "was made for another network" in said
    said = wrong(
        scenario(),
        "--store",
        store,
        "--profile",
        measured,
        "--set",
        "profile.runtime=compile",
    )
    assert "measured with runtime eager, but the node serves with compile" in said


def test_nobody_listens(wrong, store, scenario):
    with closing(socket.socket()) as sock:
        sock.bind(("127.0.0.1", 0))
        url = f"mqtt://127.0.0.1:{sock.getsockname()[1]}"
        assert "nothing listens there" in wrong(scenario(), "--store", store, "--broker", url)


def test_a_metrics_port_in_use_is_found_before_anything_is_loaded(wrong, scenario):
    with closing(socket.socket()) as sock:
        sock.bind(("127.0.0.1", 0))
        sock.listen()
        port = sock.getsockname()[1]
        said = wrong(scenario(), "--metrics-port", port, "--metrics-host", "127.0.0.1")
    assert f"cannot serve metrics on port {port}: it is in use (--metrics-port)" in said


def test_several_nodes_one_must_be_chosen(wrong, scenario):
    path = scenario({"nodes.other": {"workers": 1}})
    assert "the scenario has nodes edge, other: choose one (--node)" in wrong(path)


# --- arms ----------------------------------------------------------------------------------------


def test_arms_are_all_strategies_and_policies_with_the_first_seed(scenario):
    loaded = load_scenario(str(scenario()))
    labels = ("deadline_aware", "fixed_exit(exit=2)")
    assert choose_arms(loaded) == [
        LiveArm(strategy, 0, label) for strategy in ("standard", "curriculum") for label in labels
    ]
    assert choose_arms(loaded, ["curriculum"], [1, 0], labels[1:]) == [
        LiveArm("curriculum", seed, labels[1]) for seed in (0, 1)
    ]


SERVICE = DistributedService(Constant(1e-3), exit_count=2)

FITTED = {"policies": [{"policy": "confidence", "wanted_accuracy": 0.05, "label": "fit"}]}


def test_a_policy_that_must_be_fitted_needs_validation_predictions(store, scenario, offramp):
    path = scenario(FITTED)
    loaded, arm = load_scenario(str(path)), LiveArm("standard", 0, "fit")
    with pytest.raises(ArtifactError, match=r"have not been made: run `offramp train X` first"):
        arm_policy(loaded, Store(store), arm, SERVICE, " X")
    with pytest.raises(ArtifactError, match="a checkpoint file has none"):
        arm_policy(loaded, Store(store), arm, SERVICE, "", from_file=True)
    assert offramp("train", path, "--store", store).status == 0
    fitted = arm_policy(loaded, Store(store), arm, SERVICE, "")
    assert 0 <= fitted.threshold <= 1


def test_other_policies_need_nothing(scenario, tmp_path):
    loaded = load_scenario(str(scenario()))
    policy = arm_policy(
        loaded, Store(tmp_path), LiveArm("standard", 0, "deadline_aware"), SERVICE, ""
    )
    assert policy == DeadlineAware()
