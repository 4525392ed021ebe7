"""What every channel promises, whatever it speaks."""

from __future__ import annotations

import threading
import time
from contextlib import closing
from dataclasses import replace

import pytest

from schemas.decision import Urgency
from schemas.errors import DeliveryError, PermanentFailure, TransientFailure
from schemas.flag import Flag, Withdrawal
from tests.contract.channel.receiver import Receiver
from tests.unit.notify.flags import EFFUSION, PATIENT, PNEUMOTHORAX, film, flag, named

PATIENT_WORDS = (PATIENT.patient_name.split("^")[0], PATIENT.patient_name.split("^")[1], PATIENT.patient_birth_date)


def withdrawn(revision: int = 2, why: Withdrawal = Withdrawal.PERSON) -> Flag:
    taken_back = flag(film(), revision=revision, predecessor=revision - 1)
    return replace(taken_back, withdrawn=why)


def test_a_flag_arrives_with_proof(receiver: Receiver) -> None:
    with closing(receiver.channel()) as channel:
        receipt = channel.send(flag())
    (held,) = receiver.held()
    assert held.object_id == receipt.object_id
    assert receipt.proof
    assert (held.revision, held.urgent, held.withdrawn) == (1, True, False)
    assert "pneumothorax" in held.words.lower()
    assert "not for diagnosis" in held.words.lower()


def test_the_same_flag_twice_reads_as_one(receiver: Receiver) -> None:
    with closing(receiver.channel()) as channel:
        first = channel.send(flag())
    with closing(receiver.channel()) as channel:  # another process, another day
        assert channel.send(flag()).object_id == first.object_id
    assert len(receiver.held()) == 1


def test_order_is_kept_and_a_later_revision_is_another_object(receiver: Receiver) -> None:
    with closing(receiver.channel()) as channel:
        channel.send(flag(film(reasons=[EFFUSION])))
        channel.send(flag(film(reasons=[EFFUSION, PNEUMOTHORAX]), revision=2, predecessor=1))
    assert [held.revision for held in receiver.held()] == [1, 2]
    assert len({held.object_id for held in receiver.held()}) == 2


@pytest.mark.parametrize("why", Withdrawal)
def test_a_withdrawal_says_so(receiver: Receiver, why: Withdrawal) -> None:
    with closing(receiver.channel()) as channel:
        channel.send(flag())
        channel.send(withdrawn(why=why))
    last = receiver.held()[-1]
    assert (last.revision, last.withdrawn, last.urgent) == (2, True, False)
    for forbidden in ("normal", "healthy", "unremarkable"):
        assert forbidden not in last.words.lower().replace("abnormal", "")


def test_a_study_left_in_its_order_is_not_called_clear(receiver: Receiver) -> None:
    with closing(receiver.channel()) as channel:
        channel.send(flag(film()))
    (held,) = receiver.held()
    assert (held.urgent, held.withdrawn) == (False, False)
    for forbidden in ("normal", "healthy", "unremarkable", "negative"):
        assert forbidden not in held.words.lower()


@pytest.mark.parametrize(
    "hostile",
    [
        named("O'Brien^<b>\"&amp;;--|^~\\&\r\nMSH|", patient_id="'; DROP TABLE study; --"),
        named("Yamada^Tarou=山田^太郎=やまだ^たろう", study_description="胸部正面"),
        named("Doe^\udcff\udc80", institution_name="\udc80\x00\x1b$B"),
        named("", patient_id="", accession_number="", study_date="yesterday", patient_sex="?"),
        named("N" * 300, patient_id="9" * 300, accession_number="A" * 64),
    ],
    ids=["markup", "japanese", "surrogates", "empty", "long"],
)
def test_whatever_the_patient_is_called(receiver: Receiver, hostile: Flag) -> None:
    with closing(receiver.channel()) as channel:
        channel.send(hostile)
        channel.send(flag(revision=2, predecessor=1))
    assert [held.revision for held in receiver.held()] == [1, 2]


def test_a_lasting_refusal_is_told_apart_from_a_passing_one(receiver: Receiver) -> None:
    with closing(receiver.channel()) as channel:
        receiver.refuse()
        with pytest.raises(PermanentFailure) as refused:
            channel.send(flag())
        receiver.heal()
        receiver.overload()
        with pytest.raises(TransientFailure) as passing:
            channel.send(flag())
        receiver.heal()
        assert channel.send(flag()).proof
    assert len(receiver.held()) == 1
    for failure in (refused, passing):
        words = str(failure.value)
        assert ":" in words, "the fault, and the mend"
        assert not any(name in words for name in PATIENT_WORDS)


def test_a_stall_ends_and_is_a_passing_fault(receiver: Receiver) -> None:
    with closing(receiver.channel(timeout=0.5)) as channel:
        receiver.stall()
        began = time.monotonic()
        with pytest.raises(TransientFailure):
            channel.send(flag())
        assert time.monotonic() - began < 30
        receiver.heal()
    with closing(receiver.channel()) as channel:
        channel.send(flag())
    assert len(receiver.held()) == 1


def test_a_connection_that_breaks_is_a_passing_fault(receiver: Receiver) -> None:
    with closing(receiver.channel()) as channel:
        receiver.reset()
        with pytest.raises(TransientFailure):
            channel.send(flag())
        receiver.heal()
        channel.send(flag())
    assert len(receiver.held()) == 1


def test_a_receiver_that_was_away_is_found_again(receiver: Receiver) -> None:
    with closing(receiver.channel()) as channel:
        channel.send(flag())
        receiver.stop()
        with pytest.raises(TransientFailure):
            channel.send(flag(revision=2, predecessor=1))
        receiver.start()
        channel.send(flag(revision=2, predecessor=1))
    assert [held.revision for held in receiver.held()] == [1, 2]


def test_closing_lets_go_of_a_stalled_receiver(receiver: Receiver) -> None:
    channel = receiver.channel(timeout=60.0)
    receiver.stall()
    failures: list[DeliveryError] = []

    def send() -> None:
        try:
            channel.send(flag())
        except DeliveryError as error:
            failures.append(error)

    sender = threading.Thread(target=send)
    sender.start()
    time.sleep(1.0)
    began = time.monotonic()
    channel.close()
    sender.join(20)
    assert not sender.is_alive()
    assert time.monotonic() - began < 15
    assert isinstance(failures[0], TransientFailure)
    with pytest.raises(TransientFailure, match="closed"):
        channel.send(flag())


def test_check_finds_it_and_says_what_is_wrong(receiver: Receiver) -> None:
    with closing(receiver.channel(timeout=2.0)) as channel:
        assert channel.check()
        receiver.stop()
        with pytest.raises(DeliveryError, match=":"):
            channel.check()
        receiver.start()
    assert receiver.held() == [], "a check tells nothing of anybody"


def test_a_raised_study_and_a_stat_one_differ(receiver: Receiver) -> None:
    with closing(receiver.channel()) as channel:
        channel.send(flag(film(reasons=[EFFUSION])))
        channel.send(flag(film(reasons=[PNEUMOTHORAX]), revision=2, predecessor=1))
    first, second = receiver.held()
    assert first.urgent
    assert second.urgent
    assert Urgency.URGENT.name in first.words.upper()
    assert Urgency.STAT.name in second.words.upper()
