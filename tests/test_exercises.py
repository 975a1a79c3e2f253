"""Every exercise is worth its points: answers whose verdict is known get that verdict.

Of a wrong answer, only the check that it must fail is run. That it passes those before is
proved by `python -m exercises verify`, which runs beside these tests in CI.
"""

import pytest

from exercises.grader.course import EXERCISES, exercises
from exercises.grader.serving import load
from exercises.grader.timeline import Event, Kind
from exercises.grader.verifying import jobs, verifiers, verify_one

JOBS = [job for exercise in exercises() for job in jobs(exercise)]


@pytest.fixture(scope="session")
def pool():
    with verifiers(1) as pool:
        yield pool


@pytest.mark.parametrize(
    "job", JOBS, ids=lambda job: f"{job.exercise.stem}-{job.answer.stem}"
)
def test_an_answer_gets_the_verdict_that_it_deserves(pool, job):
    verdict = pool.submit(verify_one, job, quickly=True).result()

    assert not verdict.problems, str(verdict)


def test_a_conversation_is_told_up_to_the_last_whole_line():
    checks = load(EXERCISES / "chat_test" / "test_exercise.py")
    line = '[7.5, "client 1", "websocket.receive", "ahoy", 0, null]'

    told = list(checks.conversation(f"{line}\n{line}\n{line[:-9]}", began=7.0))

    assert told == [Event(0.5, "client 1", Kind.SENT, '"ahoy"')] * 2
