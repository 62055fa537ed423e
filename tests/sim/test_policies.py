"""What each policy decides, worked by hand."""

import copy
import pickle

import numpy as np
import pytest
from fake_views import FakeNode, FakeRequest, FakeTier

from sim.policies import (
    POLICIES,
    Anytime,
    Confidence,
    DeadlineAware,
    DeadlineConfidence,
    FixedExit,
    Full,
    Imprecise,
    LoadAdaptive,
    Offload,
    Oracle,
)
from sim.policy import ANSWER, DROP, MOST_EXITS, OFFLOAD, run_to

NAN = float("nan")

#: The first of two tiers: the node computes exits 1 and 2, the next tier up to 3.
SPLIT = FakeNode((1.0, 2.0), next_tier=FakeTier())


def is_run_to(decision, exit, within_s):
    return (decision.name, decision.exit, decision.within_s) == ("run_to", exit, within_s)


# --- fixed_exit ----------------------------------------------------------------------------------


@pytest.mark.parametrize("exit", [1, 2, 3])
def test_fixed_exit_runs_to_its_exit_at_once_and_answers(exit):
    policy = FixedExit(exit)
    assert policy.decide(FakeRequest(), FakeNode()) is run_to(exit)
    assert policy.decide(FakeRequest(exit=exit, confidence=0.1), FakeNode()) is ANSWER


def test_fixed_exit_does_not_look_at_the_deadline():
    assert FixedExit(3).decide(FakeRequest(remaining_s=-5.0), FakeNode()) is run_to(3)


@pytest.mark.parametrize(
    ("at", "decision"), [(0, run_to(2)), (1, run_to(2)), (2, OFFLOAD)], ids=str
)
def test_fixed_exit_beyond_the_node_is_left_to_the_next_tier(at, decision):
    assert FixedExit(3).decide(FakeRequest(exit=at), SPLIT) is decision
    assert FixedExit(2).decide(FakeRequest(exit=2), SPLIT) is ANSWER
    there = FakeNode((0.1, 0.2, 0.3))
    assert FixedExit(3).decide(FakeRequest(exit=2, confidences=()), there) is run_to(3)


# --- confidence ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("exit", "confidence", "decision"),
    [
        (0, float("nan"), run_to(1)),
        (1, 0.79, run_to(2)),
        (1, 0.8, ANSWER),
        (2, 0.5, run_to(3)),
        (2, 0.95, ANSWER),
        (3, 0.1, ANSWER),  # nothing comes after the last exit
    ],
)
def test_confidence_answers_at_the_first_exit_that_reaches_the_threshold(
    exit, confidence, decision
):
    request = FakeRequest(remaining_s=-1.0, exit=exit, confidence=confidence)
    assert Confidence(0.8).decide(request, FakeNode()) is decision


def test_confidence_thresholds_0_and_1_are_the_first_and_the_last_exit():
    assert Confidence(0.0).decide(FakeRequest(exit=1, confidence=0.0), FakeNode()) is ANSWER
    assert Confidence(1.0).decide(FakeRequest(exit=2, confidence=0.99), FakeNode()) is run_to(3)


# --- deadline_aware ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("remaining_s", "decision"),
    [
        (100.0, run_to(3)),
        (4.5, run_to(3)),  # 0.5 s home leave exactly the 4 s of exit 3
        (4.4, run_to(2)),
        (2.5, run_to(2)),
        (2.4, run_to(1)),
        (1.5, run_to(1)),
    ],
)
@pytest.mark.parametrize("when_none_fits", ["earliest_exit", "drop"])
def test_deadline_aware_takes_the_deepest_exit_that_fits(remaining_s, decision, when_none_fits):
    policy = DeadlineAware(0.95, when_none_fits)
    assert policy.decide(FakeRequest(remaining_s, home_s=0.5), FakeNode()) is decision


@pytest.mark.parametrize("remaining_s", [1.4, 0.0, -3.0])
def test_deadline_aware_when_none_fits(remaining_s):
    request = FakeRequest(remaining_s, home_s=0.5)
    assert DeadlineAware().decide(request, FakeNode()) is run_to(1)
    assert DeadlineAware(when_none_fits="earliest_exit").decide(request, FakeNode()) is run_to(1)
    assert DeadlineAware(when_none_fits="drop").decide(request, FakeNode()) is DROP


