"""The content of the package, and that a diligent student gets through it."""

from __future__ import annotations

import re
from collections import Counter

import pytest

from novacore.ngs_curriculum import checks, curriculum, quiz, rules
from novacore.ngs_curriculum.curriculum import LessonContent, LevelContent
from novacore.ngs_curriculum.rules import DailyCaps, Source

LEVELS = curriculum.load()
# Title and phase of each level, and title, minutes and XP of its lesson, as the product fixes them (titles 13-24: ours).
TABLE = """\
Initiation|Awakeners|Awakening to Signal and Self|45|50
Initiation|Observer|Differentiating Noise from Signal|40|50
Initiation|Reflector|Mirror Mechanics|35|50
Initiation|Calibrator|Aligning Inner and Outer Systems|40|50
Initiation|Architect|Designing with Intention|50|50
Initiation|Initiate|Integration of Awareness and Structure|45|50
Construction|Engineer|Translating Values into Process|50|50
Construction|Tactician|Applied Discipline Under Constraint|45|50
Construction|Communicator|Language as Architecture|40|50
Construction|Collaborator|Shared Field Awareness|55|50
Construction|Guardian|Ethics Under Pressure|45|50
Construction|Operator|Mastering Human-System Flow|60|75
Integration|Designer||50|50
Integration|Programmer||70|50
Integration|Strategist||60|50
Integration|Mentor||55|50
Integration|Synthesist||65|50
Integration|Conductor||70|50
Ascension|Reclaimer||60|75
Ascension|Architect of Light||70|75
Ascension|Integrator||65|75
Ascension|Transmitter||75|75
Ascension|Reclaimer Prime||80|100
Ascension|Noble Sovereign||90|100"""
ROWS = [line.split("|") for line in TABLE.splitlines()]
each_level = pytest.mark.parametrize("level", LEVELS, ids=[f"{one.level:02}-{one.title}" for one in LEVELS])


@pytest.mark.invariant("CUR-1")
def test_there_are_24_levels_with_lessons_and_challenges() -> None:
    """CUR-1."""
    assert [level.level for level in LEVELS] == list(range(1, 25))
    slugs = Counter(part.slug for level in LEVELS for part in (*level.lessons, *level.challenges))
    assert max(slugs.values()) == 1


@each_level
def test_titles_minutes_and_xp_are_the_products(level: LevelContent) -> None:
    phase, title, lesson_title, minutes, xp = ROWS[level.level - 1]
    lesson = level.lessons[0]
    assert (level.phase, level.title) == (phase, title)
    assert (lesson.minutes, lesson.xp_reward) == (int(minutes), int(xp))
    if lesson_title:
        assert lesson.title == lesson_title


@pytest.mark.invariant("CUR-2")
@each_level
def test_a_lesson_is_whole_and_a_challenge_has_three_checks(level: LevelContent) -> None:
    """CUR-2."""
    for lesson in level.lessons:
        assert len(lesson.quiz) >= 5
        assert len(lesson.core_lesson.split()) >= 150
        assert len({question.id for question in lesson.quiz}) == len(lesson.quiz)
    for challenge in level.challenges:
        assert len(challenge.checks) >= 3
        assert len({check.id for check in challenge.checks}) == len(challenge.checks)
        assert any(check.hidden for check in challenge.checks)


@each_level
def test_the_right_option_is_not_always_in_the_same_place(level: LevelContent) -> None:
    for lesson in level.lessons:
        most = Counter(question.answer for question in lesson.quiz).most_common(1)[0][1]
        assert most <= 3


@each_level
def test_a_challenge_can_be_solved_and_its_starter_solves_nothing(level: LevelContent) -> None:
    for challenge in level.challenges:
        solved = checks.grade(challenge.checks, challenge.solution)
        assert solved.score == 100, [result for result in solved.results if result.share < 1]
        assert not checks.grade(challenge.checks, challenge.starter).passed
        assert not checks.grade(challenge.checks, "word " * 2000).passed
        # The task itself, sent back, is no solution.
        assert not checks.grade(challenge.checks, challenge.description + challenge.starter).passed


@each_level
def test_what_a_learner_is_told_gives_no_answer_away(level: LevelContent) -> None:
    for challenge in level.challenges:
        for check in challenge.checks:
            if check.hidden and isinstance(check, checks.Rubric):
                told = " ".join(one.message for one in challenge.checks if not one.hidden)
                assert check.message not in told


def test_a_content_hole_stops_the_reading(monkeypatch: pytest.MonkeyPatch, tmp_path: object) -> None:
    raw = LEVELS[0].model_dump() | {"challenges": []}
    with pytest.raises(ValueError, match="challenges"):
        LevelContent.model_validate(raw)


# The diligent student


def perfect(lesson: LessonContent) -> int:
    """The quiz as the student answers it: four of five right, every time."""
    answers = {question.id: question.answer for question in lesson.quiz[1:]}
    score = quiz.score(lesson.quiz, answers)
    assert score is not None
    return score


def days_to_reach(goals: tuple[int, ...], *, caps: DailyCaps) -> dict[int, int]:
    """Simulate one active day after the other: what is open is learnt (one lesson a day), then challenges at 80,
    then two reflections of middling quality, and the streak. Return the day on which each goal level was reached."""
    total, day, reached, completed = 0, 0, {}, set[int]()
    solved: set[int] = set()
    while len(reached) < len(goals):
        day += 1
        assert day < 2000, f"level {rules.level_for(total)} and no way on"
        earned = 0

        def earn(amount: int) -> None:
            nonlocal total, earned
            amount = rules.capped(amount, earned_today=earned, caps=caps)
            earned, total = earned + amount, total + amount

        level_now = rules.level_for(total)
        open_levels = [
            one for one in LEVELS if one.level <= level_now and (one.level == 1 or one.level - 1 in completed)
        ]
        todo = next((one for one in open_levels if one.level not in completed), None)
        if todo is not None:
            award = rules.lesson_award(perfect(todo.lessons[0]), todo.lessons[0].xp_reward)
            assert award is not None
            earn(award[1])
            completed.add(todo.level)
        task = next((one for one in open_levels if one.level not in solved), None)
        if task is not None:
            earn(rules.challenge_award(80, 0, task.challenges[0].xp_reward))
            solved.add(task.level)
        for _ in range(2):
            earn(rules.XP[Source.REFLECTION_HIGH])
        earn(rules.XP[Source.REFLECTION_MEDIUM])
        if day > 1:
            earn(rules.XP[Source.DAILY_STREAK] * caps.streak)
        for goal in goals:
            if goal not in reached and rules.level_for(total) >= goal:
                reached[goal] = day
    return reached


def test_a_diligent_student_gets_through_in_time() -> None:
    reached = days_to_reach((12, 24), caps=DailyCaps())
    assert reached[12] <= 90, reached
    assert reached[24] <= 400, reached


def test_no_lesson_is_closed_behind_xp_that_cannot_be_earned_before_it() -> None:
    """Every level must be reachable with the XP of all that is open below it and a month of reflections."""
    reached = days_to_reach(tuple(range(2, 25)), caps=DailyCaps())
    gaps = [reached[n] - reached[n - 1] for n in range(3, 25)]
    assert max(gaps) <= 60, reached


@each_level
def test_prose_is_plain_text_without_placeholders(level: LevelContent) -> None:
    text = level.model_dump_json()
    assert not re.search(r"lorem|TODO|TBD|XXX|http", text, re.IGNORECASE)
