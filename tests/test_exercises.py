"""Every exercise is worth its points: answers whose verdict is known get that verdict.

Of a wrong answer, only the check that it must fail is run. That it passes those before is
proved by `python -m exercises verify`, which runs beside these tests in CI.
"""

import pytest

from exercises.grader.course import exercises
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
    assert pool.submit(verify_one, job, quickly=True).result().problems == ()