def test_deadline_aware_needs_no_earlier_exit_to_fit():
    # A slow exit in the middle: passing it costs its branch, which a deeper exit does not pay.
    assert DeadlineAware().decide(FakeRequest(4.5), FakeNode((1.0, 5.0, 4.0))) is run_to(3)


def test_deadline_aware_answers_once_computed_even_if_there_is_time_left():
    assert DeadlineAware().decide(FakeRequest(100.0, exit=1), FakeNode()) is ANSWER


def test_deadline_aware_reckons_with_its_quantile_both_ways():
    request, node = FakeRequest(), FakeNode()
    DeadlineAware(quantile=0.8).decide(request, node)
    assert set(request.asked) == set(node.asked) == {0.8}


def test_an_exit_that_no_tier_has_is_not_passed_off_as_another():
    # The node will refuse the decision, and name the policy.
    for policy in (FixedExit(4), Imprecise(4)):
        for exit in (0, 3):
            assert policy.decide(FakeRequest(exit=exit, confidence=0.5), FakeNode()) is run_to(4)


# --- full ----------------------------------------------------------------------------------------


def test_full_runs_to_the_last_exit_whatever_the_confidence_and_the_deadline():
    assert Full().decide(FakeRequest(remaining_s=-5.0), FakeNode()) is run_to(3)
    assert Full().decide(FakeRequest(exit=3, confidence=0.1), FakeNode()) is ANSWER


def test_full_goes_through_the_tiers():
    assert Full().decide(FakeRequest(), SPLIT) is run_to(2)
    assert Full().decide(FakeRequest(exit=2, confidence=1.0), SPLIT) is OFFLOAD
    assert Full().decide(FakeRequest(exit=2, confidences=()), FakeNode()) is run_to(3)


def test_nothing_is_sent_on_to_a_tier_that_goes_no_deeper():
    node = FakeNode(next_tier=FakeTier())
    assert Full().decide(FakeRequest(exit=3, confidence=0.1), node) is ANSWER
    assert Confidence(0.9).decide(FakeRequest(exit=3, confidence=0.1), node) is ANSWER


# --- confidence: thresholds ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("exit", "confidence", "decision"),
    [
        (0, NAN, run_to(1)),
        (1, 0.9, ANSWER),
        (1, 0.8, run_to(2)),
        (2, 0.8, ANSWER),
        (2, 0.5, run_to(3)),
        (3, 0.0, ANSWER),
    ],
)
def test_each_exit_but_the_last_may_have_a_threshold_of_its_own(exit, confidence, decision):
    policy = Confidence(thresholds=[0.9, 0.6])
    assert policy.decide(FakeRequest(exit=exit, confidence=confidence), FakeNode()) is decision


def test_confidence_sends_on_what_it_is_not_sure_of_at_the_nodes_last_exit():
    assert Confidence(0.8).decide(FakeRequest(exit=1, confidence=0.5), SPLIT) is run_to(2)
    assert Confidence(0.8).decide(FakeRequest(exit=2, confidence=0.5), SPLIT) is OFFLOAD
    assert Confidence(0.8).decide(FakeRequest(exit=2, confidence=0.8), SPLIT) is ANSWER
    came = FakeRequest(exit=2, confidence=0.5, confidences=())
    assert Confidence(0.8).decide(came, FakeNode()) is run_to(3)


def test_the_threshold_is_nine_tenths_unless_something_else_is_given():
    assert Confidence().threshold == 0.9
    assert Confidence(thresholds=[0.5]).threshold is None


# --- deadline_confidence -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("exit", "confidence", "remaining_s", "decision"),
    [
        (0, NAN, 1.5, run_to(1)),  # 0.5 s home leave exactly the 1 s of exit 1
        (0, NAN, 1.4, run_to(1)),  # late perhaps, but an answer
        (1, 0.79, 1.5, run_to(2)),
        (1, 0.79, 1.4, ANSWER),  # exit 2 would be too late
        (1, 0.8, 100.0, ANSWER),  # sure enough
        (1, 0.8, -1.0, ANSWER),
        (2, 0.5, 2.5, run_to(3)),
        (2, 0.5, 2.4, ANSWER),
        (3, 0.1, 100.0, ANSWER),
    ],
)
def test_deadline_confidence_stops_when_sure_or_when_the_next_exit_would_be_late(
    exit, confidence, remaining_s, decision
):
    request = FakeRequest(remaining_s, exit, confidence, home_s=0.5)
    assert DeadlineConfidence(0.8).decide(request, FakeNode()) is decision


