"""Every exercise is worth its points: answers whose verdict is known get that verdict."""

import pytest

from exercises.grader.course import exercises
from exercises.grader.verifying import jobs, verify_one

JOBS = [job for exercise in exercises() for job in jobs(exercise)]


@pytest.mark.parametrize(
    "job", JOBS, ids=lambda job: f"{job.exercise.stem}-{job.answer.stem}"
)
def test_an_answer_gets_the_verdict_that_it_deserves(job):
    assert verify_one(job).problems == ()