def test_deadline_confidence_when_not_even_the_first_exit_fits():
    hopeless = FakeRequest(1.4, home_s=0.5)
    assert DeadlineConfidence(when_none_fits="drop").decide(hopeless, FakeNode()) is DROP
    fits = FakeRequest(1.5, home_s=0.5)
    assert DeadlineConfidence(when_none_fits="drop").decide(fits, FakeNode()) is run_to(1)


@pytest.mark.parametrize(
    ("remaining_s", "decision"),
    [
        (1.7, OFFLOAD),  # 1 s there and back, 0.1 s of exit 3 there, 0.5 s home
        (1.59, ANSWER),
    ],
)
def test_deadline_confidence_sends_on_what_the_next_tier_can_answer_in_time(remaining_s, decision):
    request = FakeRequest(remaining_s, exit=2, confidence=0.5, home_s=0.5)
    assert DeadlineConfidence(0.8).decide(request, SPLIT) is decision


# --- anytime -------------------------------------------------------------------------------------


def test_anytime_goes_on_until_an_answer_must_leave():
    request = FakeRequest(2.5, exit=1, confidence=1.0, home_s=0.5)
    assert is_run_to(Anytime().decide(request, FakeNode()), 2, 2.0)
    # It does not foresee whether the exit fits: exit 3 takes 2 s more.
    request = FakeRequest(0.75, exit=2, confidence=1.0, home_s=0.5)
    assert is_run_to(Anytime().decide(request, FakeNode()), 3, 0.25)


def test_anytime_answers_at_the_last_exit_or_when_time_is_up():
    assert Anytime().decide(FakeRequest(9.0, exit=3, confidence=0.1), FakeNode()) is ANSWER
    for first_exit in ("finish", "cut"):
        late = FakeRequest(0.5, exit=1, confidence=0.1, home_s=0.5)
        assert Anytime(first_exit=first_exit).decide(late, FakeNode()) is ANSWER


@pytest.mark.parametrize("remaining_s", [9.0, 0.5, -1.0])
def test_anytime_may_let_the_first_exit_finish_in_any_case(remaining_s):
    assert Anytime().decide(FakeRequest(remaining_s, home_s=0.5), FakeNode()) is run_to(1)


def test_anytime_may_cut_the_first_exit_too():
    policy = Anytime(first_exit="cut")
    assert is_run_to(policy.decide(FakeRequest(0.75, home_s=0.5), FakeNode()), 1, 0.25)
    assert policy.decide(FakeRequest(0.5, home_s=0.5), FakeNode()) is DROP


def test_anytime_goes_on_at_the_next_tier_only_if_that_is_in_time():
    for remaining_s, decision in ((1.7, OFFLOAD), (1.59, ANSWER), (-1.0, ANSWER)):
        request = FakeRequest(remaining_s, exit=2, confidence=0.5, home_s=0.5)
        assert Anytime().decide(request, SPLIT) is decision


# --- load_adaptive -------------------------------------------------------------------------------


@pytest.mark.parametrize("remaining_s", [100.0, 4.5, 4.4, 2.5, 2.4, 1.5, 1.4, -3.0])
@pytest.mark.parametrize("when_none_fits", ["earliest_exit", "drop"])
def test_load_adaptive_is_deadline_aware_while_nobody_waits(remaining_s, when_none_fits):
    request, node = FakeRequest(remaining_s, home_s=0.5), FakeNode()
    adaptive, aware = LoadAdaptive(0.95, when_none_fits), DeadlineAware(0.95, when_none_fits)
    assert adaptive.decide(request, node) is aware.decide(request, node)


@pytest.mark.parametrize(
    ("queue_length", "workers", "decision"),
    [
        (1, 1, run_to(3)),  # two at 4 s each: 8 s
        (2, 1, run_to(2)),  # three at 2 s each
        (3, 1, run_to(2)),
        (4, 1, run_to(1)),
        (7, 1, run_to(1)),
        (8, 1, DROP),
        (8, 8, run_to(3)),  # each worker's share counts
        (8, 2, run_to(1)),
    ],
)
def test_load_adaptive_answers_earlier_the_longer_the_queue(queue_length, workers, decision):
    request = FakeRequest(8.5, home_s=0.5)
    node = FakeNode(queue_length=queue_length, workers=workers)
    assert LoadAdaptive(when_none_fits="drop").decide(request, node) is decision


def test_load_adaptive_answers_once_computed():
    assert LoadAdaptive().decide(FakeRequest(exit=1, confidence=0.1), FakeNode()) is ANSWER


@pytest.mark.parametrize("kind", [DeadlineAware, LoadAdaptive])
@pytest.mark.parametrize(("remaining_s", "decision"), [(2.0, run_to(3)), (1.9, ANSWER)])
def test_what_comes_from_another_tier_goes_on_if_that_fits(kind, remaining_s, decision):
    came = FakeRequest(remaining_s, exit=2, confidence=0.5, confidences=())
    assert kind().decide(came, FakeNode()) is decision


# --- offload -------------------------------------------------------------------------------------


#: Exit 2 takes 0.125 s there, after exit 1.
FAR = FakeTier(latencies=(0.125, 0.25, 0.5), ways_s=(2.0, 0.96875, 0.96875, 0.96875))


@pytest.mark.parametrize(
    ("exit", "confidence", "remaining_s", "decision"),
    [
        (0, NAN, 100.0, run_to(1)),  # the first exit is computed here
        (0, NAN, 0.5, run_to(1)),  # even if it is late
        (1, 0.8, 100.0, ANSWER),
        (1, 0.5, 1.6, OFFLOAD),  # with 0.97 s there and back, 0.125 s for exit 2, 0.5 s home
        (1, 0.5, 1.55, run_to(2)),  # too late for that, but exit 2 fits here
        (1, 0.5, 1.45, ANSWER),  # that does not fit either
        (2, 0.5, 1.45, ANSWER),
    ],
)
def test_offload_finishes_here_or_sends_on(exit, confidence, remaining_s, decision):
    request = FakeRequest(remaining_s, exit, confidence, home_s=0.5)
    assert Offload(0.8).decide(request, FakeNode((1.0, 2.0), next_tier=FAR)) is decision


@pytest.mark.parametrize(
    ("remaining_s", "decision"), [(2.625, OFFLOAD), (2.5, run_to(1)), (0.5, DROP)]
)
def test_offload_may_send_the_raw_input_on(remaining_s, decision):
    # 2 s there and back, 0.125 s for exit 1 there, 0.5 s home.
    request = FakeRequest(remaining_s, home_s=0.5)
    policy = Offload(raw_input=True, when_none_fits="drop")
    assert policy.decide(request, FakeNode(next_tier=FAR)) is decision


def test_offload_without_a_next_tier_is_deadline_confidence():
    for exit in range(4):
        for remaining_s in (0.5, 1.0, 2.0, 9.0):
            for confidence in (0.5, 0.9):
                request = FakeRequest(remaining_s, exit, confidence)
                expected = DeadlineConfidence(0.8).decide(request, FakeNode())
                assert Offload(0.8, raw_input=True).decide(request, FakeNode()) is expected


# --- imprecise -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("exit", "remaining_s", "queue_length", "decision"),
    [
        (0, -5.0, 9, run_to(2)),  # mandatory, whatever happens
        (2, 2.5, 0, run_to(3)),  # optional: 0.5 s home leave exactly the 2 s of exit 3
        (2, 2.4, 0, ANSWER),
        (2, 100.0, 1, ANSWER),  # somebody waits
        (3, 100.0, 0, ANSWER),
    ],
)
def test_imprecise_sheds_optional_exits(exit, remaining_s, queue_length, decision):
    request = FakeRequest(remaining_s, exit, 0.1, home_s=0.5)
    assert Imprecise(2).decide(request, FakeNode(queue_length=queue_length)) is decision


def test_imprecise_makes_only_the_first_exit_mandatory_by_default():
    assert Imprecise().decide(FakeRequest(), FakeNode()) is run_to(1)


def test_imprecise_finds_a_mandatory_exit_that_the_node_lacks_at_the_next_tier():
    assert Imprecise(3).decide(FakeRequest(), SPLIT) is run_to(2)
    assert Imprecise(3).decide(FakeRequest(exit=2, confidence=0.5), SPLIT) is OFFLOAD
    assert Imprecise(3).decide(FakeRequest(exit=2, confidences=()), FakeNode()) is run_to(3)


# --- oracle --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("correct", "remaining_s", "decision"),
    [
        ((True, True, True), 9.0, run_to(1)),
        ((False, True, True), 9.0, run_to(2)),
        ((False, True, False), 9.0, run_to(2)),
        ((False, False, False), 9.0, DROP),
        ((True, False, False), 1.5, run_to(1)),  # 0.5 s home leave exactly its 1 s
        ((True, False, False), 1.4, DROP),
        ((False, True, True), 2.4, DROP),
    ],
)
def test_oracle_runs_to_the_exit_that_is_soonest_correct_or_refuses(correct, remaining_s, decision):
    request = FakeRequest(remaining_s, home_s=0.5, correct=correct, seconds=(1.0, 2.0, 4.0))
    assert Oracle().decide(request, FakeNode()) is decision


def test_oracle_goes_by_this_requests_times_not_by_the_nodes():
    request = FakeRequest(3.0, correct=(False, True, True), seconds=(2.0, 8.0, 2.5))
    assert Oracle().decide(request, FakeNode()) is run_to(3)


def test_oracle_answers_once_correct():
    request = FakeRequest(9.0, exit=2, confidence=0.1, correct=(False, True, True), seconds=(2.0,))
    assert Oracle().decide(request, FakeNode()) is ANSWER


@pytest.mark.parametrize(
    ("correct", "exit", "seconds", "remaining_s", "decision"),
    [
        ((False, True, True), 0, (1.0, 2.0), 9.0, run_to(2)),  # here, as long as that is in time
        ((False, False, True), 0, (1.0, 2.0), 2.9, OFFLOAD),  # 2 s there and back, 0.3 s, 0.5 s
        ((False, False, True), 0, (1.0, 2.0), 2.7, DROP),
        ((False, True, False), 0, (1.0, 9.0), 2.75, OFFLOAD),  # too slow here: 0.2 s there
        ((False, False, False), 0, (1.0, 2.0), 9.0, DROP),
        ((False, False, True), 2, (), 1.65, OFFLOAD),
    ],
)
def test_oracle_sends_on_what_only_the_next_tier_gets_right_in_time(
    correct, exit, seconds, remaining_s, decision
):
    request = FakeRequest(
        remaining_s, exit, 0.1, home_s=0.5, correct=correct, seconds=seconds, confidences=()
    )
    assert Oracle().decide(request, SPLIT) is decision


def correct_in_time(jobs, refused=()):
    """How many requests one FIFO worker answers correctly in time if the oracle is asked.

    Args:
        jobs: (arrival, deadline, seconds to the only exit, whether that is correct), in order.
        refused: positions of requests that are dropped unseen.
    """
    free = right = 0.0
    for position, (arrival, deadline, seconds, correct) in enumerate(jobs):
        begin = max(free, arrival)
        request = FakeRequest(deadline - begin, correct=(correct,), seconds=(seconds,))
        if position in refused or Oracle().decide(request, FakeNode((seconds,))) is DROP:
            continue
        free = begin + seconds
        right += free <= deadline
    return right


@pytest.mark.parametrize("seed", range(40))
def test_behind_one_worker_with_equal_times_no_choice_of_requests_beats_the_oracle(seed):
    random = np.random.default_rng(seed)
    arrivals = np.sort(random.integers(0, 12, 8)).tolist()
    jobs = [
        (arrival, arrival + int(random.integers(2, 9)), 2, bool(random.integers(4)))
        for arrival in arrivals
    ]
    choices = [
        [position for position in range(8) if choice >> position & 1] for choice in range(2**8)
    ]
    best = max(correct_in_time(jobs, refused) for refused in choices)
    assert correct_in_time(jobs) == best


def test_with_unequal_times_refusing_a_long_request_can_beat_the_oracle():
    jobs = [(0, 9, 9, True), (1, 5, 1, True), (2, 6, 1, True)]
    assert correct_in_time(jobs) == 1
    assert correct_in_time(jobs, refused=[0]) == 2


# --- all of them ---------------------------------------------------------------------------------

BUILT = {name: kind(2) if name == "fixed_exit" else kind() for name, kind in POLICIES.items()}


@pytest.mark.parametrize(
    "policy",
    [
        kind(quantile=0.8)
        for kind in (DeadlineAware, DeadlineConfidence, LoadAdaptive, Anytime, Imprecise, Oracle)
    ]
    + [Offload(quantile=0.8, raw_input=True)],
    ids=lambda policy: type(policy).__name__,
)
def test_a_quantile_counts_for_latencies_and_ways_alike(policy):
    asked = []
    for exit in range(3):
        request = FakeRequest(3.0, exit, 0.1, correct=(False, False, True), seconds=(9.0, 9.0))
        node = FakeNode((1.0, 2.0), next_tier=FakeTier())
        policy.decide(request, node)
        asked += request.asked + node.asked + node.next_tier.asked
    assert set(asked) == {0.8}


@pytest.mark.parametrize("name", POLICIES)
@pytest.mark.parametrize("tiers", [1, 2])
def test_every_decision_is_possible_and_every_request_comes_to_an_end(name, tiers):
    policy = BUILT[name]
    for correct in ((True, True, True), (False, False, True), (False, False, False)):
        for confidence in (0.1, 0.95):
            for remaining_s in (-1.0, 0.5, 1.5, 3.0, 50.0):
                exit, node = 0, FakeNode() if tiers == 1 else SPLIT
                here = ()
                for _ in range(6):
                    seconds = node.latencies_s(0.5, exit)
                    request = FakeRequest(
                        remaining_s,
                        exit,
                        confidence if exit else NAN,
                        confidences=here,
                        correct=correct,
                        seconds=seconds,
                    )
                    decision = policy.decide(request, node)
                    if decision is DROP:
                        break
                    if decision is ANSWER:
                        assert exit > 0
                        break
                    if decision is OFFLOAD:
                        assert node.next_tier
                        node, here = FakeNode((0.1, 0.2, 0.3)), ()
                    else:
                        assert exit < decision.exit <= node.exit_count
                        exit, here = decision.exit, (*here, confidence)
                else:
                    pytest.fail("it goes round in circles")


@pytest.mark.parametrize("name", POLICIES)
@pytest.mark.parametrize("copied", [copy.deepcopy, lambda one: pickle.loads(pickle.dumps(one))])
def test_policies_can_be_copied_and_decide_the_same_things(name, copied):
    policy = BUILT[name]
    twin = copied(policy)
    assert twin == policy
    assert hash(twin) == hash(policy)
    for exit in range(4):
        request = FakeRequest(
            2.5, exit, 0.5, correct=(False, True, True), seconds=(1.0, 2.0, 4.0)[exit:]
        )
        decision = policy.decide(request, FakeNode())
        again = twin.decide(request, FakeNode())
        assert again is decision or (name == "anytime" and repr(again) == repr(decision))


# --- decisions -----------------------------------------------------------------------------------


def test_decisions_say_what_they_are():
    decisions = (ANSWER, DROP, OFFLOAD, run_to(3), run_to(3, within_s=0.5))
    assert [repr(one) for one in decisions] == [
        "ANSWER",
        "DROP",
        "OFFLOAD",
        "run_to(3)",
        "run_to(3, within_s=0.5)",
    ]
    assert (run_to(3).exit, run_to(3).within_s) == (3, None)
    assert (run_to(3, 0.5).exit, run_to(3, 0.5).within_s) == (3, 0.5)
    assert {one.exit for one in (ANSWER, DROP, OFFLOAD)} == {0}


def test_there_is_one_decision_to_run_to_an_exit():
    assert all(run_to(exit) is run_to(exit) for exit in range(1, MOST_EXITS + 1))


@pytest.mark.parametrize("decision", [ANSWER, DROP, OFFLOAD, run_to(1), run_to(MOST_EXITS)])
def test_a_copied_decision_is_the_same_one(decision):
    assert copy.copy(decision) is decision
    assert copy.deepcopy(decision) is decision
    for protocol in range(2, pickle.HIGHEST_PROTOCOL + 1):
        assert pickle.loads(pickle.dumps(decision, protocol)) is decision


def test_a_copied_decision_keeps_its_cut():
    assert is_run_to(copy.deepcopy(run_to(2, 0.25)), 2, 0.25)
    assert is_run_to(pickle.loads(pickle.dumps(run_to(2, 0.25))), 2, 0.25)


@pytest.mark.parametrize("exit", [0, -1, MOST_EXITS + 1])
def test_there_is_no_running_to_exits_that_no_network_has(exit):
    with pytest.raises(ValueError, match=f"no exit {exit}"):
        run_to(exit)


@pytest.mark.parametrize("within_s", [-0.1, NAN])
def test_no_computation_ends_before_it_began(within_s):
    with pytest.raises(ValueError, match="within_s"):
        run_to(1, within_s)
